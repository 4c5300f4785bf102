"""The averaged step against a few plain lines: running mean, falling length, restart."""

from __future__ import annotations

import pytest
import torch

from segradius.attacks.bandit import Averaged
from segradius.attacks.base import Task
from segradius.attacks.loop import Observation, Room, StepSize
from segradius.core.errors import InputError
from segradius.objectives.goal import Goal
from segradius.threats.threat import make_threat
from tiny import linear

STEPS, ALPHA, DECAY, END = 10, 0.1, 0.8, 0.1


def walked(step: Averaged, gradients: torch.Tensor) -> tuple[list[float], list[torch.Tensor]]:
    """Length of every step of a run in a ball it never leaves, and the running mean behind it."""
    images = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64)
    threat = make_threat("l2", 100.0)
    task = Task(linear(torch.zeros(1)), images, Goal.leave(torch.zeros(1, 2, 2, dtype=torch.long)), None)  # type: ignore[arg-type]
    room = Room(threat, task, threat.budgets(1, images), STEPS)
    state, lengths, means = None, [], []
    for t in range(STEPS):
        before = torch.zeros_like(images)
        moved, state = step.advance(Observation(before, gradients[t], torch.zeros(1), t), room, state)
        lengths.append((moved - before).norm().item())
        means.append(state)
    return lengths, means


@pytest.mark.parametrize("restart", [None, 0.3, 0.7])
def test_the_mean_and_the_length_begin_anew_at_a_restart(restart: float | None) -> None:
    gradients = torch.randn(STEPS, 1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    again = STEPS if restart is None else round(restart * STEPS)
    lengths, means = walked(Averaged(StepSize(ALPHA), DECAY, END, restart), gradients)
    for first, last in ((0, again), (again, STEPS)):
        mean = None
        for t in range(first, last):
            mean = gradients[t] if mean is None else DECAY * mean + (1 - DECAY) * gradients[t]
            assert torch.allclose(means[t], mean)
            assert lengths[t] == pytest.approx(ALPHA * (1 - (1 - END) * (t - first) / (last - first)))


@pytest.mark.parametrize("restart", [0.0, 1.0, -0.5])
def test_a_restart_is_inside_the_run(restart: float) -> None:
    with pytest.raises(InputError, match=f"restart is {restart}; expected a number in"):
        Averaged(StepSize(ALPHA), restart=restart)
