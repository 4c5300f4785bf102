"""Steps with a fixed size: projected steepest ascent, its momentum form, and DAG's dense normalised gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.loop import Observation, Room
from segradius.errors import InputError
from segradius.threats import sparse_steepest


@dataclass(frozen=True)
class StepSize:
    """A step length: absolute, or as a multiple of ε/T.

    Args:
        alpha: Absolute length in the norm of the threat, or None.
        per_eps: Length in units of ε/T where ``alpha`` is None: the paper's α = 2.5ε/T is 2.5.
    """

    alpha: float | None = None
    per_eps: float = 1.0

    def __post_init__(self) -> None:
        if self.alpha is not None and not self.alpha > 0:
            raise InputError(f"alpha must be positive, got {self.alpha}")

    def of(self, room: Room) -> Tensor:
        """Length for each image, (N, 1, 1, 1)."""
        if self.alpha is not None:
            return torch.full_like(room.eps, self.alpha).view(-1, 1, 1, 1)
        return (room.eps * (self.per_eps / room.steps)).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Steepest:
    """Projected steepest ascent, δ ← Proj(δ + α·d) with d the unit step that raises the loss most (Eq. 11, 22–24).

    Args:
        size: α.
        sparse: For l1: share of the values that a step moves, by equal amounts; None moves along g/‖g‖₁ as Eq. 22.
    """

    size: StepSize
    sparse: float | None = None

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        if self.sparse is None:
            direction = room.threat.norm.steepest(seen.gradient)
        else:
            direction = sparse_steepest(seen.gradient, self.sparse)
        return room.project(torch.addcmul(seen.delta, direction, self.size.of(room))), None


@dataclass(frozen=True)
class Momentum:
    """MI-FGSM (Dong et al. 2018): steepest ascent along m ← μ·m + g/‖g‖₁.

    Args:
        size: α.
        decay: μ ≥ 0.
    """

    size: StepSize
    decay: float = 1.0

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Accumulate, step and project."""
        length = seen.gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(seen.gradient.dtype).tiny)
        momentum = seen.gradient / length.view(-1, 1, 1, 1)
        momentum = momentum if state is None else momentum + self.decay * state
        direction = room.threat.norm.steepest(momentum)
        return room.project(torch.addcmul(seen.delta, direction, self.size.of(room))), momentum


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent, δ ← Proj(δ + α·g), by the length that the gradient has (Eq. 17 as it stands).

    Args:
        alpha: α > 0.
    """

    alpha: float

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InputError(f"alpha must be positive, got {self.alpha}")

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        return room.project(seen.delta + self.alpha * seen.gradient), None


@dataclass(frozen=True)
class Averaged:
    """Steepest ascent along a running mean of the gradients, which takes the noise out of estimated ones.

    Args:
        size: α.
        decay: μ in [0, 1): m ← μ·m + (1 − μ)·g, the first gradient being the first mean.
        end: α falls linearly to this part of itself over the run, in (0, 1].
        restart: After this part of the run, in (0, 1), the mean is forgotten and α falls a second time from the start;
            None for one fall.
    """

    size: StepSize
    decay: float = 0.8
    end: float = 1.0
    restart: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"momentum must be in [0, 1), got {self.decay}")
        if not 0 < self.end <= 1:
            raise InputError(f"alpha_end must be in (0, 1], got {self.end}")
        if self.restart is not None and not 0 < self.restart < 1:
            raise InputError(f"restart must be in (0, 1), got {self.restart}")

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Average, step and project."""
        begun, length = self._leg(seen.step, max(room.steps, 1))
        fresh = state is None or seen.step == begun
        mean = seen.gradient if fresh else seen.gradient.lerp(state, self.decay)
        direction = room.threat.norm.steepest(mean)
        size = self.size.of(room) * (1 - (1 - self.end) * min((seen.step - begun) / length, 1.0))
        return room.project(torch.addcmul(seen.delta, direction, size)), mean

    def _leg(self, step: int, steps: int) -> tuple[int, int]:
        """The first step of the fall of α that a step belongs to, and its number of steps."""
        if self.restart is None:
            return 0, steps
        again = max(1, round(self.restart * steps))
        return (0, again) if step < again else (again, max(steps - again, 1))


@dataclass(frozen=True)
class Dense:
    """DAG's step (Xie et al. 2017): γ·g/‖g‖_p with p the norm of the threat, so dense even for l∞.

    Args:
        size: γ.
    """

    size: StepSize

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        length = room.threat.norm.length(seen.gradient).clamp_min(torch.finfo(seen.gradient.dtype).tiny)
        scale = self.size.of(room) / length.view(-1, 1, 1, 1)
        return room.project(torch.addcmul(seen.delta, seen.gradient, scale)), None
