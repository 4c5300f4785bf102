"""Certificates from a Lipschitz constant over a data set: what is kept, told, and refuted where it is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segradius.certification.certificate import rounded_down
from segradius.certification.lipschitz import distances, turnable
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.data import Classes, Sample
from segradius.evaluation import (
    Attacks,
    Certification,
    DataChoice,
    InProcess,
    Lipschitz,
    ModelChoice,
    Record,
    Run,
    Store,
    execute,
)
from segradius.evaluation.batch import Batch
from segradius.evaluation.certify_lipschitz import Held
from segradius.evaluation.certify_summary import CertifiedSummary
from segradius.evaluation.record import Kind, Score, unpack
from segradius.evaluation.saved import certified_summary_of
from segradius.metrics.counts import Pixels
from segradius.models import Segmenter, wrap
from segradius.report import report_certificates

CLASSES = Classes(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
EPS = (0.1, 0.5, 1.0)
NOTHING = Score(Pixels((0,), (0,), (0,)), 0, (0, 0))


class Images:
    """Two images of drawn colours, labelled by the largest but for a few pixels, and one void pixel."""

    name, classes, ids = "colours", CLASSES, ("a", "b")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(index))
        labels = image.argmax(0)
        labels[0, :3] = (labels[0, :3] + 1) % 3
        labels[1, index] = 255
        return Sample(self.ids[index], image, labels)


def rotation(scale: float = 1.0) -> Segmenter:
    """Logits: the colours turned by a little in colour space, times a scale, which is exactly its constant."""
    a = 0.2
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1]])
    network = nn.Conv2d(3, 3, 1, bias=False)
    network.weight.data = scale * turn.view(3, 3, 1, 1)
    return wrap(network, num_classes=3, normalisation="none")


def ran(folder: Path, model: Segmenter, lipschitz: float) -> tuple[CertifiedSummary, dict[str, Record], str]:
    """The summary, the records, and the table of certificates that were attacked."""
    way = Lipschitz(lipschitz, eps=EPS)
    experiment = Certification(ModelChoice("net"), DataChoice("colours"), way, 0, Attacks(("flips",), 8))
    run = Run(experiment, model, Images(), 1)
    with Store(":memory:") as store:
        execute(run, store, InProcess(model, Images(), None))
        assert store.all_set_aside() == {}
        report = report_certificates(run, store, {})
        files = dict(report.files)
        records = {image: unpack(store.record(experiment.key, image)) for image in Images.ids}
    told = certified_summary_of(json.loads(files["results.json"]))
    assert told.whole == report.summary.whole
    assert told.attacked == report.summary.attacked
    return report.summary, records, files["table.md"]


def test_what_is_told_is_what_the_logits_give_and_attacks_that_know_the_network_do_not_get_below(
    tmp_path: Path,
) -> None:
    model, data = rotation(), Images()
    summary, records, table = ran(tmp_path, model, 1.0)
    stays, labelled = torch.zeros(len(EPS), dtype=torch.int64), 0
    for place, image in enumerate(data.ids):
        sample = data[place]
        found = distances(model.logits(sample.image[None])[0])
        right = (sample.label != 255) & (found.guess == sample.label)
        assert torch.equal(records[image].kinds["lipschitz"].radius, rounded_down(found.turn))
        budgets = torch.tensor(EPS, dtype=torch.float64).square()
        stays += int(right.sum()) - turnable(found.turn[right].square(), budgets)
        labelled += int((sample.label != 255).sum())
    assert [row.pixacc for row in summary.whole.rows] == pytest.approx((stays / labelled).tolist())
    assert list(summary.whole.accuracy) == sorted(summary.whole.accuracy, reverse=True)
    flips = [each for each in summary.attacked if each.attack == "flips"]
    assert [each.promised for each in flips] == pytest.approx((stays / labelled).tolist())
    # A rotation reaches what is promised of it, but for the box and the last pixel.
    assert all(each.promised <= each.left <= each.promised + 0.12 for each in flips[:2])
    assert all(each.contradicted == 0 and each.lost == 0 and each.used <= 1 + 1e-5 for each in summary.attacked)
    assert max(each.used for each in summary.attacked) == pytest.approx(1, abs=1e-5)
    assert "REFUTED" not in table
    assert "L = 1, as stated by who ran this" in table
    for record in records.values():
        assert record.polled is None
        assert record.passes["certification"] == [1, 0]
    spent = 1 + 10 + 1 + len(EPS) * (8 + 1 + 1)  # clean, steepest and its judging, flips and its two judgings
    assert summary.ledger["crosscheck"] == {"forward": 2 * spent, "backward": 2 * (10 + len(EPS) * 8)}


def test_a_constant_stated_half_as_large_is_refuted_by_attacks_on_the_promise_and_by_the_steepest_change(
    tmp_path: Path,
) -> None:
    summary, _, table = ran(tmp_path, rotation(2.0), 1.0)
    by = {(each.attack, each.at): each for each in summary.attacked}
    assert by["steepest", "‖δ‖ = 0.05"].contradicted == 2
    assert by["steepest", "‖δ‖ = 0.05"].used == pytest.approx(2, abs=1e-3)
    assert any(each.left < each.promised for each in summary.attacked)
    assert "REFUTED, the certificates do not hold, by " in table


def test_what_has_no_constant_of_its_logits_is_refused() -> None:
    way = Lipschitz(1.0)
    with pytest.raises(InputError, match="outputs=probabilities"):
        way.check(wrap(nn.Softmax(1), num_classes=3, normalisation="none", outputs="probabilities"))
    way.check(rotation())
    with pytest.raises(InputError, match=r"computes in torch.bfloat16"):
        way.check(wrap(nn.Conv2d(3, 3, 1).bfloat16(), num_classes=3, normalisation="none"))
    with pytest.raises(InputError, match="eps"):
        Lipschitz(1.0, eps=(0.5, 0.1))
    with pytest.raises(InputError, match="lipschitz is 0"):
        Lipschitz(0.0)


class Broken(nn.Module):
    """The colours, and no numbers where the first pixel is changed."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.where(x[:, :1, :1, :1] == Images()[0].image[0, 0, 0], 0.0, math.nan)


