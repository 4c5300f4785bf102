"""Where a reverse Weibull distribution ends, from samples of it: the extreme-value estimate behind CLEVER."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Ends that are tried, as distances beyond the largest sample in units of the samples' range.
REACH = (1e-3, 4.0)
_ENDS = 24
_NEWTON = 3
_FLAT = 1e-6
_COLUMNS = 1 << 14  # columns at a time: the work then stays in the cache


@torch.no_grad()
def reverse_weibull_location(maxima: Tensor) -> Tensor:
    """Location a (the end point) of the reverse Weibull F(x) = exp(−((a − x)/s)^k), x ≤ a, most likely by each column.

    For a fixed a the numbers a − x follow a two-parameter Weibull distribution, whose scale is in closed form and whose
    shape k is found by Newton steps. The profile likelihood is then compared over a grid of a, in float64, and refined
    by the parabola through its best three points. The shape is held at 1 or more, as the likelihood of three parameters
    has no maximum below, and a at most four ranges of the samples beyond the largest: many samples are most likely
    under the Gumbel distribution, which is the limit a → ∞.

    Args:
        maxima: (B, …), B samples of each column, ≥ 0; the largest gradient of each of B batches, in CLEVER.

    Returns:
        (…), at least the largest sample. It *is* the largest where B < 3, or where all samples are equal to within
        1e-6, as those of an affine model are.

    Example:
        >>> import torch
        >>> reverse_weibull_location(torch.tensor([[2.0], [2.0], [2.0]]))
        tensor([2.])
    """
    if len(maxima) < 3 or maxima.numel() == 0:
        return maxima.amax(0)
    columns = maxima.flatten(1)
    found = [_locations(part.double()) for part in torch.split(columns, _COLUMNS, dim=1)]
    return torch.cat(found).to(maxima.dtype).view(maxima.shape[1:])


def log_likelihood(excess: Tensor, shape: Tensor) -> Tensor:
    """Mean log-density of a two-parameter Weibull distribution at its most likely scale, less a constant.

    Args:
        excess: Logarithms of the samples, (B, M).
        shape: k, (M,).
    """
    mean_power = (shape * excess).logsumexp(0) - math.log(len(excess))
    return shape.log() - mean_power + (shape - 1) * excess.mean(0)


def _locations(maxima: Tensor) -> Tensor:
    """`reverse_weibull_location` of (B, M) in float64."""
    largest = maxima.amax(0)
    spread = largest - maxima.amin(0)
    flat = ~(spread > _FLAT * largest)
    distance = (largest - maxima) / torch.where(flat, 1.0, spread)  # in units of the range: 0 … 1
    low, high = (math.log(reach) for reach in REACH)
    ends = torch.linspace(low, high, _ENDS, dtype=maxima.dtype, device=maxima.device)
    shape, profile = None, []
    for end in ends.exp():
        excess = (distance + end).log()
        shape = _shape(excess, shape)
        profile.append(log_likelihood(excess, shape))
    beyond = _vertex(torch.stack(profile), ends).exp()
    return torch.where(flat, largest, largest + spread * beyond)


def _shape(excess: Tensor, start: Tensor | None) -> Tensor:
    """Most likely shape, at least 1: root of Σ y^k ln y / Σ y^k − mean ln y − 1/k, from the logarithms (B, M)."""
    mean = excess.mean(0)
    shape = (1.2825 / excess.std(0)).clamp_min(1.0) if start is None else start
    for _ in range(_NEWTON if start is not None else 2 * _NEWTON):
        power = (shape * excess).softmax(0)
        slanted = (power * excess).sum(0)
        curvature = (power * excess.square()).sum(0) - slanted.square() + shape.pow(-2)
        step = (slanted - mean - 1 / shape) / curvature
        shape = torch.maximum(shape - step, 0.5 * shape).clamp_min_(1.0)
    return shape


def _vertex(profile: Tensor, ends: Tensor) -> Tensor:
    """Where the parabola through the best of (G, M) values and its two neighbours has its top; the end of the grid."""
    best = profile.argmax(0)
    inner = best.clamp(1, len(ends) - 2)
    left, middle, right = (profile.gather(0, (inner + k).unsqueeze(0))[0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = torch.where(bend < 0, 0.5 * (left - right) / bend, 0.0)
    spacing = ends[1] - ends[0]
    return torch.where(best == inner, ends[inner] + spacing * shift, ends[best])
