"""Verdicts on numbers: whether a drop is within what is allowed, whether an end of an interval keeps a bound.

BLOCK is for what is known to be bad, INCONCLUSIVE for what is not known to be good: too few images, or nothing at all.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from segradius.core.errors import InputError, shown
from segradius.core.escapes import listed
from segradius.core.text import number
from segradius.metrics.intervals import LEAST, Interval


class Verdict(StrEnum):
    """What is to become of a candidate, from the best to the worst."""

    PASS = "PASS"
    WARN = "WARN"
    INCONCLUSIVE = "INCONCLUSIVE"
    BLOCK = "BLOCK"

    @property
    def status(self) -> int:
        """The exit status of a command that ends with it.

        Example:
            >>> [verdict.status for verdict in Verdict]
            [0, 0, 4, 5]
        """
        return {Verdict.INCONCLUSIVE: 4, Verdict.BLOCK: 5}.get(self, 0)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several; of none INCONCLUSIVE, as nothing was judged.

    Example:
        >>> str(worst([Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.WARN])), str(worst([]))
        ('INCONCLUSIVE', 'INCONCLUSIVE')
    """
    order = list(Verdict)
    return max(verdicts, key=order.index, default=Verdict.INCONCLUSIVE)


def of_drop(
    drop: Interval,
    allowed: float,
    *,
    beyond: float,
    any_at_all: float,
    level: float,
    images: int,
    lacking: Sequence[str] = (),
) -> tuple[Verdict, str]:
    """Whether a drop from a baseline to a candidate is within what is allowed, and why.

    BLOCK needs one row of a comparison, so its p-value is adjusted for their number; PASS needs every row, each by the
    end of its own interval (R. L. Berger, *Multiparameter hypothesis testing and acceptance sampling*, Technometrics
    24, 1982).

    Args:
        drop: Mean of baseline minus candidate over images, and its interval.
        allowed: How much of a drop may be.
        beyond: One-sided p-value of a drop of no more than that, adjusted for the number of rows.
        any_at_all: The same of no drop.
        level: Coverage of the interval; what is outside counts half on either side, also for the p-values.
        images: Behind it.
        lacking: Images of the baseline that the candidate has no figure of.

    Example:
        >>> surely = dict(beyond=0.9, any_at_all=0.5, level=0.95, images=24)
        >>> [str(of_drop(Interval(0.0, -0.01, high), 0.02, **surely)[0]) for high in (0.015, 0.025)]
        ['PASS', 'INCONCLUSIVE']
    """
    limit = (1 - level) / 2
    if math.isnan(drop.low):
        return Verdict.INCONCLUSIVE, f"{images} image{'s' * (images != 1)}: too few for an interval"
    if beyond <= limit:
        return Verdict.BLOCK, "the drop is more than is allowed"
    if drop.high <= allowed:
        if lacking:
            named = f"{len(lacking)} images of the baseline have no figure of the candidate: {listed(lacking)}"
            return Verdict.INCONCLUSIVE, named
        if any_at_all <= limit:
            return Verdict.WARN, "there is a drop, which is allowed"
        return Verdict.PASS, ""
    if drop.low > allowed:
        return Verdict.INCONCLUSIVE, "the drop is more than is allowed by this row alone, not among all rows"
    certain = "there is a drop, and it" if any_at_all <= limit else "the drop"
    return Verdict.INCONCLUSIVE, f"{certain} may be more than is allowed: {images} images do not tell"


_SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt
}  # fmt: skip
_BOUND = re.compile(r"\s*(low|high|value)\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Bound:
    """What an end of an interval, or the value in it, has to keep to.

    Attributes:
        end: ``low``, ``high`` or ``value``.
        sign: ``>=``, ``<=``, ``>`` or ``<``.
        limit: The number.
    """

    end: str
    sign: str
    limit: float

    @staticmethod
    def read(words: object) -> Bound:
        """From a text such as ``low >= 0.6``.

        Raises:
            InputError: It is none.

        Example:
            >>> Bound.read("high <= 1/10")
            Bound(end='high', sign='<=', limit=0.1)
            >>> Bound.read("lower >= 0.6")
            Traceback (most recent call last):
            segradius.core.errors.InputError: require is 'lower >= 0.6'; expected low, high or value, a sign and a ...
        """
        match = _BOUND.fullmatch(words) if isinstance(words, str) else None
        limit = math.nan if match is None else number("require", match[3])
        if match is None or not math.isfinite(limit):
            wanted = "low, high or value, a sign and a number, as in low >= 0.6"
            raise InputError(f"require is {shown(words)}; expected {wanted}")
        return Bound(match[1], match[2], limit)

    def __str__(self) -> str:
        return f"{self.end} {self.sign} {self.limit:g}"

    @property
    def is_strict(self) -> bool:
        """Whether keeping it takes the whole interval: the low end from below, or the high end from above."""
        return (self.end, self.sign[0]) in {("low", ">"), ("high", "<")}

    def keeps(self, number: float) -> bool:
        """Whether a number keeps to it."""
        return _SIGNS[self.sign](number, self.limit)


def of_bound(bound: Bound, found: Interval, images: int, least: int = LEAST) -> tuple[Verdict, str]:
    """Whether a figure keeps to a bound, and why not.

    Args:
        bound: A strict one is broken for sure where the whole interval lies beyond it; between, more images may tell.
        found: The figure, and its interval.
        images: Behind it.
        least: With fewer nothing is decided.

    Example:
        >>> found = Interval(0.7, 0.6, 0.8)
        >>> bounds = ["low >= 0.6", "low >= 0.65", "low >= 0.9", "value > 0.65", "value > 0.7", "high >= 0.9"]
        >>> [str(of_bound(Bound.read(each), found, 24)[0]) for each in bounds]
        ['PASS', 'INCONCLUSIVE', 'BLOCK', 'PASS', 'BLOCK', 'BLOCK']
        >>> of_bound(Bound.read("value > 0.65"), found, 4)
        (<Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>, '4 images; at least 5 are asked for')
    """
    if images < least:
        return Verdict.INCONCLUSIVE, f"{images} image{'s' * (images != 1)}; at least {least} are asked for"
    end = float(getattr(found, bound.end))
    if math.isnan(end):
        return Verdict.INCONCLUSIVE, f"there is no {bound.end} {'end' * (bound.end != 'value')}".strip()
    if bound.keeps(end):
        return Verdict.PASS, ""
    other = {"low": found.high, "high": found.low}.get(bound.end, math.nan)
    if bound.is_strict and bound.keeps(other):
        return Verdict.INCONCLUSIVE, "the interval has the bound in it: more images may tell"
    return Verdict.BLOCK, f"{bound.end} is {end:.4g}"
