"""A radius for each pixel from its own votes, after Cohen, Rosenfeld & Kolter (ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segradius.certification.bounds import clopper_pearson_lower, clopper_pearson_upper
from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.votes import Votes
from segradius.errors import InputError


@dataclass(frozen=True)
class PixelRadii:
    """Certify each pixel at its own radius: σΦ⁻¹(p̲), or ½σ(Φ⁻¹(p̲) − Φ⁻¹(p̄)) with a bound on the runner-up.

    p̲ is the exact (Clopper–Pearson) lower bound of the probability of the guess. The error rate is split evenly over
    the pixels tested, so that all radii of an image hold together.

    Args:
        alpha: Error rate that is promised for the image.
        form: ``"one"`` bounds the guess alone (Eq. 8 with a bound); ``"two"`` bounds every other class too, with half
            of the error rate (Eq. 3), which certifies pixels whose class has less than half of the votes.
        simultaneous: Whether the radii hold together; otherwise each holds for itself, with probability 1 − α.

    Raises:
        InputError: For a value out of range.
    """

    alpha: float = 0.001
    form: Literal["one", "two"] = "one"
    simultaneous: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; expected a probability in (0, 1)")
        if self.form not in ("one", "two"):
            raise InputError(f"form must be 'one' or 'two', got {self.form!r}")

    def __call__(self, votes: Votes, family: Tensor | None = None) -> Certificate:
        """The certificate that follows from votes.

        Args:
            votes: Of one image, all copies drawn without looking.
            family: (H, W) bool, the pixels that are tested; None for all.
        """
        if votes.looks:
            raise InputError("radii of pixels need a number of copies that was fixed before; leave out early stopping")
        tested = torch.ones_like(votes.guess, dtype=torch.bool) if family is None else family
        share = self.alpha / max(int(tested.sum()), 1) if self.simultaneous else self.alpha
        normalised = (self._one if self.form == "one" else self._two)(votes, share)
        sound = (normalised > 0) & tested & votes.finite
        radius = rounded_down(torch.where(sound, votes.sigma * normalised, 0.0))
        promise = "image" if self.simultaneous else "pixel"
        return Certificate(votes.guess, radius > 0, radius, votes.sigma, self.alpha, promise)

    def _one(self, votes: Votes, alpha: float) -> Tensor:
        return quantile(clopper_pearson_lower(votes.successes, votes.n, alpha))

    def _two(self, votes: Votes, alpha: float) -> Tensor:
        low = clopper_pearson_lower(votes.successes, votes.n, alpha / 2)
        rivals = votes.counts.scatter(0, votes.guess.unsqueeze(0), -1)
        others = max(len(rivals) - 1, 1)
        # The bound grows with the count, so that of the strongest rival bounds them all.
        high = clopper_pearson_upper(rivals.amax(0).long(), votes.n, alpha / 2 / others)
        return 0.5 * (quantile(low) - quantile(torch.minimum(high, 1 - low)))


def quantile(p: Tensor) -> Tensor:
    """Φ⁻¹(p) in float64."""
    found: Tensor = torch.special.ndtri(p.double())
    return found
