"""What a candidate lost against a baseline: rows of paired differences, judged together against what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from segradius.evaluation.decisions import Verdict, of_drop, worst
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval
from segradius.metrics.sign_flips import FLIPS, SignFlips
from segradius.metrics.statistics import Statistic

CERTIFIED = "certified accuracy"


@dataclass(frozen=True)
class About:
    """What a row is of.

    Attributes:
        measurement: Its name, where there are several.
        attack: By its label; ``clean``, or the answer of a certification.
        norm: Of the threat; empty where there is none.
        eps: Its budget, or the radius of a certified accuracy.
        figure: What is compared; of a certificate `CERTIFIED`.
    """

    measurement: str
    attack: str
    norm: str
    eps: float
    figure: str

    @property
    def sign(self) -> str:
        """What ``eps`` is."""
        return "r" if self.figure == CERTIFIED else "ε"

    @property
    def title(self) -> str:
        """For people.

        Example:
            >>> About("", "pgd", "l2", 1.5, "PixAcc").title
            'pgd (l2, ε = 1.5), PixAcc'
        """
        threat = f" ({self.norm}, {self.sign} = {self.eps:g})" if self.norm else ""
        return f"{self.measurement + ': ' if self.measurement else ''}{self.attack}{threat}, {self.figure}"


@dataclass(frozen=True)
class Pairs:
    """A row that is still to be judged.

    Args:
        about: What it is of.
        before: The baseline's figure over the images that both have.
        after: The candidate's.
        gaps: By image, what the baseline has more; their mean is the drop.
        allowed: How much of a drop may be; None where the row is only told.
        lacking: Images of the baseline that the candidate has no figure of.
        missing: Why there is nothing to compare; empty where there is.
    """

    about: About
    before: float = math.nan
    after: float = math.nan
    gaps: Mapping[str, float] = field(default_factory=dict)
    allowed: float | None = None
    lacking: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Drop:
    """A judged row.

    Attributes:
        about: What it is of.
        before: The baseline's figure.
        after: The candidate's.
        drop: Baseline minus candidate, and its interval.
        p_value: One-sided, that the drop is no more than is allowed, adjusted for all rows that are judged; NaN where
            it is not judged.
        images: Behind it.
        allowed: How much of a drop may be; None where the row is only told.
        verdict: None where it is only told.
        why: What is to be said of the verdict; empty for PASS.
    """

    about: About
    before: float
    after: float
    drop: Interval
    p_value: float
    images: int
    allowed: float | None
    verdict: Verdict | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **vars(self.about),
            "before": self.before,
            "after": self.after,
            "drop": vars(self.drop),
            "p_value": self.p_value,
            "images": self.images,
            "allowed": self.allowed,
            "verdict": self.verdict and str(self.verdict),
            "why": self.why,
        }


NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Judged:
    """All rows of a comparison.

    Attributes:
        rows: In order.
        level: Coverage of the intervals; half of what is outside is the limit of the p-values.
        exact: Whether all flips of signs were looked at.
        resolution: The least p-value there can be.
    """

    rows: tuple[Drop, ...]
    level: float
    exact: bool
    resolution: float

    @property
    def verdict(self) -> Verdict:
        """The worst of all; INCONCLUSIVE where there is none."""
        return worst(row.verdict for row in self.rows if row.verdict is not None)

    @property
    def limit(self) -> float:
        """Of the p-values."""
        return round((1 - self.level) / 2, 12)


def judged(rows: Sequence[Pairs], *, level: float = 0.95, flips: int = FLIPS, seed: int = 0) -> Judged:
    """Rows with their verdicts, in order.

    The chance that two equal models have any row with BLOCK is at most (1 − level)/2, however many rows there are.

    Args:
        rows: Of one comparison; an image of the same name is the same in all.
        level: Coverage of each interval.
        flips: As `SignFlips` takes it.
        seed: Likewise.

    Example:
        >>> gaps = {str(k): 0.05 + 0.001 * k for k in range(8)}
        >>> found = judged([Pairs(About("", "pgd", "l2", 1.5, "PixAcc"), 0.5, 0.4465, gaps, allowed=0.02)])
        >>> str(found.verdict), round(found.rows[0].drop.value, 4), round(found.rows[0].p_value, 4)
        ('BLOCK', 0.0535, 0.0039)
    """
    images = list(dict.fromkeys(image for row in rows for image in row.gaps))
    found = [row for row in rows if row.gaps]
    table = [[row.gaps.get(image, math.nan) for row in found] for image in images]
    gaps = torch.tensor(table, dtype=torch.float64).view(len(images), len(found))
    signs = SignFlips(gaps, flips, seed)
    numbers: dict[int, tuple[Interval, float, float]] = {}
    if found:
        low, high = signs.ends(level)
        beyond, any_at_all = _p_values(gaps, [row.allowed for row in found], flips, seed)
        means = gaps.nanmean(0)
        for k, row in enumerate(found):
            drop = Interval(*map(float, (means[k], low[k], high[k])))
            numbers[id(row)] = (drop, beyond[k], any_at_all[k])
    told = tuple(_told(row, *numbers[id(row)], level) if row.gaps else _untold(row) for row in rows)
    return Judged(told, level, signs.exact, signs.resolution)


def _p_values(gaps: Tensor, allowed: Sequence[float | None], flips: int, seed: int) -> tuple[list[float], list[float]]:
    """Adjusted p-values, of a drop within what is allowed and of none, of the rows that are judged; NaN of others."""
    found = torch.full((2, len(allowed)), math.nan, dtype=torch.float64)
    rows = [k for k, each in enumerate(allowed) if each is not None]
    if rows:
        together = SignFlips(gaps[:, rows], flips, seed)
        margins = torch.tensor([each for each in allowed if each is not None], dtype=torch.float64)
        found[0, rows], found[1, rows] = together.adjusted(margins), together.adjusted(0.0)
    beyond, any_at_all = found.tolist()
    return beyond, any_at_all


def _told(row: Pairs, drop: Interval, beyond: float, any_at_all: float, level: float) -> Drop:
    verdict, why, images = None, "", len(row.gaps)
    if row.allowed is not None:
        verdict, why = of_drop(
            drop, row.allowed, beyond=beyond, any_at_all=any_at_all, level=level, images=images, lacking=row.lacking
        )
    return Drop(row.about, row.before, row.after, drop, beyond, images, row.allowed, verdict, why)


def _untold(row: Pairs) -> Drop:
    verdict = None if row.allowed is None else Verdict.INCONCLUSIVE
    why = row.missing or "no image has figures of both"
    return Drop(row.about, row.before, row.after, NOTHING, math.nan, 0, row.allowed, verdict, why)


def of_values(
    about: About, before: Mapping[str, float], after: Mapping[str, float], allowed: float | None = None
) -> Pairs:
    """A row of values by image; NaN where an image has none.

    Args:
        about: What it is of.
        before: The baseline's.
        after: The candidate's.
        allowed: As `Pairs` has it.

    Example:
        >>> row = of_values(About("", "clean", "", 0.0, "PixAcc"), {"a": 0.75, "b": 0.5}, {"a": 0.5}, 0.02)
        >>> row.gaps, row.before, row.lacking
        ({'a': 0.25}, 0.75, ('b',))
    """
    known = {image: value for image, value in before.items() if not math.isnan(value)}
    both = [image for image in known if not math.isnan(after.get(image, math.nan))]
    lacking = tuple(image for image in known if image not in both)
    if not both:
        return Pairs(about, allowed=allowed, lacking=lacking)
    ours, theirs = (math.fsum(side[image] for image in both) / len(both) for side in (known, after))
    return Pairs(about, ours, theirs, {image: known[image] - after[image] for image in both}, allowed, lacking)


def of_counts(
    about: About,
    statistic: Statistic,
    images: Sequence[str],
    before: Counts,
    after: Counts,
    allowed: float | None = None,
) -> Pairs:
    """A row of a figure that is pooled over images, such as the IoU of a class, each image's gap being its influence.

    That is (n − 1) times what the difference changes without the image, around the difference; the jackknife's error
    is that of their mean.

    Args:
        about: What it is of.
        statistic: The figure.
        images: Their names.
        before: The baseline's counts of those.
        after: The candidate's.
        allowed: As `Pairs` has it.
    """
    sides = [statistic.parts(counts) for counts in (before, after)]
    taking_part = ((sides[0] != 0) | (sides[1] != 0)).any(1)
    parts = [side[taking_part] for side in sides]
    named = [image for image, there in zip(images, taking_part.tolist(), strict=True) if there]
    ours, theirs = (float(statistic.finish(side.sum(0))) for side in parts) if named else (math.nan, math.nan)
    if math.isnan(ours) or math.isnan(theirs):
        return Pairs(about, ours, theirs, allowed=allowed, missing="it occurs in no image of one of the two")
    without = [statistic.finish(side.sum(0) - side) for side in parts]
    left = without[0] - without[1]
    influence = (len(named) - 1) * (left.nanmean() - left).nan_to_num(0.0) + (ours - theirs)
    return Pairs(about, ours, theirs, dict(zip(named, influence.tolist(), strict=True)), allowed)
