"""Which figures a table has of a row, and in which order: what is asked with yes or no first, where anything is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from segradius.evaluation.attack_summary import Row, Summary
from segradius.evaluation.foreground import NONE, Foreground
from segradius.metrics.intervals import Interval
from segradius.report.cells import Cells, share

if TYPE_CHECKING:  # an attack's report does without certification
    from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary

CLASSES = ("PixAcc %", "MIoU %", "MIoU/image %")
ASKED = ("Dice %", "IoU %", "Dice/image %")

#: What the accuracy of pixels is where the classes are sets: of pixels at which no structure is wrong.
ALL_RIGHT = "all structures right %"


def figures(summary: Summary) -> tuple[str, ...]:
    """Headings of `shares`.

    The MIoU of sets of structures is not among them: most sets are rare, and a pixel with one structure of three wrong
    counts there as one that has all three wrong.
    """
    if summary.structures:
        return (*ASKED, ALL_RIGHT)
    return CLASSES if summary.rows[0].foreground is None else (*ASKED, *CLASSES[:2])


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
    if summary.structures:
        return (*ASKED[:2], ALL_RIGHT)
    return CLASSES[:2] if summary.rows[0].foreground is None else (*ASKED[:2], *CLASSES[:2])


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
