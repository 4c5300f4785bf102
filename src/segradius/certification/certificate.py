"""A certificate of one image: what it says of each pixel, how far that holds, and with what promise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Class of a pixel about which nothing is said.
ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is promised of the smoothed model around an image.

    For a certified pixel, the class that the smoothed model gives it is ``guess`` (or lies in its group, where classes
    were grouped) for every perturbation with ‖δ‖₂ < ``radius``; pixels that are not certified are abstained from. The
    promise fails with a probability, over the noise drawn, of at most ``alpha`` in the sense of ``promise``.

    Attributes:
        guess: (H, W) int64, the class that was tested.
        certified: (H, W) bool.
        radius: (H, W) float32, in pixel units: an l2 length over the whole image; 0 where abstained.
        sigma: σ of the smoothed model.
        alpha: Error rate.
        promise: To what the error rate refers: ``pixel``, ``image``, ``fewer than k pixels``, ``share``.
        level: (H, W) int64, how coarse the group of classes is that was certified; None where all are single classes.
    """

    guess: Tensor
    certified: Tensor
    radius: Tensor
    sigma: float
    alpha: float
    promise: str
    level: Tensor | None = None

    @property
    def prediction(self) -> Tensor:
        """(H, W) int64: the class of certified pixels, `ABSTAIN` elsewhere."""
        return torch.where(self.certified, self.guess, ABSTAIN)

    @property
    def abstained(self) -> float:
        """Share of the pixels of the image about which nothing is said."""
        return 1 - float(self.certified.double().mean())

    def at(self, eps: float) -> Tensor:
        """(H, W) bool, the pixels certified against perturbations of length ``eps``."""
        return self.certified & (self.radius > eps)


def rounded_down(radius: Tensor) -> Tensor:
    """The largest float32 that is no larger than a float64 radius, as a radius may not be rounded up.

    Example:
        >>> radius = torch.tensor([0.1, 0.25], dtype=torch.float64)
        >>> (rounded_down(radius) <= radius).tolist(), rounded_down(radius)
        ([True, True], tensor([0.1000, 0.2500]))
    """
    near = radius.float()
    return torch.where(near.double() > radius, torch.nextafter(near, near.new_zeros(())), near)
