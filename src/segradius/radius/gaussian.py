"""Gaussian quantiles of softmax probabilities, accurate in both tails and differentiable there.

Float32 cannot tell 1 − 10⁻⁹ from 1, so Φ⁻¹(softmax) saturates near 5.2 and its gradient becomes NaN or zero just
where a network is confident. Working from the logarithm of the *smaller* of p and 1 − p keeps both exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segradius.core.prediction import predict

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_LOG_SMALLEST = -85.0  # exp(-85) is still a normal float32
_LOG_HALF = math.log(0.5)
_SMALLEST = 1e-37

# |Φ⁻¹(exp(−t²))| as a fraction of polynomials in t, highest power first: fitted to the least largest error.
_OVER = (0.3965361965, 5.547932143, 15.96414488, 3.774671451, -13.68511105, -3.25957163)
_UNDER = (0.2803531203, 3.927145425, 11.97528532, 8.711290364, 1)


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
    tail = torch.minimum(log_p, log_1mp).clamp_(_LOG_SMALLEST, _LOG_HALF)
    size = _tail(tail.neg_().sqrt_()) if tail.dtype == torch.float32 else torch.special.ndtri(tail.exp_())
    return size.copysign_(log_p - log_1mp)


def _tail(t: Tensor) -> Tensor:
    """|Φ⁻¹(exp(−t²))| for t² from log 2 to 85 to 1e-8 but for float32's own rounding, in a quarter of ndtri's time."""
    over, under = t * _OVER[0], t * _UNDER[0]
    for number in _OVER[1:-1]:
        over.add_(number).mul_(t)
    for number in _UNDER[1:-1]:
        under.add_(number).mul_(t)
    return over.add_(_OVER[-1]).div_(under.add_(_UNDER[-1]))


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


@torch.no_grad()
def radius_slope(logits: Tensor, labels: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
    """The derivative of Σ f(r) in the logits, r the signed radius, with one working copy of them.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W) int64 in [0, C).
        slope: From the radius (N, H, W) to f′ there, each pixel for itself.

    Returns:
        (N, C, H, W).

    Example:
        >>> logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
        >>> radius_slope(logits, torch.zeros(1, 1, 1, dtype=torch.long), torch.ones_like).flatten().tolist()
        [0.527..., -0.527...]
    """
    at = labels.unsqueeze(1)
    terms = _terms(logits.detach(), at)
    return _derivative(terms, at, slope(terms.radius).unsqueeze(1))


class _Terms(NamedTuple):
    """What a radius and its derivative are made of: (N, 1, H, W), but for ``others``.

    With q = Φ⁻¹(p) and p the softmax, ∂q_k/∂z_c = p_k/φ(q_k) · (1[c = k] − p_c). The factor p_k/φ(q_k) may overflow
    where p_k is near 1, its product with 1 − p_k or with another p_c does not: all products are made of sums of
    logarithms.
    """

    others: Tensor  # (N, C, H, W) exp(z − rival), 0 for the rival and as good as 0 for the label
    where: Tensor  # the rival
    own: Tensor  # logits
    rival: Tensor
    log_others: Tensor  # log Σ exp of all but the label
    log_not_rival: Tensor
    total: Tensor
    mine: Tensor  # quantiles
    theirs: Tensor

    @property
    def radius(self) -> Tensor:
        """(N, H, W)."""
        return 0.5 * (self.mine - self.theirs).squeeze(1)


def _terms(logits: Tensor, at: Tensor) -> _Terms:
    own = logits.gather(1, at)
    others = logits.scatter(1, at, everywhere(-math.inf, at, logits))
    rival, where = predict(others)
    rival, where = rival.unsqueeze(1), where.unsqueeze(1)
    none = everywhere(0.0, where, logits)
    others = _exp(others.sub_(rival)).scatter_(1, where, none)
    rest = others.sum(1, keepdim=True)
    log_others = torch.log1p(rest).add_(rival)
    log_not_rival = torch.logaddexp(rest.clamp_min_(_SMALLEST).log_().add_(rival), own)
    total = torch.logaddexp(log_others, own)
    mine = normal_quantile(own - total, log_others - total)
    theirs = normal_quantile(rival - total, log_not_rival - total)
    return _Terms(others, where, own, rival, log_others, log_not_rival, total, mine, theirs)


def _derivative(terms: _Terms, at: Tensor, pull: Tensor) -> Tensor:
    """The product pull · ∂r/∂z, (N, C, H, W), for pull (N, 1, H, W); overwrites ``others``."""
    others, where, own, rival, log_others, log_not_rival, total, mine, theirs = terms
    log_a = own - 2 * total + 0.5 * mine.square() + _LOG_SQRT_2PI  # log p_y / φ(q_y), and one more − total
    log_b = rival - 2 * total + 0.5 * theirs.square() + _LOG_SQRT_2PI
    half = 0.5 * pull
    mixed = _exp(rival + log_a)
    at_own = _exp(log_others + log_a) + _exp(own + log_b)
    at_rival = mixed + _exp(log_not_rival + log_b)
    by_others = _exp(rival + log_b) - mixed
    found = others.mul_(by_others.mul_(half))
    return found.scatter_(1, at, at_own.mul_(half)).scatter_(1, where, at_rival.mul_(half).neg_())


def everywhere(number: float, places: Tensor, like: Tensor) -> Tensor:
    """One number for each of the places, in the type of ``like``: a CPU scatters a tensor twice as fast as a number.

    Example:
        >>> everywhere(0.5, torch.zeros(1, 2, dtype=torch.long), torch.zeros(3)).tolist()
        [[0.5, 0.5]]
    """
    return like.new_full((), number).expand(places.shape)


def _exp(x: Tensor) -> Tensor:
    """The exponential, in the place of x; e⁻⁸⁷ for less, as a CPU takes fifty times as long where float32 has none."""
    return x.clamp_min_(-87).exp_()


class _SignedRadius(torch.autograd.Function):
    """The radius with its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, at: Tensor) -> Tensor:
        terms = _terms(logits, at)
        ctx.save_for_backward(at, *terms)
        return terms.radius

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        at, others, *rest = ctx.saved_tensors
        return _derivative(_Terms(others.clone(), *rest), at, grads[0].unsqueeze(1)), None
