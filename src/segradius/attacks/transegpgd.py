"""TranSegPGD: PGD with two stages of pixel weights, made to transfer."""

from __future__ import annotations

from segradius.attacks.base import Method
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Steepest
from segradius.attacks.settings import Settings
from segradius.core.declared import Part
from segradius.objectives.losses import CrossEntropy
from segradius.objectives.objective import Objective
from segradius.objectives.transegpgd import TranSegPGD
from segradius.threats.threat import Threat


@white_box("transegpgd")
def transegpgd(threat: Threat, settings: Settings, *, gamma: Part = 0.1, beta: Part = 0.1, first: Part = 0.5) -> Method:
    """TranSegPGD (Jia et al. 2023): PGD on pixels still right, then on those whose answer has moved most.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Weight γ of fooled pixels in the first stage; others have 1 − γ.
        beta: Weight β of pixels that moved less than the mean in the second stage; others have 1 − β.
        first: Share of the steps after which the second stage begins at the latest; 1 where nothing is left to fool.
    """
    step = Steepest(settings.size(threat.norm.name), settings.sparse)
    return settings.iterate(Objective(CrossEntropy(), TranSegPGD(gamma, beta, first)), threat, step)
