"""Soft certificates: the smoothed model averages confidences instead of counting votes.

With F̄(x) = E F(x + β) for confidences F in [0, 1], Φ⁻¹(F̄) is 1/σ-Lipschitz (Salman et al., NeurIPS 2019), so the radii
of votes hold with lower bounds of mean confidences. They certify the class of the largest *mean confidence*, which is
another smoothed model than that of the majority vote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.task import Journal
from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.noise import Answer
from segradius.certification.radii import quantile
from segradius.certification.sampling import Sampling, draw
from segradius.certification.soft import DEFAULT, SOFT_BOUNDS, SoftBound
from segradius.errors import InputError
from segradius.randomness import Randomness


@dataclass(frozen=True)
class SoftRadii:
    """Certify each pixel at σΦ⁻¹(p̲), p̲ a lower bound of the mean confidence in the class guessed.

    Args:
        alpha: Error rate that is promised for the image: all its radii hold together with probability 1 − α.
        bound: ``betting``, ``bernstein`` or ``hoeffding``; see `segradius.certification.soft`.

    Raises:
        InputError: For α out of range or an unknown bound.

    Example:
        >>> from segradius.certification import Noise
        >>> image = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 4, 4)
        >>> sampling, key = Sampling(Noise(0.1), 10, 100), Randomness(0, ("a",))
        >>> found = SoftRadii()(lambda x: (9 * x).softmax(1), image, 3, sampling, key)
        >>> found.guess.unique().tolist(), bool(found.certified.all())
        ([0], True)
    """

    alpha: float = 0.001
    bound: str = DEFAULT

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; expected a probability in (0, 1)")
        SOFT_BOUNDS[self.bound]

    def __call__(
        self,
        probabilities: Answer,
        image: Tensor,
        num_classes: int,
        sampling: Sampling,
        randomness: Randomness,
        *,
        progress: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Certificate:
        """Draw noisy copies of an image and certify it.

        Args:
            probabilities: The model: probabilities (k, C, H, W) of copies (k, 3, H, W).
            image: (3, H, W) in [0, 1].
            num_classes: C.
            sampling: How many copies, and of what noise; without early stopping.
            randomness: Key of the image, one id.
            progress: Called with the number of copies just seen.
            journal: Keeps the sums and bounds, so that a killed run goes on with the next copy.

        Raises:
            InputError: For early stopping, or values that are no probabilities.
        """
        if sampling.enough is not None:
            raise InputError("soft radii need a number of copies that was fixed before; leave out early stopping")
        height, width = image.shape[1:]
        bound = SOFT_BOUNDS[self.bound](self.alpha / (height * width), sampling.n)
        tally = _Tally.opened(image, num_classes, bound, journal)
        draw(probabilities, image, sampling, randomness, tally, progress=progress, journal=journal)
        radius = sampling.noise.sigma * quantile(bound.lower(tally.state)).clamp_min(0) * tally.finite
        radius = rounded_down(torch.where(radius > 0, radius, 0.0))
        return Certificate(tally.guess, radius > 0, radius, sampling.noise.sigma, self.alpha, "image")


@dataclass
class _Tally:
    """Sums of confidences in the first lot, and the bound's state about those in the guess in the second."""

    bound: SoftBound
    first: Tensor
    state: Any
    finite: Tensor
    done: int = 0
    chosen: Tensor | None = None

    @staticmethod
    def opened(image: Tensor, num_classes: int, bound: SoftBound, journal: Journal | None) -> _Tally:
        kept = journal.load() if journal is not None else None
        state = bound.start(image.shape[1:], image.device)
        if kept is not None:
            back = {k: v.to(image.device) if isinstance(v, Tensor) else v for k, v in kept["state"].items()}
            first, finite = kept["first"].to(image.device), kept["finite"].to(image.device)
            return _Tally(bound, first, type(state)(**back), finite, int(kept["done"]))
        first = torch.zeros((num_classes, *image.shape[1:]), dtype=torch.float64, device=image.device)
        return _Tally(bound, first, state, torch.ones((), dtype=torch.bool, device=image.device))

    @property
    def guess(self) -> Tensor:
        """(H, W), the class of the largest mean; fixed once the first lot is in."""
        self.chosen = self.first.argmax(0) if self.chosen is None else self.chosen
        return self.chosen

    def add(self, logits: Tensor, second: bool) -> None:
        if second:
            confidence = logits.gather(1, self.guess.expand(len(logits), 1, -1, -1)).squeeze(1)
            self.finite &= torch.isfinite(confidence).all()
            self.state = self.bound.add(self.state, confidence)
        else:
            self.first += logits.sum(0)
            self.finite &= torch.isfinite(self.first).all()
        self.done += len(logits)

    def standing(self) -> Mapping[str, Any]:
        state = {field.name: getattr(self.state, field.name) for field in fields(self.state)}
        return {"first": self.first, "finite": self.finite, "done": self.done, "state": state}
