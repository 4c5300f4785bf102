"""``segradius compare --max-drop``: each verdict and exit status; what is missing or unlike is named and not passed."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from cli.folders import Line, changed, lowered, study
from segradius.cli import main as segradius
from segradius.evaluation.seals import Sealed

RUN = ["--model=demo", "--data=scenes:24x32", "--figures=0"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two attacks on eight images."""
    out = tmp_path_factory.mktemp("base") / "base"
    attacks = ["--attack=pgd,cr_pgd", "--eps=l2=1.5", "--steps=2", "--limit=8"]
    assert segradius(["attack", *RUN, *attacks, f"--out={out}"]) == 0
    return out


def judge(*words: object, drop: float = 0.02) -> int:
    return segradius(["compare", *map(str, words), f"--max-drop={drop}"])


def verdicts(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "verdict.json").read_text())["rows"]
    return {f"{row['attack']} {row['figure']}": row["verdict"] for row in rows if row["verdict"]}


def test_a_network_passes_against_itself(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = [f"--junit={tmp_path / 'a.xml'}", f"--markdown={tmp_path / 'a.md'}", f"--json={tmp_path / 'a.json'}"]
    assert judge(base, base, *files, f"--out={tmp_path / 'out'}", drop=0) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("PASS: candidate against baseline, of which at most 0")
    assert set(verdicts(tmp_path / "out").values()) == {"PASS"}
    assert list(verdicts(tmp_path / "out")) == [f"{each} PixAcc" for each in ("clean", "pgd", "cr_pgd", "worst of 2")]
    report = json.loads((tmp_path / "a.json").read_text())
    assert report == json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert (report["verdict"], report["status"], report["exact"]) == ("PASS", 0, True)
    assert len([row for row in report["rows"] if row["figure"].startswith("IoU: ") and not row["verdict"]]) >= 15
    assert (tmp_path / "a.md").read_text().startswith("## PASS: candidate against baseline")
    suite = ElementTree.parse(tmp_path / "a.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "0", "0")
    assert segradius(["verify", str(tmp_path / "out")]) == 0


def noise(line: Line, image: int) -> float:
    return 0.002 * (-1) ** image


def test_each_verdict_and_its_exit_status(base: Path, tmp_path: Path):
    lost = {"warn": 0.008, "block": 0.1, "open": 0.02}
    for name, mean in lost.items():
        changed(base, tmp_path / name, lowered(lambda line, k, mean=mean: mean + noise(line, k), ["pgd"]))
    for name, status, verdict in (("warn", 0, "WARN"), ("open", 4, "INCONCLUSIVE"), ("block", 5, "BLOCK")):
        assert judge(base, tmp_path / name, f"--out={tmp_path / 'out'}") == status
        found = verdicts(tmp_path / "out")
        assert found["pgd PixAcc"] == verdict
        assert found["clean PixAcc"] == found["cr_pgd PixAcc"] == "PASS"
    assert judge(tmp_path / "block", base) == 0  # a gain is no loss


def test_one_image_decides_nothing(base: Path, tmp_path: Path):
    for name in ("a", "b"):
        changed(base, tmp_path / name, lambda line: line if line["image"] == "val-00000" else None)
    assert judge(tmp_path / "a", tmp_path / "b", f"--out={tmp_path / 'out'}") == 4
    assert set(verdicts(tmp_path / "out").values()) == {"INCONCLUSIVE"}
    assert "1 image: too few" in (tmp_path / "out" / "table.md").read_text()


def without(attack: str, report: dict[str, Any]) -> dict[str, Any]:
    return report | {"rows": [row for row in report["rows"] if row["name"] != attack]}


def other_options(report: dict[str, Any]) -> dict[str, Any]:
    report["experiment"]["attacks"][0]["options"]["steps"] = 9
    return report


def other_eps(line: Line) -> Line:
    return line | {"eps": "1.0"} if line["attack"] == "cr_pgd" else line


def predicted(report: dict[str, Any]) -> dict[str, Any]:
    report["experiment"]["data"]["labels"] = "predicted"
    return report


UNLIKE: dict[str, tuple[dict[str, Any], str]] = {
    "a job": (
        {"line": lambda line: line if line["attack"] != "cr_pgd" else None, "report": lambda it: without("cr_pgd", it)},
        "the candidate has no cr_pgd (l2, ε = 1.5)",
    ),
    "a budget": ({"line": other_eps}, "the candidate has no cr_pgd (l2, ε = 1.5); it has ε = 1"),
    "an option": ({"report": other_options}, "steps is 2 for the baseline and 9 for the candidate"),
    "an image": (
        {"line": lambda line: line if line["image"] != "val-00003" else None},
        "1 images of the baseline have no figure of the candidate: val-00003",
    ),
    "an invalid image": (
        {"line": lambda line: line | {"valid": "0"} if line["attack"] == "pgd" and line["image"][-1] == "3" else line},
        "1 images of the baseline have no figure of the candidate: val-00003",
    ),
    "other images": (
        {"line": lambda line: line | {"image": f"test-{line['image'][-3:]}"}},
        "no image is the same: val-00000",
    ),
    "another mask": (
        {"line": lambda line: line | {"pixels": "7"} if line["image"] == "val-00002" else line},
        "image val-00002 has",
    ),
    "other labels": ({"report": predicted}, "data.labels is given for the baseline and predicted for the candidate"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_is_missing_or_unlike_is_named_and_not_passed(base: Path, tmp_path: Path, what: str):
    how, told = UNLIKE[what]
    other = changed(base, tmp_path / "other", **how)
    assert judge(base, other, f"--out={tmp_path / 'out'}") == 4
    report = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert told in " ".join(row["why"] for row in report["rows"])
    assert told.replace("ε", "ε") in (tmp_path / "out" / "table.md").read_text()


def test_an_image_of_the_same_name_with_another_content_is_named(base: Path, tmp_path: Path):
    other = changed(base, tmp_path / "other")
    store = Sealed(str(other / "results.sqlite"))
    with closing(store.base), store.base:
        store.put("sources", ("val-00003", json.dumps({"image": ["0" * 32, ""]})), replace=True)
    assert judge(base, other, f"--out={tmp_path / 'out'}") == 4
    rows = json.loads((tmp_path / "out" / "verdict.json").read_text())["rows"]
    told = "the image of image val-00003 is another one for the baseline than for the candidate"
    assert {row["why"] for row in rows} == {told}


def test_what_only_the_candidate_has_is_noted(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    less = changed(base, tmp_path / "less", *UNLIKE["a job"][0].values())
    assert judge(less, base) == 0
    assert "Only the candidate has cr_pgd (l2, ε = 1.5): compared with nothing." in capsys.readouterr().out


def test_classes_are_judged_where_that_is_asked_and_need_the_store(base: Path, tmp_path: Path):
    assert judge(base, base, "--max-class-drop=0.05", f"--out={tmp_path / 'out'}") == 4
    found = verdicts(tmp_path / "out")
    assert found["clean IoU: sky"] == "PASS"
    assert found["clean IoU: balloon"] == "INCONCLUSIVE"  # in too few of the images
    light = changed(base, tmp_path / "light", without=["results.sqlite"])
    assert judge(light, light) == 0
    assert judge(light, light, "--max-class-drop=0.05", f"--out={tmp_path / 'out'}") == 4
    assert "without results.sqlite" in (tmp_path / "out" / "table.md").read_text()


def test_studies_are_matched_by_model_data_and_seed(base: Path, tmp_path: Path):
    worse = changed(base, tmp_path / "worse", lowered(lambda line, k: 0.1 + noise(line, k)))
    roles = {f"{model}-d-s0": {"model": model} for model in ("teacher", "student")}
    one = study(tmp_path / "one", dict(zip(roles, (base, worse), strict=True)), roles)
    other = study(tmp_path / "other", dict(zip(roles, (base, base), strict=True)), roles)
    swapped = study(tmp_path / "swapped", dict(zip(roles, (worse, base), strict=True)), roles)
    unfinished = study(tmp_path / "unfinished", dict(zip(roles, (base, None), strict=True)), roles)
    assert judge(one, other) == 0
    assert judge(one, swapped, f"--out={tmp_path / 'out'}") == 5
    rows = json.loads((tmp_path / "out" / "verdict.json").read_text())["rows"]
    assert {row["measurement"] for row in rows if row["verdict"] == "BLOCK"} == {"teacher-d-s0"}
    assert judge(one, unfinished, f"--out={tmp_path / 'out'}") == 4
    assert "the candidate has no results of it" in (tmp_path / "out" / "table.md").read_text()
    alone = study(tmp_path / "alone", {"new-d-s0": base}, {"new-d-s0": {"model": "new"}})
    assert judge(base, alone) == 0  # one model on either side needs no equal name
    later = study(tmp_path / "later", {"new-d-s1": base}, {"new-d-s1": {"model": "new", "seed": 1}})
    assert judge(base, later) == 4


def test_certificates_are_compared_at_their_radii(tmp_path: Path):
    certify = ["certify", *RUN, "--sigma=0.1", "--n0=10", "--n=60", "--limit=6", "--radii=one"]
    assert segradius([*certify, f"--out={tmp_path / 'one'}"]) == 0
    assert judge(tmp_path / "one", tmp_path / "one", f"--out={tmp_path / 'out'}") == 0
    rows = json.loads((tmp_path / "out" / "verdict.json").read_text())["rows"]
    certified = json.loads((tmp_path / "one" / "results.json").read_text())["rows"][-1]["curve"]
    mine = [row for row in rows if row["attack"] == "certified, own radii"]
    assert [row["eps"] for row in mine[:2]] == pytest.approx([0.0, 0.05], abs=0.002)
    pooled = dict(zip(certified["edges"], certified["accuracy"], strict=True))
    assert [row["before"] for row in mine] == pytest.approx([pooled[row["eps"]] for row in mine], abs=0.02)
    sigma = changed(
        tmp_path / "one", tmp_path / "sigma", report=lambda it: it["experiment"]["smoothing"].update(n=99) or it
    )
    assert judge(tmp_path / "one", sigma, f"--out={tmp_path / 'out'}") == 4
    assert "n is 60 for the baseline and 99 for the candidate" in (tmp_path / "out" / "table.md").read_text()


def test_what_cannot_be_judged_is_refused(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for words, told in (
        (("compare", base, base, "--junit=a.xml"), "max_drop is not given"),
        (("compare", base, "--max-drop=0.1"), "expected two, the baseline and the candidate"),
        (("compare", base, tmp_path, "--max-drop=0.1"), "holds neither results of a run nor a study.json"),
        (("compare", base, base, "--max-drop=2"), "max_drop is 2"),
        (("compare", base, base, "--max-drop=0.1", f"--junit={tmp_path}/no/a.xml"), "there is no folder"),
    ):
        assert segradius(list(map(str, words))) == 2
        assert told in capsys.readouterr().err