def test_logits_that_are_not_finite_near_an_image_refute_its_certificate(tmp_path: Path) -> None:
    model = wrap(Broken(), num_classes=3, normalisation="none")
    image = Images()[0].image[None]
    clean = model.logits(image)
    batch = Batch(("a",), image, Images()[0].label[None], clean.argmax(1), 255)
    kind = Kind(clean.argmax(1)[0], torch.zeros(image.shape[-2:]), None, "certain", NOTHING)
    record = Record("a", clean.argmax(1)[0], NOTHING, {"lipschitz": kind})
    found = Held(1.0, record, batch, clean).found("flips", "ε = 1", image + 0.01, model, Ledger(1), 0)
    assert found.contradicted
    assert found.used == math.inf


class YesNo(nn.Module):
    """One channel: red less one half."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] - 0.5


def test_of_one_yes_no_channel_the_radius_is_the_distance_of_its_logit_from_zero(tmp_path: Path) -> None:
    model = wrap(YesNo(), normalisation="none", outputs="binary_logit")

    class Two(Images):
        classes = Classes(("no", "yes"), ((0, 0, 0), (255, 255, 255)))

        def __getitem__(self, index: int) -> Sample:
            image = super().__getitem__(index).image
            return Sample(self.ids[index], image, (image[0] > 0.5).long())

    experiment = Certification(ModelChoice("net"), DataChoice("colours"), Lipschitz(1.0))
    with Store(":memory:") as store:
        execute(Run(experiment, model, Two(), 1), store, InProcess(model, Two(), None))
        radius = unpack(store.record(experiment.key, "a")).kinds["lipschitz"].radius
    attacked = replace(experiment, crosscheck=Attacks(("pgd",), 2))
    with Store(":memory:") as store:
        run = Run(attacked, model, Two(), 1)
        execute(run, store, InProcess(model, Two(), None))
        summary = report_certificates(run, store, {}).summary
    by = {row.eps: row.pixacc for row in summary.whole.rows}
    assert [each.promised for each in summary.attacked[1:]] == [by[float(each.at[4:])] for each in summary.attacked[1:]]
    assert torch.allclose(radius, (Two()[0].image[0] - 0.5).abs(), atol=2e-5)
    assert bool((radius <= (Two()[0].image[0] - 0.5).abs()).all())
