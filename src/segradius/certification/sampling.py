"""The one sampling loop of all certificates: two lots of noisy copies, streamed into a tally that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from segradius.attacks.task import Journal
from segradius.certification.noise import Answer, Noise, answers
from segradius.errors import InputError
from segradius.randomness import Randomness


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
        for name in ("n0", "n", "every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.together is not None and self.together < 1:
            raise InputError(f"together is {self.together}; expected at least 1")

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
