"""The training loss: PyTorch's cross-entropy, hard examples by a plain loop, and sums that add up over batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.training.loss import LossTerm, Ohem, SegmentationLoss, combine
from segradius.training.recipe import Recipe, flat

VOID = 255


def batch(seed: int = 0, n: int = 3, classes: int = 5, height: int = 6, width: int = 7, void: float = 0.3):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, height, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, classes, (n, height, width), generator=generator)
    labels[torch.rand(n, height, width, generator=generator) < void] = VOID
    return logits, labels


def mined_by_loop(logits, labels, threshold, keep, weights=None):
    """Mean loss of the hard pixels, one pixel at a time in NumPy."""
    pixels = []
    for z, y in zip(logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]).numpy(), labels.flatten(), strict=True):
        if y != VOID:
            p = np.exp(z - z.max())
            p = p[y] / p.sum()
            pixels.append((p, -np.log(p) * (1.0 if weights is None else weights[y])))
    if not pixels:
        return 0.0
    limit = max(sorted(p for p, _ in pixels)[min(keep, len(pixels) - 1)], threshold)
    hard = [loss for p, loss in pixels if p < limit]
    return float(np.mean(hard)) if hard else 0.0


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0, 0.0, 0.7)])
def test_equals_torchs_cross_entropy(weights):
    for seed in range(5):
        logits, labels = batch(seed)
        table = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        expected = functional.cross_entropy(logits, labels, weight=table, ignore_index=VOID)
        assert SegmentationLoss(class_weights=weights)(logits, labels) == pytest.approx(expected.item(), rel=1e-12)


def test_auxiliary_heads_are_added_with_their_weight():
    logits, labels = batch()
    first, second = batch(1)[0], batch(2)[0]
    loss = SegmentationLoss(aux_weight=0.4)

    def ce(z):
        return functional.cross_entropy(z, labels, ignore_index=VOID).item()

    assert loss({"out": logits, "aux": first}, labels).item() == pytest.approx(ce(logits) + 0.4 * ce(first))
    both = {"aux2": second, "logits": logits, "aux1": first}
    assert loss(both, labels).item() == pytest.approx(ce(logits) + 0.4 * (ce(first) + ce(second)))
    assert torch.equal(loss((logits, first, second), labels), loss(both, labels))
    assert [term.coefficient for term in loss.terms(both, labels)] == [1.0, 0.4, 0.4]
    assert loss({"out": logits}, labels).item() == pytest.approx(ce(logits))
    without = SegmentationLoss(aux_weight=0.0)
    assert without({"out": logits, "aux": first}, labels).item() == pytest.approx(ce(logits))
    assert len(without.terms({"out": logits, "aux": first}, labels)) == 1


@given(
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
    keep=st.integers(1, 150),
    void=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    weights=st.none() | st.just((0.2, 1.0, 3.0, 0.5, 0.7)),
)
@settings(max_examples=80, deadline=None)
def test_hard_examples_are_those_of_a_plain_loop(seed, threshold, keep, void, weights):
    logits, labels = batch(seed, void=void)
    loss = SegmentationLoss(ohem=Ohem(threshold, keep), class_weights=weights)
    expected = mined_by_loop(logits, labels, threshold, keep, weights)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_hard_examples_are_mined_from_the_main_head_only():
    logits, labels = batch()
    aux = batch(1)[0]
    terms = SegmentationLoss(ohem=Ohem(0.3, 4)).terms({"out": logits, "aux": aux}, labels)
    assert terms[1].weight == (labels != VOID).sum()
    assert 4 <= terms[0].weight < terms[1].weight
    assert (terms[1].total / terms[1].weight).item() == pytest.approx(
        functional.cross_entropy(aux, labels, ignore_index=VOID).item()
    )


def test_easy_pixels_get_no_gradient():
    logits, labels = batch(void=0.0)
    logits.requires_grad_()
    SegmentationLoss(ohem=Ohem(0.2, 1))(logits, labels).backward()
    p = logits.detach().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    moved = logits.grad.abs().sum(1) > 0
    assert torch.equal(moved, p < 0.2)


@pytest.mark.parametrize(
    "loss", [SegmentationLoss(), SegmentationLoss(class_weights=(1.0,) * 5), SegmentationLoss(ohem=Ohem())]
)
def test_a_batch_without_labels_has_loss_zero_and_gradient_zero(loss):
    logits = batch()[0].requires_grad_()
    value = loss({"out": logits, "aux": logits}, torch.full((3, 6, 7), VOID))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0, 0.5, 0.7)])
def test_losses_of_two_parts_over_the_global_weight_add_up_to_the_whole(weights):
    logits, labels = batch(n=4)
    labels[0] = VOID  # the parts have unequal weight
    aux = batch(1, n=4)[0]
    logits.requires_grad_()
    loss = SegmentationLoss(class_weights=weights)
    whole = loss({"out": logits, "aux": aux}, labels)
    (expected,) = torch.autograd.grad(whole, logits)
    parts = [loss.terms({"out": logits[s], "aux": aux[s]}, labels[s]) for s in (slice(0, 1), slice(1, 4))]
    total = [sum(term.weight for term in head) for head in zip(*parts, strict=True)]
    together = sum(combine(terms, total) for terms in parts)
    (gradient,) = torch.autograd.grad(together, logits)
    assert together.item() == pytest.approx(whole.item(), rel=1e-12)
    assert torch.allclose(gradient, expected, rtol=1e-10, atol=1e-15)


def test_gradient_is_that_of_torch_and_the_divisor_has_none():
    logits, labels = batch()
    logits.requires_grad_()
    loss = SegmentationLoss()
    (got,) = torch.autograd.grad(loss(logits, labels), logits)
    (expected,) = torch.autograd.grad(functional.cross_entropy(logits, labels, ignore_index=VOID), logits)
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-15)
    assert not loss.terms(logits, labels)[0].weight.requires_grad


def test_logits_of_another_size_are_resized_to_the_labels():
    logits, labels = batch(height=3, width=4)[0], batch(height=9, width=8)[1]
    resized = functional.interpolate(logits, size=(9, 8), mode="bilinear", align_corners=False)
    expected = functional.cross_entropy(resized, labels, ignore_index=VOID)
    assert SegmentationLoss()(logits, labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_float32_whatever_the_precision_of_the_network():
    logits, labels = batch()
    low = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = SegmentationLoss(ohem=Ohem(0.5, 3))({"out": low, "aux": low[..., ::2, ::2]}, labels)
    expected = SegmentationLoss(ohem=Ohem(0.5, 3))({"out": low.float(), "aux": low[..., ::2, ::2].float()}, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


def test_other_void_labels():
    logits, labels = batch()
    assert torch.equal(
        SegmentationLoss(ignore_index=-1)(logits, labels.masked_fill(labels == VOID, -1)),
        SegmentationLoss()(logits, labels),
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ohem(threshold=1.5), "threshold is 1.5"),
        (lambda: Ohem(keep=0), "keep is 0; expected a whole number in"),
        (lambda: SegmentationLoss(aux_weight=-0.4), "aux_weight is -0.4"),
        (lambda: SegmentationLoss(class_weights=(1.0, math.nan)), "class_weights is "),
        (lambda: SegmentationLoss(class_weights=(1.0, 2.0))(*batch()), "2 class weights for 5 classes"),
        (lambda: SegmentationLoss()(batch()[0], batch()[1][:2]), r"expected \(N, C, h, w\) and \(N, H, W\)"),
        (lambda: SegmentationLoss()({"aux": batch()[0]}, batch()[1]), "expected a tensor"),
        (lambda: combine([LossTerm(1.0, torch.zeros(()), torch.zeros(()))], []), "0 weights for 1 loss terms"),
        (lambda: combine([]), "at least one"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("tau", [0.5, 20.0])
def test_temperature_is_of_the_logits_and_over_the_loss(tau):
    logits, labels = batch()
    logits.requires_grad_()
    loss = SegmentationLoss(temperature=tau)({"out": logits, "aux": logits}, labels)
    expected = 1.4 * functional.cross_entropy(tau * logits, labels, ignore_index=VOID) / tau
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits)
    counted = labels != VOID
    onehot = functional.one_hot(labels * counted, 5).movedim(-1, 1)
    closed = 1.4 * ((tau * logits).softmax(1) - onehot) * counted[:, None] / counted.sum()
    torch.testing.assert_close(gradient, closed.detach(), rtol=1e-9, atol=1e-12)


def test_temperature_decides_which_pixels_are_hard_and_runs_without_it_have_their_old_identity():
    logits, labels = batch()
    cooled = SegmentationLoss(ohem=Ohem(0.3, 2), temperature=3.0)(logits, labels)
    assert cooled.item() == pytest.approx(mined_by_loop(3 * logits, labels, 0.3, 2) / 3, rel=1e-9)
    assert "loss.temperature" not in flat(Recipe())
    assert flat(Recipe(loss=SegmentationLoss(temperature=2.0)))["loss.temperature"] == "2.0"
    with pytest.raises(InputError, match="temperature"):
        SegmentationLoss(temperature=0.0)
