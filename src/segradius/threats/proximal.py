"""Proximal operators of λ‖·‖ inside the pixel box, in a diagonal metric: a step that shortens δ where it costs least.

Each is argmin_z ½ Σ h·(z − δ)² + λ‖z‖ over the box, exact to rounding. δ has shape (N, …), the metric h > 0 the same,
λ > 0 shape (N,), the `Box` (N, …) with low ≤ 0 ≤ high. Each image is treated by itself. Gradients do not flow.

As in `segradius.threats.projections`, rounds end on the CPU when every image is done, and an accelerator, which is not
asked, runs a fixed number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segradius.threats import projections
from segradius.threats.projections import Box, column, largest

_ROUNDS = {"cpu": 60, "accelerator": 16}

#: (δ, λ, h, box) → z.
Prox = Callable[[Tensor, Tensor, Tensor, Box], Tensor]


@torch.no_grad()
def prox_l1(delta: Tensor, weight: Tensor, metric: Tensor, bounds: Box) -> Tensor:
    """Of λ‖·‖₁: clip(sign(δ)·max(|δ| − λ/h, 0)).

    Example:
        >>> wide = Box(torch.tensor([[-1.0, -1.0]]), torch.tensor([[1.0, 0.1]]))
        >>> prox_l1(torch.tensor([[0.5, 0.5]]), torch.tensor([0.2]), torch.tensor([[1.0, 2.0]]), wide)
        tensor([[0.3000, 0.1000]])
    """
    shorter = torch.abs(delta).sub_(column(weight, delta) / metric).clamp_(min=0)
    return shorter.copysign_(delta).clamp_(*bounds)


@torch.no_grad()
def prox_l2(delta: Tensor, weight: Tensor, metric: Tensor, bounds: Box) -> Tensor:
    """Of λ‖·‖₂: clip(h·δ / (h + s)), where s·‖z‖ = λ, or 0.

    1/‖z(s)‖ is increasing and nearly linear in s, so that Newton steps on s = λ/‖z(s)‖ take a few rounds; a bracket
    guards them.

    Example:
        >>> wide = Box(-torch.ones(1, 2), torch.ones(1, 2))
        >>> prox_l2(torch.tensor([[0.3, 0.4]]), torch.tensor([0.1]), torch.ones(1, 2), wide)
        tensor([[0.2400, 0.3200]])
    """
    unit, tiny = torch.finfo(delta.dtype).eps, torch.finfo(delta.dtype).tiny
    free, found = delta, delta.clamp(*bounds)
    pulled = torch.mul(metric, delta).mul_((found != 0).to(delta.dtype))  # but what the box holds at 0
    nothing = ~(_length(pulled) > weight)
    low, high = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    s, settled, stiff, work = low, nothing, metric, torch.empty_like(delta)
    for turn in _rounds(delta):
        length = _length(found).clamp_min(tiny)
        above = s * length > weight  # s·‖z(s)‖ rises with s
        low, high = torch.where(above, low, s), torch.where(above, s, high)
        # d‖z‖/ds = −Σ z² / (h + s) / ‖z‖ over what the box leaves free; Newton on 1/‖z‖ − s/λ.
        bend = _sum(torch.eq(free, found, out=work).mul_(found).mul_(found).div_(stiff)) / length**3
        newton = s + (1 / length - s / weight) / (1 / weight - bend)
        settled = settled | ~((newton - s).abs() > 4 * unit * s) | (high - low < 4 * unit * high)
        if projections.done(settled):
            break
        middle = torch.where(high.isfinite(), 0.5 * (low + high), 4 * low + weight / length)
        usable = (newton > low) & (newton < high) & (turn % 6 != 5)
        s = torch.where(settled, s, torch.where(usable, newton, middle))
        stiff = metric + column(s, delta)
        free = pulled / stiff
        found = free.clamp(*bounds)
    return found * column((~nothing).to(delta.dtype), delta)


@torch.no_grad()
def prox_linf(delta: Tensor, weight: Tensor, metric: Tensor, bounds: Box) -> Tensor:
    """Of λ‖·‖∞: clip(δ) cut to [−t, t], where Σ h·(|δ| − t) over what is cut equals λ, or 0.

    The sum falls with t along pieces of lines, and Newton steps from 0 never pass its root but where the box cuts
    δ; a bracket guards them.

    Example:
        >>> wide = Box(-torch.ones(1, 3), torch.ones(1, 3))
        >>> prox_linf(torch.tensor([[0.5, -0.4, 0.1]]), torch.tensor([0.3]), torch.ones(1, 3), wide)
        tensor([[ 0.3000, -0.3000,  0.1000]])
    """
    unit, tiny = torch.finfo(delta.dtype).eps, torch.finfo(delta.dtype).tiny
    inside = delta.clamp(*bounds)
    size, whole, cut, over = inside.abs(), delta.abs(), torch.empty_like(delta), torch.empty_like(delta)
    low, high = torch.zeros_like(weight), largest(inside)
    t, settled = low, torch.zeros_like(weight, dtype=torch.bool)
    for turn in _rounds(delta):
        mass = _sum(torch.gt(size, column(t, delta), out=cut).mul_(metric)).clamp_min_(tiny)
        excess = _sum(torch.sub(whole, column(t, delta), out=over).mul_(cut)) - weight  # falls with t
        newton, above = t + excess / mass, excess > 0
        settled = settled | ((t == 0) & ~above) | ~((newton - t).abs() > 4 * unit * t)
        low, high = torch.where(above, t, low), torch.where(above, high, t)
        settled = settled | (high - low < 4 * unit * high)
        if projections.done(settled):
            break
        usable = (newton > low) & (newton < high) & (turn % 6 != 5)
        t = torch.where(settled, t, torch.where(usable, newton, 0.5 * (low + high)))
    return inside.clamp_(-column(t, delta), column(t, delta))


#: By the name of the norm.
PROX: dict[str, Prox] = {"l1": prox_l1, "l2": prox_l2, "linf": prox_linf}


def _sum(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _length(values: Tensor) -> Tensor:
    return _sum(values * values).sqrt_()


def _rounds(like: Tensor) -> range:
    return range(_ROUNDS["cpu" if like.device.type == "cpu" else "accelerator"])
