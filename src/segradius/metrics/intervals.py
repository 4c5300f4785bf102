"""How sure a figure is: intervals over images that hold for few of them, and paired differences with an exact test.

The coverage of both is simulated by ``studies/interval_coverage.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.metrics.counts import Counts
from segradius.metrics.statistics import Statistic, pooled_accuracy  # noqa: F401  # the example counts

T = TypeVar("T")

LEAST = 5
"""Of fewer images there is no interval: what they tell of the spread is next to nothing."""

_NOWHERE = 0.01
"""How near to 0 or 1, as a share of the value's own distance, the value without one image is taken to be at most."""


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def without_ends(found: T) -> T:
    """The same figures, however deep in dataclasses and tuples, without ends: of what other images cannot change.

    Example:
        >>> without_ends((Interval(1.0, 0.5, 1.0), "clean"))
        (Interval(value=1.0, low=nan, high=nan), 'clean')
    """
    parts: Any = found
    if isinstance(parts, Interval):
        parts = Interval(parts.value, math.nan, math.nan)
    elif isinstance(parts, tuple):
        parts = tuple(map(without_ends, parts))
    elif is_dataclass(parts) and not isinstance(parts, type):
        parts = replace(parts, **{each.name: without_ends(getattr(parts, each.name)) for each in fields(parts)})
    same: T = parts
    return same


def interval(
    statistic: Callable[[Counts], float], counts: Counts, *, level: float = 0.95, least: int = LEAST
) -> Interval:
    """The interval over images of a share, from what it is without each of them; see `jackknife`.

    Args:
        statistic: A `Statistic`, computed for all at once, or any other function of counts with values in [0, 1].
        counts: Counts of the images.
        level: Coverage aimed at, in (0, 1).
        least: Of fewer images that have a part in the value there are no ends.

    Returns:
        The interval; NaN where there is no value, and NaN ends of too few images.

    Example:
        >>> from segradius.metrics import count
        >>> labels = torch.zeros(6, 1, 4, dtype=torch.int64)
        >>> counts = count(torch.tensor([[[0, 0, 0, 1]], [[0, 0, 1, 1]]] * 3), labels, 2)
        >>> found = interval(pooled_accuracy, counts)
        >>> round(found.low, 2), found.value, round(found.high, 2)
        (0.47, 0.625, 0.75)
    """
    if isinstance(statistic, Statistic):
        return jackknife(statistic.parts(counts), statistic.finish, level=level, least=least)
    n = len(counts)
    value = statistic(counts) if n else math.nan
    rows = [[k for k in range(n) if k != left] for left in range(n)]
    without = torch.tensor([statistic(counts.select(row)) for row in rows], dtype=torch.float64)
    return _around(value, without, n, level, least)


def jackknife(
    parts: Tensor,
    finish: Callable[[Tensor], Tensor],
    *,
    level: float = 0.95,
    least: int = LEAST,
    shares: bool = True,
) -> Interval:
    """The interval over images of any number that follows from sums over them.

    Student's t of the jackknife (R. G. Miller, *The jackknife – a review*, Biometrika 61, 1974), of a share on the
    logit scale, which keeps it in [0, 1] and symmetric where shares near 0 or 1 are not. Where every image has 0, or
    every one 1, the far end is the exact one for values in [0, 1] of any distribution: were the mean μ > 1 − α^(1/n),
    n images of 0 would have a probability of at most (1 − μ)ⁿ < α.

    Args:
        parts: What is summed, (N, K) float64; an image whose parts are all 0 has none in the value.
        finish: From sums, (…, K), to the number, (…).
        level: Coverage aimed at, in (0, 1).
        least: Of fewer images that have a part in the value there are no ends.
        shares: Whether the number is in [0, 1].

    Returns:
        The interval; NaN where there is no value, and NaN ends of too few images.

    Example:
        >>> parts = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).double()
        >>> found = jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1], least=2)
        >>> round(found.low, 2), round(found.value, 2), round(found.high, 2)
        (0.0, 0.67, 1.0)
    """
    parts = parts[(parts != 0).any(1)]
    total = parts.sum(0)
    value = float(finish(total)) if len(parts) else math.nan
    return _around(value, finish(total - parts), len(parts), level, least, shares=shares)


def _around(value: float, without: Tensor, n: int, level: float, least: int, *, shares: bool = True) -> Interval:
    if n < max(2, least) or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    low, high = student(torch.tensor(value, dtype=torch.float64), without, level=level, shares=shares)
    return Interval(value, float(low), float(high))


