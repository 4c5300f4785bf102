"""Paired differences of many rows at once: exact intervals and adjusted p-values, all from flips of the images' signs.

If neither of two models is better, an image's differences, of all rows together, might as well have the other sign. So
the flips keep what rows have in common, and many rows that tell the same story cost little more than one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from segradius.core.errors import InputError

FLIPS = 10_000
"""Assignments of signs: all of them where there are no more, else so many at random."""

BLOCK = 1000
"""Assignments multiplied at a time."""


@dataclass(frozen=True, eq=False)
class SignFlips:
    """Differences of N images in R rows, and what they would be were signs of images flipped.

    Where 2^N ≤ ``flips`` all assignments are looked at and everything is exact; else so many drawn at random beside the
    one found, which is exact as well, with a resolution of 1/(flips + 1). What is assumed is that differences are
    symmetric around their mean.

    Args:
        gaps: (N, R) float64; NaN where an image has no part in a row.
        flips: Assignments of signs.
        seed: Seed of those drawn at random.

    Raises:
        InputError: The shape is another one, or a value is infinite.

    Example:
        >>> gaps = torch.tensor([0.03, 0.02, 0.04, 0.02, 0.03, 0.01, 0.02, 0.03]).double()[:, None]
        >>> found = SignFlips(gaps)
        >>> low, high = found.ends(0.95)
        >>> [round(float(each), 4) for each in (gaps.mean(), low[0], high[0], found.p_values(0.0)[0])]
        [0.025, 0.0167, 0.0333, 0.0039]
    """

    gaps: Tensor
    flips: int = FLIPS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.gaps.dim() != 2 or bool(self.gaps.isinf().any()):
            raise InputError(f"paired differences of shape {tuple(self.gaps.shape)}; expected (N, R), all finite")

    @property
    def exact(self) -> bool:
        """Whether all assignments of signs are looked at."""
        return bool(2 ** len(self.gaps) <= self.flips)

    @property
    def resolution(self) -> float:
        """The least p-value there can be."""
        return 1 / len(self.signs)

    @cached_property
    def signs(self) -> Tensor:
        """(F, N) int8 of 1 and −1, the assignment that was found first; not to be written in."""
        return _signs(len(self.gaps), self.flips, self.seed)

    def ends(self, level: float) -> tuple[Tensor, Tensor]:
        """Ends of the interval of each mean: what would not be rejected, at half of 1 − level on either side.

        A mean above that of the images whose sign is flipped is rejected by that flip (J. A. Hartigan, *Using
        subsample values as typical values*, JASA 64, 1969), so that ends are order statistics of means of subsets.

        Args:
            level: Coverage, in (0, 1).

        Returns:
            Lower and upper end, (R,) each; NaN of too few images.
        """
        outside = math.floor((1 - level) / 2 * len(self.signs) * (1 + 1e-12))
        there, known = (~self.gaps.isnan()).double(), self.gaps.nan_to_num(0.0)
        flipped = ((block < 0).double() for block in self._blocks())
        means = torch.cat([each @ known / (each @ there) for each in flipped])  # NaN of nothing, which rejects nothing
        low = means.nan_to_num(-math.inf).kthvalue(outside + 1, 0).values
        high = means.nan_to_num(math.inf).kthvalue(len(means) - outside, 0).values
        none = low.isinf() | high.isinf()
        return low.masked_fill(none, math.nan), high.masked_fill(none, math.nan)

    def p_values(self, margin: float | Tensor) -> Tensor:
        """One-sided p-value of each mean's being no more than a margin, (R,), each row by itself.

        Args:
            margin: For all rows, or (R,).
        """
        return self._ranked(margin)[0]

    def adjusted(self, margin: float | Tensor) -> Tensor:
        """The same, adjusted for the number of rows: below α for any row whose mean is none with probability ≤ α.

        Step-down of the least p-value over rows (P. H. Westfall & S. S. Young, *Resampling-based multiple testing*,
        1993, algorithm 2.8), which is Holm's where rows have nothing in common and less strict where they have much.

        Args:
            margin: For all rows, or (R,).

        Example:
            >>> gaps = torch.tensor([0.03, 0.02, 0.04, 0.02, 0.03, 0.01, 0.02, 0.03]).double()
            >>> alike = SignFlips(gaps[:, None] * torch.tensor([1.0, 1.1, 0.9]))
            >>> [round(p, 4) for p in alike.adjusted(0.0).tolist()]
            [0.0039, 0.0039, 0.0039]
        """
        ranked = self._ranked(margin)
        order = ranked[0].argsort(stable=True)
        sorted_ = ranked[:, order]
        least = sorted_.flip(1).cummin(1).values.flip(1)  # over this row and those with larger p-values
        found = (least <= sorted_[0] * (1 + 1e-9)).double().mean(0).cummax(0).values
        return torch.empty_like(found).scatter_(0, order, found)

    def _blocks(self) -> Iterator[Tensor]:
        return (self.signs[first : first + BLOCK] for first in range(0, len(self.signs), BLOCK))

    def _ranked(self, margin: float | Tensor) -> Tensor:
        """The p-value of each row under every assignment of signs, (F, R)."""
        beyond = (self.gaps - margin).nan_to_num(0.0)
        sums = torch.cat([block.double() @ beyond for block in self._blocks()])
        slack = beyond.abs().sum(0) * 1e-12  # equal sums may differ in the last place
        ascending = sums.T.contiguous().sort(1).values
        below = torch.searchsorted(ascending, (sums - slack).T.contiguous())
        return (len(sums) - below).T.double() / len(sums)


@lru_cache(maxsize=1)
def _signs(n: int, flips: int, seed: int) -> Tensor:
    if 2**n <= flips:
        return (1 - 2 * (torch.arange(2**n)[:, None] >> torch.arange(n) & 1)).to(torch.int8)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(2, (flips, n), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
    return torch.cat([torch.ones(1, n, dtype=torch.int8), drawn])
