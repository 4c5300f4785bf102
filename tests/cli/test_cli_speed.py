"""`--speed`: what is told and kept of it, what is the same with it, and where it is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import segradius as sr
from segradius.cli import main
from segradius.evaluation import quicken
from segradius.evaluation.store import Store
from segradius.speed import Choice, Form
from segradius.speed.trial import Trial

ATTACK = ["attack", "--model", "demo", "--data", "scenes:48x64,3", "--attack", "pgd", "--steps", "3", "--device", "cpu"]
FOLDED, EASED = Form(folded=True), Form(eased=True)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGRADIUS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def chooses(monkeypatch: pytest.MonkeyPatch):
    """Makes trials choose a form, as what is cheaper on a busy machine is chance; a list of the trials made."""

    def choose(guidance: Form, speed: str) -> list[str]:
        made = []

        def chosen(trial, speed, *, compiled):
            made.append(speed)
            assert trial.disagreement(Choice(speed, FOLDED, guidance)) == ""
            return Choice(speed, FOLDED, guidance, 0.5, 0.9, left=("channels-last: it refused",))

        monkeypatch.setattr(Trial, "choose", chosen)
        return made

    return choose


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, "per_image.csv").open() as file:
        return list(csv.DictReader(file))


def report(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def test_exact_is_told_and_recorded_and_no_part_of_the_identity(chooses, capsys):
    chooses(FOLDED, "exact")
    assert main([*ATTACK, "--out", "plain"]) == 0
    capsys.readouterr()
    assert main([*ATTACK, "--out", "exact", "--speed", "exact"]) == 0
    said = capsys.readouterr().err
    assert "speed exact: batch norm folded: 0.50 of the time of a plain forward and backward pass" in said
    assert "Not used: channels-last: it refused" in said
    one, other = report("plain"), report("exact")
    assert one["experiment"] == other["experiment"]
    assert other["runtime"]["speed"]["choice"]["guidance"]["folded"] is True
    assert "speed" not in one["runtime"]
    for before, now in zip(rows("plain"), rows("exact"), strict=True):
        assert abs(float(before["pixacc"]) - float(now["pixacc"])) < 0.002
    assert main([*ATTACK, "--out", "plain", "--speed", "exact"]) == 0  # nothing was left to do


def test_fast_changes_numbers_and_so_the_identity_and_the_heading_says_whose_the_verdicts_are(chooses, capsys):
    chooses(Form(folded=True, precision="bfloat16"), "fast")
    assert main([*ATTACK, "--out", "fast", "--speed", "fast"]) == 0
    assert "speed fast (verdicts by the plain model)" in capsys.readouterr().out
    assert report("fast")["experiment"]["model"]["speed"] == "fast"
    assert all(row["disagreement"] == "0" for row in rows("fast") if row["attack"] == "pgd")
    assert main([*ATTACK, "--out", "fast"]) == 2
    assert 'model.speed is "plain", and "fast" in the earlier run' in capsys.readouterr().err


def test_a_run_that_goes_on_has_the_forms_that_it_began_with(chooses):
    made = chooses(FOLDED, "exact")
    assert main([*ATTACK, "--out", "out", "--speed", "exact"]) == 0
    assert made == ["exact"]
    Path("cache").rename("elsewhere")
    assert main([*ATTACK[:6], "pgd,fgsm", *ATTACK[7:], "--out", "out", "--speed", "exact"]) == 0
    assert made == ["exact"]
    with Store(Path("out/results.sqlite")) as store:
        assert store.noted(quicken.NOTE)["asked"] == ["exact", False]


def test_a_run_whose_forms_suit_no_more_is_told_so_and_goes_on_with_others(chooses, capsys, monkeypatch):
    made = chooses(FOLDED, "exact")
    assert main([*ATTACK, "--out", "out", "--speed", "exact"]) == 0
    with Store(Path("out/results.sqlite")) as store:
        store.note(quicken.NOTE, {"asked": ["exact", False], "choice": Choice("exact", FOLDED, EASED).as_dict()})
    agrees = Trial.disagreement
    refuses = lambda trial, choice: "layers eased: they differ" if choice.guidance.eased else agrees(trial, choice)  # noqa: E731
    monkeypatch.setattr(Trial, "disagreement", refuses)
    capsys.readouterr()
    Path("cache").rename("elsewhere")
    more = [*ATTACK[:6], "pgd,fgsm", *ATTACK[7:], "--out", "out", "--speed", "exact"]
    assert main(more) == 0
    assert made == ["exact", "exact"]
    assert "Not used: what this run began with, as the choice does not suit model" in capsys.readouterr().err
    kept = report("out")["runtime"]["speed"]["choice"]
    assert kept["guidance"]["folded"]
    assert "layers eased: they differ" in kept["left"][0]


def test_a_target_answers_as_it_does(capsys):
    asked = ["--target", "demo", "--data", "scenes:48x64,2", "--queries", "9", "--out", "t"]
    assert main(["attack", *asked, "--speed", "fast"]) == 2
    assert "speed fast is for --model" in capsys.readouterr().err


def test_votes_are_counted_of_a_form_that_rounds(chooses):
    chooses(Form(folded=True, precision="bfloat16"), "fast")
    command = ["certify", "--model", "demo", "--data", "scenes:24x32,2", "--n0", "5", "--n", "60", "--alpha", "0.1"]
    command += ["--tau", "0.6", "--correction", "none"]
    assert main([*command, "--out", "plain"]) == 0
    assert main([*command, "--out", "fast", "--speed", "fast"]) == 0
    for before, now in zip(rows("plain"), rows("fast"), strict=True):
        assert {k: v for k, v in before.items() if "second" not in k} == {
            k: v for k, v in now.items() if "second" not in k
        }


def test_from_python(chooses):
    chooses(Form(folded=True, precision="bfloat16"), "fast")
    model = sr.load_model("demo")
    plain, fast = (
        sr.evaluate(model, "scenes:48x64,2", "pgd", eps=1.5, steps=3, quiet=True, speed=speed)
        for speed in ("plain", "fast")
    )
    keys = [found.run.experiment.key(found.run.experiment.attacks[0]) for found in (plain, fast)]
    assert keys[0] != keys[1]
    assert abs(plain.summary.rows[1].pixacc.value - fast.summary.rows[1].pixacc.value) < 0.05
