"""EroSeg: PGD on the pixels that are right and unsure of it, more of them in every step."""

from __future__ import annotations

from segradius.attacks.base import Method
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Steepest
from segradius.attacks.settings import Settings
from segradius.core.declared import LossName, Part, Weight
from segradius.objectives.eroseg import ClassIndex, EroSeg, Foreground
from segradius.objectives.objective import Objective, objective
from segradius.objectives.weightings import times
from segradius.threats.threat import Threat


@white_box("eroseg")
def eroseg(
    threat: Threat,
    settings: Settings,
    *,
    tau: Part = 0.8,
    beta: Weight = 0.8,
    background: ClassIndex | None = None,
    foreground: Foreground = 0.7,
    loss: LossName = "ce",
) -> Method:
    """EroSeg (arXiv 2601.14950): PGD on right pixels of a confidence below τ_t = 1 − (1 − τ₀)·exp(−βt).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        tau: τ₀, the threshold in the first step.
        beta: How fast τ_t goes to 1, in each step.
        background: Index of the background class, whose pixels weigh 1 − λ; None where there is none.
        foreground: λ, what pixels of other classes weigh then.
        loss: Name of the loss.
    """
    goal = objective(loss)
    goal = Objective(goal.loss, times(EroSeg(tau, beta, background, foreground), goal.weighting))
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(goal, threat, step)
