"""The strongest single attack: expected flips, with steps that begin twice as long as the ball and fall to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Iterative, Observation, Room, StepSize
from segradius.attacks.make import white_box
from segradius.attacks.pgd import gathered, steepest
from segradius.attacks.settings import Settings
from segradius.core.declared import LossName, Part, Positive, Share, Weight, WeightingName, check_fields
from segradius.objectives.objective import Objective, objective
from segradius.objectives.scaled_flips import ScaledFlips
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import Threat

#: Mean step in units of ε, and for l1 the share of values that the first step moves.
LENGTH = {"l1": 0.5, "l2": 1.0, "linf": 1.0}
SPARSE = 0.03
STEPS = 100


@dataclass(frozen=True)
class Falling:
    """Momentum with steps that fall linearly to nothing: 2α(1 − t/T) along the steepest of m ← μ·m + g/‖g‖₁.

    Args:
        size: α, the mean length.
        decay: μ ≥ 0.
        sparse: For l1: share of the values that the first step moves, by equal amounts; it falls to a third of it.
            None moves along m/‖m‖₁.
    """

    compares: ClassVar[bool] = False

    size: StepSize
    decay: Weight = 0.5
    sparse: Share | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Accumulate, step and project."""
        done, momentum = seen.step / room.steps, gathered(seen.gradient, self.decay, state)
        sparse = None if self.sparse is None else self.sparse * 3**-done
        length = self.size.of(room) * (2 * (1 - done))
        return room.project(torch.addcmul(seen.delta, steepest(momentum, room, sparse), length)), momentum


@white_box("flips")
def flips(
    threat: Threat,
    settings: Settings,
    *,
    tau: Positive = 0.7,
    tau_end: Positive = 0.05,
    fooled: Part = 0.3,
    decay: Weight = 0.5,
) -> Method:
    """Expected flips Φ(−r/τs), r the signed radius and s its mean size, along falling steps; T = 100 (ours).

    The objective is a smooth count of flipped pixels (Eq. 5), whose τ falls over the run, from one that every pixel
    pulls to one that only those near the boundary do. A pixel that is fooled keeps a part of its weight, so that it
    does not turn back. Nothing is set for a network: s is its own scale, and the steps are in units of ε. The settings
    were searched on training and validation images of several networks at once, by ``studies/strongest_search.py``.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``alpha`` is the mean step, ε and for l1 ε/2, of which the first is twice as long.
            ``sparse`` is 0.03 in l1.
        tau: τ at the start, in units of the mean radius.
        tau_end: τ at the end.
        fooled: Weight of a pixel that is fooled already.
        decay: Momentum μ.
    """
    return falling(Objective(ScaledFlips(tau, tau_end), StillCorrect(fooled)), threat, settings, decay)


@white_box("falling_pgd")
def falling_pgd(
    threat: Threat,
    settings: Settings,
    *,
    decay: Weight = 0.5,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """The falling steps of `flips` on any loss and weighting, T = 100.

    Args:
        threat: Ball and box.
        settings: Shared settings, as those of `flips`.
        decay: Momentum μ.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    return falling(objective(loss, weighting), threat, settings, decay)


def falling(goal: Objective, threat: Threat, settings: Settings, decay: float = 0.5) -> Iterative:
    """An attack along steps as those of `flips`, on any objective."""
    norm, steps = threat.norm.name, STEPS if settings.steps is None else settings.steps
    sparse = SPARSE if settings.sparse is None and norm == "l1" else settings.sparse
    step = Falling(settings.size(norm, LENGTH[norm] * steps), decay, sparse)
    return settings.iterate(goal, threat, step, steps=STEPS)
