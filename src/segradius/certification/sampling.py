"""Gaussian noise and the one loop over a model's answers to noisy copies of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from segradius.core.contracts import Journal
from segradius.core.errors import InputError, at_least, within
from segradius.core.randomness import Randomness
from segradius.radius.smoothing import passes

#: From noisy copies (k, 3, H, W) to logits, scores or probabilities (k, C, H, W).
Answer = Callable[[Tensor], Tensor]


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

    sigma: float
    clamp: bool = False
    where: Tensor | None = None

    def __post_init__(self) -> None:
        within("(0, inf)", sigma=self.sigma)
        if self.where is not None and (self.where.dtype != torch.bool or self.where.ndim != 2):
            raise InputError(f"where is {self.where.dtype} {tuple(self.where.shape)}; expected bool (H, W)")

    def copies(self, image: Tensor, randomness: Randomness, first: int, count: int) -> Tensor:
        """Copies number ``first`` to ``first + count − 1`` of an image (3, H, W), each with a draw of its own.

        Copy j is the same whatever is asked for with it, so that sampling can be cut anywhere and goes on exactly.
        """
        shape, device, dtype = image.shape, image.device, image.dtype
        noisy = []
        for number in range(first, first + count):
            drawn = randomness.normal(shape, "smoothing", number, device=device, dtype=dtype).squeeze(0)
            noisy.append(torch.add(image, drawn if self.where is None else drawn.mul_(self.where), alpha=self.sigma))
        stacked = torch.stack(noisy)
        return stacked.clamp(0, 1) if self.clamp else stacked


@torch.no_grad()
def answers(
    answer: Answer,
    image: Tensor,
    noise: Noise,
    randomness: Randomness,
    first: int,
    count: int,
    *,
    together: int | None = None,
) -> Iterator[Tensor]:
    """What a model answers to consecutive noisy copies of an image, a few at a time.

    Args:
        answer: The model.
        image: (3, H, W) in [0, 1].
        noise: What is added.
        randomness: Key of the image, one id.
        first: Number of the first copy.
        count: How many copies.
        together: Copies in one pass; changes no result but by rounding.

    Yields:
        (k, C, H, W), in the order of the copies.
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

    Raises:
        InputError: For a number below 1.
    """

    noise: Noise
    n0: int = 100
    n: int = 1000
    together: int | None = None
    enough: Callable[[Any], bool] | None = None
    every: int = 100

    def __post_init__(self) -> None:
        at_least(1, n0=self.n0, n=self.n, every=self.every)
        if self.together is not None:
            at_least(1, together=self.together)

    @property
    def copies(self) -> int:
        """The most copies that are drawn."""
        return self.n0 + self.n


class Tally(Protocol):
    """What is kept of the answers; its size does not depend on their number."""

    done: int

    def add(self, logits: Tensor, second: bool) -> None:
        """Take in answers (k, C, H, W) of the first or the second lot, and count them in ``done``; no host sync."""
        ...

    def standing(self) -> Mapping[str, Any]:
        """All of it, for a journal."""
        ...


def draw(
    answer: Answer,
    image: Tensor,
    sampling: Sampling,
    randomness: Randomness,
    tally: Tally,
    *,
    look: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
    journal: Journal | None = None,
) -> None:
    """Stream the answers to the copies that ``tally`` has not seen into it.

    Args:
        answer: The model: logits, scores or probabilities (k, C, H, W) of copies (k, 3, H, W).
        image: (3, H, W) in [0, 1].
        sampling: How many copies, and of what noise.
        randomness: Key of the image, one id.
        tally: Empty, or as a journal kept it.
        look: Asked after every ``sampling.every`` copies of the second lot whether the tally is enough; None to draw
            all.
        progress: Called with the number of copies just taken in.
        journal: Keeps the tally, so that a killed run goes on with the next copy.
    """

    def until(end: int) -> None:
        left = end - tally.done
        for logits in answers(answer, image, sampling.noise, randomness, tally.done, left, together=sampling.together):
            tally.add(logits, tally.done >= sampling.n0)
            if progress is not None:
                progress(len(logits))
            if journal is not None:
                journal.save(tally.standing)

    if progress is not None and tally.done:
        progress(tally.done)
    until(max(sampling.n0, tally.done))
    while tally.done < sampling.copies:
        drawn = tally.done - sampling.n0
        # Only at whole multiples of ``every``, so that a killed run looks where another does.
        if look is not None and drawn > 0 and drawn % sampling.every == 0 and look():
            return
        next_look = sampling.copies if look is None else tally.done + sampling.every - drawn % sampling.every
        until(min(sampling.copies, next_look))
