"""The cross-check of a certification: what the library says of each image, and the same after a kill or in JSON."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.certification import Noise, Sampling, SegCertify, aims, crosscheck, summarise, vote
from segradius.cli import main
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.evaluation import CrossChecking

COMMAND = ["certify", "--model", "demo", "--data", "scenes:24x32", "--sigma", "0.1", "--n0", "10", "--n", "80",
           "--alpha", "0.01", "--limit", "2"]  # fmt: skip
ATTACK = ["--attack", "cr_pgd", "--steps", "2", "--samples", "2", "--check-copies", "40", "--weakest", "1"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("checked")
    assert main([*COMMAND, *ATTACK, "--out", str(out)]) == 0
    return json.loads((out / "results.json").read_text())


def test_the_command_finds_what_the_library_finds(report):
    model, checks = sr.load_model("demo"), []
    data = sr.open_data("scenes:24x32", limit=2)
    for sample in (data[0], data[1]):
        noise = Noise(0.1)
        keys = Randomness(0, (sample.id,))
        with model.frozen():
            votes = vote(model.logits, sample.image, model.num_classes, Sampling(noise, 10, 80), keys)
        certificate = SegCertify(alpha=0.01)(votes)
        attack = CrossChecking(("cr_pgd",), steps=2).maker("cr_pgd")
        found = crosscheck(
            model, noise, sample.image, certificate, aims(certificate, votes, weakest=(1,)), attack=attack,
            samples=2, copies=40, alpha=0.01, image_id=sample.id,
        )  # fmt: skip
        checks.append(found)
        kept = report["studies"][sample.id]["crosscheck"]
        assert kept["verdicts"]["cr_pgd"] == {aim: asdict(verdict) for aim, verdict in found.verdicts.items()}
        passes = kept["passes"]["crosscheck"]
        assert passes == {"forward": int(found.ledger.forward[0]), "backward": int(found.ledger.backward[0])}
    (checked,) = report["checked"]
    assert checked["attack"] == "cr_pgd"
    assert checked["summaries"] == {aim: asdict(each) for aim, each in summarise(checks, 0.01).items()}
    assert checked["refuted"] == []


def test_own_radii_are_attacked_at_their_own_lengths(tmp_path):
    assert main([*COMMAND, *ATTACK, "--radii", "one", "--limit", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    (verdicts,) = (each["crosscheck"]["verdicts"] for each in found["studies"].values())
    assert list(verdicts) == ["cr_pgd", "cr_pgd, own radii"]
    own = {aim: each["length"] for aim, each in verdicts["cr_pgd, own radii"].items()}
    assert {"all", "all at quantile 0.5", "weakest 1 at quantile 0.5"} <= set(own)
    assert 0 < own["all"] < own["all at quantile 0.5"]


def test_its_passes_are_in_the_ledger(report):
    parts = [report["studies"][image]["crosscheck"]["passes"]["crosscheck"] for image in report["studies"]]
    assert report["ledger"]["crosscheck"] == {way: sum(part[way] for part in parts) for way in ("forward", "backward")}
    assert report["ledger"]["certification"]["forward"] == 2 * 90
    # At rest and after two aims 40 copies judge; each of two steps and each last pass looks at two copies.
    assert parts[0] == {"forward": 3 * 40 + 2 * 3 * 2, "backward": 2 * 2 * 2}


def timeless(folder: Path) -> dict:
    found = json.loads((folder / "results.json").read_text())
    del found["runtime"], found["command"]
    return found


def test_attacks_are_added_to_finished_certificates_and_nothing_is_certified_again(tmp_path, monkeypatch, capsys):
    assert main([*COMMAND, "--radii", "one", *ATTACK, "--out", str(tmp_path / "whole")]) == 0
    assert main([*COMMAND, "--radii", "one", "--out", str(tmp_path / "parts")]) == 0
    with monkeypatch.context() as patch:
        patch.setattr("segradius.evaluation.certify_options.vote", lambda *_, **__: pytest.fail("certified again"))
        assert main([*COMMAND, "--radii", "one", *ATTACK, "--out", str(tmp_path / "parts")]) == 0
        assert "2 of 2 images were there" in capsys.readouterr().out
        patch.setattr("segradius.evaluation.crosscheck.crosscheck", lambda *_, **__: pytest.fail("attacked again"))
        assert main([*COMMAND, "--radii", "one", *ATTACK, "--out", str(tmp_path / "parts")]) == 0
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    for file in ("per_image.csv", "certificates/val-00000.npz", "certificates/val-00001.npz"):
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    tables = [(tmp_path / name / "table.md").read_text().partition("\nMade 20")[0] for name in ("parts", "whole")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("other", [[], [*ATTACK, "--share", "0.5"]])
def test_attacks_that_were_made_are_not_left_out_or_changed(tmp_path, capsys, other):
    assert main([*COMMAND, *ATTACK, "--out", str(tmp_path)]) == 0
    assert main([*COMMAND, *other, "--out", str(tmp_path)]) == 2
    assert "crosscheck" in capsys.readouterr().err


def test_bfloat16_is_attacked_in_bfloat16():
    from segradius.evaluation.crosscheck import InPrecision

    model, image = sr.load_model("demo"), torch.rand(1, 3, 24, 32)
    reduced = InPrecision(model, torch.bfloat16)
    assert torch.equal(reduced.logits(image), model.logits(image, torch.bfloat16))
    assert not torch.equal(reduced.logits(image), model.logits(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attack", "pbgd"], "pbgd asks for scores"),
        (["--attack", "pgdd"], "pgd"),
        (["--attack", "pgd", "--share", "1"], "share is 1;"),
        (["--attack", "pgd", "--correction", "by"], "by promises nothing"),
        (["--attack", "pgd", "--check-copies", "1"], "check_copies is 1"),
    ],
)
def test_what_cannot_be_checked_is_refused(options, message, tmp_path, capsys):
    assert main([*COMMAND, *options, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_target_without_gradients_is_refused(tmp_path, capsys):
    command = [word if word != "--model" else "--target" for word in COMMAND]
    assert main([*command, *ATTACK, "--out", str(tmp_path)]) == 2
    assert "gradients" in capsys.readouterr().err


def test_steps_are_checked():
    with pytest.raises(InputError, match="steps is 0"):
        CrossChecking(("pgd",), steps=0)


def test_more_images_with_lost_pixels_than_promised_are_told():
    from segradius.certification import Verdict
    from segradius.evaluation.crosscheck import check_rows, summarise_checks

    def verdict(lost):
        return asdict(Verdict(0.1, 50, lost, lost, 0, 0.5, True))

    studies = {str(i): {"verdicts": {"pgd": {"at rest": verdict(0), "all": verdict(int(i < 3))}}} for i in range(20)}
    (checked,) = summarise_checks(studies, 0.001)
    assert checked.refuted == ("lost, all",)
    assert checked.needed == 3  # P(3 of 20 or more at 0.002) is about 9e-6, P(2 or more) 7e-4; the bar is 0.001 / 4
    assert [(name, caught) for name, _, caught in check_rows([checked])] == [
        ("pgd, at rest", "no"),
        ("pgd, all", "lost"),
    ]


def test_few_images_can_refute_nothing_and_say_so():
    from segradius.certification import Verdict
    from segradius.evaluation.crosscheck import check_rows, summarise_checks

    lost = asdict(Verdict(0.1, 50, 50, 50, 50, 0.5, True))
    (checked,) = summarise_checks({"a": {"verdicts": {"pgd": {"all": lost}}}}, 0.001)
    assert (checked.needed, checked.refuted) == (None, ())
    assert check_rows([checked])[0][2] == "too few images"
    (enough,) = summarise_checks({"a": {"verdicts": {"pgd": {"all": lost}}}}, 1e-5)
    assert enough.needed == 1


def test_the_level_is_that_of_all_attacks_together_and_own_radii_of_two_classes_promise_no_probability():
    from segradius.certification import Verdict
    from segradius.evaluation.crosscheck import summarise_checks

    def study(i):
        below = asdict(Verdict(0.1, 50, 0, 0, int(i < 4), 0.5, True))
        return {"verdicts": {name: {"all": below} for name in ("pgd", "pgd, own radii")}}

    studies = {str(i): study(i) for i in range(20)}
    one, own = summarise_checks(studies, 0.001)
    assert one.refuted == own.refuted == ("below, all",)
    one, own = summarise_checks(studies, 0.001, "two")
    assert (one.refuted, own.refuted) == (("below, all",), ())
