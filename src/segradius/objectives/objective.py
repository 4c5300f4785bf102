"""The objective of an attack: a per-pixel loss times a pixel weighting, and both from names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from segradius.objectives.losses import LOSSES, CrossEntropy, Loss
from segradius.objectives.weightings import StillCorrect, Uniform, Weighting, parse_weighting, times


@dataclass(frozen=True)
class Objective:
    """Weighted loss that an attack maximises: mean over counted pixels of w_n · ℓ_n (Eq. 9).

    Attributes:
        loss: Per-pixel loss.
        weighting: Pixel weights, frozen in each step.
        track: Loss whose plain mean an adaptive step compares between iterates, as weights and annealed losses change
            from step to step; None where the step compares nothing.
    """

    loss: Loss = field(default_factory=CrossEntropy)
    weighting: Weighting = field(default_factory=Uniform)
    track: Loss | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What of a model's answers loss and weights are computed from."""
        return self.loss.needs | self.weighting.needs

    def check_classes(self, classes: int) -> None:
        """Raise `InputError` unless a model with this many classes will do."""
        self.loss.check_classes(classes)
        self.weighting.check_classes(classes)

    def check_scores(self) -> None:
        """Raise `InputError` if scores are not enough."""
        self.loss.check_scores()
        self.weighting.check_scores()

    @property
    def tracks_another(self) -> bool:
        """Whether the tracked value is not that of the objective itself."""
        return self.track is not None and not (self.track == self.loss and isinstance(self.weighting, Uniform))

    def times(self, weighting: Weighting) -> Objective:
        """This objective with a further weighting."""
        return replace(self, weighting=times(self.weighting, weighting))


def objective(loss: str = "ce", weighting: str = "uniform", **loss_options: Any) -> Objective:
    """An objective by names: ``masked_…`` puts the still-correct mask on a loss, ``a*b`` multiplies weightings.

    Args:
        loss: Name of the loss.
        weighting: Name of the weighting, or a product such as ``cr*still_correct``.
        **loss_options: Fields of the loss.

    Example:
        >>> objective("masked_ce").weighting
        StillCorrect(fooled=0.0)
    """
    masked = loss.startswith("masked_") and loss not in LOSSES
    kind: Callable[..., Loss] = LOSSES[loss.removeprefix("masked_") if masked else loss]
    weights = parse_weighting(weighting)
    return Objective(kind(**loss_options), times(weights, StillCorrect()) if masked else weights)
