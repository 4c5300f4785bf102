"""TranSegPGD's weights: at first the pixels that are still right, then those whose answer has moved most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.core.contracts import LOGITS
from segradius.core.declared import Part, check_fields
from segradius.objectives.view import View
from segradius.objectives.weightings import WEIGHTINGS, Weighting


@WEIGHTINGS.register("transegpgd")
@dataclass(frozen=True)
class TranSegPGD(Weighting):
    """Two stages (Jia et al. 2023): 1 − γ for pixels not fooled yet, γ for fooled ones; then by how far answers moved.

    In the second stage a pixel has 1 − β where KL(p ‖ p₀), of the softmax p at the iterate and p₀ at the first one
    (the clean image, where an attack starts there), is above its mean over the image's counted pixels, and β elsewhere.
    The authors say of such pixels that they transfer. An image is in the second stage where nothing is left to fool,
    and from step ``first``·T on.

    The authors published no code. Two public re-implementations have the second stage where no pixel is right any more
    and nowhere else, which is ``first=1``; inside a small ball that never comes, so that half of the steps is the
    default here. γ = β = 0.1 are one of theirs.

    Args:
        gamma: γ.
        beta: β.
        first: Share of the steps after which the second stage begins at the latest.
    """

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    gamma: Part = 0.1
    beta: Part = 0.1
    first: Part = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The weights of each image's stage; the state is log p₀."""
        now = view.log_probabilities()
        state = now if state is None else state
        pending = view.pending()
        moved = (now.exp() * (now - state)).sum(1)
        far = moved > view.goal.mean(moved).view(-1, 1, 1)
        second = ~pending.flatten(1).any(1).view(-1, 1, 1) | (view.progress >= self.first)
        hard, far = (share + (1 - 2 * share) * view.number(m) for share, m in ((self.gamma, pending), (self.beta, far)))
        return torch.where(second, far, hard), state
