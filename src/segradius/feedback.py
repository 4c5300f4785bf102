"""What one answer of a score-only target says of each pixel, cut down to what losses and weights look at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Feedback(NamedTuple):
    """Two numbers a pixel, all that the losses and weights of black-box attacks need.

    Attributes:
        own: Score of the reference class, (…, H, W).
        rival: Largest score of the other classes, (…, H, W).
    """

    own: Tensor
    rival: Tensor

    @property
    def confidence(self) -> Tensor:
        """Score of the predicted class."""
        return torch.maximum(self.own, self.rival)

    @property
    def finite(self) -> Tensor:
        """Whether all scores of an image were finite, (…)."""
        return torch.isfinite(self.own.sum((-2, -1)) + self.rival.sum((-2, -1)))

    def blend(self, other: Feedback, share: float) -> Feedback:
        """This one moved towards another by ``share`` in [0, 1]."""
        return Feedback(self.own.lerp(other.own, share), self.rival.lerp(other.rival, share))


def look(scores: Tensor, reference: Tensor) -> Feedback:
    """The feedback in scores; these are overwritten.

    Args:
        scores: (N, C, H, W) probabilities, C ≥ 2. **Changed in place**: a copy would cost as much as all the rest.
        reference: (N, H, W) int64 in [0, C).

    Example:
        >>> scores = torch.tensor([0.5, 0.2, 0.3]).view(1, 3, 1, 1)
        >>> found = look(scores, torch.zeros(1, 1, 1, dtype=torch.long))
        >>> round(found.own.item(), 2), round(found.rival.item(), 2)
        (0.5, 0.3)
    """
    at = reference.unsqueeze(1)
    own = scores.gather(1, at).squeeze(1)
    return Feedback(own, scores.scatter_(1, at, -1.0).amax(1))
