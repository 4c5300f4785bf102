"""EroSeg's weights: pixels that are right and not too sure of it, more of them in every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from segradius.core.declared import Given, Part, Range, Weight, check_fields, only_with
from segradius.core.errors import InputError
from segradius.objectives.view import View
from segradius.objectives.weightings import WEIGHTINGS, Weighting

ClassIndex = Annotated[int, Range("[0, 65535]")]
Foreground = Annotated[Part, only_with(background=Given())]


@WEIGHTINGS.register("eroseg")
@dataclass(frozen=True)
class EroSeg(Weighting):
    """EroSeg's active set (arXiv 2601.14950): right, and of a confidence below τ_t = 1 − (1 − τ₀)·exp(−βt), t from 0.

    So a region of right answers is eaten from its unsure pixels inwards. Where there is a background class, it weighs
    1 − λ and the others λ. The paper never defines its mask; this is how it is read from its figures and words. With
    β = 0.8 all but the surest pixels are in after five steps. An image without an active pixel stays where it is.

    Args:
        tau: τ₀.
        beta: β.
        background: Index of the background class; None where there is none.
        foreground: λ, of every other class.
    """

    tau: Part = 0.8
    beta: Weight = 0.8
    background: ClassIndex | None = None
    foreground: Foreground = 0.7

    def __post_init__(self) -> None:
        check_fields(self)

    def threshold(self, step: int) -> float:
        """τ_t.

        Example:
            >>> [round(EroSeg().threshold(t), 3) for t in (0, 1, 4)]
            [0.8, 0.91, 0.992]
        """
        return 1 - (1 - self.tau) * math.exp(-self.beta * step)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The active set as numbers, weighted by class."""
        active = view.number(view.pending() & (view.confidence() < self.threshold(view.step)))
        if self.background is None:
            return active, None
        behind = view.goal.labels == self.background
        return active * torch.where(behind, 1 - self.foreground, self.foreground), None

    def check_classes(self, classes: int) -> None:
        """The background must be one of them."""
        if self.background is not None and self.background >= classes:
            raise InputError(f"background is {self.background}; the model's classes are 0 to {classes - 1}")
