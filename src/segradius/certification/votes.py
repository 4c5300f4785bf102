"""Votes: how often a model gives each class to each pixel of noisy copies of an image, counted in a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.certification.sampling import Answer, Sampling, draw
from segradius.core.contracts import Journal
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes over two independent lots of noisy copies: the first names a class, the second tests it.

    Attributes:
        first: (C, H, W) int32, votes among the first n₀ copies.
        counts: (C, H, W) int32, votes among the n copies after them.
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

    @property
    def guess(self) -> Tensor:
        """(H, W) int64, the class with most of the first votes, the lowest in a tie."""
        return self.first.argmax(0)

    @property
    def successes(self) -> Tensor:
        """(H, W) int64, votes of the second lot for the guess."""
        return self.counts.gather(0, self.guess.unsqueeze(0)).squeeze(0).long()

    @property
    def majority(self) -> Tensor:
        """(H, W) int64, the class with most votes of both lots: the prediction of the smoothed model, uncertified."""
        return (self.first + self.counts).argmax(0)


def vote(
    answer: Answer,
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
        answer: The model: logits, scores or probabilities (k, C, H, W) of copies (k, 3, H, W).
        image: (3, H, W) in [0, 1].
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
    tally = _restored(image, num_classes, sampling, journal)
    enough = sampling.enough
    look = None if enough is None else lambda: enough(tally.votes())
    draw(answer, image, sampling, randomness, tally, look=look, progress=progress, journal=journal)
    return tally.votes()


@dataclass
class _Tally:
    sampling: Sampling
    first: Tensor
    counts: Tensor
    finite: Tensor
    done: int = 0

    def add(self, logits: Tensor, second: bool) -> None:
        """Count (k, C, H, W) answers in the first or the second lot; no host sync."""
        top, classes = predict(logits)
        (self.counts if second else self.first).scatter_add_(0, classes, torch.ones_like(classes, dtype=torch.int32))
        self.finite &= torch.isfinite(top).all()
        self.done += len(logits)

    def standing(self) -> dict[str, Tensor | int]:
        return {"first": self.first, "counts": self.counts, "finite": self.finite, "done": self.done}

    def votes(self) -> Votes:
        n0, sigma, looks = self.sampling.n0, self.sampling.noise.sigma, self.sampling.enough is not None
        return Votes(self.first, self.counts, n0, self.done - n0, sigma, bool(self.finite), looks)


def _restored(image: Tensor, num_classes: int, sampling: Sampling, journal: Journal | None) -> _Tally:
    kept = journal.load() if journal is not None else None
    if kept is not None:
        first, counts, finite = (kept[name].to(image.device) for name in ("first", "counts", "finite"))
        return _Tally(sampling, first, counts, finite, int(kept["done"]))
    empty = torch.zeros((num_classes, *image.shape[1:]), dtype=torch.int32, device=image.device)
    return _Tally(sampling, empty, empty.clone(), torch.ones((), dtype=torch.bool, device=image.device))
