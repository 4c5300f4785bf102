"""What attacks, or nothing, left of each class: accuracy, IoU and Dice over all images, for tables and files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from segradius.core.storage import as_csv, null
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval, interval
from segradius.metrics.statistics import dice, miou, pooled_accuracy


@dataclass(frozen=True)
class ClassRow:
    """Of one class, pixels of all images pooled.

    Attributes:
        name: Of the class.
        pixels: How many are labelled.
        accuracy: Share of those that is right.
        iou: Intersection over union.
        dice: Twice the intersection over predicted and labelled pixels, which is the F1 score.
    """

    name: str
    pixels: int
    accuracy: Interval
    iou: Interval
    dice: Interval


def class_rows(counts: Counts, names: Sequence[str], *, absent: bool = False) -> list[ClassRow]:
    """A row for each class that is labelled or predicted anywhere.

    Args:
        counts: Of the images.
        names: Of the model's classes.
        absent: Whether the others have a row too, without figures.

    Example:
        >>> import torch
        >>> from segradius.metrics import count
        >>> counts = count(torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[0, 0, 1, 1]]]), 3)
        >>> [(row.name, row.pixels, row.iou.value, row.dice.value) for row in class_rows(counts, ["a", "b", "c"])]
        [('a', 2, 0.666..., 0.8), ('b', 2, 0.5, 0.666...)]
    """
    rows = []
    for c, name in enumerate(names):
        parts = (counts.intersection, counts.predicted, counts.labelled)
        alone = Counts(*(part[:, c : c + 1] for part in parts))
        if len(alone) and (absent or alone.union.any()):
            found = (interval(statistic, alone) for statistic in (pooled_accuracy, miou, dice))
            rows.append(ClassRow(name, int(alone.labelled.sum()), *found))
    return rows


def classes_csv(rows: Iterable[tuple[Sequence[Any], ClassRow]], about: Sequence[str] = (), what: str = "class") -> str:
    """One line for each row, shares in [0, 1] and the ends of their intervals.

    Args:
        rows: What each is about, and the row.
        about: Columns of the first.
        what: Column of the name.
    """
    columns = [f"{name}{end}" for name in ("accuracy", "iou", "dice") for end in ("", "_low", "_high")]
    lines = (
        (*told, row.name, row.pixels, *null([*astuple(row.accuracy), *astuple(row.iou), *astuple(row.dice)]))
        for told, row in rows
    )
    return as_csv((*about, what, "pixels", *columns), lines)
