"""One function says which runs are meant by folders of runs and of studies."""

from __future__ import annotations

import json

import pytest

from segradius.core.errors import DamagedError, InputError
from segradius.evaluation import DataChoice, Experiment, ModelChoice, Store
from segradius.evaluation.folders import run_folders

ONE = {"name": "demo-scenes-s0", "folder": "runs/demo-scenes-s0", "kind": "attack", "model": "demo", "seed": 0}
TWO = {"name": "demo-scenes-s0-certify", "folder": "runs/demo-scenes-s0-certify", "kind": "certify"}


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "first"
    (folder / "runs" / "demo-scenes-s0").mkdir(parents=True)
    (folder / "runs" / "demo-scenes-s0" / "results.json").write_text('{"experiment": {"attacks": [{}]}}')
    (folder / "study.json").write_text(json.dumps({"schema": 1, "measurements": [ONE, TWO]}))
    return folder


def test_a_study_is_all_its_measurements_those_not_begun_too(study):
    found = run_folders([study])
    assert [(run.name, run.kind, run.is_reported) for run in found] == [
        ("demo-scenes-s0", "attack", True),
        ("demo-scenes-s0-certify", "certify", False),
    ]
    assert [run.path for run in found] == [study / "runs" / run.name for run in found]


@pytest.mark.parametrize(
    ("experiment", "kind"),
    [({"attacks": [{}]}, "attack"), ({"attacks": []}, "evaluate"), ({"smoothing": {}}, "certify")],
)
def test_a_folder_of_a_run_has_its_own_name_and_the_kind_of_its_report(tmp_path, monkeypatch, experiment, kind):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "results.json").write_text(json.dumps({"experiment": experiment}))
    monkeypatch.chdir(tmp_path / "one")
    assert [(run.name, run.kind) for run in run_folders(["."])] == [("one", kind)]


def test_a_run_without_a_report_has_the_kind_of_its_store(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        store.note("experiment", Experiment(ModelChoice("demo"), DataChoice("scenes"), ()).as_dict())
        assert run_folders([tmp_path])[0].kind == "evaluate"  # while it is written
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert run_folders([tmp_path])[0].kind == "evaluate"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_runs_and_studies_stand_side_by_side(study):
    one = study / "runs" / "demo-scenes-s0"
    assert [run.path for run in run_folders([one, str(study), one])] == [
        one,
        one,
        study / "runs" / "demo-scenes-s0-certify",
        one,
    ]


def test_what_is_neither_is_named_with_what_was_expected(study, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, told in (
        ("empty", "empty holds neither results of a run nor a study.json; expected the --out folder of segradius"),
        ("absent", "absent is no folder; expected the --out"),
    ):
        with pytest.raises(InputError, match=told):
            run_folders([study, tmp_path / folder])


def test_parts_that_are_not_merged_are_told_how(study, tmp_path):
    study.rename(tmp_path / "shard-1-of-2")
    with pytest.raises(InputError, match=r"1 part\(s\) of a study that are not merged; first: segradius merge "):
        run_folders([tmp_path])


@pytest.mark.parametrize(
    "measured",
    [
        "{",
        "[]",
        '{"schema": 1}',
        '{"schema": 1, "measurements": [3]}',
        '{"schema": 1, "measurements": [{"name": "a"}]}',
    ],
)
def test_a_damaged_study_is_named(study, measured):
    (study / "study.json").write_text(measured)
    with pytest.raises(DamagedError, match=r"first/study\.json is damaged"):
        run_folders([study])


@pytest.mark.parametrize("place", ["../outside", "/etc", "runs/../../x"])
def test_no_study_leads_out_of_its_folder(study, place):
    (study / "study.json").write_text(json.dumps({"schema": 1, "measurements": [ONE | {"folder": place}]}))
    with pytest.raises(DamagedError, match=r"expected a folder below"):
        run_folders([study])


def test_a_study_of_a_later_version_is_refused(study):
    (study / "study.json").write_text('{"schema": 2, "measurements": []}')
    with pytest.raises(InputError, match=r"has schema 2; this version of segradius reads 1"):
        run_folders([study])
