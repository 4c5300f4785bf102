"""Momentum ahead, diverse inputs and smoothed gradients against a few plain lines of what their papers and code do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import segradius as sr
from segradius.attacks.input_diversity import Diverse, Place
from segradius.attacks.translation import smoothed
from tiny import CLASSES, VOID, batch, network

EPS, STEPS, SEED = 0.06, 6, 3
Logits = Callable[[Tensor], Tensor]
Around = Callable[[Logits, Tensor, int], Tensor]


def by_hand(
    around: Around = lambda logits, images, t: logits(images),
    smooth: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    nesterov: bool = False,
) -> Tensor:
    """I-FGSM with momentum, as public code for l∞ has it: m ← m + g / mean|g|, ahead by αm, α = ε/T; the last δ."""
    images, labels = batch()
    logits = sr.wrap(network(), num_classes=CLASSES).logits
    alpha, momentum, adversarial = EPS / STEPS, torch.zeros_like(images), images.clone()
    for t in range(STEPS):
        point = (adversarial + nesterov * alpha * momentum).clamp(0, 1).requires_grad_()
        loss = F.cross_entropy(around(logits, point, t), labels, ignore_index=VOID, reduction="sum")
        gradient = smooth(torch.autograd.grad(loss, point)[0])
        momentum = momentum + gradient / gradient.abs().mean((1, 2, 3), keepdim=True)
        adversarial = (adversarial + alpha * momentum.sign()).detach()
        adversarial = (images + (adversarial - images).clamp(-EPS, EPS)).clamp(0, 1)
    return adversarial - images


def found(name: str, **options: object) -> sr.attacks.Result:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    attack = sr.make_attack(name, norm="linf", eps=EPS, steps=STEPS, keep="last", **options)  # type: ignore[arg-type]
    return attack(model, images, labels, seed=SEED)


def test_nesterov_takes_its_gradients_ahead_by_the_momentum() -> None:
    assert torch.allclose(found("ni_fgsm").delta, by_hand(nesterov=True), atol=1e-9)
    assert not torch.allclose(found("ni_fgsm").delta, found("mi_fgsm").delta, atol=1e-3)


def gaussian(maps: Tensor, side: int) -> Tensor:
    """The public kernel: densities of a normal distribution at ``side`` places from −3 to 3, their outer product."""
    line = torch.exp(-0.5 * torch.linspace(-3, 3, side, dtype=maps.dtype) ** 2) / math.sqrt(2 * math.pi)
    kernel = torch.outer(line, line) / torch.outer(line, line).sum()
    return F.conv2d(maps, kernel.expand(maps.shape[1], 1, side, side), padding=side // 2, groups=maps.shape[1])


@pytest.mark.parametrize("side", [3, 5, 15])
def test_a_smoothed_gradient_is_the_public_convolution(side: int) -> None:
    maps = torch.randn(2, 4, 20, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(smoothed(maps, side), gaussian(maps, side), atol=1e-12)
    assert smoothed(maps, 1) is maps


def test_translation_invariance_steps_along_the_smoothed_gradient() -> None:
    expected = by_hand(smooth=lambda gradient: gaussian(gradient, 5))
    assert torch.allclose(found("ti_fgsm", kernel=5).delta, expected, atol=1e-9)


def shown(logits: Logits, images: Tensor, t: int, look: Diverse) -> Tensor:
    """Each image shrunk onto black, and its logits cut out and brought back."""
    places = look.places(sr.Randomness(SEED, tuple("0123")), t, 8, 8)
    parts = []
    for image, at in zip(images.split(1), places, strict=True):
        if at is None:
            parts.append(logits(image))
            continue
        small = F.interpolate(image, size=(at.height, at.width), mode="bilinear")
        ground = torch.zeros_like(image)
        ground[..., at.top : at.top + at.height, at.left : at.left + at.width] = small
        cut = logits(ground)[..., at.top : at.top + at.height, at.left : at.left + at.width]
        parts.append(F.interpolate(cut, size=(8, 8), mode="bilinear"))
    return torch.cat(parts)


def test_diverse_inputs_are_shrunk_onto_black_and_their_logits_brought_back() -> None:
    look = Diverse(0.5, 0.7)
    expected = by_hand(lambda logits, images, t: shown(logits, images, t, look))
    assert torch.allclose(found("di_fgsm", shrink=0.5, chance=0.7).delta, expected, atol=1e-9)


def test_the_three_together_are_the_usual_composition() -> None:
    look = Diverse(0.9, 0.5)
    around = lambda logits, images, t: shown(logits, images, t, look)  # noqa: E731
    expected = by_hand(around, lambda gradient: gaussian(gradient, 3), nesterov=True)
    assert torch.allclose(found("mi_di_ti_fgsm", kernel=3, nesterov=True).delta, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "nothing", "plain"),
    [
        ("di_fgsm", {"chance": 0.0}, "mi_fgsm"),
        ("ti_fgsm", {"kernel": 1}, "mi_fgsm"),
        ("mi_di_ti_fgsm", {"chance": 0.0, "kernel": 1}, "mi_fgsm"),
        ("mi_di_ti_fgsm", {"chance": 0.0, "kernel": 1, "nesterov": True}, "ni_fgsm"),
    ],
)
def test_without_its_part_each_is_momentum_alone(name: str, nothing: dict[str, object], plain: str) -> None:
    assert torch.equal(found(name, **nothing).delta, found(plain).delta)


def test_a_label_stays_with_its_pixel() -> None:
    """What comes back of a network that answers with the colours is the image, and nothing of the black ground."""
    ramp = torch.linspace(0.2, 0.8, 40).expand(3, 30, 40).contiguous()
    for at in Diverse(0.8, 1.0).places(sr.Randomness(0, tuple("abcdefgh")), 0, 30, 40):
        assert isinstance(at, Place)
        assert 0 <= at.top <= 30 - at.height
        assert 0 <= at.left <= 40 - at.width
        assert 24 <= at.height <= 30
        assert 32 <= at.width <= 40
        back = at.taken(at.put(ramp))
        assert (back - ramp).abs().max() < 0.6 / 40  # less than a pixel beside its place


def test_places_are_drawn_with_the_chance_that_was_asked_for_and_for_each_image_by_itself() -> None:
    look, ids = Diverse(chance=0.5), tuple(map(str, range(2000)))
    places = look.places(sr.Randomness(0, ids), 4, 96, 128)
    assert sum(at is None for at in places) == pytest.approx(1000, abs=5 * math.sqrt(500))
    assert look.places(sr.Randomness(0, ids[7:8]), 4, 96, 128) == places[7:8]
    assert look.places(sr.Randomness(0, ids), 5, 96, 128) != places


@pytest.mark.parametrize("name", ["ni_fgsm", "di_fgsm", "mi_di_ti_fgsm"])
def test_what_is_seen_elsewhere_is_judged_where_the_iterate_is(name: str) -> None:
    """Keeping the best costs a pass a step; the last iterate alone costs none, and training asks for none."""
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    last = found(name)
    assert last.ledger.forward.tolist() == [STEPS + 1] * 4
    best = sr.make_attack(name, norm="linf", eps=EPS, steps=STEPS)(model, images, labels, seed=SEED)
    assert best.ledger.forward.tolist() == [2 * STEPS + (name != "ni_fgsm")] * 4  # at first there is no ahead
    assert (best.fooled >= last.fooled).all()
    assert torch.equal(best.prediction, model.logits(best.adversarial).argmax(1))


def test_parts_go_with_any_step_and_loss() -> None:
    images, labels = batch()
    step = sr.attacks.Smoothed(sr.attacks.Steepest(sr.StepSize(per_eps=2.5)), 3)
    mine = sr.Iterative(
        sr.Objective(sr.objectives.JensenShannon()), sr.make_threat("l2", 0.5), step, steps=4, look=sr.attacks.Diverse()
    )
    found = sr.Attack("mine", mine)(sr.wrap(network(), num_classes=CLASSES), images, labels)
    assert (found.delta.flatten(1).norm(dim=1) <= 0.5 + 1e-9).all()
    assert found.fooled.sum() > ((labels != VOID) & (sr.wrap(network()).logits(images).argmax(1) != labels)).sum()
