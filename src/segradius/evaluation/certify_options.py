"""Certificates by votes: the options, the tests that follow from them, and what they promise in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from segradius.certification.certificate import Certificate
from segradius.certification.certifiers import Adaptive, Hierarchy, PixelRadii, SegCertify
from segradius.certification.joint import vote_softly
from segradius.certification.soft import DEFAULT, SoftRadii
from segradius.certification.votes import Noise, Sampling, Votes, vote
from segradius.core.contracts import LOGITS, SCORES, Journal, Seen, for_answers
from segradius.core.declared import (
    Copies,
    Count,
    Decay,
    Inside,
    Majority,
    Part,
    Positive,
    Sigma,
    check_fields,
    only_with,
)
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.evaluation.batch import Batch, Bench, answering, confiding
from segradius.evaluation.certified_by import OWN_RADII
from segradius.evaluation.record import Kind, Polled, Record, edges, score_answer, score_certificate
from segradius.models.denoising import check_sigma

#: From the votes of an image to its certificate.
Certify = Callable[[Votes], Certificate]

Groupings = tuple[Mapping[str, Sequence[str]], ...]

#: The model that certificates are about, in words.
USUAL = "the smoothed model"
AVERAGING = "the model that averages confidences under noise, another than that of votes,"

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
        radii: A radius of its own for each pixel, from a bound on the votes for the guess (``"one"``), or on those for
            its rivals too (``"two"``); or from one on its mean confidence, for another smoothed model (``"soft"``).
        hierarchy: Ever coarser groupings of class names; none for single classes only.
        gap: Of `segradius.certification.Adaptive`.
        early_stop: Share of pixels that may be left undecided when sampling stops early; None to draw all copies.
        clamp: Whether noisy copies are clamped to [0, 1].
        precision: In which the network runs: ``"float32"`` or ``"bfloat16"``.
        region: Fingerprint of the mask that noise is confined to; None for the whole image.
        bound: Of mean confidences: one of `segradius.certification.SOFT_BOUNDS`.
        minutes: Of all images together, each getting its share; the number of copies then follows from the clock.

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
    radii: Literal["none", "one", "two", "soft"] = "none"
    hierarchy: Groupings = ()
    gap: Part = 0.9
    early_stop: Decay | None = None
    clamp: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    region: str | None = None
    bound: Annotated[str, only_with(radii=["soft"])] = DEFAULT
    minutes: Positive | None = None

    key: ClassVar[str] = "smoothing"
    unit: ClassVar[str] = "noisy copies"

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.test  # checks the correction
        if self.soft is not None:
            self.soft.check(looks=self.looks)

    @property
    def test(self) -> SegCertify:
        """The test behind the common radius."""
        return SegCertify(self.tau, self.alpha, self.correction, self.k)

    @property
    def soft(self) -> SoftRadii | None:
        """How mean confidences are certified; None where votes alone are counted."""
        return SoftRadii(self.alpha, self.bound) if self.radii == "soft" else None

    @property
    def looks(self) -> bool:
        """Whether the number of copies is chosen on the way, so that every test is one that holds at any time."""
        return self.early_stop is not None or self.minutes is not None

    def groups(self, names: Sequence[str]) -> Hierarchy | None:
        """The hierarchy over a model's classes; None where there is none."""
        return Hierarchy.of(names, self.hierarchy) if self.hierarchy else None

    def sampling(
        self, where: Tensor | None = None, together: int | None = None, seconds: float | None = None
    ) -> Sampling:
        """How copies are drawn.

        Args:
            where: (H, W) bool, the pixels that noise falls on; None for all.
            together: Copies in one pass.
            seconds: The share of the image in the minutes; looked at only where there are any.
        """
        enough = self.test.decided(self.n, self.early_stop or 0.0) if self.looks else None
        share = None if self.minutes is None else seconds
        return Sampling(Noise(self.sigma, self.clamp, where), self.n0, self.n, together, enough, seconds=share)

    def undecided(self, successes: Tensor, trials: int) -> float:
        """Share of the pixels that are not certified and might have been by further copies, up to n.

        Args:
            successes: (H, W) int64, votes for the guess.
            trials: Of so many copies, drawn with looks.
        """
        return float(self.test.open_after(successes, trials, self.n).double().mean())

    def certificates(self, names: Sequence[str]) -> dict[str, Certify]:
        """The certificates that follow from votes, by name: ``segcertify``; ``adaptive`` and ``radii`` where asked for.

        Args:
            names: Of the model's classes.

        Raises:
            InputError: For a hierarchy with other classes.
        """
        found: dict[str, Certify] = {"segcertify": self.test}
        if groups := self.groups(names):
            found["adaptive"] = Adaptive(self.test, groups, self.gap)
        if self.radii in ("one", "two"):
            found["radii"] = PixelRadii(self.alpha, self.radii, simultaneous=self.correction != "none")
        return found

    # -- as a way of certifying: see `segradius.evaluation.certify.Way`

    @property
    def passes(self) -> tuple[int, bool]:
        """Noisy copies of an image, and whether they may be fewer."""
        return self.n0 + self.n, self.looks

    @property
    def autocast(self) -> torch.dtype | None:
        """In which the network runs."""
        return PRECISIONS[self.precision]

    @property
    def title(self) -> str:
        """For people."""
        return f"certifying σ={self.sigma:g}"

    @property
    def short(self) -> str:
        """In the heading of a picture."""
        return f"σ = {self.sigma:g}, n = {self.n}, α = {self.alpha:g}"

    @property
    def bounds(self) -> list[float]:
        """Radii between which pixels are counted."""
        return edges(self.sigma, self.n, self.alpha, self.tau)

    def heading(self) -> list[str]:
        """What was certified, in parts of a line."""
        k = f" with k = {self.k}" if self.correction == "kfwer" else ""
        early = " at most" * self.looks
        early += "" if self.early_stop is None else f", stopped at {self.early_stop:g} undecided"
        early += "" if self.minutes is None else f", set by the clock: {self.minutes:g} minutes for all images"
        found = [f"σ = {self.sigma:g}", f"n₀ = {self.n0}, n = {self.n}{early}"]
        found += [f"α = {self.alpha:g}, τ = {self.tau:g}, correction {self.correction}{k}"]
        found += [] if self.soft is None else [f"soft radii by {self.bound}"]
        found += [f"precision {self.precision}"] + ["noisy copies clamped"] * self.clamp
        return found + ([f"noise inside the region {self.region}"] if self.region else [])

    def promised(self, kind: str, promised: str) -> str:
        """What a kind of certificate promises of an image, in a sentence."""
        common = math.floor(1e5 * self.test.radius(self.sigma)) / 1e5  # never rounded up
        reach = "its radius" if kind in OWN_RADII else f"{common:g}"
        within = f"every change of l2 length below {reach}" + (" inside the region" if self.region else "")
        what = {"adaptive": "its class, or group where one was certified,", "soft": "its class of the largest mean"}
        model = AVERAGING if kind == "soft" else USUAL
        return promise(promised, self.alpha, within, what.get(kind, "its class"), model)

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model runs in the precision asked for, and its denoiser is for such noise."""
        check_sigma(model, self.sigma)
        if self.precision != "float32" and LOGITS not in model.offers:
            raise InputError(f"precision {self.precision} is for --model; a target runs as it does")
        if self.soft is not None and not model.offers & {LOGITS, SCORES}:
            raise InputError("soft radii are of mean confidences, and the target gives labels alone: take --radii one")

    def record(self, batch: Batch, bench: Bench, journal: Journal | None = None) -> Record:
        """The certificates of a batch of one image, and what every answer is worth."""
        votes, made = self._sampled(batch, bench, journal)
        classes, ignore, labels = bench.model.num_classes, batch.ignore_index, batch.labels[0]
        score = partial(score_answer, labels=labels, num_classes=classes, ignore_index=ignore,
                        structures=batch.structures)  # fmt: skip
        grouped, bins, kinds = self.groups(bench.names), self.bounds, {}
        made = {name: certify(votes) for name, certify in self.certificates(bench.names).items()} | made
        for name, found in made.items():
            tested = grouped if name == "adaptive" else None
            worth = score_certificate(found, labels, classes, ignore, bins, tested, batch.structures)
            kinds[name] = Kind(found.prediction, found.radius, found.level, found.promise, worth)
        majority, base = votes.majority, batch.prediction[0]
        passes = {"judging": (1, 0), "certification": (votes.n0 + votes.n, 0)}
        polled = Polled(votes.guess, votes.successes, majority, score(majority), votes.n0, votes.n)
        return Record(batch.ids[0], base, score(base), kinds, polled, votes.finite, passes)

    def _sampled(self, batch: Batch, bench: Bench, journal: Journal | None) -> tuple[Votes, dict[str, Certificate]]:
        """The votes of an image, and by name what does not follow from them."""
        model, told = for_answers(bench.model, self.autocast), bench.progress
        sampling = self.sampling(noisy_pixels(bench.region, batch), bench.together, bench.seconds)
        drawn = batch.images[0], bench.model.num_classes, sampling, Randomness(bench.seed, batch.ids)
        if self.soft is None:
            return vote(answering(model, self.autocast), *drawn, progress=told, journal=journal), {}
        asked = confiding(model, self.autocast)
        votes, soft = vote_softly(asked, *drawn, self.soft, progress=told, journal=journal)
        return votes, {"soft": soft}


def noisy_pixels(region: Tensor | None, batch: Batch) -> Tensor | None:
    """(H, W) bool, where noise falls on the images of a batch; None for everywhere."""
    height, width = batch.labels.shape[-2:]
    return None if region is None else fit_region(region, (height, width)).to(batch.images.device)


def fit_region(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (h, w) bool at another size, by nearest neighbour."""
    resized = functional.interpolate(region[None, None].float(), size=size, mode="nearest-exact")
    return resized[0, 0] > 0.5


def promise(kind: str, alpha: float, within: str, what: str = "its class", model: str = USUAL) -> str:
    """What a certificate promises of an image, in a sentence.

    Args:
        kind: `Certificate.promise`.
        alpha: Error rate.
        within: Which changes it speaks of.
        what: What a certified pixel keeps.
        model: In which it does.

    Example:
        >>> promise("image", 0.001, "every change …").partition(", ")[2]
        'every certified pixel keeps its class in the smoothed model under every change ….'
    """
    keeps = f"keeps {what} in {model} under {within}"
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
    return Votes(one * it.n0, one * n, it.n0, n, it.sigma, looks=it.looks)
