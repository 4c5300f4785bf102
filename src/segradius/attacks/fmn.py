"""FMN, fast minimum norm: steps in a ball whose radius goes to the boundary of a share of the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room
from segradius.attacks.make import white_box
from segradius.attacks.minimal_norm import SHARE, Shortest, half_cosine, widest
from segradius.attacks.settings import Settings
from segradius.core.declared import Inside, Length, LossName, Share, WeightingName, check_fields
from segradius.objectives.objective import objective
from segradius.threats.threat import L2, NORMS, Threat

#: Its first step, of length in l2 whatever the norm (the authors' code, and that of Rony et al. for segmentation).
ALPHA = {"l1": 1.0, "l2": 1.0, "linf": 10.0}
_DUAL = {"l1": "linf", "l2": "l2", "linf": "l1"}


class _Radius(NamedTuple):
    """Radius of the ball, whether the share was fooled before, and the least length at which it was, each (N,)."""

    radius: Tensor
    reached: Tensor
    shortest: Tensor


@dataclass(frozen=True)
class FastMinimum:
    """δ ← Proj(δ + α·g/‖g‖₂) onto the ball of radius r and the box, where r follows what is fooled.

    While the share never was, r is ‖δ‖ plus the distance to the boundary of a linear model, |L| over g's dual norm.
    From then on r falls by γ, and to the shortest found at least, where it is, and rises by γ where it is not.

    Attributes:
        alpha: First α; it falls along a half cosine to a hundredth.
        gamma: First γ; it falls likewise.
        gamma_end: Last γ.
        share: Of the pixels to fool.
    """

    compares: ClassVar[bool] = True

    alpha: Length = 1.0
    gamma: Inside = 0.05
    gamma_end: Inside = 0.001
    share: Share = SHARE

    def __post_init__(self) -> None:
        check_fields(self)

    def incumbent(self, room: Room) -> Shortest:
        """What is returned."""
        return Shortest.none(room, self.share)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        assert seen.prediction is not None
        cosine = half_cosine(seen.step, room.steps)
        alpha = self.alpha * (0.01 + 0.99 * cosine)
        gamma = self.gamma_end + (self.gamma - self.gamma_end) * cosine
        norm, dual = room.threat.norm, NORMS[_DUAL[room.threat.norm.name]]
        endless = torch.full_like(room.eps, math.inf)
        known = state if state is not None else _Radius(endless, endless < 0, endless)
        fooled, length = room.task.goal.reached(seen.prediction, self.share), norm.length(seen.delta)
        reached = known.reached | fooled
        shortest = torch.where(fooled, torch.minimum(length, known.shortest), known.shortest)
        away = seen.value.abs() / dual.length(seen.gradient).clamp_min(1e-12)
        grown = torch.where(reached, known.radius * (1 + gamma), length + away)
        radius = torch.where(fooled, torch.minimum(known.radius * (1 - gamma), shortest), grown)
        radius = torch.minimum(radius, widest(room))
        moved = torch.add(seen.delta, L2().steepest(seen.gradient), alpha=alpha)
        return room.threat.project(moved, room.task.images, radius), _Radius(radius, reached, shortest)


@white_box("fmn", fixed=("sparse",))
def fmn(
    threat: Threat,
    settings: Settings,
    *,
    share: Share = SHARE,
    gamma: Inside = 0.05,
    gamma_end: Inside = 0.001,
    loss: LossName = "margin",
    weighting: WeightingName = "uniform",
) -> Method:
    """FMN (Pintor et al. 2021), T = 500: looks for the shortest perturbation that fools a share of the pixels.

    ``eps=inf`` is the original; in a ball what was found is projected.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``alpha`` is the length of the first step in l2, 1 by default and 10 for l∞.
        share: Of the counted pixels to fool.
        gamma: Part by which the radius changes in a step at first.
        gamma_end: That at the end.
        loss: Name of the loss, whose value over its slope tells how far the boundary is.
        weighting: Name of the weighting.
    """
    step = FastMinimum(ALPHA[threat.norm.name] if settings.alpha is None else settings.alpha, gamma, gamma_end, share)
    return settings.iterate(objective(loss, weighting), threat, step, steps=500)
