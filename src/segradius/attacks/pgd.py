"""Projected gradient descent and its kin: steepest steps, with or without momentum, on any objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room, StepSize
from segradius.attacks.make import white_box
from segradius.attacks.settings import Settings
from segradius.core.declared import LossName, Positive, Share, Weight, WeightingName, check_fields
from segradius.core.errors import InputError
from segradius.objectives.losses import CrossEntropy, ExpectedFlips
from segradius.objectives.objective import Objective, objective
from segradius.objectives.weightings import CosPGD, SegPGD
from segradius.threats.threat import Threat, sparse_steepest


def steepest(gradient: Tensor, room: Room, sparse: float | None) -> Tensor:
    """Unit direction of steepest ascent, for l1 over a share of the values where one is given; (N, B, H, W)."""
    if sparse is None:
        return room.threat.norm.steepest(gradient)
    if room.threat.norm.name != "l1":
        raise InputError(f"sparse is {sparse}: steps of few values are for l1, and the norm is {room.threat.norm.name}")
    return sparse_steepest(gradient, sparse)


def gathered(gradient: Tensor, decay: float, before: Tensor | None) -> Tensor:
    """The momentum m ← μ·m + g/‖g‖₁, with μ the ``decay``, (N, B, H, W); g/‖g‖₁ in the first step."""
    length = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    now = gradient / length.view(-1, 1, 1, 1)
    return now if before is None else now + decay * before


@dataclass(frozen=True)
class Steepest:
    """Projected steepest ascent, δ ← Proj(δ + α·d) with d the unit step that raises the loss most (Eq. 11, 22–24).

    Args:
        size: α.
        sparse: For l1: share of the values that a step moves, by equal amounts; None moves along g/‖g‖₁ as Eq. 22.
    """

    compares: ClassVar[bool] = False

    size: StepSize
    sparse: Share | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        direction = steepest(seen.gradient, room, self.sparse)
        return room.project(torch.addcmul(seen.delta, direction, self.size.of(room))), None


@dataclass(frozen=True)
class Momentum:
    """MI-FGSM (Dong et al. 2018): steepest ascent along m ← μ·m + g/‖g‖₁.

    Args:
        size: α.
        decay: μ ≥ 0.
        nesterov: Whether g is taken ahead of the iterate, at δ + αμ·‖d‖₁·m with d the step along m (NI-FGSM, Lin et
            al. 2020). In l∞ that is αμ times m in units of the mean magnitude of g, as public code has it; by the
            letter of the paper, which leaves ‖d‖₁ out, it would be too short to matter.
    """

    compares: ClassVar[bool] = False

    size: StepSize
    decay: Weight = 1.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_fields(self)

    def ahead(self, delta: Tensor, room: Room, state: Any) -> Tensor:
        """Where the gradient is taken, which may lie outside the ball; δ itself in the first step."""
        if not self.nesterov or state is None:
            return delta
        length = room.threat.norm.steepest(state).flatten(1).abs().sum(1).view(-1, 1, 1, 1)
        return torch.addcmul(delta, state, self.decay * self.size.of(room) * length)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Accumulate, step and project."""
        momentum = gathered(seen.gradient, self.decay, state)
        direction = room.threat.norm.steepest(momentum)
        return room.project(torch.addcmul(seen.delta, direction, self.size.of(room))), momentum


@white_box("pgd", reference=True)
def pgd(threat: Threat, settings: Settings, *, loss: LossName = "ce", weighting: WeightingName = "uniform") -> Method:
    """Projected gradient descent (Madry et al. 2018), the paper's base attack (Eq. 21)."""
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(objective(loss, weighting), threat, step)


@white_box("fgsm", fixed=("steps",))
def fgsm(threat: Threat, settings: Settings, *, loss: LossName = "ce", weighting: WeightingName = "uniform") -> Method:
    """Fast gradient sign method (Goodfellow et al. 2015) for any norm: one step of length ε."""
    step = Steepest(settings.size(threat.norm.name, 1.0), settings.sparse)
    return settings.iterate(objective(loss, weighting), threat, step, steps=1)


@white_box("mi_fgsm", fixed=("sparse",))
def mi_fgsm(
    threat: Threat,
    settings: Settings,
    *,
    decay: Weight = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """Momentum iterative FGSM (Dong et al. 2018), α = ε/T.

    Args:
        decay: Momentum μ.
    """
    return settings.iterate(objective(loss, weighting), threat, Momentum(settings.size(threat.norm.name, 1.0), decay))


@white_box("ni_fgsm", fixed=("sparse",))
def ni_fgsm(
    threat: Threat,
    settings: Settings,
    *,
    decay: Weight = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """Nesterov iterative FGSM (Lin et al. 2020), α = ε/T: momentum, and gradients ahead of the iterate.

    Args:
        decay: Momentum μ.
    """
    step = Momentum(settings.size(threat.norm.name, 1.0), decay, nesterov=True)
    return settings.iterate(objective(loss, weighting), threat, step)


@white_box("segpgd")
def segpgd(threat: Threat, settings: Settings) -> Method:
    """SegPGD (Gu et al. 2022): PGD that moves weight from correct to fooled pixels as it runs."""
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(CrossEntropy(), SegPGD()), threat, step)


@white_box("cospgd")
def cospgd(threat: Threat, settings: Settings) -> Method:
    """CosPGD (Agnihotri et al. 2024): PGD weighted by the cosine of softmax and one-hot label."""
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(CrossEntropy(), CosPGD()), threat, step)


@white_box("flip_pgd")
def flip_pgd(threat: Threat, settings: Settings, *, tau: Positive = 4.0, tau_end: Positive = 0.5) -> Method:
    """PGD on expected flips Φ(−r/τ), r the signed radius, τ annealed: a smooth count of flipped pixels (ours).

    Args:
        tau: τ at the start.
        tau_end: τ at the end.
    """
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(ExpectedFlips(tau, tau_end)), threat, step)
