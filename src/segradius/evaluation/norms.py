"""Length of δ that each image needed until a share of its pixels was fooled, as a curve and a median, and APSR."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from segradius.attacks.minimal_norm import SHARE
from segradius.core.declared import Share, read
from segradius.core.errors import InputError
from segradius.core.escapes import listed
from segradius.evaluation.attack import Attacking, AttackPlan
from segradius.evaluation.rows import ImageResult


@dataclass(frozen=True)
class Norms:
    """What an attack without a ball needed.

    Attributes:
        median: Of the lengths over images, those that did not get there being ∞; None where it is ∞ itself.
        reached: Share of the images that got there, in [0, 1].
        share: Of the pixels to fool, in (0, 1].
        apsr: Attack pixel success rate, the mean over images of the share of pixels that are fooled.
    """

    median: float | None
    reached: float
    share: float
    apsr: float


def norms_reached(
    lines: Iterable[Mapping[str, Any]], share: float = SHARE, *, targeted: bool = False
) -> dict[str, float]:
    """‖δ‖ of each image where a share of its pixels is fooled and ∞ where not, by image.

    Args:
        lines: Of per_image.csv, as `per_image` of a run gives them, of one attack in one threat model; those of
            unattacked images and of images that are not valid are passed over.
        share: Of the pixels, in (0, 1]: labelled ones that are wrong or, targeted, that are where they were aimed.
        targeted: Whether the attack had an aim.

    Raises:
        InputError: Lines are of several attacks, or the share is not in (0, 1].

    Example:
        >>> line = {"attack": "fmn", "norm": "l2", "eps": None, "valid": 1, "pixels": 100, "l2": 0.7}
        >>> norms_reached([{**line, "image": "a", "right": 1}, {**line, "image": "b", "right": 2}])
        {'a': 0.7, 'b': inf}
    """
    least = read("share", Share, share)
    return {
        line["image"]: line[line["norm"]] if _reached(*_counts(line, targeted=targeted), least) else math.inf
        for line in _attacked(lines)
    }


def pixel_success(lines: Iterable[Mapping[str, Any]], *, targeted: bool = False) -> dict[str, float]:
    """Attack pixel success rate, the share of an image's pixels that are fooled, by image; APSR is their mean.

    Args:
        lines: As `norms_reached` takes them.
        targeted: Whether the attack had an aim.

    Raises:
        InputError: Lines are of several attacks.

    Example:
        >>> pixel_success([{"attack": "pgd", "norm": "l2", "image": "a", "valid": 1, "pixels": 4, "right": 1}])
        {'a': 0.75}
    """
    return {line["image"]: _part(*_counts(line, targeted=targeted)) for line in _attacked(lines)}


def norm_curve(lengths: Iterable[float]) -> tuple[list[float], list[float]]:
    """Lengths at which the curve rises, ascending, and the share of the images that need no more than each.

    Args:
        lengths: Of each image, ∞ where it was not reached.

    Example:
        >>> norm_curve([2.0, 0.5, math.inf, 2.0])
        ([0.5, 2.0], [0.25, 0.75])
    """
    every = sorted(lengths)
    radii = sorted({length for length in every if length < math.inf})
    return radii, [bisect_right(every, radius) / len(every) for radius in radii]


def median_norm(lengths: Iterable[float]) -> float:
    """Median over images, ∞ where that is an image that was not reached; NaN of no image.

    Example:
        >>> median_norm([2.0, 0.5, math.inf]), median_norm([0.5, math.inf])
        (2.0, inf)
    """
    return float(median(every)) if (every := list(lengths)) else math.nan


def norms_of(
    attacks: Sequence[tuple[AttackPlan, Mapping[str, ImageResult]]], ids: Iterable[str], *, targeted: bool
) -> Norms | None:
    """Of an attack or, of several in a threat model, of whichever needed least for each image.

    Args:
        attacks: Each with its valid results by image.
        ids: The images that count.
        targeted: Whether they have an aim.

    Returns:
        None in a ball, where attacks keep to a patch, where they have several shares, and of no image.
    """
    shares, ids = {share_of(plan) for plan, _ in attacks}, list(ids)
    share = shares.pop()
    if share is None or shares or not ids:
        return None
    found = [[_lengths(plan, results[image], share, targeted=targeted) for plan, results in attacks] for image in ids]
    lengths = [min(length for _, length in each) for each in found]
    middle = median_norm(lengths)
    reached = sum(length < math.inf for length in lengths) / len(ids)
    apsr = fmean(max(part for part, _ in each) for each in found)
    return Norms(middle if middle < math.inf else None, reached, share, apsr)


def share_of(plan: AttackPlan) -> float | None:
    """Share of the pixels at which a length is read off: an attack's own if it looks for one; None in a ball or patch.

    Example:
        >>> share_of(AttackPlan("fmn", "l2", math.inf, {"share": 0.5})), share_of(AttackPlan("pgd", "l2", 1.5))
        (0.5, None)
    """
    if plan.eps < math.inf or plan.patch:
        return None
    step = getattr(Attacking(plan).attack.method, "step", None)
    return float(step.share) if step is not None and hasattr(step, "incumbent") else SHARE


def image_norms(plan: AttackPlan, results: Iterable[ImageResult], *, targeted: bool) -> list[float]:
    """Length of each image, ∞ where its share was not reached; nothing in a ball or a patch."""
    share = share_of(plan)
    return [] if share is None else [_lengths(plan, each, share, targeted=targeted)[1] for each in results]


def _lengths(plan: AttackPlan, result: ImageResult, share: float, *, targeted: bool) -> tuple[float, float]:
    """Share of the pixels that are fooled, and the length or ∞."""
    labelled, right = sum(result.pixels.labelled), sum(result.pixels.intersection)
    counts = (result.hit, result.eligible) if targeted else (labelled - right, labelled)
    length = float(getattr(result, plan.norm)) if _reached(*counts, share) else math.inf
    return _part(*counts), length


def _attacked(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Valid lines with a norm; refuses several attacks."""
    found = [line for line in lines if line["norm"]]
    every = {tuple(line.get(name) for name in ("measurement", "attack", "norm", "eps")) for line in found}
    if len(every) > 1:
        named = listed([" ".join(str(part) for part in each if part is not None) for each in sorted(every, key=str)])
        raise InputError(f"lines are of {len(every)} attacks ({named}); expected those of one attack in one threat")
    return [line for line in found if line["valid"]]


def _counts(line: Mapping[str, Any], *, targeted: bool) -> tuple[int, int]:
    """Pixels that are fooled, and those that could be."""
    return (line["hit"], line["eligible"]) if targeted else (line["pixels"] - line["right"], line["pixels"])


def _part(fooled: int, counted: int) -> float:
    return fooled / max(1, counted)


def _reached(fooled: int, counted: int, share: float) -> bool:
    """As `Goal.reached`."""
    return _part(fooled, counted) >= share
