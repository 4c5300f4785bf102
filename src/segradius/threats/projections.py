"""Euclidean projections onto an lp ball around each image, cut with the pixel box [0, 1].

Everywhere δ has shape (N, …), images the same shape and values in [0, 1], and ε shape (N,), above zero, inf for the
box alone. Who projects often onto the same images gives, in their place, the `Box` that they leave, made once. With a
factor s for each band, δ are coordinates u = s ⊙ (change) instead, and the box is [−s ⊙ image, s ⊙ (1 − image)]; s = 0
where nothing may change.

Results lie inside the box to the bit, and inside the ball to rounding: ‖·‖ ≤ ε·(1 + 1e-6) in float32. A
second projection leaves a projected point as it is. Each image is treated by itself. Gradients do not flow.

On the CPU the rounds end when every image is done. An accelerator is not asked, as the CPU would wait for the answer:
it runs a fixed number of rounds, more than images need in practice, and whatever is left is still feasible.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDS_L1 = {"cpu": 100, "accelerator": 20}
_ROUNDS_L2 = {"cpu": 40, "accelerator": 8}


class Box(NamedTuple):
    """The least and the largest change, each (N, …)."""

    low: Tensor
    high: Tensor


@torch.no_grad()
def project_l1(delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
    """Nearest point with ‖·‖₁ ≤ ε: sign(δ)·clip(|δ| − λ, 0, b), where b is the room that the box leaves.

    λ ≥ 0 is the root of a decreasing, piecewise linear function, found by Newton steps inside a shrinking bracket.

    Example:
        >>> images, delta = torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.4, -0.2, 0.0]).view(1, 3, 1, 1)
        >>> project_l1(delta, images, torch.tensor([0.4])).flatten()
        tensor([ 0.3000, -0.1000,  0.0000])
    """
    room = torch.full_like(delta, 2).copysign_(delta).clamp_(*_bounds(images)).abs_()
    size = torch.abs(delta)
    work = torch.minimum(size, room)
    over = _sums(work) > eps
    if not done(~over):
        size = _soften(size, room, eps, over, work)
    return torch.minimum(size, room, out=size).copysign_(delta)


@torch.no_grad()
def project_l2(delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
    """Nearest point with ‖·‖₂ ≤ ε: clip(s·δ), with the largest s ≤ 1 that fits the ball.

    In t = s² the squared norm is concave, increasing and piecewise linear, so Newton steps reach the root in finitely
    many steps; the first, from 1, leads to the feasible side, where the others stay.

    Example:
        >>> images, delta = torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.3, -0.4, 0.0]).view(1, 3, 1, 1)
        >>> project_l2(delta, images, torch.tensor([0.1])).flatten()
        tensor([ 0.0600, -0.0800,  0.0000])
    """
    bounds = _bounds(images)
    clipped = delta.clamp(*bounds)
    squares = clipped * clipped
    power = _sums(squares)
    return clipped if done(~(power > eps * eps)) else _shrink(delta, bounds, eps, clipped, squares, power)


def project_linf(delta: Tensor, images: Tensor | Box, eps: Tensor) -> Tensor:
    """Nearest point with ‖·‖∞ ≤ ε: one clamp, exact to the bit.

    Example:
        >>> images, delta = torch.tensor([[0.5, 0.5, 1.0]]), torch.tensor([[0.3, -0.1, 0.2]])
        >>> project_linf(delta, images, torch.tensor([0.25]))
        tensor([[ 0.2500, -0.1000,  0.0000]])
    """
    return onto_linf(_bounds(images), eps)(delta)


@torch.no_grad()
def onto_linf(bounds: Box, eps: Tensor) -> Callable[[Tensor], Tensor]:
    """`project_linf` for many δ: ball and box are cut once.

    Example:
        >>> onto_linf(box(torch.tensor([[0.5, 1.0]])), torch.tensor([0.25]))(torch.ones(1, 2))
        tensor([[0.2500, 0.0000]])
    """
    budget = column(eps, bounds.low)
    return partial(_clamp, low=torch.maximum(bounds.low, -budget), high=torch.minimum(bounds.high, budget))


@torch.no_grad()
def scale_then_clamp(delta: Tensor, images: Tensor | Box, eps: Tensor, length: Tensor) -> Tensor:
    """δ·min(1, ε/length), clamped into the box: feasible, not the nearest point; ``length`` is the norm of δ, (N,)."""
    factor = torch.where(length > eps, eps / length, 1.0)
    return (delta * column(factor, delta)).clamp_(*_bounds(images))


def box(images: Tensor, scale: Tensor | None = None) -> Box:
    """The least and the largest change that keeps images in [0, 1], times ``scale``; new tensors, (N, …).

    Example:
        >>> [bound.flatten().tolist() for bound in box(torch.tensor([[[0.25]]]), torch.tensor([[2.0]]))]
        [[-0.5], [1.5]]
    """
    return Box(-images, 1 - images) if scale is None else Box(-images * scale, (1 - images) * scale)


def largest(values: Tensor) -> Tensor:
    """Largest magnitude of each image, (N, …) → (N,), NaN where a value is; no copy is made of them.

    Example:
        >>> largest(torch.tensor([[1.0, -3.0], [2.0, 0.0]]))
        tensor([3., 2.])
    """
    flat = values.flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))


def column(numbers: Tensor, like: Tensor) -> Tensor:
    """One number for each image, (N,), shaped to multiply ``like``, (N, …), and of its type."""
    return numbers.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def done(images: Tensor) -> bool:
    """Whether all of ``images``, (N,) bool, are true; on an accelerator, which is not asked, always False."""
    return images.device.type == "cpu" and bool(images.all())


def choose(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """``one`` for the images where ``rows``, (N,) bool, holds, ``other`` for the rest; (N, …)."""
    if done(rows):
        return one
    return other if done(~rows) else torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)


def _bounds(images: Tensor | Box) -> Box:
    return images if isinstance(images, Box) else box(images)


@torch.no_grad()
def _clamp(delta: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.clamp(delta, low, high)


def _sums(values: Tensor) -> Tensor:
    """Sum of each image. Unlike vector_norm, sum adds pairwise, which saves a digit in float32."""
    return values.flatten(1).sum(1)


def _rounds(table: dict[str, int], like: Tensor) -> range:
    return range(table["cpu" if like.device.type == "cpu" else "accelerator"])


def _pull_inside(delta: Tensor, outside: Tensor, ratio: Tensor) -> Tensor:
    """Scale, in place, images that rounding left ``outside`` by ``ratio`` = ε/‖δ‖, and a few last places more."""
    if done(~outside):
        return delta
    short = 1 - 4 * torch.finfo(delta.dtype).eps
    return delta.mul_(column(torch.where(outside, short * ratio, 1.0), delta))


def _shrink(delta: Tensor, bounds: Box, eps: Tensor, clipped: Tensor, squares: Tensor, power: Tensor) -> Tensor:
    """clip(√t·δ) with ‖·‖₂ = ε for the images with ``power`` over ε², t = 1 for the others.

    Args:
        delta: (N, …).
        bounds: Of the box.
        eps: (N,).
        clipped: clip(δ), overwritten.
        squares: Its squares, overwritten.
        power: Their sums, (N,).
    """
    limits, square = torch.finfo(delta.dtype), eps * eps
    settled, work, t = ~(power > square), torch.empty_like(delta), torch.ones_like(power)
    scaled = delta
    for _ in _rounds(_ROUNDS_L2, delta):
        free = torch.eq(scaled, clipped, out=work)
        slope = (_sums(squares.mul_(free)) / t).clamp_min(limits.tiny)
        t = torch.where(settled, t, _inside(t + (square - power) / slope, delta, square))
        scaled = torch.mul(delta, column(t.sqrt(), delta), out=work)
        torch.clamp(scaled, *bounds, out=clipped)
        power = _sums(torch.mul(clipped, clipped, out=squares))
        settled = settled | ~((power - square).abs() > 8 * limits.eps * square)
        if done(settled):
            break
    return _pull_inside(clipped, power > square, eps / power.sqrt())


def _inside(t: Tensor, delta: Tensor, square: Tensor) -> Tensor:
    """The share t in (0, 1]: min(1, ε²/‖δ‖²), which fits, where a flat tangent led below zero (the box cuts all)."""
    t = t.clamp(max=1)
    return t if done(t > 0) else torch.where(t > 0, t, (square / _sums(delta * delta)).clamp(max=1))


def _soften(size: Tensor, room: Tensor, eps: Tensor, over: Tensor, work: Tensor) -> Tensor:
    """min(max(|δ| − λ, 0), room) with sum ε for the images that are ``over``, λ = 0 for others; overwrites ``work``."""
    unit = torch.finfo(size.dtype).eps
    low, high = torch.zeros_like(eps), size.flatten(1).amax(1)
    threshold = from_low = from_high = low
    left = torch.empty_like(size)
    for turn in _rounds(_ROUNDS_L1, size):
        torch.sub(size, column(threshold, size), out=left).clamp_(min=0)
        total = _sums(torch.minimum(left, room, out=work))
        excess = total - eps
        settled = ~over | ~(excess.abs() > 4 * unit * eps) | (high - low <= 4 * unit * high)
        if done(settled):
            break
        free = _sums(torch.gt(left, 0, out=work)) - _sums(torch.gt(left, room, out=work))
        newton, above = threshold + excess / free.clamp_min(1), excess > 0
        low, from_low = torch.where(above, threshold, low), torch.where(above, newton, from_low)
        high, from_high = torch.where(above, high, threshold), torch.where(above, from_high, newton)
        reach = torch.where(from_high < high, torch.maximum(from_low, from_high), from_low)
        # Newton alone may crawl, as the function bends both ways; every sixth turn splits the bracket.
        usable = (reach > low) & (reach < high) & (turn % 6 != 5)
        middle = torch.where(low > 0, low.sqrt() * high.sqrt(), high / 2)
        threshold = torch.where(settled, threshold, torch.where(usable, reach, middle))
    return _pull_inside(torch.minimum(left, room, out=left), total > eps, eps / total)
