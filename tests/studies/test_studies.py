"""The studies behind the tables of defences: what they refuse, and numbers that follow in closed form."""

from __future__ import annotations

import csv
import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import pytest

from segradius.paper.computed import ROWS

STUDIES = Path(__file__).resolve().parents[2] / "studies"
SCENES = "scenes:24x32"


@pytest.fixture
def weakest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("radius_of_the_weakest")


def test_a_network_does_not_change_against_itself(weakest: ModuleType, tmp_path: Path):
    given = ["--before=demo", "--after=demo", f"--data={SCENES}", "--limit=5", "--samples=2"]
    assert weakest.main([*given, f"--out={tmp_path / 'new' / 'out.json'}"]) == 0
    changes = json.loads((tmp_path / "new" / "out.json").read_text())["changes"]
    assert len(changes) == 8
    (cells,) = weakest.tables(tmp_path / "new" / "out.json")
    assert len(cells.rows) == 8
    for each in changes:
        assert each["difference"] == [0, 0, 0]
        assert each["percent"] in ([0, 0, 0], None)
        assert each["means_in_pixel_units"] == pytest.approx([0.001 * mean for mean in each["means"]])


def test_few_images_have_no_intervals_in_the_file_either(weakest: ModuleType, tmp_path: Path):
    given = ["--before=demo", "--after=demo", f"--data={SCENES}", "--limit=2", "--samples=1"]
    assert weakest.main([*given, f"--out={tmp_path / 'out.json'}"]) == 0
    (cells,) = weakest.tables(tmp_path / "out.json")
    assert {row[4] for row in cells.rows} == {"+0.000"}


@pytest.fixture
def estimators(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("estimators")


@pytest.fixture
def regret(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("regret")


def test_the_script_of_estimators_writes_what_it_prints(estimators: ModuleType, tmp_path: Path):
    given = {"model": "demo", "data": SCENES, "size": "24x32", "images": 1, "queries": 4, "network_queries": 4}
    estimators.main(**given, out=str(tmp_path))
    rows = json.loads((tmp_path / "estimators.json").read_text())
    with (tmp_path / "estimators.csv").open(newline="") as lines:
        assert [line["label"] for line in csv.DictReader(lines)] == [row["label"] for row in rows]
    assert len(rows) == 2 * (len(ROWS) + 1)
    assert (tmp_path / "estimators.md").read_text().count("| TPGE |") == 2
    assert (tmp_path / "estimators.png").read_bytes().startswith(b"\x89PNG")


def test_the_script_of_regret_writes_what_it_prints(regret: ModuleType, tmp_path: Path):
    regret.main(out=str(tmp_path / "new"), first=2, last=4, seeds=2)
    rows = json.loads((tmp_path / "new" / "regret.json").read_text())
    assert [row["rounds"] for row in rows] == [[4, 16]] * 6
    assert len((tmp_path / "new" / "regret.csv").read_text().splitlines()) == 1 + 6 * 2 * 2
    assert (tmp_path / "new" / "regret.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="got 4, 3 and 8"):
        regret.main(out=str(tmp_path), first=4, last=3)


def test_bounds_of_a_constant_are_closed_forms_and_groups_of_one_are_alike(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    bounds = importlib.import_module("bounds")
    rows = {row[0]: row[2:] for row in bounds.by_draws((100,), 0.001, 3, seed=0).rows}
    log = math.log(1000)
    assert float(rows["constant 0.9"][0]) == pytest.approx(0.9 - math.sqrt(log / 200), abs=1e-4)
    assert float(rows["constant 0.9"][1]) == pytest.approx(0.9 - 7 * math.log(2000) / (3 * 99), abs=1e-4)
    assert [name for name, found in rows.items() if found[3] != "–"] == [bounds.COIN]
    shared, means = (row[2:] for row in bounds.by_group(100, 0.001, 3, seed=0).rows[:2])
    assert shared[0] == means[0]


@pytest.fixture
def clever(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("clever")


def test_the_script_of_clever_counts_what_the_library_enters(clever: ModuleType, tmp_path: Path):
    clever.main(data=SCENES, images=1, settings="4x2,3x1", probes=2, steps=2, pixels=4, reference=4, out=str(tmp_path))
    (found,) = json.loads((tmp_path / "clever.json").read_text())["images"]
    assert list(found["passes"].values()) == [8, 1 + 2 * 2 * 8, 1 + 2 * 2 * 3]
    assert found["right"].keys() >= {"PGD", "CR-PGD", "smoothing", "CLEVER (4, 2)", "CLEVER (3, 1), refreshed"}
    rows = (tmp_path / "clever.md").read_text().splitlines()
    full = next(row for row in rows if "(50, 1024)" in row)
    assert "extrapolated" in full
    assert f"{50 * 1024 * 8:,}" in full  # the paper's count, |Y| = 8
