"""`sr.load_results`: what is read back is what the run had, of every kind, version and study."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sqlite3
from dataclasses import asdict, astuple
from pathlib import Path

import pytest

import segradius as sr
from saved_runs import HOSTILE, runs
from segradius.cli import main
from segradius.core.errors import DamagedError, MissingExtraError
from segradius.core.escapes import visible
from segradius.core.storage import null
from segradius.evaluation import CertifiedSummary
from segradius.evaluation.columns import COLUMNS, read_table

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["attack", "evaluate", "targeted", "predicted", "bands", "structures", "aside", "hostile", "target", "certify",
         "groups", "crosscheck"]  # fmt: skip


def study(folder: Path, **chosen: str) -> Path:
    """A study's folder with finished runs, by name and kind of run."""
    listed = []
    for name, kind in chosen.items():
        if kind in runs():
            shutil.copytree(runs()[kind], folder / "runs" / name)
        command = "certify" if kind in ("certify", "groups", "crosscheck") else "attack"
        listed.append({"name": name, "folder": f"runs/{name}", "kind": command, "model": "m", "data": "d", "seed": 0})
    (folder / "study.json").write_text(json.dumps({"schema": 1, "measurements": listed}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_what_is_read(kind: str):
    run = sr.load_results(runs()[kind]).runs[0]
    report = json.loads((runs()[kind] / "results.json").read_text())
    assert null([json.loads(json.dumps(row.as_dict())) for row in run.rows]) == report["rows"]
    assert null([asdict(each) for each in run.warnings]) == report["warnings"]
    assert asdict(run.digest) == report["digest"]
    assert run.summary.set_aside == report["set_aside"]
    if isinstance(run.summary, CertifiedSummary):
        assert null(json.loads(json.dumps([asdict(each) for each in run.summary.checked]))) == report["checked"]
    else:
        assert null([asdict(each) for each in run.summary.comparisons]) == report["paired_differences"]
    assert (run.kind == "certify") == (kind in ("certify", "groups", "crosscheck"))
    assert run.summary.predicted == (kind == "predicted")
    assert run.command == report["command"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_of_every_table_is_described(kind: str):
    run = sr.load_results(runs()[kind]).runs[0]
    for name in run.tables:
        lines = list(run.table(name))
        assert lines, name
        for column in {column for line in lines for column in line}:
            assert column.partition(" ")[0] in COLUMNS, (name, column)


def test_the_rows_of_images_are_those_of_the_run_and_sum_to_its_accuracy():
    pytest.importorskip("pandas")
    found = sr.load_results(runs()["attack"])
    frame = found.to_pandas()
    assert frame.to_dict("list")["image"] == [line["image"] for line in found.per_image()]
    sums = frame[frame.valid == 1].groupby(["attack", "eps"])[["right", "pixels"]].sum()
    for row in found.rows[1:5]:
        right, pixels = sums.loc[(row.name, row.eps)]
        assert right / pixels == pytest.approx(row.pixacc.value)
    rows = found.to_pandas("rows").set_index(["attack", "norm", "eps"])
    assert rows.loc[("pgd", "l2", 1.0), "pixacc_low"] == found.rows[1].pixacc.low
    assert {str(kind) for kind in rows.dtypes[["images", "invalid"]]} == {"int64"}
    assert str(found.to_pandas("classes").dtypes["accuracy_low"]) == "float64"


def test_a_run_in_memory_and_its_folder_have_the_same_rows_of_images(tmp_path: Path):
    run = sr.evaluate(sr.load_model("demo"), "scenes:24x32,3", "pgd", eps=1.5, steps=2, quiet=True, figures=0)
    found = sr.load_results(run.save(tmp_path)).runs[0]
    assert found.per_image() == run.per_image()
    assert found.summary.comparisons == run.summary.comparisons
    assert str(found.rows) == str(run.summary.rows)


def test_names_of_images_are_shown_and_never_obeyed():
    shown = {line["image"] for line in sr.load_results(runs()["hostile"]).per_image()}
    assert shown == {"plain", "Plain", visible(HOSTILE)}


def test_a_study_is_read_as_one_whatever_its_measurements_are(tmp_path: Path):
    found = sr.load_results(study(tmp_path, one="attack", two="targeted", three="certify"))
    assert [run.name for run in found.runs] == ["one", "two", "three"]
    assert len(found.rows) == sum(len(run.rows) for run in found.runs)
    assert {line["measurement"] for line in found.table("rows")} == {"one", "two", "three"}
    assert {line["measurement"] for line in found.table("curve")} == {"three"}
    assert found["two"].experiment["target"] == "bright"
    assert found.digest == sr.load_results(tmp_path / "runs/one", tmp_path / "runs/two", tmp_path / "runs/three").digest
    assert found.digest != sr.load_results(tmp_path / "runs/one", tmp_path / "runs/two").digest
    with pytest.raises(sr.InputError, match=r"3 runs \(one, two, three\)"):
        _ = found.experiment
    with pytest.raises(sr.InputError, match="did you mean 'two'"):
        _ = found["twoo"]


def test_a_study_that_is_not_finished_says_so(tmp_path: Path):
    folder = study(tmp_path, one="evaluate", two="nothing yet")
    with pytest.raises(sr.InputError, match=r"1 of 2 run\(s\) have no results.json yet \(two\)"):
        sr.load_results(folder)
    found = sr.load_results(folder, partial=True)
    assert ([run.name for run in found.runs], found.missing) == (["one"], ("two",))


def test_what_is_not_as_it_was_written_is_refused(tmp_path: Path):
    folder = Path(shutil.copytree(runs()["attack"], tmp_path / "run"))
    found = sr.load_results(folder)
    images = folder / "per_image.csv"
    images.write_text(images.read_text().replace("pgd", "pdg", 1))
    with pytest.raises(DamagedError, match=r"per_image.csv is damaged or was changed"):
        found.per_image()
    report = folder / "results.json"
    report.write_text(report.read_text().replace("0.", "1.", 1))
    with pytest.raises(DamagedError, match=r"results.json is damaged or was changed"):
        sr.load_results(folder)
    (folder / "SHA256SUMS").unlink()
    report.write_text('{"experiment": {"attacks": []}, "rows": 3}')
    with pytest.raises(DamagedError, match=r"results.json is damaged; expected a report"):
        _ = sr.load_results(folder).rows


def test_a_report_of_a_later_version_is_refused_and_of_an_earlier_one_is_read(tmp_path: Path):
    report = json.loads((runs()["attack"] / "results.json").read_text())
    earlier = {name: value for name, value in report.items() if name in ("experiment", "rows", "set_aside")}
    for row in earlier["rows"]:
        row["pixacc"] = row["pixacc"]["value"]  # before there were intervals, classes and sanity
        del row["classes"], row["sanity"], row["foreground"], row["dice"], row["iou"], row["dice_image"]
    (tmp_path / "results.json").write_text(json.dumps(earlier | {"paired_differences": []}))
    found = sr.load_results(tmp_path).runs[0]
    assert [row.pixacc.value for row in found.rows] == [row["pixacc"] for row in earlier["rows"]]
    assert math.isnan(found.rows[0].pixacc.low)
    assert (found.digest, found.verdicts, found.warnings, found.command) == (None, (), (), "")
    (tmp_path / "results.json").write_text(json.dumps(report | {"schema": 2}))
    with pytest.raises(sr.InputError, match="schema 2; this version of segradius reads 1"):
        sr.load_results(tmp_path)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "data").rglob("results.json")), ids=str)
