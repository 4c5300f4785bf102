"""The study of attacks at equal passes: what they cost, a run that is gone on with, and its tables by hand."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import segradius as sr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
study = importlib.import_module("held_out")

ATTACKS = "pgd sea mce=sea,only=mce masked=pgd,weighting=still_correct"
ONE = study.Line("a", "d", "pgd", "", "pgd", "l2", 0.5, 9, 9, 0, "i", 60, 61, (60, 0), (80, 20), (70, 30))


def command(out: Path, *more: str) -> list[str]:
    words = ["--models", "demo=demo", "--data", "scenes:24x32", "--limit", "3", "--batch-size", "2"]
    return [*words, "--eps", "l2=0.5", "--passes", "9", "--attacks", ATTACKS, "--out", str(out), *more]


@pytest.mark.parametrize(
    ("asked", "passes", "steps"),
    [
        ("pgd", 50, 50),
        ("sea", 50, 16),  # three members
        ("js=sea,only=js", 50, 50),
        ("cr_pgd", 50, 32),  # 8 forward passes for the radius every 8 steps; another step would cost 53
        ("ensemble,members=pgd+segpgd", 21, 10),
        ("rp_pgd,layer=layer4", 20, 20),  # which the network that is counted on has not
        ("fgsm", 20, 20),  # whatever is asked
    ],
)
def test_steps_are_the_most_that_cost_no_more_than_the_passes(asked: str, passes: int, steps: int) -> None:
    assert study.steps_of(study.Asked.of(asked), "l2", passes) == steps


def test_a_budget_below_one_step_and_steps_of_ones_own_are_refused() -> None:
    with pytest.raises(sr.InputError, match="steps"):
        study.Asked.of("pgd,steps=9")
    with pytest.raises(sr.InputError, match=r"no member 'ce'; it has mce, mce_bal, js"):
        study.steps_of(study.Asked.of("sea,only=ce"), "l2", 9)


def test_a_run_that_was_cut_short_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.main(command(tmp_path / "a"))
    path = tmp_path / "a" / study.LINES
    whole = path.read_text()
    study.main(command(tmp_path / "a"))
    assert path.read_text() == whole
    lines = study.read(path)
    assert len(lines) == 3 * (1 + 4 + 3)  # clean, attacks, members of sea
    assert {line.spent for line in lines if line.attack == "sea" and not line.member} == {9}
    path.write_text(whole[: len(whole) * 2 // 3])
    study.main(command(tmp_path / "a"))
    assert {line.key: line.right for line in study.read(path)} == {line.key: line.right for line in lines}
    with pytest.raises(sr.InputError, match="has pgd under the label pgd, not fgsm"):
        study.main(command(tmp_path / "a", "--attacks", "pgd=fgsm"))
    capsys.readouterr()
    study.main(["--judge", str(tmp_path), "--against", "pgd"])
    assert "| masked |" in capsys.readouterr().out


def test_differences_are_of_pooled_pixels_and_of_classes() -> None:
    """Six images under two attacks on two networks; the other attack leaves a tenth of the pixels fewer right."""
    lines = []
    for network, image in ((n, i) for n in "ab" for i in "uvwxyz"):
        own = replace(ONE, network=network, image=image)
        lines += [replace(own, attack=study.CLEAN, norm="", eps=0.0, passes=0), own]
        lines.append(replace(own, attack="new", right=50, right8=52, intersection=(50, 0), predicted=(70, 30)))
    ((title, networks, attacks),) = study.groups(lines)
    assert title == "d, l2 0.5, 9 passes, seed 0, n = 6: a, b"
    found = study.pixacc_less(attacks["new"], attacks["pgd"], [0, 1])
    assert (found.value, found.low, found.high, found.images) == pytest.approx((-10, -10, -10, 6))
    # IoU of the classes: 60/90 and 0/50 under pgd, 50/90 and 0/60 under new.
    assert study.miou_less(attacks["new"], attacks["pgd"]).value == pytest.approx(100 * (50 / 90 - 60 / 90) / 2)
    row = study.table((title, networks, attacks), "pgd").rows[-1]
    assert row[:4] == ("new", "50.0", "52.0", "-10.0 [-10.0, -10.0]")


def test_the_miou_of_an_ensemble_is_that_of_members_chosen_for_it() -> None:
    """The member that leaves more pixels right has the lower MIoU."""
    clean = replace(ONE, attack=study.CLEAN, norm="", eps=0.0, passes=0)
    first = replace(ONE, attack="both", member="first", intersection=(30, 20), predicted=(50, 50), right=50)
    second = replace(ONE, attack="both", member="second", intersection=(60, 0), predicted=(70, 30), right=60)
    ((_, _, attacks),) = study.groups([clean, first, second, replace(first, member="")])
    assert attacks["both"].right.item() == 50
    assert attacks["both"].miou == pytest.approx(100 * min((30 / 90 + 20 / 60) / 2, (60 / 80 + 0) / 2))
