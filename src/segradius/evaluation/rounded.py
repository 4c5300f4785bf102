"""What is left of an attack when the adversarial image is kept in 8 bits a value, as a PNG, or a camera, would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Result
from segradius.core.contracts import Seen
from segradius.evaluation.batch import Batch, goal_counts, judge
from segradius.evaluation.foreground import least
from segradius.evaluation.gallery import share_left
from segradius.evaluation.rows import ImageResult, Rounded
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval, interval
from segradius.metrics.statistics import dice, miou, pooled_accuracy

#: Grey levels of an image in [0, 1].
LEVELS = 255


@dataclass(frozen=True)
class EightBit:
    """Of one attack over all images what is left after rounding to 8 bits.

    Attributes:
        pixacc: Share of the labelled pixels that are right.
        miou: Data-set MIoU.
        eps: Largest ‖δ‖ of a rounded image, in the norm of the attack.
        levels: That in grey levels of 1/255.
        dice: Of what is asked with yes or no; None where nothing is.
    """

    pixacc: Interval
    miou: Interval
    eps: float
    levels: float
    dice: Interval | None = None

    @property
    def first(self) -> Interval:
        """What stands first in tables."""
        return self.pixacc if self.dice is None else self.dice

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without what is not there."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def eight_bit(
    attacks: Sequence[tuple[Mapping[str, ImageResult], Mapping[str, Rounded]]], norm: str, *, targeted: bool
) -> EightBit | None:
    """The figures of an attack, or for each image of whichever of several left least after rounding.

    Args:
        attacks: Valid results of each, by image, and what was seen after rounding.
        norm: Of their threat model.
        targeted: Whether they have an aim.

    Returns:
        None where an image that has results was not looked at after rounding.
    """
    if any(image not in rounded for results, rounded in attacks for image in results):
        return None
    first, *_ = attacks
    ids = [image for image in first[0] if all(image in both and both[image].valid for _, both in attacks)]
    if not ids:
        return None
    seen = [[rounded[image] for image in ids] for _, rounded in attacks]
    left = [[_left(results[image], rounded[image], targeted=targeted) for image in ids] for results, rounded in attacks]
    choice = torch.tensor(left).argmin(0).tolist()
    chosen = Counts.of([seen[pick][place].pixels for place, pick in enumerate(choice)])
    every = [chosen] if targeted else [Counts.of([each.pixels for each in one]) for one in seen]
    longest = max(getattr(each, norm) for one in seen for each in one)
    asked = [found for each in every if (found := each.foreground) is not None]
    dices = least(dice, asked) if asked else None
    return EightBit(interval(pooled_accuracy, chosen), least(miou, every), longest, LEVELS * longest, dices)


def _left(result: ImageResult, seen: Rounded, *, targeted: bool) -> float:
    return share_left(replace(result, pixels=seen.pixels, hit=seen.hit), targeted=targeted)


def levels(images: Tensor) -> Tensor:
    """Images in [0, 1] in grey levels, rounded to whole ones from 0 to 255, halves to even.

    Example:
        >>> import torch
        >>> levels(torch.tensor([0.0, 0.5, 0.004, 1.0])).tolist()
        [0.0, 128.0, 1.0, 255.0]
    """
    return (images * LEVELS).round()


def rounded_results(
    model: Seen,
    batch: Batch,
    found: Result,
    target: Tensor | None,
    lengths: Callable[[Tensor], Mapping[str, Tensor]],
) -> dict[str, Rounded]:
    """What a model sees in adversarial images after rounding, by image, for one more forward pass over each.

    Args:
        model: What is attacked.
        batch: The images before.
        found: What an attack made of them.
        target: Target labels (N, H, W) of a targeted attack.
        lengths: ‖δ‖ of each image in every norm, of (N, B, H, W); δ is what differs from the image as it was, whether
            that had 8 bits or not.
    """
    images = levels(found.adversarial) / LEVELS
    prediction, finite = judge(model, images)
    prediction = batch.outside(found.covered, prediction)
    hit, _ = goal_counts(batch, prediction, target)
    columns = {
        "pixels": batch.counts(prediction, model.num_classes).images,
        "hit": hit.tolist(),
        **{name: length.tolist() for name, length in lengths((images - batch.images).double()).items()},
        "valid": finite.tolist(),
    }
    rows = [Rounded(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return dict(zip(batch.ids, rows, strict=True))
