"""The logit of the label alone, which no other class bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.objectives.losses import LOSSES, Loss


@LOSSES.register("logit")
@dataclass(frozen=True)
class NegativeLogit(Loss):
    """The negative logit of the label, −z_y (Ozbulak et al. 2019); with an aim its logit is raised.

    Example:
        >>> logits, labels = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> NegativeLogit()(logits, labels).item()
        -3.0
    """

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        """Loss of each pixel, (N, H, W)."""
        return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        """The pull, at the label."""
        return torch.zeros_like(logits).scatter_(1, labels.unsqueeze(1), -pull.unsqueeze(1).to(logits.dtype))
