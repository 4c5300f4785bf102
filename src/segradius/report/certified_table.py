"""The summary of a certification as tables, and what a reader must know beside them."""

from __future__ import annotations

import math

from segradius.certification.verdicts import refuted
from segradius.evaluation import CertifiedRow, CertifiedSummary
from segradius.metrics import Interval
from segradius.report.table import Cells, percent, set_aside_note

NAMES = {
    "base": "the model",
    "smoothed": "smoothed, uncertified",
    "segcertify": "certified",
    "adaptive": "certified, groups",
    "radii": "certified, own radii",
}


def certified_tables(summary: CertifiedSummary) -> list[Cells]:
    """One line for each answer; one for each class with every certificate beside the model; what attacks found."""
    found = [answers_table(summary), classes_table(summary)]
    return [*found, crosscheck_table(summary)] if any(summary.crosscheck.values()) else found


def answers_table(summary: CertifiedSummary) -> Cells:
    """Accuracies with 95 % intervals over images, abstention and radius of each answer."""
    groups = any(row.name == "adaptive" for row in summary.rows)
    header = ["answer", "images", "PixAcc %", "MIoU %", "abstained %", "radius l2", "boundary %", "interior %"]
    title = "Per cent of labelled pixels [95 % interval over images]; an abstained pixel is wrong"
    rows = [_answer(row, summary.images) + ([_number(100 * row.gain, ".1f")] if groups else []) for row in summary.rows]
    return Cells(title, [*header, "gain %"] if groups else header, rows)


def classes_table(summary: CertifiedSummary) -> Cells:
    """Accuracy and IoU of each class, for the model and each certificate."""
    rows = [row for row in summary.rows if row.name != "smoothed"]
    header = ["class", "pixels", *(f"{NAMES[row.name]}: {what} %" for row in rows for what in ("accuracy", "IoU"))]
    known = {row.name: {each.name: each for each in row.classes} for row in rows}
    names = list(dict.fromkeys(each.name for row in rows for each in row.classes))
    lines = []
    for name in names:
        each = [known[row.name].get(name) for row in rows]
        pixels = next(found.pixels for found in each if found is not None)
        shares = [share for found in each for share in ((found.accuracy, found.iou) if found else (math.nan, math.nan))]
        lines.append([name, str(pixels), *(_number(100 * share, ".1f") for share in shares)])
    return Cells("By class, over all images", header, lines)


def crosscheck_table(summary: CertifiedSummary) -> Cells:
    """One line for each attack and aim: certified pixels that fresh noisy copies find flipped or lost."""
    title = "Attacks on the smoothed model inside the certified radius; lost and below: beyond chance"
    header = ["attack", "aim", "images", "certified pixels", "flipped", "lost", "p", "below the bound", "p", "used"]
    lines = [
        [attack, aim, *map(str, (each.images, each.pixels, each.flipped, each.lost)), f"{each.p_lost:.2g}",
         str(each.below), f"{each.p_below:.2g}", "" if each.used is None else f"{each.used:.2f}"]
        for attack, aims in summary.crosscheck.items()
        for aim, each in aims.items()
    ]  # fmt: skip
    return Cells(title, header, lines)


def certified_notes(summary: CertifiedSummary) -> list[str]:
    """What is promised, what it cost, and which images are in no figure."""
    found = [f"{NAMES[row.name]}: {row.promise}" for row in summary.rows if row.promise]
    found.append("The promise is about every pixel of an image, void ones too; the figures count labelled pixels only.")
    passes = ", ".join(f"{book['forward']} forward for {purpose}" for purpose, book in summary.ledger.items())
    found.append(f"Passes over all images: {passes}; {summary.copies:g} noisy copies an image.")
    found += [
        f"{attack} REFUTES the certificate: {', '.join(refuted(aims))}"
        for attack, aims in summary.crosscheck.items()
        if refuted(aims)
    ]
    if summary.invalid:
        found.append(
            f"{len(summary.invalid)} image(s) gave NaN or infinite answers to noisy copies, not counted: "
            + ", ".join(summary.invalid[:5])
        )
    return found + set_aside_note(summary.set_aside)


def _answer(row: CertifiedRow, images: int) -> list[str]:
    abstained = "" if row.promise is None else _share(row.abstained)
    where = [_share(row.boundary), _share(row.interior)]
    accuracy = [_share(row.pixacc), _share(row.miou)]
    return [NAMES[row.name], str(images), *accuracy, abstained, _number(row.radius, ".3f"), *where]


def _share(found: Interval) -> str:
    return percent(found.value, found)


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
