"""`segradius certify --radii soft`, radii of votes that were looked at, and a budget of minutes, end to end."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from served import LOCAL, furnish, loaded, place

import segradius as sr
from segradius.certification import Noise, PixelRadii, Sampling, SegCertify, SoftRadii, vote
from segradius.certification.votes import VoteTally
from segradius.cli import main
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.data import open_data
from segradius.evaluation import Certification, Checkpoints, DataChoice, InProcess, ModelChoice, Run, Smoothing, Store
from segradius.evaluation import execute as carried_out
from segradius.evaluation.certify import described_way
from segradius.report.certify_tables import NAMES

__all__ = ["furnish", "place"]

MODEL = ["--model", "small_net:network", "--num-classes", "3"]
FEW = ["--sigma", "0.1", "--n0", "7", "--n", "60", "--device", "cpu", "--figures", "0"]


def certify(out: str, *words: str) -> int:
    which = [] if "--target" in words else MODEL
    return main(["certify", "--data", "folder:data", *which, *FEW, *words, "--out", out])


def arrays(folder: str) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for file in sorted(Path(folder, "certificates").glob("*.npz")):
        with np.load(file) as kept:
            found[file.stem] = {name: kept[name] for name in kept.files if name != "numbers"}
    return found


def report(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def drawn(place: Path, certifier, sampling: Sampling) -> dict:
    """What a certifier makes of every image by the library alone."""
    model, data = sr.wrap(loaded(place), num_classes=3), open_data("folder:data")
    with model.frozen():
        return {
            sample.id: certifier(model, sample.image, 3, sampling, Randomness(0, (sample.id,)))
            for sample in (data[i] for i in range(len(data)))
        }


def test_soft_radii_are_the_librarys_and_the_votes_beside_them_are_those_without(place, capsys):
    assert certify("soft", "--radii", "soft", "--limit", "2") == 0
    told = capsys.readouterr().out
    assert "the model that averages confidences under noise, another than that of votes" in " ".join(told.split())
    assert certify("votes", "--limit", "2") == 0
    expected = drawn(
        place,
        lambda model, *how: SoftRadii(0.001)(lambda x: model.logits(x).softmax(1), *how),
        Sampling(Noise(0.1), 7, 60),
    )
    mine, plain = arrays("soft"), arrays("votes")
    for image, found in list(expected.items())[:2]:
        assert (mine[image]["soft.class"] == found.prediction.numpy()).all()
        assert (mine[image]["soft.radius"] == found.radius.numpy()).all()
        for name, each in plain[image].items():
            assert (mine[image][name] == each).all()
    assert (expected["a"].radius > 0).any()
    row = next(row for row in report("soft")["rows"] if row["name"] == "soft")
    assert row["curve"]["accuracy"][0] == pytest.approx(row["pixacc"]["value"])
    assert report("soft")["ledger"] == report("votes")["ledger"]  # the same passes serve both


def test_a_target_with_scores_has_soft_radii_and_one_with_labels_is_refused(place, capsys):
    assert certify("model", "--radii", "soft", "--limit", "1") == 0
    assert certify("target", *LOCAL, "--radii", "soft", "--limit", "1") == 0
    for name, each in arrays("model")["a"].items():
        assert np.allclose(each, arrays("target")["a"][name], atol=1e-5), name
    assert certify("labels", *LOCAL, "--answers", "labels", "--radii", "soft") == 2
    assert "the target gives labels alone: take --radii one" in capsys.readouterr().err


@pytest.mark.parametrize("radii", ["one", "soft"])
def test_early_stopping_goes_with_radii_that_hold_at_any_time(place, radii):
    words = ["--n", "1000", "--early-stop", "0.5", "--tau", "0.6", "--radii", radii, "--limit", "2"]
    assert certify("out", *words) == 0
    sampling = Sampling(Noise(0.1), 7, 1000, enough=SegCertify(0.6).decided(1000, 0.5))
    votes = drawn(place, lambda model, *how: vote(model.logits, *how), sampling)
    kept, told = arrays("out"), report("out")
    assert sum(book["forward"] for book in told["ledger"].values()) == 2 + sum(7 + votes[i].n for i in kept) < 2 * 1008
    for image in kept:
        if radii == "one":
            assert (kept[image]["radii.radius"] == PixelRadii()(votes[image]).radius.numpy()).all()
        assert (kept[image]["votes"] == votes[image].successes.numpy()).all()
    assert 0 <= told["undecided"] <= 0.5
    assert next(row for row in told["rows"] if row["name"] in ("radii", "soft"))["pixacc"]["value"] > 0


def test_minutes_end_sampling_and_what_is_there_stays(place, capsys):
    words = ["--n", "100000", "--tau", "0.99", "--minutes", "0.001"]  # 20 ms for each of three images
    assert certify("out", *words, "--limit", "2") == 0
    first = {file.name: file.read_bytes() for file in Path("out/certificates").iterdir()}
    assert certify("out", *words) == 0
    assert all(Path("out/certificates", name).read_bytes() == content for name, content in first.items())
    told = " ".join(capsys.readouterr().out.split())
    assert "n = 100000 at most, set by the clock: 0.001 minutes for all images" in told
    assert "Left undecided when sampling stopped" in told
    assert "The clock set the number of copies of each image" in told
    lines = list(csv.DictReader(Path("out/per_image.csv").read_text().splitlines()))
    assert all(7 < int(line["copies"]) < 100_007 for line in lines)
    assert certify("out", *words[:-1], "0.002") == 2
    assert "smoothing.minutes is 0.002, and 0.001 in the earlier run" in capsys.readouterr().err


def test_each_image_has_its_share_of_the_minutes_of_all_hands():
    experiment = Certification(ModelChoice("demo"), DataChoice("scenes:24x32,4"), Smoothing(minutes=2.0))
    run = Run(experiment, sr.load_model("demo"), open_data("scenes:24x32,4"), 1)
    assert run.seconds == 120 / 4
    assert Run(experiment, run.model, run.data, 1, hands=3).seconds == 360 / 4
    assert Run(experiment, run.model, run.data, 1, shard=(1, 2)).seconds == 120 / 2
    fixed = Certification(experiment.model, experiment.data, Smoothing())
    assert Run(fixed, run.model, run.data, 1).seconds is None


def test_a_killed_run_with_soft_radii_goes_on_exactly(tmp_path, monkeypatch):
    experiment = Certification(
        ModelChoice("demo"), DataChoice("scenes:16x16,1"), Smoothing(0.1, n0=4, n=30, radii="soft")
    )
    model, data = sr.load_model("demo"), open_data("scenes:16x16,1")

    def records(folder: Path) -> bytes:
        places = Checkpoints(folder, seconds=0)
        with Store(":memory:") as store:
            carried_out(Run(experiment, model, data, 1, checkpoints=places), store, InProcess(model, data, places))
            return store.record(experiment.key, data.ids[0])

    whole, add, passes = records(tmp_path / "whole"), VoteTally.add, iter(range(100))

    def killed(self, *given):
        if next(passes) == 5:
            raise KeyboardInterrupt
        return add(self, *given)

    monkeypatch.setattr(VoteTally, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        records(tmp_path / "parts")
    assert any((tmp_path / "parts").glob("*.pt"))
    assert records(tmp_path / "parts") == whole
    assert next(passes) < 5 + 2 * 34 // 4  # it did not begin anew


def test_soft_radii_of_reduced_precision_are_those_of_float32_confidences():
    model = sr.load_model("demo")
    image = open_data("scenes:16x16,1")[0].image
    from segradius.evaluation.batch import confiding

    top, classes, probabilities = confiding(model, torch.bfloat16)(image[None])
    assert probabilities.dtype == torch.float32
    assert torch.allclose(probabilities.sum(1), torch.ones(()), atol=1e-5)
    assert torch.equal(probabilities.max(1).indices, classes)
    assert top.dtype == torch.float32


def test_old_descriptions_of_smoothing_are_as_they_were():
    assert {"bound", "minutes"}.isdisjoint(described_way(Smoothing()))
    assert described_way(Smoothing(radii="soft", bound="hoeffding", n=5))["bound"] == "hoeffding"
    assert set(NAMES) >= {"soft", "radii"}
    with pytest.raises(InputError, match="fixed before"):
        Smoothing(radii="soft", bound="hoeffding", early_stop=0.1)
    assert partial(Smoothing, radii="soft")(early_stop=0.1).soft == SoftRadii(0.001)
