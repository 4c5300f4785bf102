"""One-sided confidence bounds for the mean of a variable in [0, 1], for every pixel at once.

Each is a *lower* bound L with P(mean < L) ≤ α for a number of independent draws that was fixed beforehand. The upper
bound is the mirror image, 1 − lower(1 − X). α is an error for *one* pixel: for all N pixels of an image at once, ask
for α / N.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from segradius.core.errors import InputError, at_least, within

# Sums of float32 softmax outputs may exceed the number of draws by their rounding, and by no more.
_ROUNDING = 1e-5


def clopper_pearson_lower(successes: Tensor, trials: int, alpha: float) -> Tensor:
    """The exact lower bound for a probability: the p at which P(X ≥ s) = α, X ~ Binomial(n, p).

    It is the α-quantile of Beta(s, n − s + 1) (Clopper & Pearson 1934), and 0 where s = 0. One table of the n + 1
    possible counts is looked up, so that the number of pixels costs nothing.

    Args:
        successes: s in 0 … n, any shape, integer.
        trials: n ≥ 1.
        alpha: Error rate of one pixel in (0, 1); 1e-12 is as exact as 0.05.

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        InputError: For counts outside 0 … n, n < 1 or α outside (0, 1).

    Example:
        >>> clopper_pearson_lower(torch.tensor([0, 8, 100]), 100, 0.001)
        tensor([0.0000, 0.0202, 0.9333], dtype=torch.float64)
    """
    check(trials, alpha)
    if successes.is_floating_point() or bool(((successes < 0) | (successes > trials)).any()):
        raise InputError(f"successes must be integers in 0 … {trials}, the number of trials")
    return _clopper_pearson(trials, alpha).to(successes.device)[successes.long()]


def clopper_pearson_upper(successes: Tensor, trials: int, alpha: float) -> Tensor:
    """The exact upper bound for a probability, 1 − lower(n − s): 1 where s = n. As `clopper_pearson_lower`.

    Example:
        >>> clopper_pearson_upper(torch.tensor([0, 8, 100]), 100, 0.001)
        tensor([0.0667, 0.1980, 1.0000], dtype=torch.float64)
    """
    return 1 - clopper_pearson_lower(trials - successes, trials, alpha)


def hoeffding_lower(total: Tensor, trials: int, alpha: float) -> Tensor:
    """Hoeffding's bound: mean − √(ln(1/α) / 2n), blind to the variance (Hoeffding 1963, Theorem 1).

    Args:
        total: Sum of the n values, any shape, float64 if n is large.
        trials: n ≥ 1.
        alpha: Error rate of one pixel in (0, 1).

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        InputError: For sums outside [0, n], n < 1 or α outside (0, 1).

    Example:
        >>> hoeffding_lower(torch.tensor([90.0]), 100, 0.001)
        tensor([0.7142], dtype=torch.float64)
    """
    check(trials, alpha)
    return (checked_mean(total, trials) - math.sqrt(math.log(1 / alpha) / (2 * trials))).clamp(0, 1)


def bernstein_lower(total: Tensor, squares: Tensor, trials: int, alpha: float) -> Tensor:
    """The empirical Bernstein bound: mean − √(2V ln(2/α) / n) − 7 ln(2/α) / (3(n − 1)).

    V is the unbiased sample variance, V = Σ(x − mean)² / (n − 1). From Maurer & Pontil (COLT 2009), Theorem 4, which is
    one-sided as it stands: the 2 in ln(2/α) pays for the mean and for the variance, not for two sides.

    Args:
        total: Sum of the n values, any shape, float64.
        squares: Sum of their squares, float64 (V is a difference of nearly equal numbers).
        trials: n ≥ 1; one draw has no variance, its bound is 0.
        alpha: Error rate of one pixel in (0, 1).

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        InputError: For sums outside [0, n], n < 1 or α outside (0, 1).

    Example:
        >>> total, squares = torch.tensor([900.0]).double(), torch.tensor([811.0]).double()
        >>> bernstein_lower(total, squares, 1000, 0.001)
        tensor([0.8783], dtype=torch.float64)
    """
    check(trials, alpha)
    mean = checked_mean(total, trials)
    if trials == 1:
        return torch.zeros_like(mean)
    variance = (squares.double() - trials * mean.square()).clamp_min(0) / (trials - 1)
    log = math.log(2 / alpha)
    return (mean - (2 * variance * log / trials).sqrt() - 7 * log / (3 * (trials - 1))).clamp(0, 1)


def check(trials: int, alpha: float) -> None:
    """Raise `InputError` unless ``trials`` ≥ 1 and ``alpha`` lies in (0, 1)."""
    at_least(1, trials=trials)
    within("(0, 1)", alpha=alpha)


def checked_mean(total: Tensor, trials: int) -> Tensor:
    """Mean of values from their sum, float64; `InputError` where it lies outside [0, 1], so that some value did."""
    mean = total.double() / trials
    if bool(((mean < -_ROUNDING) | (mean > 1 + _ROUNDING)).any()):
        raise InputError(f"the values must lie in [0, 1]: the mean of {trials} of them is outside")
    return mean


@functools.lru_cache(maxsize=8)
def _clopper_pearson(trials: int, alpha: float) -> Tensor:
    """The lower bounds of all counts, (trials + 1,) float64 on the CPU."""
    counts = np.arange(1, trials + 1)
    return torch.from_numpy(np.concatenate([[0.0], stats.beta.ppf(alpha, counts, trials - counts + 1)]))
