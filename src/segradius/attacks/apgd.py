"""Auto-PGD's adaptive steps (Croce and Hein 2020; for l1, 2021): no step size to choose."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Iterative, Observation, Room, Step
from segradius.attacks.make import white_box
from segradius.attacks.settings import Settings
from segradius.core.declared import LossName, Part, Positive, Share, WeightingName, check_fields
from segradius.objectives.losses import CrossEntropy, ExpectedFlips
from segradius.objectives.objective import Objective, objective
from segradius.threats.projections import choose
from segradius.threats.threat import Threat, sparse_steepest


@functools.lru_cache(maxsize=32)
def checkpoints(steps: int) -> tuple[int, ...]:
    """Iterations at which Auto-PGD may halve its step: w_j = ⌈p_j·T⌉, p_1 = .22, gaps shrinking by .03 down to .06.

    Example:
        >>> checkpoints(100)
        (22, 41, 57, 70, 80, 87, 93, 99)
    """
    shares = [0.0, 0.22]
    while shares[-1] <= 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # ⌈·⌉ of p·T computed in floats would turn 57.0000001 into 58.
    return tuple(w for w in (math.ceil(round(p * steps, 6)) for p in shares[1:]) if w <= steps)


@dataclass(frozen=True)
class _State:
    previous: Tensor  # last iterate, (N, B, H, W)
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor  # (N,)
    last_value: Tensor
    rises: Tensor  # steps since the checkpoint that raised the loss, (N,)
    size: Tensor  # η, (N,)
    best_then: Tensor  # best value at the last checkpoint
    halved_then: Tensor  # whether η was halved there


@dataclass(frozen=True)
class Apgd:
    """Auto-PGD for l2 and l∞: momentum, and a step from 2ε that halves when it stops paying, restarting from the best.

    At checkpoint w_j an image's step is halved, and its run continues from the best iterate, if fewer than ``rho`` of
    the steps since w_{j−1} raised the loss, or if at w_{j−1} the step was kept and the best loss has not risen since.

    Args:
        rho: Share of rising steps below which the step is halved.
        inertia: Weight of the new step against the last, 0.75.
    """

    rho: Part = 0.75
    inertia: Part = 0.75

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Look back at the checkpoints, step, mix with the last step, project."""
        now = _watch(seen, room, state)
        marks = (0, *checkpoints(room.steps))
        delta, gradient = seen.delta, seen.gradient
        if seen.step in marks[1:]:
            span = seen.step - marks[marks.index(seen.step) - 1]
            halve = (now.rises < self.rho * span) | (~now.halved_then & (now.best_then >= now.best_value))
            delta, gradient = choose(halve, now.best, delta), choose(halve, now.best_gradient, gradient)
            now = replace(
                now,
                rises=torch.zeros_like(now.rises),
                size=torch.where(halve, now.size / 2, now.size),
                best_then=now.best_value,
                halved_then=halve,
            )
        step = now.size.view(-1, 1, 1, 1) * room.threat.norm.steepest(gradient)
        moved = room.project(delta + step)
        if seen.step > 0:
            moved = room.project(delta + self.inertia * (moved - delta) + (1 - self.inertia) * (delta - now.previous))
        return moved, replace(now, previous=delta)


@dataclass(frozen=True)
class SparseApgd:
    """Auto-PGD for l1: steps of ever fewer values, the step size cut while the sparsity of the best iterate is stable.

    Every ⌊0.04·T⌋ steps the share of values that move becomes the best iterate's share of non-zero values / 1.5. If
    that count fell below 95 % of the last one, η returns to ε and the run continues from the best iterate; otherwise
    η is divided by 1.5, down to ε/10.

    Args:
        share: Share of the values that the first steps move.
    """

    share: Share = 0.2

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Adapt the sparsity, step, project."""
        inner, share, count = state or (None, room.eps.new_full((len(room.eps),), self.share), None)
        now = _watch(seen, room, inner)
        if inner is None:
            now = replace(now, size=room.eps.clone())
        values = seen.delta[0].numel()
        count = room.eps.new_full((len(room.eps),), values) if count is None else count
        delta, gradient = seen.delta, seen.gradient
        every = max(int(0.04 * room.steps), 1)
        if seen.step > 0 and seen.step % every == 0:
            found = (now.best != 0).flatten(1).sum(1).to(count.dtype)
            sparser = found < 0.95 * count
            share, count = (found / (values * 1.5)).clamp(1 / values, 1), found
            delta, gradient = choose(sparser, now.best, delta), choose(sparser, now.best_gradient, gradient)
            now = replace(now, size=torch.where(sparser, room.eps, torch.maximum(now.size / 1.5, room.eps / 10)))
        moved = room.project(delta + now.size.view(-1, 1, 1, 1) * sparse_steepest(gradient, share))
        return moved, (now, share, count)


def _watch(seen: Observation, room: Room, state: _State | None) -> _State:
    """Account for an observation: the best iterate so far and whether the loss rose."""
    if state is None:
        zero, no = torch.zeros_like(seen.value), torch.zeros_like(seen.value, dtype=torch.bool)
        start, value = (seen.delta, seen.delta, seen.gradient), seen.value
        return _State(*start, value, value, zero, 2 * room.eps, value, no)
    better = seen.value > state.best_value
    return replace(
        state,
        best=choose(better, seen.delta, state.best),
        best_gradient=choose(better, seen.gradient, state.best_gradient),
        best_value=choose(better, seen.value, state.best_value),
        last_value=seen.value,
        rises=state.rises + (seen.value > state.last_value),
    )


@white_box("apgd", fixed=("alpha", "sparse"))
def apgd(threat: Threat, settings: Settings, *, loss: LossName = "ce", weighting: WeightingName = "uniform") -> Method:
    """Auto-PGD (Croce and Hein 2020, 2021 for l1), T = 100: no step size."""
    goal = objective(loss, weighting)
    return adaptive(replace(goal, track=CrossEntropy() if goal.loss.annealed else goal.loss), threat, settings, 100)


@white_box("flip_apgd", fixed=("alpha", "sparse"))
def flip_apgd(threat: Threat, settings: Settings, *, tau: Positive = 4.0, tau_end: Positive = 0.5) -> Method:
    """Auto-PGD on expected flips (ours), T = 100: the adaptive step tracks cross-entropy, as τ moves.

    Args:
        tau: τ at the start.
        tau_end: τ at the end.
    """
    return adaptive(Objective(ExpectedFlips(tau, tau_end), track=CrossEntropy()), threat, settings, 100)


def adaptive(goal: Objective, threat: Threat, settings: Settings, steps: int) -> Iterative:
    """Auto-PGD on any objective, with the steps of the threat's norm; ``steps`` is the attack's own default T."""
    threat.check_bounded("the first step of Auto-PGD")
    step: Step = SparseApgd() if threat.norm.name == "l1" else Apgd()
    return settings.iterate(goal, threat, step, steps=steps)
