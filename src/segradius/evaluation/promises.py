"""What a certification promises in words, and with how many copies it can at all."""

from __future__ import annotations

from dataclasses import replace

import torch

from segradius.certification import Votes
from segradius.evaluation.certifying import Smoothing


def promise(kind: str, alpha: float, within: str, what: str = "its class") -> str:
    """What a certificate promises of an image, in a sentence.

    Args:
        kind: `Certificate.promise`.
        alpha: Error rate.
        within: Which changes it speaks of.
        what: What a certified pixel keeps.

    Example:
        >>> promise("image", 0.001, "every change …").partition(", ")[2]
        'every certified pixel keeps its class in the smoothed model under every change ….'
    """
    keeps = f"keeps {what} in the smoothed model under {within}"
    sure = f"With probability at least {1 - alpha:.10g} over the noise drawn for an image"
    if kind == "pixel":
        return f"{sure}, a given certified pixel {keeps}: each pixel for itself, so that some of an image may not."
    if kind == "share":
        return (
            f"Of the certified pixels of an image an expected share of at most {alpha:.10g} fails; any other {keeps}."
        )
    every = "every certified pixel" if kind == "image" else f"every certified pixel, but for {kind},"
    return f"{sure}, {every} {keeps}."


def least_copies(smoothing: Smoothing, pixels: int, most: int = 10**6) -> int | None:
    """The smallest n with which every certificate of an image can be had at all: all votes of all pixels agreeing.

    Args:
        smoothing: The options; its own n does not matter.
        pixels: Tested pixels of an image.
        most: The answer is None if more are needed.

    Example:
        >>> least_copies(Smoothing(tau=0.75, correction="bonferroni"), 1000)  # the least n with 0.75ⁿ ≤ 0.001 / 1000
        49
    """
    certify = replace(smoothing, hierarchy=()).certificates(("a", "b")).values()

    def possible(n: int) -> bool:
        votes = _unanimous(pixels, n, smoothing)
        return all(bool(each(votes).certified.any()) for each in certify)

    high = 1
    while not possible(high):
        high *= 2
        if high > most:
            return None
    low = high // 2  # not possible, or 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if possible(middle) else (middle, high)
    return high


def _unanimous(pixels: int, n: int, it: Smoothing) -> Votes:
    """Votes over a row of pixels that are all for class 0 of two."""
    one = torch.tensor([1, 0], dtype=torch.int32).view(2, 1, 1).expand(2, 1, pixels)
    return Votes(one * it.n0, one * n, it.n0, n, it.sigma, looks=it.early_stop is not None)
