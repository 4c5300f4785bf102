"""TranSegPGD against a few plain lines of its two stages."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import segradius as sr
from segradius.objectives.transegpgd import TranSegPGD
from segradius.objectives.view import LogitView
from tiny import CLASSES, VOID, batch, network

EPS, STEPS = 0.08, 10


def by_hand(gamma: float, beta: float, first: float) -> tuple[Tensor, list[list[bool]]]:
    """One image after another; the last δ, and which stage each step was in."""
    images, labels = batch()
    logits = sr.wrap(network(), num_classes=CLASSES).logits
    deltas, stages = [], []
    for x, y in zip(images.split(1), labels.split(1), strict=True):
        clean, adversarial = logits(x).softmax(1), x.clone()
        counted, second = y != VOID, []
        for t in range(STEPS):
            point = adversarial.clone().requires_grad_()
            z = logits(point)
            loss, right = F.cross_entropy(z, y, ignore_index=VOID, reduction="none"), (z.argmax(1) == y) & counted
            second.append(t >= first * STEPS or not right.any())
            p = z.softmax(1).detach()
            divergence = (p * (p / clean).log()).sum(1)
            high = divergence > divergence[counted].mean()
            share, there = (beta, high) if second[-1] else (gamma, right)
            weights = (1 - share) * there + share * ~there
            (gradient,) = torch.autograd.grad((weights * loss * counted).sum(), point)
            adversarial = x + (adversarial + EPS / STEPS * gradient.sign() - x).clamp(-EPS, EPS)
            adversarial = adversarial.clamp(0, 1)
        deltas.append(adversarial - x)
        stages.append(second)
    return torch.cat(deltas), stages


@pytest.mark.parametrize(("gamma", "beta", "first"), [(0.1, 0.1, 0.5), (0.3, 0.2, 0.0), (0.2, 0.4, 1.0)])
def test_it_is_the_two_stages(gamma: float, beta: float, first: float) -> None:
    images, labels = batch()
    expected, stages = by_hand(gamma, beta, first)
    assert any(any(steps) for steps in stages) == (first < 1)
    attack = sr.attacks.transegpgd(norm="linf", eps=EPS, steps=STEPS, keep="last", gamma=gamma, beta=beta, first=first)
    found = attack(sr.wrap(network(), num_classes=CLASSES), images, labels)
    assert torch.allclose(found.delta, expected, atol=1e-9)


def test_each_image_is_in_the_second_stage_while_it_has_no_right_pixel_whatever_the_others_have() -> None:
    logits = torch.randn(2, CLASSES, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = logits.argmax(1)
    labels[0] = (labels[0] + 1) % CLASSES  # nothing is left to fool
    goal, weighting = sr.objectives.Goal.leave(labels), TranSegPGD(gamma=0.2, beta=0.4, first=1.0)
    first = _view(logits, goal, 0)
    weights, state = weighting.weigh(first, None)
    assert torch.equal(weights, torch.tensor([0.4, 0.8], dtype=torch.float64).view(2, 1, 1).expand(2, 4, 5))
    moved = logits.clone()
    moved[:, :, 0] *= 0.5  # the same winners, less surely
    weights, _ = weighting.weigh(_view(moved, goal, 1), state)
    assert torch.allclose(weights[0, 1:], torch.tensor(0.4, dtype=torch.float64))
    assert set(weights[0, 0].tolist()) <= {0.4, 0.6}
    assert 0.6 in weights[0, 0].tolist()
    assert (weights[1] == 0.8).all()


def _view(logits: Tensor, goal: sr.objectives.Goal, step: int) -> LogitView:
    return LogitView(logits, logits.argmax(1), goal, logits, step, 4, None, None, None)  # type: ignore[arg-type]
