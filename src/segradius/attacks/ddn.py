"""DDN, decoupled direction and norm: steps on a sphere that shrinks while a share of the pixels is fooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room
from segradius.attacks.make import white_box
from segradius.attacks.minimal_norm import SHARE, Shortest, half_cosine, widest
from segradius.attacks.settings import Settings
from segradius.core.declared import Inside, Length, LossName, Share, WeightingName, check_fields
from segradius.objectives.objective import objective
from segradius.threats.projections import column
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Decoupled:
    """δ ← r·(δ + α·g/‖g‖) / ‖·‖, in the box; r falls by γ while the share is fooled and rises by γ while it is not.

    Attributes:
        alpha: First α; it falls along a half cosine to a hundredth.
        gamma: γ.
        radius: First r.
        share: Of the pixels to fool.
    """

    compares: ClassVar[bool] = False

    alpha: Length = 1.0
    gamma: Inside = 0.05
    radius: Length = 1.0
    share: Share = SHARE

    def __post_init__(self) -> None:
        check_fields(self)

    def incumbent(self, room: Room) -> Shortest:
        """What is returned."""
        return Shortest.none(room, self.share)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step, bring to the radius, cut."""
        assert seen.prediction is not None
        norm, reached = room.threat.norm, room.task.goal.reached(seen.prediction, self.share)
        radius = torch.full_like(room.eps, self.radius) if state is None else state
        radius = torch.minimum(radius * (1 + self.gamma - 2 * self.gamma * reached.to(radius)), widest(room))
        alpha = self.alpha * (0.01 + 0.99 * half_cosine(seen.step, room.steps))
        moved = torch.add(seen.delta, norm.steepest(seen.gradient), alpha=alpha)
        length = norm.length(moved).clamp_min(torch.finfo(moved.dtype).tiny)
        return moved.mul_(column(radius / length, moved)).clamp_(*room.box), radius


@white_box("ddn", norms=("l2",), fixed=("sparse",))
def ddn(
    threat: Threat,
    settings: Settings,
    *,
    share: Share = SHARE,
    gamma: Inside = 0.05,
    radius: Length = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """DDN (Rony et al. 2019), T = 500, l2: looks for the shortest perturbation that fools a share of the pixels.

    ``eps=inf`` is the original; in a ball what was found is projected. The authors' rounding to 8 bits in each step is
    left out.

    Args:
        threat: An l2 ball.
        settings: Shared settings; ``alpha`` is the length of the first step, 1 by default.
        share: Of the counted pixels to fool.
        gamma: Part by which the radius changes in a step.
        radius: The first.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    step = Decoupled(1.0 if settings.alpha is None else settings.alpha, gamma, radius, share)
    return settings.iterate(objective(loss, weighting), threat, step, steps=500)
