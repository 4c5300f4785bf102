"""The one loop over a model's answers to noisy copies of an image, and the votes that it counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from segradius.core.contracts import Journal
from segradius.core.declared import Copies, Count, Positive, Sigma, check_fields
from segradius.core.errors import InputError, must
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.radius.smoothing import passes

#: From noisy copies (k, B, H, W) to logits, scores or probabilities (k, C, H, W).
Answer: TypeAlias = Callable[[Tensor], Tensor]

#: From noisy copies (k, B, H, W) to the largest of these and its class, (k, H, W) each.
Predict: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]

A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)

# Numbers of a part of the counts that is worked on at once.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Noise:
    """β ~ N(0, σ²I) over an image, and what happens to the sum.

    Args:
        sigma: σ > 0, images being in [0, 1].
        clamp: Whether the copy is clamped to [0, 1] before the model sees it. Either way the smoothed model is a
            function of x + β, so its certificate holds; it is another smoothed model.
        where: (H, W) bool. Noise falls on these pixels only, and the certificate holds for perturbations of these
            pixels only; None for all.

    Raises:
        InputError: For σ that is not positive, or a mask of another kind.

    Example:
        >>> Noise(0.25).copies(torch.zeros(3, 8, 8), Randomness(0, ("a",)), 0, 4).shape
        torch.Size([4, 3, 8, 8])
    """

    sigma: Sigma
    clamp: bool = False
    where: Tensor | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.where is not None and (self.where.dtype != torch.bool or self.where.ndim != 2):
            raise InputError(f"where is {self.where.dtype} {tuple(self.where.shape)}; expected bool (H, W)")

    def copies(self, image: Tensor, randomness: Randomness, first: int, count: int) -> Tensor:
        """Copies number ``first`` to ``first + count − 1`` of an image (B, H, W), each with a draw of its own.

        Copy j is the same whatever is asked for with it, so that sampling can be cut anywhere and goes on exactly.
        """
        shape, device, dtype = image.shape, image.device, image.dtype
        noisy = image.new_empty((count, *shape))
        for place in range(count):
            drawn = randomness.normal(shape, "smoothing", first + place, device=device, dtype=dtype).squeeze(0)
            drawn = drawn if self.where is None else drawn.mul_(self.where)
            torch.add(image, drawn, alpha=self.sigma, out=noisy[place])
        return noisy.clamp_(0, 1) if self.clamp else noisy


@torch.no_grad()
def answers(
    answer: Callable[[Tensor], A],
    image: Tensor,
    noise: Noise,
    randomness: Randomness,
    first: int,
    count: int,
    *,
    together: int | None = None,
) -> Iterator[A]:
    """What a model answers to consecutive noisy copies of an image, a few at a time.

    Args:
        answer: The model.
        image: (B, H, W) in [0, 1].
        noise: What is added.
        randomness: Key of the image, one id.
        first: Number of the first copy.
        count: How many copies.
        together: Copies in one pass; changes no result but by rounding.

    Yields:
        What ``answer`` gives for k copies (k, B, H, W), in their order.
    """
    for start, some in passes(first, first + count, image.device, together=together):
        yield answer(noise.copies(image, randomness, start, some))


@dataclass(frozen=True)
class Sampling:
    """How noisy copies are drawn.

    Args:
        noise: σ, and where and how noise is added.
        n0: Copies of the first lot, which names the class of each pixel.
        n: Copies of the second, which tests it; with ``enough`` the most that are drawn.
        together: Copies in one pass; None for a number that suits the device. Changes no result but by rounding.
        enough: Asked of the `Votes` so far after every ``every`` copies of the second lot: whether to stop. None to
            draw all.
        every: Copies between two looks.
        seconds: After how many on an image to stop, whatever is undecided; looked at after every pass of the second
            lot. None for no such end.
        clock: Seconds.

    Raises:
        InputError: For a number below 1, or seconds that are not above 0.
    """

    noise: Noise
    n0: Copies = 100
    n: Copies = 1000
    together: Count | None = None
    enough: Callable[[Any], bool] | None = None
    every: Copies = 100
    seconds: Positive | None = None
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        check_fields(self)
        must(callable(self.clock), "clock", self.clock, "a function that gives seconds")

    @property
    def looks(self) -> bool:
        """Whether n is chosen on the way, so that only what holds at any time holds."""
        return self.enough is not None or self.seconds is not None

    @property
    def copies(self) -> int:
        """The most copies that are drawn."""
        return self.n0 + self.n


class Tally(Protocol[A_contra]):
    """What is kept of the answers, of how many, and of the seconds spent; its size does not depend on their number."""

    seconds: float

    @property
    def done(self) -> int:
        """Copies taken in."""

    def add(self, answer: A_contra, second: bool) -> None:
        """Take in the answer to k copies of the first or the second lot, and count them; no host sync."""

    def standing(self) -> Mapping[str, Any]:
        """All of it, for a journal."""


def draw(
    answer: Callable[[Tensor], A],
    image: Tensor,
    sampling: Sampling,
    randomness: Randomness,
    tally: Tally[A],
    *,
    look: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> None:
    """Stream the answers to the copies that ``tally`` has not seen into it.

    Args:
        answer: The model: what it makes of copies (k, B, H, W).
        image: (B, H, W) in [0, 1].
        sampling: How many copies, and of what noise.
        randomness: Key of the image, one id.
        tally: Empty, or as a journal kept it.
        look: Asked after every ``sampling.every`` copies of the second lot whether the tally is enough; None to draw
            all.
        progress: Called with the number of copies just taken in.
        journal: Keeps the tally, so that a killed run goes on with the next copy.
    """
    timed_out = _timed_out(sampling, image.device, tally)

    def until(end: int) -> None:
        left = end - tally.done
        for found in answers(answer, image, sampling.noise, randomness, tally.done, left, together=sampling.together):
            before = tally.done
            tally.add(found, before >= sampling.n0)
            if progress is not None:
                progress(tally.done - before)
            late = timed_out()
            if journal is not None:
                journal.save(tally.standing)
            if late:
                return

    if progress is not None and tally.done:
        progress(tally.done)
    until(max(sampling.n0, tally.done))
    while tally.done < sampling.copies and not timed_out():
        drawn = tally.done - sampling.n0
        # Only at whole multiples of ``every``, so that a killed run looks where another does.
        if look is not None and drawn > 0 and drawn % sampling.every == 0 and look():
            return
        next_look = sampling.copies if look is None else tally.done + sampling.every - drawn % sampling.every
        until(min(sampling.copies, next_look))


def _timed_out(sampling: Sampling, device: torch.device, tally: Tally[Any]) -> Callable[[], bool]:
    """Whether the seconds of an image are spent, those before a kill too, now that some of the second lot is in."""
    began, earlier = sampling.clock(), tally.seconds

    def ask() -> bool:
        if sampling.seconds is None:
            return False
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tally.seconds = earlier + sampling.clock() - began
        return tally.done > sampling.n0 and tally.seconds >= sampling.seconds

    return ask


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes over two independent lots of noisy copies: the first names a class, the second tests it.

    Attributes:
        first: (C, H, W), votes among the first n₀ copies: int16, or int32 where n₀ + n would not fit.
        counts: (C, H, W), likewise, votes among the n copies after them.
        n0: n₀.
        n: n.
        sigma: σ of the noise.
        finite: Whether every answer was finite; if not, the image has no certificate.
        looks: Whether n was chosen while looking at the counts, so that only `anytime_p_values` hold.
    """

    first: Tensor
    counts: Tensor
    n0: int
    n: int
    sigma: float
    finite: bool = True
    looks: bool = False

    @cached_property
    def guess(self) -> Tensor:
        """(H, W) int64, the class with most of the first votes, the lowest in a tie."""
        return by_rows(_most, self.first)

    @cached_property
    def successes(self) -> Tensor:
        """(H, W) int64, votes of the second lot for the guess."""
        return self.counts.gather(0, self.guess.unsqueeze(0)).squeeze(0).long()

    @cached_property
    def majority(self) -> Tensor:
        """(H, W) int64, the class with most votes of both lots: the prediction of the smoothed model, uncertified."""
        return by_rows(lambda first, counts: _most(first + counts), self.first, self.counts)

    @property
    def rival(self) -> Tensor:
        """(H, W) int64, votes of the second lot for the strongest class but the guess."""
        return by_rows(strongest_but, self.counts, self.guess.unsqueeze(0)).long()


