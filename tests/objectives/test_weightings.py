"""Weightings against their closed forms; the two facts about σ in the certified-radius weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import segradius as sr
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.metrics.counts import count
from segradius.objectives.goal import Goal
from segradius.objectives.view import LogitView
from segradius.objectives.weightings import (
    CertifiedRadius,
    ClassBalanced,
    CosPGD,
    Product,
    SegPGD,
    StillCorrect,
    Uniform,
    balanced_weights,
    parse_weighting,
    times,
)
from segradius.radius.smoothing import smoothed_probabilities
from tiny import CLASSES, VOID, batch, network


def view(step: int = 0, steps: int = 10, *, targeted: bool = False) -> LogitView:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    logits = model.logits(images).detach()
    goal = Goal.reach(labels, labels) if targeted else Goal.leave(labels)
    keys = Randomness(0, tuple("abcd"))
    return LogitView(logits, logits.argmax(1), goal, images, step, steps, model, keys, Ledger(4))


@pytest.mark.parametrize("step", [0, 3, 9])
@pytest.mark.parametrize("targeted", [False, True])
def test_segpgd_is_one_minus_lambda_on_pixels_to_fool_and_lambda_on_fooled_ones(step: int, targeted: bool) -> None:
    seen = view(step, 10, targeted=targeted)
    weights, _ = SegPGD().weigh(seen, None)
    fooled = seen.goal.fooled(seen.prediction)
    share = step / 20
    assert torch.allclose(weights[fooled], torch.tensor(share).double())
    assert torch.allclose(weights[seen.goal.pending(seen.prediction)], torch.tensor(1 - share).double())


@pytest.mark.parametrize("targeted", [False, True])
def test_cospgd_is_the_cosine_of_softmax_and_one_hot(targeted: bool) -> None:
    seen = view(targeted=targeted)
    onehot = torch.nn.functional.one_hot(seen.goal.reference, CLASSES).movedim(-1, 1).double()
    cosine = torch.cosine_similarity(seen.logits.softmax(1), onehot, dim=1)
    assert torch.allclose(CosPGD().weigh(seen, None)[0], 1 - cosine if targeted else cosine)


def test_still_correct_masks_what_is_fooled_or_void() -> None:
    seen = view()
    weights, _ = StillCorrect().weigh(seen, None)
    labels = batch()[1]
    assert torch.equal(weights.bool(), (seen.prediction == labels) & (labels != VOID))


def test_a_fooled_pixel_may_keep_a_part_of_its_weight() -> None:
    seen = view()
    mask, _ = StillCorrect().weigh(seen, None)
    eased, _ = parse_weighting("still_correct(fooled=0.3)").weigh(seen, None)
    torch.testing.assert_close(eased - mask, 0.3 * seen.fooled().to(eased))


def test_certified_radius_is_equation_ten_of_the_smoothed_top_probability() -> None:
    seen = view()
    found, _ = CertifiedRadius(sigma=0.2, samples=4, precision="float32").weigh(seen, None)
    p = smoothed_probabilities(seen.model, seen.images, seen.randomness, sigma=0.2, samples=4).amax(1)
    z = torch.special.ndtri(p).clamp(0, torch.special.ndtri(torch.tensor(0.999998, dtype=torch.float64)))
    assert torch.allclose(found, 1 / (1 + torch.exp(2 * z - 4)))


def test_with_sigma_inside_the_radius_every_weight_is_the_same() -> None:
    p = torch.linspace(0, 1, 1001, dtype=torch.float64)
    weights = CertifiedRadius(radius_unit="pixel").of_probability(p)
    assert weights.min() > 0.9818
    assert weights.max() < 0.9821
    normalised = CertifiedRadius().of_probability(p)
    assert normalised.max() > 0.98
    assert normalised.min() < 0.006


def test_radius_is_refreshed_every_interval_and_paid_for() -> None:
    weighting, state, book = CertifiedRadius(samples=4, every=3), None, Ledger(4)
    changed = []
    for step in range(7):
        seen = view(step)
        seen = LogitView(**{**vars(seen), "ledger": book})
        before = state
        _, state = weighting.weigh(seen, state)
        changed.append(state is not before)
    assert changed == [True, False, False, True, False, False, True]
    assert book.forward.tolist() == [12] * 4


def test_interval_is_the_number_of_samples_by_default_and_one_without_samples() -> None:
    assert CertifiedRadius(samples=8).interval == 8
    assert CertifiedRadius(samples=0).interval == 1


def test_without_samples_the_radius_is_of_the_forward_pass_and_free() -> None:
    seen = view()
    weighting = CertifiedRadius(samples=0)
    found, _ = weighting.weigh(seen, None)
    assert torch.allclose(found, weighting.of_probability(seen.logits.softmax(1).amax(1)))
    assert not seen.ledger.passes


def test_balance_of_a_data_set_gives_every_present_class_the_same_total() -> None:
    seen, labels = view(), batch()[1]
    counts = count(labels.masked_fill(labels == VOID, 0), labels, CLASSES, VOID).labelled.sum(0)
    weights, _ = ClassBalanced(balanced_weights(counts)).weigh(seen, None)
    totals = [weights[(labels == c)].sum().item() for c in range(CLASSES)]
    assert totals == pytest.approx([sum(totals) / CLASSES] * CLASSES)


def test_balance_of_each_image_gives_its_present_classes_the_same_total() -> None:
    seen, labels = view(), batch()[1]
    weights, _ = ClassBalanced().weigh(seen, None)
    for w, y in zip(weights, labels, strict=True):
        totals = [w[y == c].sum().item() for c in y[y != VOID].unique()]
        assert totals == pytest.approx([(y != VOID).sum().item() / len(totals)] * len(totals))


def test_wrong_number_of_class_weights_is_named() -> None:
    with pytest.raises(InputError, match="2 given, the model has 4"):
        ClassBalanced((1.0, 2.0)).weigh(view(), None)


def test_product_multiplies_and_keeps_each_state() -> None:
    seen = view()
    pair = parse_weighting("cr*still_correct", samples=2)
    assert isinstance(pair, Product)
    weights, state = pair.weigh(seen, None)
    radius, _ = CertifiedRadius(samples=2).weigh(seen, None)
    assert torch.equal(weights, radius * StillCorrect().weigh(seen, None)[0])
    assert torch.equal(state[0], radius)


def test_uniform_is_the_unit_of_products_and_products_are_flat() -> None:
    assert times(Uniform(), SegPGD()) == SegPGD()
    assert times(times(SegPGD(), CosPGD()), StillCorrect()) == Product((SegPGD(), CosPGD(), StillCorrect()))


@pytest.mark.parametrize(
    "options", [{"radius_unit": "cm"}, {"precision": "int8"}, {"sigma": 0}, {"samples": -1}, {"every": 0}]
)
def test_bad_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        CertifiedRadius(**options)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'cospgd'"):
        parse_weighting("cos_pgd")
