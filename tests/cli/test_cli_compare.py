"""``segradius compare``: what it refuses, and numbers that follow in closed form."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from segradius.cli import main as segradius
from segradius.report.compare import name_points, read_network

SCENES = "scenes:24x32"


def compare(*words: object) -> int:
    return segradius(["compare", *map(str, words)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the demo network: twice the same, and once with another number of steps and of images each."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps, limit in (("one", 2, 5), ("same", 2, 5), ("steps", 3, 5), ("images", 2, 4)):
        run = ["--model=demo", f"--data={SCENES}", "--attack=pgd,cr_pgd", "--eps=l2=0.5,1.5", "--figures=0"]
        assert segradius(["attack", *run, f"--steps={steps}", f"--limit={limit}", f"--out={folder / name}"]) == 0
    return folder


def test_a_network_is_level_with_itself_and_figures_are_those_of_the_run(runs: Path, tmp_path: Path):
    assert compare(runs / "one", runs / "same", "--labels=A,B", f"--out={tmp_path}") == 0
    differences = (tmp_path / "table.md").read_text().split("Paired")[1]
    assert differences.count("+0.0 [+0.0, +0.0] | 1 |") == 3  # clean and two budgets
    with (tmp_path / "compare.csv").open(newline="") as lines:
        found = [float(line["pixacc"]) for line in csv.DictReader(lines) if line["network"] == "B"]
    rows = json.loads((runs / "same" / "results.json").read_text())["rows"]
    assert found == [row["pixacc"]["value"] for row in rows]
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("other", "named"), [("steps", "steps of pgd (l2, ε = 0.5)"), ("images", "image val-00004")])
def test_unlike_runs_are_refused_by_name(
    runs: Path, other: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert compare(runs / "one", runs / other, f"--out={tmp_path / 'out'}") == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_worst_of_an_image_is_its_least_accuracy(runs: Path):
    network = read_network(runs / "one", "A")
    each = [network.each_image(name, "l2", 1.5) for name in ("pgd", "cr_pgd")]
    worst = network.each_image("worst", "l2", 1.5)
    assert worst == [min(pair) for pair in zip(*each, strict=True)]
    assert len(worst) == 5


def test_names_of_points_that_coincide_do_not_overlap():
    figure = Figure(figsize=(5, 4))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for _ in range(4):
        axis.errorbar(0.5, 0.5, 0.1, 0.1)
    name_points(axis, ["one network", "another", "a third", "a fourth"])
    boxes = [text.get_window_extent() for text in axis.texts if isinstance(text, Annotation)]
    assert len(boxes) == 4
    assert all(not a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certified")
    for sigma, more in (("0.05", []), ("0.1", ["--early-stop=0.1"])):
        run = ["--model=demo", f"--data={SCENES}", f"--sigma={sigma}", "--n0=10", "--n=60", "--limit=2", "--figures=0"]
        assert segradius(["certify", *run, *more, f"--out={folder / sigma}"]) == 0
    return folder


def test_certifications_of_any_settings_stand_side_by_side(
    certified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    assert compare(certified / "0.05", certified / "0.1", "--labels=low,high", f"--out={tmp_path}") == 0
    table = (tmp_path / "table.md").read_text()
    shown, digest = capsys.readouterr().out.split("Digest of the results: ")
    assert shown == f"{table}\n"
    assert len(digest.strip()) == 32
    kept = {run["network"]: run for run in json.loads((tmp_path / "compare.json").read_text())}
    rows = json.loads((certified / "0.1" / "results.json").read_text())["rows"]
    assert kept["high"]["rows"] == rows
    assert (kept["low"]["sigma"], kept["high"]["early_stop"], kept["high"]["n"]) == (0.05, 0.1, 60)
    assert table.count("| low | σ = 0.05 | 60 | 2 |") == table.count("| high | σ = 0.1 |") == len(rows)
    assert table.count("of 60 | 2 |") == len(rows)
    with (tmp_path / "compare.csv").open(newline="") as lines:
        found = [float(line["pixacc"]) for line in csv.DictReader(lines) if line["network"] == "high"]
    assert found == [row["pixacc"]["value"] for row in rows]
    assert not (tmp_path / "compare.png").exists()


def test_what_cannot_stand_side_by_side_is_told(
    runs: Path, certified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for words, told in (
        ((runs / "one", certified / "0.1"), "one was attacked and 0.1 certified"),
        ((runs / "one", runs / "same", "--labels=A"), "labels are A; expected one for each of 2 folders"),
        ((runs / "one", runs / "one"), "no two alike"),
        ((tmp_path,), "has no results.json; expected the --out folder of a finished run"),
    ):
        assert compare(*words) == 2
        assert told in capsys.readouterr().err


def test_without_out_nothing_is_written(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert compare(runs / "one", runs / "same") == 0
    assert not list(tmp_path.iterdir())


def test_warnings_of_the_runs_stand_under_the_tables(tmp_path: Path):
    runs = {"fine": (), "tiny": ("--eps", "8/255"), "blind": ("--normalisation", "none")}
    for name, more in runs.items():
        run = ["evaluate" if name == "blind" else "attack", "--model", "demo", "--data", SCENES, "--limit", "5"]
        own = ["--attack", "fgsm", "--figures", "0"] if run[0] == "attack" else []
        assert segradius([*run, *own, *more, "--out", str(tmp_path / name)]) == 0
    found = {}
    for name in runs:
        assert compare(tmp_path / name, f"--out={tmp_path / 'compared'}") == 0
        found[name] = (tmp_path / "compared" / "table.md").read_text()
    assert "Warning" not in found["fine"]
    assert "Warning (eps) of tiny: l2 ε = 0.03137" in found["tiny"]
    assert "Warning (normalisation) of blind: MIoU of the images looked at is " in found["blind"]
