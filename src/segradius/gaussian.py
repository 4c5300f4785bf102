"""Gaussian quantiles of softmax probabilities, accurate in both tails and differentiable there.

Float32 cannot tell 1 − 10⁻⁹ from 1, so Φ⁻¹(softmax) saturates near 5.2 and its gradient becomes NaN or zero just
where a network is confident. Working from the logarithm of the *smaller* of p and 1 − p keeps both exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_SMALLEST = -85.0  # exp(-85) is still a normal float32
_LOG_HALF = math.log(0.5)


class _LowerQuantile(torch.autograd.Function):
    """Φ⁻¹(exp(log_q)) for log_q ≤ log ½; d/d log_q = q / φ(z), computed in logarithms so that it cannot overflow."""

    @staticmethod
    def forward(ctx: Any, log_q: Tensor) -> Tensor:
        log_q = log_q.clamp(_LOG_SMALLEST, _LOG_HALF)
        z: Tensor = torch.special.ndtri(log_q.exp())
        ctx.save_for_backward(log_q, z)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        log_q, z = ctx.saved_tensors
        scale: Tensor = torch.exp(log_q + 0.5 * z.square() + _LOG_SQRT_2PI)
        return grads[0] * scale


def normal_quantile(log_p: Tensor, log_1mp: Tensor) -> Tensor:
    """Φ⁻¹(p) from log p and log(1 − p), any shape.

    Args:
        log_p: Logarithm of the probability.
        log_1mp: Logarithm of its complement.

    Returns:
        The standard normal quantile, within ±12.9 (probabilities below e⁻⁸⁵ are taken as e⁻⁸⁵).

    Example:
        >>> import torch
        >>> p = torch.tensor([0.5, 0.75, 0.1])
        >>> [round(z, 4) for z in normal_quantile(p.log(), (1 - p).log()).tolist()]
        [0.0, 0.6745, -1.2816]
    """
    upper = log_p > log_1mp
    tail: Tensor = _LowerQuantile.apply(torch.where(upper, log_1mp, log_p))
    return torch.where(upper, -tail, tail)


def signed_radius(logits: Tensor, labels: Tensor) -> Tensor:
    """Signed normalised radius r = ½(Φ⁻¹(p_y) − Φ⁻¹(max_{c≠y} p_c)) of each pixel, p the softmax.

    It is the two-class radius of randomized smoothing in units of σ (Eq. 3 with the softmax in the place of the
    smoothed probabilities), positive where the label wins and negative where the pixel has flipped already.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) int64 in [0, C).

    Returns:
        (N, H, W); differentiable in the logits, finite for finite logits.

    Example:
        >>> import torch
        >>> logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
        >>> round(signed_radius(logits, torch.zeros(1, 1, 1, dtype=torch.long)).item(), 4)
        1.179
    """
    at = labels.unsqueeze(1)
    own = logits.gather(1, at).squeeze(1)
    others = logits.scatter(1, at, -math.inf)
    rival, where = others.max(1)
    rest = others.detach().scatter(1, where.unsqueeze(1), -math.inf)
    kept = torch.isfinite(rest)
    # Built from `logits`, not `rest`, so that the gradient reaches them; -inf entries add exp(-inf) = 0.
    rest_sum = (logits - rival.unsqueeze(1)).masked_fill(~kept, -math.inf).exp().sum(1)
    log_others = torch.log1p(rest_sum) + rival  # everything but the label
    total = torch.logaddexp(log_others, own)
    log_not_rival = torch.logaddexp(rest_sum.clamp_min(1e-37).log() + rival, own)
    mine = normal_quantile(own - total, log_others - total)
    theirs = normal_quantile(rival - total, log_not_rival - total)
    return 0.5 * (mine - theirs)
