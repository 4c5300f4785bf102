"""ASMA against a few plain lines of its algorithm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import segradius as sr
from segradius.attacks.asma import mean_iou
from segradius.objectives.goal import Goal
from tiny import CLASSES, VOID, batch, network

TAU, BETA, STEPS = 2e-3, 5e-3, 12


def overlap(prediction: Tensor, aim: Tensor) -> float:
    """Mean IoU over the classes of the aim."""
    known = [c for c in range(CLASSES) if (aim == c).any()]
    found = [((prediction == c) & (aim == c)).sum() / ((prediction == c) | (aim == c)).sum() for c in known]
    return float(sum(found) / len(found))


def by_hand(images: Tensor, aim: Tensor, eps: float) -> Tensor:
    """One image after another: raise the aim's logits where it is not reached, less ‖δ‖², by (β·IoU + τ)·∇."""
    logits = sr.wrap(network(), num_classes=CLASSES).logits
    found = []
    for x, y in zip(images.split(1), aim.split(1), strict=True):
        adversarial, factor = x.clone(), TAU
        for _ in range(STEPS):
            point = adversarial.clone().requires_grad_()
            z = logits(point)
            wanted = z.gather(1, y.unsqueeze(1)).squeeze(1)
            loss = (wanted * (z.argmax(1) != y)).sum() - (point - x).square().sum()
            adversarial = point.detach() + factor * torch.autograd.grad(loss, point)[0]
            adversarial = x + (adversarial - x) * min(1.0, eps / (adversarial - x).norm().item())
            adversarial = adversarial.clamp(0, 1)
            factor = BETA * overlap(logits(adversarial).argmax(1), y) + TAU
        found.append(adversarial - x)
    return torch.cat(found)


@pytest.mark.parametrize("eps", [math.inf, 0.6])
def test_it_is_the_published_algorithm_also_inside_a_ball(eps: float) -> None:
    images, labels = batch()
    aim = (torch.where(labels == VOID, 0, labels) + 1) % CLASSES
    everywhere = torch.zeros_like(labels)  # no pixel is void
    attack = sr.attacks.asma(norm="l2", eps=eps, projection="radial", tau=TAU, beta=BETA, steps=STEPS, keep="last")
    model = sr.wrap(network(), num_classes=CLASSES)
    found = attack(model, images, everywhere, target=aim)
    assert torch.allclose(found.delta, by_hand(images, aim, eps), atol=1e-9)
    clean = model.logits(images).argmax(1)
    assert (found.prediction == aim).sum() > (clean == aim).sum()


def test_published_settings_are_the_defaults() -> None:
    attack = sr.attacks.asma()
    assert attack.total_steps == 2501
    assert attack.method.step == sr.attacks.Adaptive(tau=1e-7, beta=1e-6)


def test_the_overlap_leaves_out_void_and_the_classes_that_are_not_aimed_at() -> None:
    prediction, aim = torch.randint(CLASSES, (2, 5, 9, 7), generator=torch.Generator().manual_seed(0))
    aim[aim == 2] = 1
    labels = torch.zeros_like(aim)
    labels[:, :3] = VOID
    found = mean_iou(prediction, Goal.reach(aim, labels), CLASSES)
    expected = [overlap(p[3:], a[3:]) for p, a in zip(prediction, aim, strict=True)]
    assert found.tolist() == pytest.approx(expected)
    assert mean_iou(prediction, Goal.leave(torch.full_like(aim, VOID)), CLASSES).tolist() == [0.0] * 5
