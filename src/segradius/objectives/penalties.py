"""Weights that are multipliers of constraints: an attack that wants each pixel fooled, and δ short beside that.

A pixel is fooled where its constraint c = −ℓ (for an aim +ℓ) is not above 0, ℓ a loss that changes its sign at the
boundary, as `Margin` does. With a penalty P(c; μ) that rises with c the gradient of Σ P is that of −Σ P′(c; μ)·ℓ. So a
method of multipliers is an ordinary objective, whose loss is ℓ and whose weights are P′, and the multipliers μ of each
pixel are the state of the weighting.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from segradius.core.contracts import LOGITS
from segradius.core.declared import Count, Decay, Positive, Rate, Share, check_fields
from segradius.objectives.goal import Goal
from segradius.objectives.losses import Loss, Margin
from segradius.objectives.view import LogitView, View
from segradius.objectives.weightings import Weighting

#: ρ goes no further, as squares of gradients leave float32 beyond.
_MOST_RHO = 1e8


def constraint(view: LogitView, loss: Loss) -> Tensor:
    """−ℓ, or +ℓ where there is an aim: above 0 where a pixel is not fooled yet, (N, H, W)."""
    return loss(view.logits, view.goal.reference).mul_(-view.goal.sign)


class AlmaState(NamedTuple):
    """What is known of every pixel: multipliers μ, penalties ρ, and since the last check c and whether it was fooled.

    ``scale`` is w, (N, 1, 1).
    """

    mu: Tensor
    rho: Tensor
    scale: Tensor
    before: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class AlmaMultipliers(Weighting):
    """Augmented-Lagrangian multipliers of ALMA prox (Rony et al. 2023): w·P′(w·c; ρ, μ).

    P is μc + μρc² + ρ²c³/6 for c ≥ 0 and μc / (1 − max(ρ, 1)·c) below. After a step μ moves by 1 − ``ema`` to P′. Every
    ``check`` steps ρ is multiplied by ``growth`` where a pixel was fooled in none of them and c is not below
    ``progress`` times what it was. The scale w of an image's constraints falls while the share is fooled, and rises
    while it is not. Of the constraints those beyond the share that are hardest at the moment count for nothing, none at
    first and all of them at the end.

    Attributes:
        loss: ℓ.
        share: Of the pixels to fool.
        mu: First μ.
        rho: First ρ.
        check: Steps between checks, M.
        progress: τ.
        growth: γ.
        ema: α, what remains of μ in a step.
        scale_step: Part by which w changes in a step.
        scale_least: Least w; the first is 1, and it is never above.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    loss: Loss = field(default_factory=Margin)
    share: Share = 0.99
    mu: Positive = 1.0
    rho: Positive = 0.01
    check: Count = 10
    progress: Share = 0.95
    growth: Positive = 2.0
    ema: Decay = 0.8
    scale_step: Decay = 0.02
    scale_least: Share = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """w·P′, 0 where a constraint does not count."""
        view = cast(LogitView, view)
        goal, fooled = view.goal, view.fooled()
        known: AlmaState = self._first(view, fooled) if state is None else state
        done = goal.reached(view.prediction, self.share).view(-1, 1, 1)
        change = 1 - self.scale_step + 2 * self.scale_step * view.number(done)
        scale = (known.scale / change).clamp_(self.scale_least, 1)
        c = constraint(view, self.loss).mul_(scale)
        counts = goal.counted & (c <= self._hardest(view, c))
        mu, rho, before, seen = known.mu, known.rho, known.before, known.fooled | fooled
        if state is None:
            before = c
        elif (view.step + 1) % self.check == 0:
            better = c * counts <= self.progress * before
            rho = torch.where(seen | better, rho, (self.growth * rho).clamp_max(_MOST_RHO))
            before, seen = c, torch.zeros_like(seen)
        if state is not None:
            mu = mu.lerp(alma_penalty_slope(c, rho, mu) * counts, 1 - self.ema).clamp_(1e-12, 1)
        weights = alma_penalty_slope(c, rho, mu).mul_(counts).mul_(scale)
        return weights, AlmaState(mu, rho, scale, before, seen)

    def _first(self, view: LogitView, fooled: Tensor) -> AlmaState:
        ones = view.number(torch.ones_like(view.goal.reference))
        return AlmaState(ones * self.mu, ones * self.rho, ones[:, :1, :1].clone(), ones, torch.zeros_like(fooled))

    def _hardest(self, view: LogitView, c: Tensor) -> Tensor:
        """The k-th largest counted c of each image, (N, 1, 1); k grows to the pixels beyond the share; inf for none."""
        spare = view.step / max(view.steps - 1, 1)
        k = ((1 - self.share) * view.goal.pixels.to(c.dtype) * spare).long().unsqueeze(1)
        most = min(c[0].numel(), int((1 - self.share) * c[0].numel()) + 1)
        top = c.masked_fill(~view.goal.counted, -math.inf).flatten(1).topk(most, 1).values
        edge = top.gather(1, (k - 1).clamp_min(0))
        return torch.where(k > 0, edge, math.inf).unsqueeze(2)


