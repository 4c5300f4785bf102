"""The usual parts of transfer attacks together: momentum, input diversity, translation invariance."""

from __future__ import annotations

from segradius.attacks.base import Method
from segradius.attacks.input_diversity import Diverse
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Momentum
from segradius.attacks.settings import Settings
from segradius.attacks.translation import Smoothed
from segradius.core.declared import LossName, OddSide, Part, Share, Weight, WeightingName
from segradius.objectives.objective import objective
from segradius.threats.threat import Threat


@white_box("mi_di_ti_fgsm", fixed=("sparse",))
def mi_di_ti_fgsm(
    threat: Threat,
    settings: Settings,
    *,
    nesterov: bool = False,
    shrink: Share = 0.9,
    chance: Part = 0.5,
    kernel: OddSide = 15,
    decay: Weight = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """MI-DI-TI-FGSM, the usual composition of transfer attacks, α = ε/T; with ``nesterov`` NI-DI-TI-FGSM.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        nesterov: Whether gradients are taken ahead of the iterate, as in `ni_fgsm`.
        shrink: Least size of the image, as a share of its sides.
        chance: Probability p of a transform in a step.
        kernel: Side of the smoothing kernel in pixels, odd; 1 for none.
        decay: Momentum μ.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    step = Smoothed(Momentum(settings.size(threat.norm.name, 1.0), decay, nesterov), kernel)
    return settings.iterate(objective(loss, weighting), threat, step, look=Diverse(shrink, chance))