def by_rows(work: Callable[..., Tensor], *maps: Tensor) -> Tensor:
    """What is made of maps (…, H, W), each pixel for itself, some rows at a time: working copies stay small.

    Args:
        work: From the same rows of all maps to (…, rows, W).
        maps: The first is the largest.

    Example:
        >>> by_rows(torch.add, torch.ones(2, 3, 4), torch.ones(1, 3, 4)).shape
        torch.Size([2, 3, 4])
    """
    height = maps[0].shape[-2]
    rows = max(1, height * _AT_ONCE // max(1, maps[0].numel()))
    if rows >= height:
        return work(*maps)
    return torch.cat([work(*(each[..., row : row + rows, :] for each in maps)) for row in range(0, height, rows)], -2)


def strongest_but(counts: Tensor, but: Tensor) -> Tensor:
    """Most votes (C, H, W) of any class but one (1, H, W), (H, W)."""
    return counts.scatter(0, but, -1).amax(0)


def _most(counts: Tensor) -> Tensor:
    """The class with most votes (C, H, W), the lowest in a tie, (H, W) int64."""
    return predict(counts.unsqueeze(0))[1].squeeze(0)


def vote(
    answer: Answer | Predict,
    image: Tensor,
    num_classes: int,
    sampling: Sampling,
    randomness: Randomness,
    *,
    progress: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> Votes:
    """Draw noisy copies of an image and count what the model makes of each pixel; memory O(C·H·W), whatever n.

    Args:
        answer: The model: logits, scores or probabilities (k, C, H, W) of copies (k, B, H, W); or the largest of these
            and its class, (k, H, W) each, as `segradius.models.Segmenter.top_class` gives them in less memory.
        image: (B, H, W) in [0, 1].
        num_classes: C.
        sampling: How many copies, and of what noise.
        randomness: Key of the image, one id.
        progress: Called with the number of copies just counted.
        journal: Keeps the counts, so that a killed run goes on with the next copy.

    Example:
        >>> from segradius.certification import Noise
        >>> tally = vote(lambda x: x, torch.rand(3, 8, 8), 3, Sampling(Noise(0.1), 10, 50), Randomness(0, ("a",)))
        >>> tally.counts.sum(0).unique().tolist(), tally.successes.shape
        ([50], torch.Size([8, 8]))
    """
    tally = VoteTally.opened(image, num_classes, sampling, journal.load() if journal is not None else None)
    draw(answer, image, sampling, randomness, tally, look=tally.look, progress=progress, journal=journal)
    return tally.votes()


@dataclass
class VoteTally:
    """The votes so far: of the first lot and of the second, (C, H, W) each."""

    sampling: Sampling
    first: Tensor
    counts: Tensor
    finite: Tensor
    done: int = 0
    seconds: float = 0.0

    @staticmethod
    def opened(image: Tensor, num_classes: int, sampling: Sampling, kept: Mapping[str, Any] | None) -> VoteTally:
        """Of no copies, or as a journal kept it."""
        if kept is not None:
            first, counts, finite = (kept[name].to(image.device) for name in ("first", "counts", "finite"))
            return VoteTally(sampling, first, counts, finite, int(kept["done"]), float(kept.get("seconds", 0)))
        counted = torch.int16 if sampling.copies < 2**15 else torch.int32
        empty = torch.zeros((num_classes, *image.shape[1:]), dtype=counted, device=image.device)
        finite = torch.ones((), dtype=torch.bool, device=image.device)
        return VoteTally(sampling, empty, empty.clone(), finite)

    @property
    def look(self) -> Callable[[], bool] | None:
        """Whether the votes are enough, as `draw` asks; None where nobody asks."""
        enough = self.sampling.enough
        return None if enough is None else lambda: enough(self.votes())

    def add(self, answer: Tensor | tuple[Tensor, Tensor], second: bool) -> None:
        """Count answers to k copies in the first or the second lot; no host sync."""
        top, classes = predict(answer) if isinstance(answer, Tensor) else answer
        counts = self.counts if second else self.first
        counts.scatter_add_(0, classes, counts.new_ones(()).expand_as(classes))
        self.finite &= torch.stack(top.aminmax()).isfinite().all()  # NaN is both the least and the largest
        self.done += len(classes)

    def standing(self) -> dict[str, Tensor | int | float]:
        """For a journal."""
        names = ("first", "counts", "finite", "done", "seconds")
        return {name: getattr(self, name) for name in names}

    def votes(self) -> Votes:
        """Of all copies taken in."""
        n0, sigma, looks = self.sampling.n0, self.sampling.noise.sigma, self.sampling.looks
        return Votes(self.first, self.counts, n0, self.done - n0, sigma, bool(self.finite), looks)
