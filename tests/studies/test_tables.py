"""Tables of the documentation from the files of a run: the same cells as the run's own report, and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import segradius as sr
from segradius.cli import main

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        yield importlib.import_module("tables")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    given = [
        "--model=demo",
        "--data=scenes:24x32,5",
        "--attack=pgd,fgsm,cr_fgsm",
        "--eps=l2=1",
        "--options=pgd.steps=2",
    ]
    assert main(["attack", *given, "--samples=0", "--figures=0", f"--out={out}"]) == 0
    return out


def test_tables_from_the_files_are_the_runs_own_without_seconds(tables: ModuleType, folder: Path) -> None:
    own = (folder / "table.md").read_text("utf-8")
    metrics, differences = tables.attacks(folder)
    assert metrics.rows
    for row in metrics.rows:
        assert any(line.startswith(f"| {' | '.join(row)} | ") for line in own.splitlines())
    assert differences.markdown() in own


def test_some_rows_of_a_run(tables: ModuleType, folder: Path) -> None:
    metrics, differences = tables.attacks(folder, rows="clean;pgd;fgsm")
    assert [row[0] for row in metrics.rows] == ["clean", "pgd", "fgsm"]
    assert [row[0] for row in differences.rows] == ["fgsm − pgd"]
    with pytest.raises(sr.InputError, match="did you mean 'fgsm'"):
        tables.attacks(folder, rows="fgms")


def test_files_that_do_not_agree_are_refused(tables: ModuleType, folder: Path, tmp_path: Path) -> None:
    for name in ("results.json", "per_image.csv"):
        (tmp_path / name).write_text((folder / name).read_text("utf-8"), "utf-8")
    tables.attacks(tmp_path)
    lines = (tmp_path / "per_image.csv").read_text("utf-8").splitlines()
    cells = lines[-1].split(",")
    cells[6] = str(int(cells[6]) + 1)
    (tmp_path / "per_image.csv").write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n", "utf-8")
    with pytest.raises(sr.InputError, match=r"differ in the accuracy of cr_fgsm"):
        tables.attacks(tmp_path)


def test_a_page_is_written_below_its_marks_alone(
    tables: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = folder / "page.md"
    page.write_text("Before\n\n<!-- table: attacks . rows=clean -->\n| old |\n|:--|\n\nafter\n", "utf-8")
    monkeypatch.setattr(tables, "pages", lambda: [page])
    assert tables.check() == 1
    assert tables.write() == tables.check() == 0
    text = page.read_text("utf-8")
    assert text.startswith("Before\n\n<!-- table: attacks . rows=clean -->\n| attack | norm | ε | images | PixAcc % |")
    assert text.endswith("| 1+0 |\n\nafter\n")
    assert "old" not in text


def test_what_was_given_to_a_run_goes_by_its_name(tables: ModuleType, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"weights": "/a/b/c.pt", "model": "/a/b/x/last.yaml"}', "utf-8")
    tables._keep(tmp_path, tmp_path / "kept", ["results.json", "absent"], {"weights": "/a/b/c.pt", "runs": "/a/b"})
    kept = (tmp_path / "kept" / "results.json").read_text("utf-8")
    assert kept == '{"weights": "WEIGHTS", "model": "RUNS/x/last.yaml"}'


def test_runs_name_what_is_missing_and_take_other_options(
    tables: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(sr.InputError, match="expected --given camvid="):
        tables.run("results", "weights=W", show=True)
    assert tables.run("results", "weights=W,camvid=C", only="l2", instead="attack.limit=3,l2.seed=9", show=True) == 0
    (shown,) = capsys.readouterr().out.strip().splitlines()
    assert " attack --out " in shown
    assert " --limit 3 " in shown
    assert shown.endswith(" --seed 9")
    with pytest.raises(sr.InputError, match="unknown run of results 'l3'"):
        tables.run("results", only="l3")
