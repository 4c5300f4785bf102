"""An ensemble of unlike members along one kind of step, one of them made for MIoU."""

from __future__ import annotations

from segradius.attacks.base import Method
from segradius.attacks.ensemble import Ensemble
from segradius.attacks.flips import falling
from segradius.attacks.make import white_box
from segradius.attacks.settings import Settings
from segradius.core.declared import Part, Weight
from segradius.objectives.objective import Objective
from segradius.objectives.scaled_flips import ScaledFlips
from segradius.objectives.scaled_sigmoid import ScaledSigmoid
from segradius.objectives.weightings import ClassBalanced, Product, StillCorrect
from segradius.threats.threat import Threat


@white_box("auto")
def auto(
    threat: Threat, settings: Settings, *, class_weights: tuple[Weight, ...] | None = None, fooled: Part = 0.3
) -> Method:
    """The worst of three for each image (ours), T = 100 each: expected flips, the same by class, and margins.

    - ``flips``: the attack of that name;
    - ``balanced``: the same with the root of a weight for each true class, so that rare classes fall too: for MIoU;
    - ``margins``: the sigmoid of the margin in place of the radius.

    Results of all members are there, so that reports choose for each image the worst for PixAcc, and over a data set
    the worst for MIoU, as for `sea`.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``steps`` are those of each member.
        class_weights: One weight per class, as `segradius.objectives.weightings.balanced_weights` computes them; None
            balances each image by itself.
        fooled: Weight of a pixel that is fooled already.
    """
    mask = StillCorrect(fooled)
    members = {
        "flips": Objective(ScaledFlips(), mask),
        "balanced": Objective(ScaledFlips(), Product((mask, ClassBalanced(class_weights, power=0.5)))),
        "margins": Objective(ScaledSigmoid(), mask),
    }
    return Ensemble({name: falling(objective, threat, settings) for name, objective in members.items()})
