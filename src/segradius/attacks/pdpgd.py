"""PDPGD, primal-dual proximal gradient descent: Adam on pixels weighted by multipliers, and steps that shorten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room
from segradius.attacks.make import white_box
from segradius.attacks.minimal_norm import SHARE, Shortest
from segradius.attacks.settings import Settings
from segradius.core.declared import Count, Length, Rate, Share, check_fields
from segradius.objectives.losses import Margin
from segradius.objectives.objective import Objective
from segradius.objectives.penalties import Duals, DualState, DualWeights
from segradius.threats import projections
from segradius.threats.projections import Box, choose, column
from segradius.threats.proximal import PROX
from segradius.threats.threat import L2, Threat

_BETA = (0.9, 0.999)
#: A sub-iteration that changes δ by less of its length is the last.
_STILL = 1e-2


class _Moments(NamedTuple):
    """Adam's two moments, and the multipliers."""

    mean: Tensor
    squares: Tensor
    duals: DualState | None


@dataclass(frozen=True)
class PrimalDual:
    """A step of Adam, cut into the box, and the proximal operator of the length in its metric, by sub-iterations.

    The multipliers are those of `DualWeights`: both see the same predictions, and so know the same. The length counts
    for what these leave of 1.

    Attributes:
        duals: How they are found.
        alpha: First length of a step in each value.
        alpha_end: What is left of it at the end; it falls as a power.
        inner: Sub-iterations at most.
        share: Of the pixels to fool.
    """

    compares: ClassVar[bool] = False

    duals: Duals = field(default_factory=Duals)
    alpha: Length = 0.01
    alpha_end: Share = 0.01
    inner: Count = 5
    share: Share = SHARE

    def __post_init__(self) -> None:
        check_fields(self)

    def incumbent(self, room: Room) -> Shortest:
        """What is returned."""
        return Shortest.none(room, self.share)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step, shorten, and stay in the box."""
        assert seen.prediction is not None
        goal, nothing = room.task.goal, torch.zeros_like(seen.delta)
        now = _Moments(nothing, nothing, None) if state is None else state
        # The observed gradient is that of a mean over the counted pixels.
        gradient = seen.gradient * column(goal.pixels, seen.gradient)
        mean = now.mean.lerp(gradient, 1 - _BETA[0])
        squares = (now.squares * _BETA[1]).addcmul_(gradient, gradient, value=1 - _BETA[1])
        metric = (squares / (1 - _BETA[1] ** (seen.step + 1))).sqrt_().add_(1e-8)
        alpha = self.alpha * self.alpha_end ** (seen.step / room.steps)
        moved = torch.addcdiv(seen.delta, mean, metric, value=alpha / (1 - _BETA[0] ** (seen.step + 1)))
        duals = self.duals.now(goal, gradient, now.duals)
        taken = duals.mean.flatten(1).sum(1)
        delta = self._shortened(moved.clamp_(*room.box), (1 - taken) / taken * alpha, metric, room)
        duals = self.duals.then(duals, goal, seen.prediction, seen.step, room.steps)
        return room.task.confine(delta), _Moments(mean, squares, duals)

    def _shortened(self, delta: Tensor, weight: Tensor, metric: Tensor, room: Room) -> Tensor:
        """Sub-iterations z ← prox(z − H·(z − δ)) of the operator in the metric H ≤ 1 (Melchior et al. 2019)."""
        most, prox = metric.flatten(1).amax(1), PROX[room.threat.norm.name]
        metric, weight = metric / column(most, metric), weight / most
        plain, endless = torch.ones_like(metric), torch.full_like(metric, math.inf)
        found, moving = delta, torch.ones_like(weight, dtype=torch.bool)
        for _ in range(self.inner):
            before = found
            nearer = prox(torch.addcmul(found, metric, found - delta, value=-1), weight, plain, Box(-endless, endless))
            found = choose(moving, nearer.clamp_(*room.box), before)
            moving = moving & (_length(found - before) > _STILL * _length(found))
            if projections.done(~moving):
                break
        return found


def _length(delta: Tensor) -> Tensor:
    return L2().length(delta)


@white_box("pdpgd", norms=("l2", "linf"), fixed=("sparse",))
def pdpgd(
    threat: Threat,
    settings: Settings,
    *,
    share: Share = SHARE,
    alpha_end: Share = 0.01,
    dual_rate: Rate = 0.1,
    inner: Count = 5,
) -> Method:
    """PDPGD (Matyasko & Chau 2021), T = 500: looks for the shortest perturbation that fools a share of the pixels.

    ``eps=inf`` is the original; in a ball what was found is projected.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``alpha`` is the first length of a step in each value, 0.01 by default as in the
            experiments of Rony et al. (2023).
        share: Of the counted pixels to fool.
        alpha_end: Part of the step length that is left at the end.
        dual_rate: First step of the logarithms of the multipliers.
        inner: Sub-iterations of a proximal step at most.
    """
    duals = Duals(dual_rate)
    step = PrimalDual(duals, 0.01 if settings.alpha is None else settings.alpha, alpha_end, inner, share)
    return settings.iterate(Objective(Margin(), DualWeights(duals)), threat, step, steps=500)