def student(value: Tensor, without: Tensor, *, level: float = 0.95, shares: bool = True) -> tuple[Tensor, Tensor]:
    """Ends of Student's interval of a number, or of several at once, from what it is without each image.

    Args:
        value: (…) of all images.
        without: (N, …) without each of N ≥ 2; NaN where there is then no value.
        level: Coverage aimed at, in (0, 1).
        shares: Whether the numbers are in [0, 1]: then it is done on the logit scale.

    Returns:
        Lower and upper end, (…) each.
    """
    from scipy.special import stdtrit  # as stats.t.ppf, which takes half a second to import

    n = len(without)
    reach = float(stdtrit(n - 1, (1 + level) / 2))
    if not shares:
        spread = reach * _error(without)
        return value - spread, value + spread
    least, most = _NOWHERE * value, 1 - _NOWHERE * (1 - value)
    spread = reach * _error(torch.logit(without.clamp(least, most)))
    middle = torch.logit(value)
    far = 1 - (1 - level) ** (1 / n)
    low = torch.sigmoid(middle - spread).where(value < 1, torch.full_like(value, 1 - far))
    high = torch.sigmoid(middle + spread).where(value > 0, torch.full_like(value, far))
    return low.where(value > 0, torch.zeros_like(value)), high.where(value < 1, torch.ones_like(value))


def _error(without: Tensor) -> Tensor:
    """The jackknife's standard error, (…) from (N, …); a value that is not there moves nothing."""
    n = len(without)
    away = (without - without.nanmean(0)).nan_to_num(0.0)
    return (away.square().sum(0) * (n - 1) / n).sqrt()


@dataclass(frozen=True)
class Difference:
    """A paired mean difference, its interval, and the p-value of no difference.

    Args:
        mean: Mean of a − b.
        low: Lower end of its interval over images.
        high: Upper end.
        p_value: Two-sided, from flipping the signs of the differences.
        dropped: Pairs left out because a value was NaN.
    """

    mean: float
    low: float
    high: float
    p_value: float
    dropped: int = 0


def paired_difference(
    a: Tensor | Sequence[float],
    b: Tensor | Sequence[float],
    *,
    level: float = 0.95,
    least: int = LEAST,
    flips: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Mean of a − b over images, with Student's interval and a sign-flip permutation test.

    Args:
        a: One value for each image, (N,); NaN leaves the image out.
        b: Values of the same images, (N,).
        level: Coverage aimed at, in (0, 1).
        least: Of fewer pairs there are no ends.
        flips: Assignments of signs: all of them, which is exact, where there are no more; else so many at random, and
            the least p-value is 1/(flips + 1).
        seed: Seed of those.

    Returns:
        The difference; NaN if no pair is left, and NaN ends of too few pairs.

    Raises:
        InputError: The lengths differ.

    Example:
        >>> found = paired_difference([0.5, 0.25, 0.5, float("nan")], [0.25, 0.0, 0.25, 0.5], least=2)
        >>> found.mean, found.low, found.high, found.p_value, found.dropped
        (0.25, 0.25, 0.25, 0.25, 1)
    """
    a, b = torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64)
    if a.shape != b.shape or a.dim() != 1:
        raise InputError(f"paired values have shapes {tuple(a.shape)} and {tuple(b.shape)}; expected (N,) twice")
    gaps = (a - b)[~(a - b).isnan()]
    n, dropped = len(gaps), len(a) - len(gaps)
    if not n:
        return Difference(math.nan, math.nan, math.nan, math.nan, dropped)
    found = jackknife(
        torch.stack([gaps, torch.ones_like(gaps)], 1), lambda sums: sums[..., 0] / sums[..., 1],
        level=level, least=least, shares=False,
    )  # fmt: skip
    return Difference(float(gaps.mean()), found.low, found.high, _flipped(gaps, flips, seed), dropped)


def _flipped(gaps: Tensor, flips: int, seed: int) -> float:
    """Share of assignments of signs whose sum is as far from 0 as the one found."""
    n = len(gaps)
    exact = 2**n <= flips
    if exact:
        signs = 1 - 2 * (torch.arange(2**n).unsqueeze(1) >> torch.arange(n) & 1)
    else:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (flips, n), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
    # Equal sums may differ in the last place; they are no evidence against equality.
    reached = int(((signs.double() @ gaps).abs() >= gaps.sum().abs() * (1 - 1e-12) - 1e-300).sum())
    return reached / len(signs) if exact else (1 + reached) / (1 + flips)
