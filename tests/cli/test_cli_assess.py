"""`segradius assess`: within its budget, on images from everywhere, gone on with, added to; a target by its queries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from served import place, stub

from segradius.cli import main
from segradius.data import open_data
from segradius.evaluation.folders import run_folders
from segradius.metrics.intervals import Interval
from segradius.report.assess import Left, assessment_lines, left_of
from targets.oip_stub import serving

__all__ = ["place"]

DEMO = ["assess", "--model", "demo", "--data", "scenes:24x32", "--device", "cpu"]


def state(folder: str = "out") -> dict:
    found: dict = json.loads(Path(folder, "assessment.json").read_text())
    return found


def results(folder: str = "out") -> dict:
    found: dict = json.loads(Path(folder, "runs/assessed-s0/results.json").read_text())
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_nothing_to_words_and_more_of_it_in_the_same_folder(here, capsys):
    assert main([*DEMO, "--passes", "900", "--certify", "--out", "out"]) in (0, 4)
    first, told = results(), capsys.readouterr().out
    assert state()["expected"] <= 900
    assert state()["state"] == [8, 2]
    rows = [row for row in first["rows"] if not row["name"].startswith("worst")]
    spent = sum(sum(book.values()) for row in rows for book in row["ledger"].values())
    looked, checked = first["preflight"]["ledger"]["preflight"], first["checks"]["ledger"]["checks"]
    spent += sum(looked.values()) + sum(checked.values()) + 110 * state()["certified"]
    assert 0.9 * state()["expected"] <= spent <= state()["expected"]
    every = open_data("scenes:24x32", order="spread").ids
    assert [row.name for row in run_folders(["out"])] == ["assessed-s0", "assessed-s0-certify-sigma0.1"]
    assert all(run.is_reported for run in run_folders(["out"]))
    images = {line.split(",")[3] for line in Path("out/runs/assessed-s0/per_image.csv").read_text().splitlines()[1:]}
    assert images == set(every[:8]) != set(sorted(every)[:8])
    for words in ("Left out for want of budget: ", "auto", "Proved, of the model", "Sanity checks: ", "8 of 64 images"):
        assert words in told
    assert "What is left of the pixels" in Path("out/assessment.md").read_text()
    shown = Path("out/report.html").read_text()
    assert shown.index("Verdict by the rules in") < shown.index("right unattacked")
    assert "Hit hardest: " in shown
    assert "auto (linf 0.0157)" in told
    assert "not done again" not in told
    assert told.index("Verdict by the rules in") < told.index("Under changes of")
    assert main([*DEMO, "--passes", "2200", "--out", "out"]) == 0
    assert "what an earlier run left in the folder is not done again" in capsys.readouterr().out
    assert state()["state"] == [8, 4]
    plain = {(row["name"], row["norm"], row["eps"]): row["pixacc"] for row in results()["rows"]}
    for row in first["rows"]:
        if row["images"] == results()["rows"][0]["images"] and not row["name"].startswith("worst"):
            assert plain[row["name"], row["norm"], row["eps"]] == row["pixacc"]
    rules = Path("out/policy.yaml").read_text()
    Path("out/policy.yaml").write_text(rules.replace("high <= 0.25", "high <= 0.001"))
    assert main([*DEMO, "--passes", "100", "--out", "out"]) == 5  # less than before takes nothing away
    assert state()["state"] == [8, 4]
    assert json.loads(Path("out/gate.json").read_text())["verdict"] == "BLOCK"
    assert "0.001" in Path("out/policy.yaml").read_text()


def test_time_is_planned_by_a_measured_pass_and_said_before(here, capsys):
    assert main([*DEMO, "--minutes", "0.02", "--out", "out"]) in (0, 4)
    told = capsys.readouterr()
    assert "a pass over an image takes" in told.err
    assert told.out.rstrip().splitlines()[-1].startswith("It took ")
    assert told.out.index("That takes about") < told.out.index("What is left of the pixels")
    again = state()
    assert main([*DEMO, "--minutes", "0.02", "--out", "out"]) in (0, 4)
    assert state() == again


def test_images_without_masks_name_the_flag_that_does_without(here, capsys):
    Path("images").mkdir()
    from PIL import Image

    for name in "abcdef":
        Image.new("RGB", (32, 24), (ord(name), 99, 50)).save(f"images/{name}.png")
    words = ["assess", "--model", "demo", "--data", "images:images", "--out", "out"]
    for budget in (["--minutes", "1"], ["--passes", "300"]):
        assert main([*words, *budget]) == 2
        assert "--labels predicted" in capsys.readouterr().err
    assert main([*words, "--passes", "300", "--labels", "predicted"]) == 4
    told = capsys.readouterr().out
    assert "it said: " in told
    assert "keep the class that the model gave them unattacked" in told
    assert "got right" not in told


def test_where_no_image_can_be_used_the_first_reason_is_told(here, capsys):
    from PIL import Image

    for folder, mode, value in (("images", "RGB", (9, 99, 50)), ("masks", "L", 2)):
        Path(folder).mkdir()
        Image.new(mode, (32, 24), value).save(f"{folder}/a.png")
    Path("segradius.yaml").write_text("classes: [dark, bright]\n")
    assert main(["assess", "--model", "demo", "--data", "folder:.", "--minutes", "1", "--out", "out"]) == 2
    assert "could be used, the first for: sample 'a': value 2 in the mask" in capsys.readouterr().err


def test_a_target_is_asked_no_more_than_its_budget(place, capsys):
    with serving(stub(place)) as served:
        words = ["assess", "--target", f"oip:{served.url},backoff=0,batch=2", "--data", "folder:data", "--out", "out"]
        assert main([*words, "--minutes", "3"]) == 2
        assert "--budget" in capsys.readouterr().err
        assert main([*words, "--budget", "160"]) == 4  # three images are too few
        assert sum(served.images) <= 160
        asked = sum(served.images)
        assert main([*words, "--budget", "160"]) == 4
        assert sum(served.images) == asked
    assert {row["name"] for row in results()["rows"]} == {"clean", "local_pbgd-50"}


def test_other_attacks_in_a_folder_are_refused_and_replaced_where_asked(here, capsys):
    words = [*DEMO, "--passes", "150", "--out", "out"]
    assert main(words) == 4
    assert main([*words, "--eps", "l2=2"]) == 2
    assert "another experiment" in capsys.readouterr().err
    assert main([*words, "--eps", "l2=2", "--overwrite"]) == 4
    assert {row["norm"] for row in results()["rows"]} == {None, "l2"}


def row(name: str, eps: float, value: float, images: int = 8) -> dict:
    return {
        "name": name, "norm": "linf", "eps": eps, "images": images,
        "pixacc": {"value": value, "low": value - 0.1, "high": value + 0.1},
        "rounded": {"pixacc": {"value": value + 0.2, "low": None, "high": None}},
    }  # fmt: skip


def test_the_worst_over_attacks_is_told_and_the_strongest_is_named():
    rows = [row("a", 0.1, 0.6), row("b", 0.1, 0.5), row("worst of 2", 0.1, 0.45), row("a", 0.2, 0.3)]
    first, second = left_of(rows)
    assert (first.attack, first.attacks, first.pixacc.value, first.rounded.value) == ("b", 2, 0.45, 0.7)
    assert (second.attack, second.attacks, second.pixacc.value) == ("a", 1, 0.3)


def test_a_small_class_that_is_lost_is_told_beside_the_pixels():
    def with_classes(name: str, norm: str | None, eps: float | None, value: float, ious: list[float | None]) -> dict:
        of = zip(("sky", "bird", "bat"), ious, strict=True)
        classes = [{"name": name, "iou": {"value": iou, "low": None, "high": None}} for name, iou in of]
        return row(name, eps, value) | {"norm": norm, "classes": classes, "rounded": None}

    clean = with_classes("clean", None, None, 0.99, [0.99, 0.9, None])
    rows = [
        clean,
        with_classes("a", "linf", 0.1, 0.97, [0.97, 0.2, None]),
        with_classes("a", "linf", 0.2, 0.97, [0.99, 0.895, 0.0]),
    ]
    first, second = left_of(rows)
    assert first.hardest is not None
    assert second.hardest is None
    lines = list(assessment_lines(Interval(0.99, 0.98, 1.0), [first, second], [], [], predicted=False, whole=8))
    assert "keeps nearly all" in lines[0]
    assert lines[1] == "  Hit hardest: bird, whose IoU falls from 90.0 to 20.0 %."
    assert lines[2].startswith("Under changes of")


@pytest.mark.parametrize(
    ("left", "words"),
    [(0.8, "keeps nearly all"), (0.7, "a noticeable part"), (0.45, "up to half"), (0.1, "loses most"), (0.0, "hardly")],
)
def test_words_follow_the_share_of_what_was_right(left, words):
    found = [Left("linf", 4 / 255, "sea", 3, Interval(left, left, left), None, 8)]
    lines = list(assessment_lines(Interval(0.8, 0.7, 0.9), found, [], [], predicted=False, whole=8))
    assert words in lines[0]


def test_few_images_are_said_to_be_few_and_failed_checks_go_first():
    found = [Left("linf", 4 / 255, "sea", 3, Interval(0.5, float("nan"), float("nan")), None, 3)]
    verdicts = [
        {"name": "masked", "verdict": "fail", "text": "gradients", "advice": "ask"},
        {"name": "steps", "verdict": "open", "text": "", "advice": ""},
    ]
    lines = list(assessment_lines(Interval(0.8, 0.7, 0.9), found, verdicts, ["sea"], predicted=False, whole=50))
    assert any(line.startswith("3 images are too few") for line in lines)
    assert "  masked (fail): gradients: ask." in lines
    assert any("of the measurement" in line for line in lines)
