"""What deployed models leave of their scores: rounded ones, the best classes, labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segradius.errors import InputError
from segradius.prediction import predict

MOST_DIGITS = 8


@dataclass(frozen=True)
class Rounded:
    """Scores rounded to so many digits after the point, to the nearest and halves to even, as printed numbers are.

    Args:
        digits: 1 to 8.

    Example:
        >>> Rounded(1)(torch.tensor([0.04, 0.06, 0.25]))
        tensor([0.0000, 0.1000, 0.2000])
    """

    digits: int

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= MOST_DIGITS:
            raise InputError(f"digits={self.digits}: expected 1 to {MOST_DIGITS}")

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores like ``scores``."""
        # In double precision the product is exact, so that only true halves count as such.
        scale = 10.0**self.digits
        return scores.double().mul_(scale).round_().div_(scale).to(scores.dtype)


@dataclass(frozen=True)
class TopK:
    """The k largest scores of each pixel, zero for the other classes; in a tie the first class goes before.

    Args:
        k: At least 1.

    Example:
        >>> TopK(2)(torch.tensor([0.2, 0.3, 0.3, 0.2]).view(1, 4, 1, 1)).flatten()
        tensor([0.0000, 0.3000, 0.3000, 0.0000])
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"top={self.k}: expected at least 1")

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores (N, C, H, W) like ``scores``."""
        if self.k >= scores.shape[1]:
            return scores
        best = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        return torch.zeros_like(scores).scatter_(1, best, scores.gather(1, best))


@dataclass(frozen=True)
class LabelsOnly:
    """One at the predicted class, zero elsewhere; the first class in a tie.

    Example:
        >>> LabelsOnly()(torch.tensor([0.2, 0.4, 0.4]).view(1, 3, 1, 1)).flatten()
        tensor([0., 1., 0.])
    """

    def __call__(self, scores: Tensor) -> Tensor:
        """Ones and zeros (N, C, H, W) like ``scores``."""
        labels = predict(scores)[1]
        return functional.one_hot(labels, scores.shape[1]).permute(0, 3, 1, 2).to(scores.dtype).contiguous()
