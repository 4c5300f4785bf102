"""A smooth count of flipped pixels in logits: the sigmoid of the margin, in units of its mean size in each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from segradius.core.declared import Positive, check_fields
from segradius.objectives.losses import LOSSES, Loss, Margin
from segradius.objectives.scaled_flips import annealed, scale_of


@LOSSES.register("scaled_sigmoid")
@dataclass(frozen=True)
class ScaledSigmoid(Loss):
    """Sigmoid σ(m/(τ·s)) of the margin m = max_{c≠y} z_c − z_y, s the mean of |m| over an image's pixels.

    What `ScaledFlips` is to the radius this is to the margin, which looks at two logits alone. s has no gradient, and
    the loss does not change when all logits are multiplied by a number. τ falls linearly over the run.

    Args:
        tau: τ at the start, in units of the mean size of the margin, > 0.
        tau_end: τ at the end, > 0.

    Example:
        >>> logits, labels = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(ScaledSigmoid(tau=1.0)(logits, labels).item(), 4)  # σ(−1)
        0.2689
    """

    annealed: ClassVar[bool] = True

    tau: Positive = 0.7
    tau_end: Positive = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        """Loss of each pixel, (N, H, W), where all pixels count."""
        margin = Margin()(logits, labels)
        scale = scale_of(margin.detach(), torch.ones_like(margin), annealed(self.tau, self.tau_end, progress))
        return torch.sigmoid(margin / scale)

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        """As `Loss.slope`; pixels that do not pull do not count for the scale either."""
        margin = Margin()(logits, labels)
        scale = scale_of(margin, pull != 0, annealed(self.tau, self.tau_end, progress))
        count = torch.sigmoid(margin / scale)
        return Margin().slope(logits, labels, count * (1 - count) * pull / scale)
