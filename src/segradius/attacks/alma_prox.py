"""ALMA prox: the shortest perturbation that fools a share of the pixels, by multipliers and proximal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room
from segradius.attacks.make import white_box
from segradius.attacks.minimal_norm import SHARE, Shortest
from segradius.attacks.settings import Settings
from segradius.core.declared import Decay, Length, Positive, Share, check_fields
from segradius.objectives.losses import DifferenceOfLogitsRatio, Loss, Margin
from segradius.objectives.objective import Objective
from segradius.objectives.penalties import AlmaMultipliers
from segradius.threats.projections import column
from segradius.threats.proximal import PROX
from segradius.threats.threat import Threat


class _Moments(NamedTuple):
    """Moving mean of g², whether the share was fooled before, and the step from which the length falls, each (N, …)."""

    squares: Tensor
    reached: Tensor
    since: Tensor


@dataclass(frozen=True)
class Proximal:
    """A step of length α in a metric of gradients, and one of the proximal operator of α‖·‖ in the same.

    With G the gradient of a *sum* over pixels and H the root of a moving mean of G², δ ← prox(δ + α·G/H), the operator
    of α‖·‖ in the metric H and inside the box. α is the same until an image's share is fooled, at the latest until T/2,
    and then falls as b / (t + b) to ``alpha_end`` times what it was.

    Attributes:
        alpha: α, length of a step in each value.
        alpha_end: What is left of it at the end.
        decay: What remains of the mean in a step.
        share: Of the pixels to fool.
    """

    compares: ClassVar[bool] = False

    alpha: Length = 1e-3
    alpha_end: Share = 0.1
    decay: Decay = 0.8
    share: Share = SHARE

    def __post_init__(self) -> None:
        check_fields(self)

    def incumbent(self, room: Room) -> Shortest:
        """What is returned."""
        return Shortest.none(room, self.share)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step, shorten, and stay in the box."""
        assert seen.prediction is not None
        # The observed gradient is that of a mean over the counted pixels.
        gradient = seen.gradient * column(room.task.goal.pixels, seen.gradient)
        known = state if state is not None else self._first(seen, room)
        reached = room.task.goal.reached(seen.prediction, self.share)
        since = known.since
        if seen.step < room.steps // 2:
            since = torch.where(reached & ~known.reached, seen.step, since)
        squares = (known.squares * self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        metric = (squares / (1 - self.decay ** (seen.step + 1))).sqrt_().clamp_min_(1e-8)
        alpha = self._alpha(seen.step, room.steps, since)
        moved = torch.addcmul(seen.delta, gradient / metric, column(alpha, gradient))
        delta = PROX[room.threat.norm.name](moved, alpha, metric, room.box)
        return room.task.confine(delta), _Moments(squares, known.reached | reached, since)

    def _first(self, seen: Observation, room: Room) -> _Moments:
        never = torch.zeros_like(room.eps, dtype=torch.bool)
        return _Moments(torch.zeros_like(seen.delta), never, torch.full_like(room.eps, room.steps // 2))

    def _alpha(self, step: int, steps: int, since: Tensor) -> Tensor:
        if self.alpha_end == 1:
            return torch.full_like(since, self.alpha)
        base = self.alpha_end / (1 - self.alpha_end) * (steps - since).clamp_min(1)
        return self.alpha * base / ((step - since).clamp_min(0) + base)


@white_box("alma_prox", fixed=("sparse",))
def alma_prox(
    threat: Threat,
    settings: Settings,
    *,
    share: Share = SHARE,
    loss: Literal["dlr", "margin"] = "dlr",
    alpha_end: Share = 0.1,
    decay: Decay = 0.8,
    rho: Positive = 0.01,
) -> Method:
    """ALMA prox (Rony et al. 2023), T = 500: looks for the shortest perturbation that fools a share of the pixels.

    ``eps=inf`` is the original; in a ball what was found is projected. The authors' is for l∞; l2 and l1 are the same
    with the proximal operators of these norms.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``alpha`` is the length of a step in each value, 0.001 by default.
        share: Of the counted pixels to fool.
        loss: Of which 0 is the boundary: ``margin``, or ``dlr``, margin over the spread of the logits, for 3 classes or
            more.
        alpha_end: Part of the step length that is left at the end.
        decay: What remains of the multipliers, and of the mean of squared gradients, in a step.
        rho: First penalty ρ.
    """
    of: Loss = DifferenceOfLogitsRatio(tolerance=1e-4) if loss == "dlr" else Margin()
    step = Proximal(1e-3 if settings.alpha is None else settings.alpha, alpha_end, decay, share)
    objective = Objective(of, AlmaMultipliers(of, share, rho=rho, ema=decay))
    return settings.iterate(objective, threat, step, steps=500)