def alma_penalty_slope(c: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """P′ of ALMA prox's penalty P(c; ρ, μ), any one shape.

    Example:
        >>> alma_penalty_slope(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor(2.0), torch.tensor(0.5))
        tensor([0.0556, 0.5000, 4.5000])
    """
    above = c.clamp_min(0)
    raised = mu + 2 * mu * rho * above + 0.5 * (rho * above).square()
    lowered = mu / (1 - rho.clamp_min(1) * c.clamp_max(0)).square()
    return torch.where(c >= 0, raised, lowered)


class DualState(NamedTuple):
    """Logarithms of the ratios of pixels' multipliers to that of the length, and a moving mean of the multipliers."""

    log: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Duals:
    """Multipliers of PDPGD (Matyasko & Chau 2021): a softmax over the pixels and the length of δ; all add up to 1.

    Attributes:
        rate: Step of the logarithms, towards a pixel that is not fooled.
        rate_end: Part of it that is left at the end.
        ema: What remains of the mean in a step.
        least: Least ratio of a pixel's multiplier to that of the length; its inverse is the largest.
        first: Ratio of all pixels' multipliers together to that of the length at first.
    """

    rate: Rate = 0.1
    rate_end: Share = 0.1
    ema: Decay = 0.9
    least: Share = 1e-12
    first: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def now(self, goal: Goal, like: Tensor, state: DualState | None) -> DualState:
        """The multipliers for this step, from what the last step left."""
        if state is not None:
            return state._replace(mean=state.mean.lerp(_softmax_and_one(state.log), 1 - self.ema))
        log = (-torch.log(goal.pixels.to(like.dtype) * self.first)).view(-1, 1, 1).expand(goal.counted.shape)
        log = log.masked_fill(~goal.counted, -math.inf)
        return DualState(log, _softmax_and_one(log))

    def then(self, state: DualState, goal: Goal, prediction: Tensor, step: int, steps: int) -> DualState:
        """What is left for the next step: up where a pixel is not fooled, down where it is."""
        left = (steps - 1 - step) / max(steps - 1, 1)
        rate = self.rate * (left * (1 - self.rate_end) + self.rate_end)
        moved = (state.log - rate).add_(goal.pending(prediction), alpha=2 * rate)
        most = -math.log(self.least)
        return state._replace(log=moved.clamp_(-most, most).masked_fill_(~goal.counted, -math.inf))


@dataclass(frozen=True)
class DualWeights(Weighting):
    """PDPGD's weights λ·σ(c), the slope of λ·log(1 + eᶜ), c the difference of logits.

    Attributes:
        duals: How λ is found.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    duals: Duals = field(default_factory=Duals)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """λ·σ(c)."""
        view = cast(LogitView, view)
        now = self.duals.now(view.goal, view.logits, state)
        weights = constraint(view, Margin()).sigmoid_().mul_(now.mean)
        return weights, self.duals.then(now, view.goal, view.prediction, view.step, view.steps)


def _softmax_and_one(log: Tensor) -> Tensor:
    """Softmax of an image's numbers and of a further 0, without that; (N, H, W)."""
    flat = log.flatten(1)
    top = flat.amax(1, keepdim=True).clamp_min_(0)
    raised = (flat - top).exp_()
    return (raised / (raised.sum(1, keepdim=True) + (-top).exp())).view_as(log)
