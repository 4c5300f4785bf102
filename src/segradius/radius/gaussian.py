"""Gaussian quantiles of softmax probabilities, accurate in both tails and differentiable there.

Float32 cannot tell 1 − 10⁻⁹ from 1, so Φ⁻¹(softmax) saturates near 5.2 and its gradient becomes NaN or zero just
where a network is confident. Working from the logarithm of the *smaller* of p and 1 − p keeps both exact.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from segradius.core.prediction import predict

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_SMALLEST = -85.0  # exp(-85) is still a normal float32
_LOG_HALF = math.log(0.5)
_SMALLEST = 1e-37


def normal_quantile(log_p: Tensor, log_1mp: Tensor) -> Tensor:
    """Φ⁻¹(p) from log p and log(1 − p), any shape.

    Args:
        log_p: Logarithm of the probability.
        log_1mp: Logarithm of its complement.

    Returns:
        The standard normal quantile, within ±12.9 (probabilities below e⁻⁸⁵ are taken as e⁻⁸⁵); no gradient.

    Example:
        >>> import torch
        >>> p = torch.tensor([0.5, 0.75, 0.1])
        >>> [round(z, 4) for z in normal_quantile(p.log(), (1 - p).log()).tolist()]
        [0.0, 0.6745, -1.2816]
    """
    upper = log_p > log_1mp
    tail = torch.special.ndtri(torch.where(upper, log_1mp, log_p).clamp_(_LOG_SMALLEST, _LOG_HALF).exp_())
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
    radius: Tensor = _SignedRadius.apply(logits, labels.unsqueeze(1))
    return radius


class _SignedRadius(torch.autograd.Function):
    """The radius with its gradient in closed form.

    With q = Φ⁻¹(p) and p the softmax, ∂q_k/∂z_c = p_k/φ(q_k) · (1[c = k] − p_c). The factor p_k/φ(q_k) overflows
    where p_k is near 1, its product with 1 − p_k or with another p_c does not: all products are made of sums of
    logarithms.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, at: Tensor) -> Tensor:
        own = logits.gather(1, at)
        others = logits.scatter(1, at, -math.inf)
        rival, where = predict(others)
        rival, where = rival.unsqueeze(1), where.unsqueeze(1)
        rest = others.scatter_(1, where, -math.inf).sub_(rival).exp_().sum(1, keepdim=True)
        log_others = torch.log1p(rest).add_(rival)  # of all but the label
        log_not_rival = torch.logaddexp(rest.clamp_min_(_SMALLEST).log_().add_(rival), own)
        total = torch.logaddexp(log_others, own)
        mine = normal_quantile(own - total, log_others - total)
        theirs = normal_quantile(rival - total, log_not_rival - total)
        ctx.save_for_backward(logits, at, where, own, rival, log_others, log_not_rival, total, mine, theirs)
        return 0.5 * (mine - theirs).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, at, where, own, rival, log_others, log_not_rival, total, mine, theirs = ctx.saved_tensors
        log_a = own - 2 * total + 0.5 * mine.square() + _LOG_SQRT_2PI  # log p_y / φ(q_y), and one more − total
        log_b = rival - 2 * total + 0.5 * theirs.square() + _LOG_SQRT_2PI
        # Where c = k itself these overflow; they are replaced below.
        by_own, by_rival = (logits + log_a).exp_(), (logits + log_b).exp_()
        at_own = (log_others + log_a).exp_() + by_rival.gather(1, at)
        at_rival = by_own.gather(1, where) + (log_not_rival + log_b).exp_()
        found = by_rival.sub_(by_own).scatter_(1, at, at_own).scatter_(1, where, -at_rival)
        return found.mul_(0.5 * grads[0].unsqueeze(1)), None
