"""What a check of a run looks at and what it says: the facts, a finding, and the checks by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from segradius.core.registry import Registry
from segradius.evaluation.job import DataChoice, ModelChoice
from segradius.evaluation.preparations import PREPARATIONS
from segradius.evaluation.probe import Measured
from segradius.metrics.counts import Counts
from segradius.models.doubts import Doubt


@dataclass(frozen=True)
class Finding:
    """Something that is probably a mistake.

    Attributes:
        name: Of the check.
        text: What was seen.
        advice: What to do.
        value: The figure behind it; NaN for none.
    """

    name: str
    text: str
    advice: str
    value: float = math.nan

    @property
    def line(self) -> str:
        """For people.

        Example:
            >>> Finding("void", "3 of 4 pixels have no label", "look at the masks", 0.75).line
            '3 of 4 pixels have no label: look at the masks'
        """
        return f"{self.text}: {self.advice}"


@dataclass(frozen=True)
class Facts:
    """All that a check looks at.

    Attributes:
        model: As it was asked for.
        data: As they were asked for.
        ids: Of all images.
        names: Of the model's classes.
        labels: How many classes the data have.
        threats: Norms and budgets of the attacks.
        follows: Whether an attack follows its gradient.
        counts: What the predictions for the unattacked images are worth, of those judged so far.
        whole: Whether those are all images, and all of the data set.
        sure: Share of the pixels of a target's answers that are exactly 1, over the images; NaN where not known.
        seen: What a few images show.
        doubts: What the model knows of itself: no weights, no normalisation.
        losses: Label and loss of each attack that takes one.
        ignore_index: The label of pixels without a class.
        structures: Names of those whose sets the classes are.
        outputs: What a network in this process returns, as `segradius.models.decoding.Decoding` has it.
    """

    model: ModelChoice
    data: DataChoice
    ids: Sequence[str]
    names: tuple[str, ...]
    labels: int
    threats: tuple[tuple[str, float], ...]
    follows: bool
    counts: Counts
    whole: bool
    sure: float
    seen: Measured
    doubts: tuple[Doubt, ...] = ()
    losses: tuple[tuple[str, str], ...] = ()
    ignore_index: int = 255
    structures: tuple[str, ...] = ()
    outputs: str = ""


Check = Callable[[Facts], Finding | None]
#: Checks by the name of what they find.
CHECKS: Registry[Check] = Registry("check")


#: How near the best MIoU another preparation of the colours, or order of classes, is as likely.
NEAR = 0.02


def better_prepared(it: Facts) -> dict[str, float]:
    """MIoU under the preparations of the colours that are clearly better, and as good as each other.

    A few images do not tell ImageNet's normalisation from ±1, so the order is that of `PREPARATIONS`, not of MIoU.
    """
    fine = {what: it.seen.prepared[what][1] for what in PREPARATIONS if it.seen.prepared.get(what, (0, 0))[0] >= 0.4}
    best = max(fine.values(), default=math.nan)
    if not best >= it.seen.miou + 0.1:
        return {}
    return {what: miou for what, miou in fine.items() if miou >= best - NEAR}
