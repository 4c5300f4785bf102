"""A figure with its interval over images and over networks of several seeds, from what it is without each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.metrics.intervals import LEAST

LEVEL = 0.95
"""Coverage that every interval aims at."""

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Estimate:
    """A value, the ends of its 95 % interval, and what they speak of.

    Attributes:
        value: NaN where there is none.
        low: Lower end; NaN where there is no interval.
        high: Upper end.
        df: Degrees of freedom of the interval; infinite of one that is given.
        images: That have a part in it.
        seeds: Trained networks a group, the fewest of any: 1 has no spread over seeds in its interval; 0 where no
            network is asked.
        reason: Why there is no interval; empty where there is one.

    Example:
        >>> found = Estimate(-2.0, -3.0, -1.0, images=24)
        >>> found.known, found.half, found.p_value(0.0, "below") < 0.001
        (True, 1.0, True)
    """

    value: float
    low: float
    high: float
    df: float = math.inf
    images: int = 0
    seeds: int = 0
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether it has a value and an interval."""
        return not (math.isnan(self.value) or math.isnan(self.low) or math.isnan(self.high))

    @property
    def half(self) -> float:
        """Half the width of the interval: about how large an effect has to be to be told from none."""
        return (self.high - self.low) / 2

    def p_value(self, than: float, side: Side) -> float:
        """One-sided p-value of the value's not being above, or below, a number.

        It is less than 0.025 exactly where the 95 % interval ends before the number.

        Args:
            than: The number.
            side: On which side of it the value is said to be.
        """
        from scipy.special import ndtr, ndtri, stdtr, stdtrit  # half a second quicker to import than scipy.stats

        if not self.known:
            return 1.0
        reach = self.value - self.low if side == "above" else self.high - self.value
        away = self.value - than if side == "above" else than - self.value
        if math.isinf(than):
            return 0.0 if away > 0 else 1.0
        if reach <= 0:  # no image differs from another
            return 0.0 if away > 0 else 1.0
        tail = (1 + LEVEL) / 2
        if math.isinf(self.df):
            return float(ndtr(-away / reach * ndtri(tail)))
        return float(stdtr(self.df, -away / reach * stdtrit(self.df, tail)))

    def scaled(self, by: float) -> Estimate:
        """The same in another unit: by 100, in points."""
        ends = sorted((self.low * by, self.high * by)) if self.known else (math.nan, math.nan)
        return Estimate(self.value * by, ends[0], ends[1], self.df, self.images, self.seeds, self.reason)


def unknown(reason: str, value: float = math.nan, images: int = 0, seeds: int = 0) -> Estimate:
    """An estimate without an interval, and why.

    Example:
        >>> unknown("1 image").known
        False
    """
    return Estimate(value, math.nan, math.nan, images=images, seeds=seeds, reason=reason)


@dataclass(frozen=True, eq=False)
class Term:
    """A share that is part of a contrast, in parts: of networks (rows) on images (columns).

    Attributes:
        group: Networks that are drawn together: terms of one group have the same networks in the same rows.
        above: Numerator, (S, I) float64.
        below: Denominator, (S, I) float64.

    Raises:
        InputError: Shapes differ.
    """

    group: str
    above: Tensor
    below: Tensor

    def __post_init__(self) -> None:
        if self.above.dim() != 2 or self.above.shape != self.below.shape:
            shapes = " and ".join(str(tuple(each.shape)) for each in (self.above, self.below))
            raise InputError(f"a term has parts of shapes {shapes}; expected (S, I) twice")


