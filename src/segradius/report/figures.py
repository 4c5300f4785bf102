"""Which figures a table has of a row, and in which order: what is asked with yes or no first, where anything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from segradius.evaluation.attack_summary import Row, Summary
from segradius.evaluation.foreground import NONE, Foreground
from segradius.metrics.intervals import Interval
from segradius.report.cells import Cells, share

if TYPE_CHECKING:  # an attack's report does without certification
    from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary

CLASSES = ("MIoU %", "MIoU/image %")
ASKED = ("Dice %", "IoU %", "Dice/image %")


@dataclass(frozen=True)
class Words:
    """What labels, and pixels that agree with them, are called.

    Attributes:
        label: A map of labels.
        right: Pixels that agree with it, after a share.
        wrong: Those that do not.
        pixacc: Their share, over a column or at an axis.
        whole: The same, in a title.
        accuracy: The same of a class.
        report: Title of a table of one model.
        changed: What may become of a pixel that an attack changes, in the order of the picture's colours.
    """

    label: str
    right: str
    wrong: str
    pixacc: str
    whole: str
    accuracy: str
    report: str
    changed: tuple[str, ...]


GIVEN = Words(
    "label", "right", "wrong", "PixAcc", "pixel accuracy", "accuracy", "Accuracy",
    ("right, now wrong", "wrong, otherwise", "wrong, now right"),
)  # fmt: skip
#: Where the model's own predictions are the labels.
OWN = Words(
    "own prediction", "kept", "changed", "kept", "pixels that keep the model's own prediction", "kept", "Stability",
    ("kept no longer",),
)  # fmt: skip


def words(*, predicted: bool, structures: bool) -> Words:
    """Those of a run.

    Args:
        predicted: Whether its labels are the model's own predictions.
        structures: Whether the classes are sets of structures, none of which is wrong in a pixel that agrees.

    Example:
        >>> [words(predicted=own, structures=sets).pixacc for sets in (False, True) for own in (False, True)]
        ['PixAcc', 'kept', 'all structures right', 'all structures kept']
    """
    found = OWN if predicted else GIVEN
    every = f"all structures {found.right}"
    return replace(found, pixacc=every, whole=f"pixels with {every}") if structures else found


def said_of(summary: Summary | CertifiedSummary) -> Words:
    """Those of its run."""
    return words(predicted=summary.predicted, structures=bool(summary.structures))


def figures(summary: Summary) -> tuple[str, ...]:
    """Headings of `shares`.

    The MIoU of sets of structures is not among them: most sets are rare, and a pixel with one structure of three wrong
    counts there as one that has all three wrong.
    """
    right = f"{said_of(summary).pixacc} %"
    if summary.structures:
        return (*ASKED, right)
    usual = (right, *CLASSES)
    return usual if summary.rows[0].foreground is None else (*ASKED, *usual[:2])


def about(asked: Foreground | None) -> str:
    """Of what Dice and IoU are, to end a title with."""
    return f"; Dice and IoU: {asked.of}" if asked else ""


def shares(row: Row) -> list[str]:
    """The figures of a row, with their intervals."""
    asked = row.foreground
    if asked is None:
        return [share(each) for each in (row.pixacc, row.miou, row.miou_image)]
    first = [share(each) for each in (asked.dice, asked.iou, asked.dice_image)]
    return [*first, share(row.pixacc), *([] if asked.structures else [share(row.miou)])]


def certified_figures(summary: CertifiedSummary) -> tuple[str, ...]:
    """Headings of `certified_shares`."""
    right = f"{said_of(summary).pixacc} %"
    if summary.structures:
        return (*ASKED[:2], right)
    usual = (right, CLASSES[0])
    return usual if summary.rows[0].foreground is None else (*ASKED[:2], *usual)


def certified_shares(row: CertifiedRow, summary: CertifiedSummary) -> list[str]:
    """The figures of an answer, with their intervals."""
    asked = row.foreground
    first = (asked.dice, asked.iou) if asked else (NONE, NONE) if summary.rows[0].foreground else ()
    return [share(each) for each in (*first, row.pixacc, *(() if summary.structures else (row.miou,)))]


def structures_table(summary: CertifiedSummary, names: Mapping[str, str]) -> Cells:
    """Dice and IoU of each structure, for the model and each certificate; an abstained pixel is wrong in each."""
    rows = [(names[row.name], row.foreground) for row in summary.rows if row.name != "smoothed" and row.foreground]
    header = ["structure", "pixels", *(f"{name}: {what} %" for name, _ in rows for what in ("Dice", "IoU"))]
    lines = [
        [name, str(rows[0][1].structures[k].pixels), *(share(x) for _, each in rows for x in _both(each, k))]
        for k, name in enumerate(summary.structures)
    ]
    return Cells("By structure, over all images; an abstained pixel is wrong in each", header, lines)


def _both(found: Foreground, k: int) -> tuple[Interval, Interval]:
    return found.structures[k].dice, found.structures[k].iou
