"""Means over images or seeds with their intervals, as JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from segradius.metrics.intervals import Interval, jackknife, paired_difference


def mean_of(values: Sequence[float]) -> dict[str, Any]:
    """Mean, Student's 95 % interval and number of the values that are there; no ends of fewer than five.

    Example:
        >>> found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0, float("nan")])
        >>> found["value"], found["n"], round(found["high"] - found["value"], 3)
        (3.0, 5, 1.963)
    """
    known = torch.tensor([value for value in values if not math.isnan(value)], dtype=torch.float64)
    parts = torch.stack([known, torch.ones_like(known)], 1)
    found = jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1], shares=False)
    return {**_told(found), "n": len(known)}


def ratio_of(tops: Sequence[float], bottoms: Sequence[float]) -> dict[str, Any]:
    """Sum over sum, with its interval over what both are of: images.

    Example:
        >>> ratio_of([1.0, 2.0], [2.0, 4.0])["value"]
        0.5
    """
    parts = torch.tensor([list(tops), list(bottoms)], dtype=torch.float64).T
    found = jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1], shares=False)
    return {**_told(found), "n": len(parts)}


def share_of(right: Sequence[int], pixels: Sequence[int]) -> dict[str, Any]:
    """Pooled pixel accuracy with its interval over images, on the logit scale.

    Example:
        >>> share_of([1, 2], [2, 4])["value"]
        0.5
    """
    parts = torch.tensor([list(right), list(pixels)], dtype=torch.float64).T
    found = jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1])
    return {**_told(found), "n": len(parts)}


def gain_of(first: Sequence[int], second: Sequence[int], pixels: Sequence[int]) -> dict[str, Any]:
    """Pooled pixel accuracy of the first minus that of the second on the same images, with its interval.

    Example:
        >>> gain_of([1, 2], [1, 1], [2, 2])["value"]
        0.25
    """
    parts = torch.tensor([list(first), list(second), list(pixels)], dtype=torch.float64).T
    found = jackknife(parts, lambda sums: (sums[..., 0] - sums[..., 1]) / sums[..., 2], shares=False)
    return {**_told(found), "n": len(parts)}


def difference_of(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Mean of first − second over images, its 95 % interval, and the p-value of flipped signs.

    Example:
        >>> difference_of([2.0, 4.0], [1.0, 1.0])["value"]
        2.0
    """
    found = paired_difference(list(first), list(second))
    about = {"value": found.mean, "low": found.low, "high": found.high, "p_value": found.p_value}
    return {**about, "n": len(first) - found.dropped}


def _told(found: Interval) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}
