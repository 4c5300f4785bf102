"""The strongest single attack: expected flips along a momentum of long steps, fooled pixels pulling less."""

from __future__ import annotations

from segradius.attacks.base import Method
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Momentum
from segradius.attacks.settings import Settings
from segradius.core.declared import Part, Positive, Weight
from segradius.objectives.losses import ExpectedFlips
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import Threat

#: Step length in units of ε/T, and for l1 the share of values that a step moves.
PER_EPS = 15.0
SPARSE = 0.01


@white_box("flips")
def flips(
    threat: Threat,
    settings: Settings,
    *,
    tau: Positive = 2.0,
    tau_end: Positive = 0.25,
    fooled: Part = 0.3,
    decay: Weight = 0.75,
) -> Method:
    """Expected flips Φ(−r/τ), r the signed radius, with momentum and long steps of 15ε/T, T = 100 (ours).

    The objective is a smooth count of flipped pixels (Eq. 5), whose τ falls over the run, from one that every pixel
    pulls to one that only those near the boundary do. A pixel that is fooled keeps a part of its weight, so that it
    does not turn back. The settings were searched on training and validation images of several networks at once, by
    ``studies/strongest_search.py``.

    Args:
        threat: Ball and box.
        settings: Shared settings; ``sparse`` is 0.01 in l1.
        tau: τ at the start.
        tau_end: τ at the end.
        fooled: Weight of a pixel that is fooled already.
        decay: Momentum μ.
    """
    sparse = SPARSE if settings.sparse is None and threat.norm.name == "l1" else settings.sparse
    step = Momentum(settings.size(threat.norm.name, PER_EPS), decay, sparse=sparse)
    objective = Objective(ExpectedFlips(tau, tau_end), StillCorrect(fooled))
    return settings.iterate(objective, threat, step, steps=100)
