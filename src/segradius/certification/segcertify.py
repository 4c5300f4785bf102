"""SegCertify (Fischer, Baader & Vechev, ICML 2021): one radius for all pixels that pass a test, or abstention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from torch import Tensor

from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.testing import CORRECTIONS, anytime_p_values, p_values, rejected
from segradius.certification.votes import Votes
from segradius.errors import InputError

PROMISES = {"none": "pixel", "bonferroni": "image", "holm": "image", "by": "share"}


@dataclass(frozen=True)
class SegCertify:
    """Certify pixels whose class is likelier than τ under noise, at the common radius σΦ⁻¹(τ).

    Args:
        tau: τ in [½, 1): larger certifies a larger radius for fewer pixels.
        alpha: Error rate that is promised for the image, in the sense of the correction.
        correction: For the number of pixels tested; see `segradius.certification.testing.rejected`.
        k: Of the correction ``kfwer``.

    Raises:
        InputError: For a value out of range, or an unknown correction.

    Example:
        >>> import torch
        >>> from segradius.certification import Noise, Sampling, vote
        >>> from segradius.randomness import Randomness
        >>> image = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 4, 4)
        >>> votes = vote(lambda x: x, image, 3, Sampling(Noise(0.25), 10, 100), Randomness(0, ("a",)))
        >>> found = SegCertify()(votes)
        >>> found.guess.unique().tolist(), round(found.radius.max().item(), 4)
        ([0], 0.1686)
    """

    tau: float = 0.75
    alpha: float = 0.001
    correction: str = "holm"
    k: int = 1

    def __post_init__(self) -> None:
        if not 0.5 <= self.tau < 1:
            raise InputError(f"tau is {self.tau}; expected at least 0.5 and below 1")
        if not 0 < self.alpha < 1:
            raise InputError(f"alpha is {self.alpha}; expected a probability in (0, 1)")
        if self.k < 1 or (self.k > 1 and self.correction != "kfwer"):
            raise InputError(f"k is {self.k} with the correction {self.correction}; only kfwer takes k above 1")
        CORRECTIONS[self.correction]

    def radius(self, sigma: float) -> float:
        """σΦ⁻¹(τ), in pixel units."""
        return sigma * NormalDist().inv_cdf(self.tau)

    @property
    def promise(self) -> str:
        """What the error rate refers to."""
        return PROMISES.get(self.correction, f"fewer than {self.k} pixels")

    def __call__(self, votes: Votes, family: Tensor | None = None) -> Certificate:
        """The certificate that follows from votes.

        Args:
            votes: Of one image.
            family: (H, W) bool, the pixels that are tested; None for all. It must not depend on the votes.
        """
        return self.certify(votes, votes.guess, votes.successes, family)

    def certify(
        self, votes: Votes, guess: Tensor, successes: Tensor, family: Tensor | None = None, level: Tensor | None = None
    ) -> Certificate:
        """As above, for any guess (H, W) made from the first votes and its number of later votes (H, W)."""
        test = anytime_p_values if votes.looks else p_values
        p = test(successes, votes.n, self.tau)
        passed = rejected(p, self.alpha, self.correction, self.k, family) & votes.finite
        radius = rounded_down(self.radius(votes.sigma) * passed.double())
        return Certificate(guess, passed, radius, votes.sigma, self.alpha, self.promise, level)

    def decided(self, most: int, undecided: float = 0.0, family: Tensor | None = None) -> Callable[[Votes], bool]:
        """A rule for `Sampling.enough`: stop once nearly every pixel is certified or beyond hope.

        Beyond hope is a pixel that would not be certified though all copies still to come voted for it. Stopping is
        free, as the p-values of votes that were looked at hold at any time.

        Args:
            most: n, the copies that may be drawn.
            undecided: Share of the tested pixels that may be left undecided.
            family: As above.
        """

        def enough(votes: Votes) -> bool:
            hope = votes.successes + (most - votes.n)
            later = anytime_p_values(hope, most, self.tau)
            open_ = rejected(later, self.alpha, self.correction, self.k, family) & ~self(votes, family).certified
            return int(open_.sum()) <= undecided * (open_.numel() if family is None else int(family.sum()))

        return enough
