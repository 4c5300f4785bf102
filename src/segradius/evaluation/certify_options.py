"""How images are certified: the options, the tests that follow from them, and what they promise in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional

from segradius.certification.certificate import Certificate
from segradius.certification.certifiers import Adaptive, Hierarchy, PixelRadii, SegCertify
from segradius.certification.votes import Noise, Sampling, Votes
from segradius.core.declared import Copies, Count, Decay, Inside, Majority, Part, Sigma, check_fields, only_with
from segradius.core.errors import InputError
from segradius.evaluation.batch import Batch

#: From the votes of an image to its certificate.
Certify = Callable[[Votes], Certificate]

Groupings = tuple[Mapping[str, Sequence[str]], ...]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Smoothing:
    """How every image is certified. Nothing that changes no number, as the copies in a pass, is part of it.

    Args:
        sigma: σ of the noise.
        n0: Copies that name the class of each pixel.
        n: Copies that test it; the most that are drawn with ``early_stop``.
        alpha: Promised error rate for an image.
        tau: Probability that is tested for.
        correction: For the number of pixels; see `segradius.certification.CORRECTIONS`.
        k: Of the correction ``kfwer``.
        radii: A radius of its own for each pixel, from a bound on the guess (``"one"``), or on its rivals too
            (``"two"``).
        hierarchy: Ever coarser groupings of class names; none for single classes only.
        gap: Of `segradius.certification.Adaptive`.
        early_stop: Share of pixels that may be left undecided when sampling stops early; None to draw all copies.
        clamp: Whether noisy copies are clamped to [0, 1].
        precision: In which the network runs: ``"float32"`` or ``"bfloat16"``.
        region: Fingerprint of the mask that noise is confined to; None for the whole image.

    Raises:
        InputError: For a value out of range, or options that exclude each other.
    """

    sigma: Sigma = 0.25
    n0: Copies = 100
    n: Copies = 1000
    alpha: Inside = 0.001
    tau: Majority = 0.75
    correction: str = "holm"
    k: Annotated[Count, only_with(correction=["kfwer"])] = 1
    radii: Literal["none", "one", "two"] = "none"
    hierarchy: Groupings = ()
    gap: Part = 0.9
    early_stop: Decay | None = None
    clamp: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    region: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.test  # checks the correction
        if self.early_stop is not None and self.radii != "none":
            raise InputError("radii of pixels need a number of copies fixed before: leave out --early-stop")

    @property
    def test(self) -> SegCertify:
        """The test behind the common radius."""
        return SegCertify(self.tau, self.alpha, self.correction, self.k)

    def groups(self, names: Sequence[str]) -> Hierarchy | None:
        """The hierarchy over a model's classes; None where there is none."""
        return Hierarchy.of(names, self.hierarchy) if self.hierarchy else None

    def sampling(self, where: Tensor | None = None, together: int | None = None) -> Sampling:
        """How copies are drawn.

        Args:
            where: (H, W) bool, the pixels that noise falls on; None for all.
            together: Copies in one pass.
        """
        enough = None if self.early_stop is None else self.test.decided(self.n, self.early_stop)
        return Sampling(Noise(self.sigma, self.clamp, where), self.n0, self.n, together, enough)

    def certificates(self, names: Sequence[str]) -> dict[str, Certify]:
        """The certificates of an image, by name: ``segcertify``, and ``adaptive`` and ``radii`` where asked for.

        Args:
            names: Of the model's classes.

        Raises:
            InputError: For a hierarchy with other classes.
        """
        found: dict[str, Certify] = {"segcertify": self.test}
        if groups := self.groups(names):
            found["adaptive"] = Adaptive(self.test, groups, self.gap)
        if self.radii != "none":
            found["radii"] = PixelRadii(self.alpha, self.radii, simultaneous=self.correction != "none")
        return found


def noisy_pixels(region: Tensor | None, batch: Batch) -> Tensor | None:
    """(H, W) bool, where noise falls on the images of a batch; None for everywhere."""
    height, width = batch.labels.shape[-2:]
    return None if region is None else fit_region(region, (height, width)).to(batch.images.device)


def fit_region(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (h, w) bool at another size, by nearest neighbour."""
    resized = functional.interpolate(region[None, None].float(), size=size, mode="nearest-exact")
    return resized[0, 0] > 0.5


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