def test_committed_reports_of_earlier_versions_are_read(file: Path):
    report = json.loads(file.read_text())
    found = sr.load_results(file.parent)
    assert [null(list(astuple(row.pixacc))) for row in found.rows] == [
        list(row["pixacc"].values()) for row in report["rows"]
    ]
    assert list(found.table("rows"))


def test_a_line_of_another_length_is_no_line():
    with pytest.raises(DamagedError, match="line 3 of the table images has another number of cells"):
        list(read_table("attack,valid\npgd,1\npgd\n", "images"))
    with pytest.raises(DamagedError, match="line 2 of the table images is damaged: invalid literal"):
        list(read_table("attack,valid\npgd,yes\n", "images"))


def test_without_pandas_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"which is not installed: pip install 'segradius\[pandas\]'"):
        sr.load_results(runs()["attack"]).to_pandas()


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_on_files_has_every_column(kind: str):
    page = (ROOT / "docs" / "results-files.md").read_text("utf-8")
    run = sr.load_results(runs()[kind]).runs[0]
    names = {name for table in run.tables for line in run.table(table) for name in line}
    assert {name for name in names if " " not in name and f"`{name}`" not in page} == set()


def test_verify_goes_through_all_measurements_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = study(tmp_path, one="attack", two="certify", three="nothing yet")
    assert main(["verify", str(folder)]) == 0
    assert ": whole, " in capsys.readouterr().out
    image = folder / "runs" / "one" / "per_image.csv"
    image.write_text(image.read_text().replace("pgd", "pdg", 1))
    assert main(["verify", str(folder)]) == 1
    assert "runs/one/per_image.csv: " in capsys.readouterr().out
    with sqlite3.connect(folder / "runs" / "two" / "results.sqlite") as base:
        base.execute("UPDATE results SET seconds = 99")
    base.close()
    assert main(["verify", str(folder), "--mend"]) == 1
    assert " damaged results dropped" in capsys.readouterr().out