def estimate(terms: Sequence[Term], finish: Callable[[Tensor], Tensor], *, positive: bool = False) -> Estimate:
    """A number that follows from shares, each pooled over networks and images, with an interval over both.

    Images and networks are crossed: each network sees the same images, and each image is seen by all networks. The
    variance is the jackknife's over images plus the jackknife's over the networks of each group; Student's t has the
    degrees of freedom of F. E. Satterthwaite (*An approximate distribution of estimates of variance components*,
    Biometrics Bulletin 2, 1946). What image and network have in common is counted in both, so that the interval is, if
    anything, too wide. Of one network a group it is the paired interval over images, and speaks of that network alone.

    With three seeds it covers where a bootstrap of seeds and images does not: docs/reproduction.md has the figures.

    Args:
        terms: The shares; images are the same in all.
        finish: From shares, (…, K), to the number, (…).
        positive: Whether the number is a ratio, above 0: then it is done on its logarithm.

    Returns:
        The estimate; without an interval where there are fewer than 5 images or a value is not finite.

    Raises:
        InputError: There is no term, or terms have other images, or those of a group other networks.

    Example:
        >>> right = torch.tensor([[40.0, 52, 58, 32, 40, 48], [50.0, 60, 70, 40, 50, 60]]).double()
        >>> terms = [Term("net", each[None], torch.full((1, 6), 100.0).double()) for each in right]
        >>> found = estimate(terms, lambda shares: shares[..., 0] - shares[..., 1])
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), found.df, found.seeds
        (-0.1, -0.119, -0.081, 5.0, 1)
    """
    sizes = _sizes(terms)
    images, seeds = terms[0].above.shape[1], min(sizes.values())
    if not images or not seeds:
        return unknown("no image that all have", images=images, seeds=seeds)
    turned = (lambda shares: finish(shares).log()) if positive else finish
    value = turned(torch.stack([each.above.sum() / each.below.sum() for each in terms]))
    back = math.exp if positive else float
    if not bool(value.isfinite()):
        return unknown("no finite value", images=images, seeds=seeds)
    if images < LEAST:
        return unknown(
            f"{images} image{'s' if images > 1 else ''}; an interval takes {LEAST}", back(float(value)), images, seeds
        )
    parts = [(_spread(turned(_without_images(terms))), images - 1)]
    parts += [(_spread(turned(_without_networks(terms, group))), n - 1) for group, n in sizes.items() if n > 1]
    if not all(math.isfinite(variance) for variance, _ in parts):
        return unknown("no finite value without one of the images or networks", back(float(value)), images, seeds)
    reach, df = _reach(parts)
    low, high = (back(float(value) + each) for each in (-reach, reach))
    return Estimate(back(float(value)), low, high, df, images, seeds)


def _sizes(terms: Sequence[Term]) -> dict[str, int]:
    """Networks by group."""
    if not terms:
        raise InputError("an estimate needs at least one term; got none")
    sizes: dict[str, int] = {}
    for each in terms:
        rows, columns = each.above.shape
        if columns != terms[0].above.shape[1] or sizes.setdefault(each.group, rows) != rows:
            raise InputError(
                f"a term of group {each.group!r} has {rows} networks and {columns} images; "
                f"expected {sizes.get(each.group, rows)} and {terms[0].above.shape[1]}, as the others have"
            )
    return sizes


def _without_images(terms: Sequence[Term]) -> Tensor:
    """Shares without each image, (I, K)."""
    above, below = (torch.stack([getattr(each, part).sum(0) for each in terms], 1) for part in ("above", "below"))
    return (above.sum(0) - above) / (below.sum(0) - below)


def _without_networks(terms: Sequence[Term], group: str) -> Tensor:
    """Shares without each network of a group, (S, K); those of other groups as they are."""
    n = next(len(each.above) for each in terms if each.group == group)
    left = []
    for each in terms:
        above, below = each.above.sum(1), each.below.sum(1)
        whole = (above.sum() / below.sum()).expand(n)
        left.append((above.sum() - above) / (below.sum() - below) if each.group == group else whole)
    return torch.stack(left, 1)


def _spread(without: Tensor) -> float:
    """The jackknife's variance of a number from what it is without each of n."""
    n = len(without)
    return float((without - without.mean()).square().sum() * (n - 1) / n)


def _reach(parts: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Half the interval and its degrees of freedom, from variances that add up and the degrees of freedom of each."""
    from scipy.special import stdtrit

    whole = sum(variance for variance, _ in parts)
    if whole == 0.0:
        return 0.0, float(parts[0][1])
    df = whole**2 / sum(variance**2 / free for variance, free in parts)
    return float(stdtrit(df, (1 + LEVEL) / 2)) * math.sqrt(whole), df


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that with probability 1 − α none below α is of a hypothesis that is true (S. Holm, 1979).

    It holds for any dependence, such as that of networks on the same images.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted
