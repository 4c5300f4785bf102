"""ASMA, the adaptive segmentation mask attack: logits of an aim are raised by steps that grow as it is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room
from segradius.attacks.make import white_box
from segradius.attacks.settings import Settings
from segradius.core.declared import Weight, check_fields
from segradius.objectives.goal import Goal
from segradius.objectives.logit import NegativeLogit
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Adaptive:
    """ASMA's step (Ozbulak et al. 2019, Algorithm 1): δ ← Proj(δ + (β·IoU + τ)·∇(Σ loss − ‖δ‖²)).

    The gradient is that of a *sum* over pixels and is not brought to a length, so that τ and β are in the unit of
    images over logits: what they should be depends on the network. IoU is that of the prediction at δ with the aim, the
    mean over the aim's classes in counted pixels (the authors, with one class and its ground, have that of the class);
    in the first step it counts as 0. Without an aim 1 − IoU with the labels stands in its place, which is ours.

    Attributes:
        tau: τ.
        beta: β.
    """

    compares: ClassVar[bool] = False

    tau: Weight = 1e-7
    beta: Weight = 1e-6

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project; the state says that there was a step before."""
        goal = room.task.goal
        assert seen.prediction is not None
        done = torch.zeros_like(room.eps)
        if state is not None:
            overlap = mean_iou(seen.prediction, goal, room.task.model.num_classes).to(room.eps.dtype)
            done = overlap if goal.targeted else 1 - overlap
        # The observed gradient is that of a mean over the counted pixels.
        ascent = seen.gradient * goal.pixels.view(-1, 1, 1, 1) - 2 * seen.delta
        return room.project(torch.addcmul(seen.delta, ascent, (self.beta * done + self.tau).view(-1, 1, 1, 1))), True


def mean_iou(prediction: Tensor, goal: Goal, classes: int) -> Tensor:
    """Mean over the classes of an image's reference of the IoU of a prediction with it, (N,); 0 where none counts.

    Args:
        prediction: (N, H, W).
        goal: Reference and counted pixels.
        classes: Number of classes C.

    Example:
        >>> labels = torch.tensor([[[0, 0, 1, 255]]])
        >>> mean_iou(torch.tensor([[[0, 1, 1, 1]]]), Goal.leave(labels), 3)
        tensor([0.5000])
    """
    counted = goal.counted.flatten(1).float()
    predicted, wanted = prediction.flatten(1), goal.reference.flatten(1)

    def each(chosen: Tensor, weights: Tensor) -> Tensor:
        return counted.new_zeros(len(counted), classes).scatter_add_(1, chosen, weights)

    there, here = each(wanted, counted), each(predicted, counted)
    both = each(wanted, counted * (predicted == wanted))
    known = there > 0
    return (both / (there + here - both).clamp_min(1) * known).sum(1) / known.sum(1).clamp_min(1)


@white_box("asma", fixed=("alpha", "sparse"))
def asma(threat: Threat, settings: Settings, *, tau: Weight = 1e-7, beta: Weight = 1e-6) -> Method:
    """ASMA (Ozbulak et al. 2019), T = 2501: an attack with an aim, here inside a ball; ``eps=inf`` is the original.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        tau: Factor τ of the gradient of a sum over pixels, whatever is reached.
        beta: Factor β that is added as IoU with the aim goes to 1.
    """
    return settings.iterate(Objective(NegativeLogit(), StillCorrect()), threat, Adaptive(tau, beta), steps=2501)
