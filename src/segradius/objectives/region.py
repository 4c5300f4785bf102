"""RP-PGD's weights: three regions of pixels with a memory, and a weight for each that changes over the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.objectives.view import View
from segradius.objectives.weightings import WEIGHTINGS, Weighting

#: Regions in the state: T, B, F.
_TRUE, _BETWEEN, _FALSE = 0, 1, 2


@WEIGHTINGS.register("region")
@dataclass(frozen=True)
class Region(Weighting):
    """Regions with a memory (RP-PGD, AAAI 2025): λ₁ on T, λ₂ on B, λ₃ on F.

    F are the pixels that are fooled at the first iterate, T those that no iterate so far has fooled, and B those that
    one has: they stay in B whatever becomes of them, where SegPGD and ``still_correct`` forget. With t from 0,
    λ₁ = 1 − (t + 1)/2T, λ₂ = t/2T and λ₃ = 1/2T, as in the paper; the authors' code counts t otherwise, so that λ₂
    begins at −1/2T, and takes the mean over each region, where the paper's formula has one over all pixels.

    Example:
        >>> import torch
        >>> from segradius.objectives.goal import Goal
        >>> from segradius.objectives.view import LogitView
        >>> goal, state = Goal.leave(torch.zeros(1, 1, 3, dtype=torch.long)), None
        >>> for step, answers in enumerate(([0, 0, 1], [0, 1, 1], [0, 0, 0])):  # of the three pixels, the label being 0
        ...     at = torch.tensor([[answers]])
        ...     logits = torch.zeros(1, 2, 1, 3).scatter_(1, at.unsqueeze(1), 1.0)
        ...     view = LogitView(logits, at, goal, logits, step, 4, None, None, None)
        ...     weights, state = Region().weigh(view, state)
        ...     weights.flatten().tolist()
        [0.875, 0.875, 0.125]
        [0.75, 0.125, 0.125]
        [0.625, 0.25, 0.125]
    """

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Weights of the regions, which are the state, (N, H, W) uint8."""
        fooled = view.fooled()
        if state is None:
            state = fooled.to(torch.uint8) * _FALSE
        else:
            state = torch.where(fooled & (state == _TRUE), _BETWEEN, state)
        done, pace = view.progress, view.pace
        one = view.number(torch.ones((), dtype=torch.float64, device=state.device))
        late = torch.where(state == _BETWEEN, done / 2 * one, pace / 2 * one)
        return torch.where(state == _TRUE, (1 - (done + pace) / 2) * one, late), state
