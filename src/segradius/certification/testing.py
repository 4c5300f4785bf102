"""Hypothesis tests over the pixels of an image: one-sided binomial p-values and bounds, corrections for their number.

The votes of neighbouring pixels come from the same noisy copies and are anything but independent, so only corrections
are here that hold whatever the dependence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from scipy import special
from torch import Tensor

from segradius.core.errors import InputError, at_least, within
from segradius.core.registry import Registry

#: From p-values (N,), α and k to which hypotheses are rejected, (N,) bool. Registered with its ``promise``, that is, to
#: what the error rate refers; see `Certificate`.
Correction: TypeAlias = Callable[[Tensor, float, int], Tensor]

CORRECTIONS: Registry[Correction] = Registry("correction")


def p_values(successes: Tensor, trials: int, tau: float) -> Tensor:
    """P(X ≥ s) for X ~ Binomial(n, τ): the exact one-sided test of H₀ "the probability is at most τ".

    Args:
        successes: s in 0 … n, any shape, integer.
        trials: n ≥ 1.
        tau: τ in (0, 1).

    Returns:
        float64 of the same shape. One table of n + 1 values is looked up, so that the number of pixels costs nothing.

    Example:
        >>> p_values(torch.tensor([0, 2]), 2, 0.75)
        tensor([1.0000, 0.5625], dtype=torch.float64)
    """
    check(trials, tau=tau)
    return _look_up(upper_tail(np.arange(trials + 1), trials, tau), successes)


def anytime_p_values(successes: Tensor, trials: int, tau: float) -> Tensor:
    """p-values of H₀ "the probability is at most τ" that hold at any number of trials, however it was chosen.

    They are the inverse of a mixture likelihood ratio: θ, uniform on (τ, 1), against τ. Under H₀ each ratio
    (θ/τ)^s ((1−θ)/(1−τ))^(n−s) is a supermartingale in n, so is the mixture, and by Ville's inequality it exceeds 1/α
    at some n with probability at most α (Robbins 1970). One may look after every trial and stop.

    Args:
        successes: s in 0 … n, any shape, integer.
        trials: n ≥ 1 so far.
        tau: τ in (0, 1).

    Returns:
        float64 of the same shape, in (0, 1].

    Example:
        >>> looked = anytime_p_values(torch.tensor([100]), 100, 0.75).item()
        >>> p_values(torch.tensor([100]), 100, 0.75).item() < looked < 1e-9
        True
    """
    check(trials, tau=tau)
    log_e = _log_mixture(np.arange(trials + 1), trials, tau)
    return _look_up(np.exp(-log_e.clip(min=0)), successes)


def _log_mixture(hits: np.ndarray, trials: int, tau: float | np.ndarray) -> np.ndarray:
    """Log of ∫ θ^s (1−θ)^(n−s) dθ over (τ, 1), less the log of τ^s (1−τ)^(n−s) (1−τ)."""
    misses = trials - hits
    with np.errstate(divide="ignore"):
        inside = special.betaln(hits + 1, misses + 1) + np.log(special.betaincc(hits + 1, misses + 1, tau))
    found: np.ndarray = inside - hits * np.log(tau) - (misses + 1) * np.log1p(-tau)
    return found


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
    check(trials, alpha=alpha)
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


def anytime_lower(successes: Tensor, trials: int, alpha: float) -> Tensor:
    """The lower bound for a probability that holds at any number of trials, however it was chosen.

    It is the least τ that the test of `anytime_p_values` does not reject. Its mixture is the integral over u in (0, 1)
    of (1 + u(1/τ − 1))^s (1 − u)^(n−s), which falls with τ, so that the rejected τ are those below the bound.

    Args:
        successes: s in 0 … n, any shape, integer.
        trials: n ≥ 1 so far.
        alpha: Error rate in (0, 1) of the bounds at all numbers of trials together.

    Returns:
        float64 in [0, 1], of the same shape, rounded down; from a table of n + 1 bounds.

    Example:
        >>> counts = torch.tensor([0, 80, 100])
        >>> bool((anytime_lower(counts, 100, 0.001) <= clopper_pearson_lower(counts, 100, 0.001)).all())
        True
    """
    check(trials, alpha=alpha)
    return _anytime(trials, alpha).to(successes.device)[successes.long()]


def rejected(p: Tensor, alpha: float, correction: str = "holm", k: int = 1) -> Tensor:
    """Which hypotheses are rejected, with the promise of a correction.

    Args:
        p: p-values, any shape.
        alpha: Promised error rate in (0, 1).
        correction: ``none`` (each pixel for itself), ``bonferroni`` or ``holm`` (no error in the image with probability
            1 − α), ``kfwer`` (fewer than k errors with that probability), ``by`` (α bounds the expected share of
            errors among what is certified).
        k: Of ``kfwer``.

    Raises:
        InputError: For α, k or a name that is none.

    Example:
        >>> rejected(torch.tensor([0.010, 0.015, 0.5]), 0.03, "bonferroni").tolist()
        [True, False, False]
        >>> rejected(torch.tensor([0.010, 0.015, 0.5]), 0.03, "holm").tolist()
        [True, True, False]
    """
    within("(0, 1)", alpha=alpha)
    at_least(1, k=k)
    return CORRECTIONS[correction](p.flatten().double(), alpha, k).view(p.shape)


@CORRECTIONS.register("none", promise="pixel")
def none(p: Tensor, alpha: float, k: int) -> Tensor:
    """Each pixel for itself, p ≤ α: wrong with probability at most α, so many in an image may be."""
    return p <= alpha


@CORRECTIONS.register("bonferroni", promise="image")
def bonferroni(p: Tensor, alpha: float, k: int) -> Tensor:
    """Bonferroni, p ≤ α/N: no error with probability 1 − α."""
    return p <= alpha / max(p.numel(), 1)


@CORRECTIONS.register("holm", promise="image")
def holm(p: Tensor, alpha: float, k: int) -> Tensor:
    """Holm's step-down: no error with probability 1 − α, never weaker than Bonferroni."""
    return _step_down(p, alpha, 1)


