"""What random searches have in common: a proposal is kept if it raised the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def raised(before: Tensor, after: Tensor, weights: Tensor) -> Tensor:
    """Whether the weighted loss rose from one map (N, H, W) to another, (N,).

    Both are seen under the same weights, as weights change from round to round. Subtracted pixel by pixel: the
    difference of two sums would lose the digits that they have in common.
    """
    return ((after - before) * weights).sum((1, 2)) > 0


def moved(state: Mapping[str, Any], proposed: Tensor, losses: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Iterate and loss map, of the proposal for the images (N,) that ``kept`` it, else of the state."""
    at = kept.view(-1, 1, 1)
    return {
        "delta": torch.where(at.unsqueeze(1), proposed, state["delta"]),
        "losses": torch.where(at, losses, state["losses"]),
    }
