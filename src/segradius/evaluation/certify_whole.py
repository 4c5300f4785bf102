"""What is certified of all pixels of an image together, over the images: least accuracy, IoU and recall by radius."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segradius.certification.lipschitz import ClassWorst, least_iou, least_recall
from segradius.evaluation.record import Record


@dataclass(frozen=True)
class WholeClass:
    """Of one class: the least IoU, and the least share of its pixels that stay right; NaN where there is no pixel."""

    name: str
    iou: float
    recall: float


@dataclass(frozen=True)
class WholeRow:
    """What stays at least while every image is changed by at most ε.

    Attributes:
        eps: l2 length.
        pixacc: Share of the labelled pixels of all images that stay right.
        miou: Mean of the classes' least IoUs over the data set.
        classes: By class; each for itself, as no one change is worst for all.
    """

    eps: float
    pixacc: float
    miou: float
    classes: tuple[WholeClass, ...]


@dataclass(frozen=True)
class WholeImages:
    """What is certified of whole images.

    Attributes:
        edges: Radii, growing from 0.
        accuracy: Share of the labelled pixels that stay right under every change of that length of each image.
        rows: At the radii of tables.
    """

    edges: tuple[float, ...]
    accuracy: tuple[float, ...]
    rows: tuple[WholeRow, ...]


def whole_images(
    records: Sequence[Record], edges: Sequence[float], eps: Sequence[float], names: Sequence[str]
) -> WholeImages | None:
    """Over the images; None where no record speaks of whole images.

    Args:
        records: Of images that are done.
        edges: Radii of the curve.
        eps: Radii of the table.
        names: Of the model's classes.
    """
    found = [record.whole for record in records if record.whole]
    labelled = sum(each["labelled"] for each in found)
    if not labelled:
        return None
    accuracy = tuple(sum(column) / labelled for column in zip(*(each["right"] for each in found), strict=True))
    rows = []
    for place, length in enumerate(eps):
        classes = []
        for c, name in enumerate(names):
            worst = [ClassWorst(*each["classes"][place][c]) for each in found]
            classes.append(WholeClass(name, least_iou(worst), least_recall(worst)))
        kept = [each.iou for each in classes if not math.isnan(each.iou)]
        stays = [each["at"][place] for each in found]
        rows.append(WholeRow(length, sum(stays) / labelled, math.fsum(kept) / max(1, len(kept)), tuple(classes)))
    return WholeImages(tuple(edges), accuracy, tuple(rows))