@CORRECTIONS.register("kfwer", promise="fewer than {k} pixels")
def kfwer(p: Tensor, alpha: float, k: int) -> Tensor:
    """Lehmann and Romano's step-down (2005): fewer than k errors with probability 1 − α."""
    return _step_down(p, alpha, k)


@CORRECTIONS.register("by", promise="share")
def benjamini_yekutieli(p: Tensor, alpha: float, k: int) -> Tensor:
    """Benjamini and Yekutieli (2001): among what is rejected, an expected share of at most α is wrong."""
    if not p.numel():
        return p <= alpha
    from scipy.stats import false_discovery_control  # which takes more than half a second to import

    adjusted = false_discovery_control(p.cpu().numpy(), method="by")
    return torch.from_numpy(adjusted <= alpha).to(p.device)


def _step_down(p: Tensor, alpha: float, k: int) -> Tensor:
    """Reject in growing order while p₍ᵢ₎ ≤ kα / (N − max(i − k, 0)); k = 1 is Holm."""
    ordered = p.sort().values
    count = len(ordered)
    left = count - (torch.arange(1, count + 1, device=p.device) - k).clamp_min(0)
    passed = torch.cumprod((ordered <= k * alpha / left).to(torch.uint8), 0).sum()
    # Equal p-values are rejected together: the bar only rises, so the first of them decides.
    bar = torch.cat([ordered.new_full((1,), -1.0), ordered])[passed]
    return p <= bar


def upper_tail(successes: np.ndarray, trials: int, tau: float) -> np.ndarray:
    """P(X ≥ s) for X ~ Binomial(n, τ), which is the incomplete beta function at τ; s in 0 … n.

    Example:
        >>> upper_tail(np.arange(3), 2, 0.75)
        array([1.    , 0.9375, 0.5625])
    """
    some = np.maximum(successes, 1)
    found: np.ndarray = np.where(successes > 0, special.betainc(some, trials - some + 1, tau), 1.0)
    return found


def _look_up(table: np.ndarray, successes: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(table, np.float64)).to(successes.device)[successes.long()]


def check(trials: int, **share: float) -> None:
    """Raise `InputError` unless ``trials`` ≥ 1 and a share, as ``alpha=``, lies in (0, 1)."""
    at_least(1, trials=trials)
    within("(0, 1)", **share)


@functools.lru_cache(maxsize=8)
def _clopper_pearson(trials: int, alpha: float) -> Tensor:
    """The lower bounds of all counts, (trials + 1,) float64 on the CPU."""
    counts = np.arange(1, trials + 1)
    return torch.from_numpy(np.concatenate([[0.0], special.betaincinv(counts, trials - counts + 1, alpha)]))


# Bisections of an interval of length 1, after which it is as short as a float64 near 1 can tell.
_HALVINGS = 52
# More than rounding makes of the log of the mixture, and nothing to a bound.
_SLACK = 1e-6


@functools.lru_cache(maxsize=32)
def _anytime(trials: int, alpha: float) -> Tensor:
    """The lower bounds of all counts at any time, (trials + 1,) float64 on the CPU: the rejected end of an interval."""
    hits, bar = np.arange(1, trials + 1), _SLACK - np.log(alpha)
    low, high = np.zeros(trials), np.ones(trials)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        out = _log_mixture(hits, trials, middle) >= bar
        low, high = np.where(out, middle, low), np.where(out, high, middle)
    return torch.from_numpy(np.concatenate([[0.0], low]))
