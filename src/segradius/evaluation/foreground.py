"""Figures of what is asked of each pixel with yes or no: the structures, or the second of two classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from segradius.evaluation.class_summary import ClassRow, class_rows
from segradius.metrics.counts import Counts, Pixels
from segradius.metrics.intervals import Interval, interval
from segradius.metrics.statistics import Statistic, class_dice, class_iou, dice, dice_image, miou, worst_miou

NONE = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Foreground:
    """Of what is asked of each pixel with yes or no: the structures, or the second of two classes.

    Attributes:
        of: What that is: the class, or the structures.
        dice: Dice over all images, pixels pooled; of several structures the mean over those that occur, labelled or
            predicted. For an untargeted ensemble with the choice of members that makes it least.
        iou: Intersection over union, likewise.
        dice_image: Mean of the Dice of each image and structure that occurs in it, labelled or predicted.
        structures: Of each structure; empty for two classes, which have their rows.
    """

    of: str
    dice: Interval
    iou: Interval
    dice_image: Interval
    structures: tuple[ClassRow, ...] = ()


@dataclass(frozen=True)
class Named:
    """Names of the model's classes, for a row of each, and of the structures whose sets they are."""

    classes: Sequence[str] = ()
    structures: Sequence[str] = ()

    @property
    def asked(self) -> bool:
        """Whether anything is asked with yes or no."""
        return bool(self.structures) or len(self.classes) == 2

    @property
    def told(self) -> str:
        """What is asked, for people.

        Example:
            >>> Named(("background", "cell")).told, Named((), ("organ", "vessel")).told
            ('cell', 'mean over 2 structures')
        """
        if self.structures:
            return self.structures[0] if len(self.structures) == 1 else f"mean over {len(self.structures)} structures"
        return self.classes[1] if self.asked else ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of `of_image`, in a file.

        Example:
            >>> Named(("background", "cell")).columns, Named((), ("organ", "vessel")).columns[2:4]
            (('dice', 'iou'), ('dice organ', 'iou organ'))
        """
        each = (f"{what} {name}" for name in self.structures for what in ("dice", "iou"))
        return ("dice", "iou", *each) if self.asked else ()


#: Of a model whose classes have no names.
NOTHING_NAMED = Named()


def foreground_of(counts: Counts, every: Sequence[Counts], named: Named) -> Foreground:
    """The figures of some images.

    Args:
        counts: Of the images.
        every: Alternatives for each image, of which the least counts; ``[counts]`` where there are none.
        named: Names of classes and structures.
    """
    own, others = counts.foreground, [each.foreground for each in every]
    if own is None:  # no image is left
        return Foreground(named.told, NONE, NONE, NONE)
    known = [each for each in others if each is not None]
    rows = tuple(class_rows(own, named.structures, absent=True))
    return Foreground(named.told, least(dice, known), least(miou, known), interval(dice_image, own), rows)


def foreground_first(row: dict[str, Any], *about: str) -> dict[str, Any]:
    """A row for JSON: what it is ``about``, the figures of ``foreground`` where there are any, and all else.

    Example:
        >>> foreground_first({"miou": 0.5, "name": "a", "foreground": {"of": "cell", "dice": 0.75}}, "name")
        {'name': 'a', 'foreground': 'cell', 'dice': 0.75, 'miou': 0.5}
    """
    asked = dict(row.pop("foreground") or {})
    structures = asked.pop("structures", ())
    asked = {"foreground": asked.pop("of")} | asked if asked else {}
    first = {name: row[name] for name in about}
    return first | asked | row | ({"structures": structures} if structures else {})


def of_image(pixels: Pixels) -> Iterator[float]:
    """Dice and IoU of one image, of several structures their means, and then those of each; NaN where there is none.

    A structure that is neither labelled nor predicted in the image has none, and enters no mean.

    Example:
        >>> list(of_image(Pixels([2, 0, 0, 0], [2, 1, 0, 0], [2, 1, 0, 0], [1, 0])))
        [1.0, 1.0, 1.0, 1.0, nan, nan]
    """
    found = Counts.of([pixels]).foreground
    if found is None:
        return
    yield dice(found)
    yield miou(found)
    if found.intersection.shape[1] > 1 or pixels.structures:
        for pair in zip(class_dice(found).tolist(), class_iou(found).tolist(), strict=True):
            yield from pair


def least(statistic: Statistic, alternatives: Sequence[Counts]) -> Interval:
    """Of the choice of one alternative per image that a greedy search finds to have the least."""
    if len(alternatives) == 1:
        return interval(statistic, alternatives[0])
    choice = worst_miou(alternatives, statistic=statistic)
    return interval(statistic, Counts.chosen(alternatives, choice))
