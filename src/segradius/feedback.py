"""What one answer of a score-only target says of each pixel, cut down to what losses and weights look at."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from segradius.prediction import predict


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

    @property
    def mean(self) -> Feedback:
        """Mean over the first dimension."""
        return Feedback(*(part[0] if len(part) == 1 else part.mean(0) for part in self))

    def blend(self, other: Feedback, share: float) -> Feedback:
        """This one moved towards another by ``share`` in [0, 1]."""
        return Feedback(self.own.lerp(other.own, share), self.rival.lerp(other.rival, share))


def look(scores: Tensor, reference: Tensor) -> Feedback:
    """The feedback in scores; these are overwritten, unless they are not contiguous.

    Args:
        scores: (N, C, H, W) probabilities, C ≥ 2. **Changed in place**: a copy would cost as much as all the rest.
        reference: (N, H, W) int64 in [0, C).

    Example:
        >>> scores = torch.tensor([0.5, 0.2, 0.3]).view(1, 3, 1, 1)
        >>> found = look(scores, torch.zeros(1, 1, 1, dtype=torch.long))
        >>> round(found.own.item(), 2), round(found.rival.item(), 2)
        (0.5, 0.3)
    """
    images, classes, *sides = scores.shape
    plane = torch.arange(math.prod(sides), device=scores.device).view(sides)
    first = torch.arange(images, device=scores.device).view(-1, 1, 1) * classes
    # One list of places in memory serves reading and writing, at less than half the time of gather and scatter.
    place = (reference + first).mul_(math.prod(sides)).add_(plane).flatten()
    scores = scores.contiguous()
    flat = scores.view(-1)
    own = flat.index_select(0, place).view_as(reference)
    flat.index_fill_(0, place, -1.0)
    return Feedback(own, scores.amax(1))


def prediction_of(feedback: Feedback, scores: Tensor, reference: Tensor) -> Tensor:
    """The predicted class, the first in a tie, (N, H, W), from what `look` has left of the scores.

    Example:
        >>> scores, reference = torch.tensor([0.5, 0.2, 0.5]).view(1, 3, 1, 1), torch.full((1, 1, 1), 2)
        >>> prediction_of(look(scores, reference), scores, reference).item()
        0
    """
    rival = predict(scores)[1]
    tie = torch.where(feedback.own == feedback.rival, torch.minimum(rival, reference), rival)
    return torch.where(feedback.own > feedback.rival, reference, tie)
