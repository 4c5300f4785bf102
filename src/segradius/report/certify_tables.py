"""Certificates as tables and notes: answers, classes, whole images, attacks; what is promised and what it cost."""

from __future__ import annotations

import math

from segradius.evaluation.certify_summary import (
    CertifiedRow,
    CertifiedSummary,
)
from segradius.evaluation.crosscheck import check_rows
from segradius.report.cells import Cells, set_aside_note, share
from segradius.report.figures import about, certified_figures, certified_shares, said_of, structures_table

NAMES = {
    "base": "the model",
    "smoothed": "smoothed, uncertified",
    "segcertify": "certified",
    "adaptive": "certified, groups",
    "radii": "certified, own radii",
    "soft": "certified, own soft radii",
    "lipschitz": "certified, own radii by L",
    "recovery": "certified recovery",
    "detection": "certified detection",
    "defended": "double masking, uncertified",
}


def certified_tables(summary: CertifiedSummary) -> list[Cells]:
    """One line for each answer, for each attack on the certificates, and for each class."""
    attacked = [attacks_table(summary)] if summary.checked else []
    attacked += [] if summary.whole is None else [whole_table(summary)]
    attacked += [stood_table(summary)] if summary.attacked else []
    by = structures_table(summary, NAMES) if summary.structures else classes_table(summary)
    return [answers_table(summary), *attacked, by]


def answers_table(summary: CertifiedSummary) -> Cells:
    """Accuracies with 95 % intervals over images, abstention and radius of each answer."""
    groups = any(row.name == "adaptive" for row in summary.rows)
    rest = ("abstained %", "radius l2", "boundary %", "interior %")
    header = ["answer", "images", *certified_figures(summary), *rest]
    wrong = said_of(summary).wrong
    title = f"Per cent of labelled pixels [95 % interval over images]; an abstained pixel is {wrong}"
    title += about(summary.rows[0].foreground)
    rows = [_answer(row, summary) + ([_number(100 * row.gain, ".1f")] if groups else []) for row in summary.rows]
    return Cells(title, [*header, "gain %"] if groups else header, rows)


def classes_table(summary: CertifiedSummary) -> Cells:
    """Accuracy and IoU of each class, for the model and each certificate."""
    rows = [row for row in summary.rows if row.name != "smoothed"]
    shares = (said_of(summary).accuracy, "IoU")
    header = ["class", "pixels", *(f"{NAMES[row.name]}: {what} %" for row in rows for what in shares)]
    known = {row.name: {each.name: each for each in row.classes} for row in rows}
    names = list(dict.fromkeys(each.name for row in rows for each in row.classes))
    lines = []
    for name in names:
        each = [known[row.name].get(name) for row in rows]
        pixels = next(found.pixels for found in each if found is not None)
        known_of = [(found.accuracy, found.iou) if found else (math.nan, math.nan) for found in each]
        lines.append([name, str(pixels), *(_number(100 * part, ".1f") for both in known_of for part in both)])
    return Cells("By class, over all images", header, lines)


def attacks_table(summary: CertifiedSummary) -> Cells:
    """What became of certified pixels under attacks inside their radius, by attack and by what it aimed at."""
    header = ("attack, aim", "images", "pixels", "flipped", "lost", "below bound", "images lost", "images below",
              "bound used", "refuted")  # fmt: skip
    rows = []
    for name, each, caught in check_rows(summary.checked):
        counts = (each.images, each.pixels, each.flipped, each.lost, each.below, each.images_lost, each.images_below)
        rows.append((name, *map(str, counts), "" if each.used is None else f"{each.used:.2f}", caught))
    return Cells("Certified pixels under attack inside the certified radius", header, rows)


def whole_table(summary: CertifiedSummary) -> Cells:
    """What stays of all images together, by the length of a change of each."""
    assert summary.whole is not None
    header = ("l2 ε", f"{said_of(summary).pixacc} %, least", "MIoU %, least", "IoU %, least, by class")
    rows = []
    for row in summary.whole.rows:
        known = [each for each in row.classes if not math.isnan(each.iou)]
        by = ", ".join(f"{each.name} {100 * each.iou:.1f}" for each in known)
        rows.append((f"{row.eps:g}", f"{100 * row.pixacc:.1f}", f"{100 * row.miou:.1f}", by))
    return Cells("Whole images: what is left under any change of at most ε of each", header, rows)


def stood_table(summary: CertifiedSummary) -> Cells:
    """What attacks left beside what was promised."""
    pixacc = said_of(summary).pixacc
    header = ("attack", "allowed", "images", f"promised {pixacc} %", f"left {pixacc} %", "lost", "bound used",
              "images contradicted")  # fmt: skip
    rows = []
    for each in summary.attacked:
        used = "" if each.used is None else f"{each.used:.3f}"
        shares = (f"{100 * each.promised:.1f}", f"{100 * each.left:.1f}")
        rows.append((each.attack, each.at, str(each.images), *shares, str(each.lost), used, str(each.contradicted)))
    return Cells("Under attack", header, rows)


def certified_notes(summary: CertifiedSummary) -> list[str]:
    """What is promised, what it cost, and which images are in no figure."""
    found = [f"{NAMES[row.name]}: {row.promise}" for row in summary.rows if row.promise]
    found.append("The promise is about every pixel of an image, void ones too; the figures count labelled pixels only.")
    if summary.checked:
        found.append(
            "Under attack: flipped pixels have more fresh votes for another class, near a tie by chance; lost ones "
            "beyond chance; below are those whose probability is beyond chance under what the certificate implies. "
            "Bound used: how much of the shift that the theory allows the attack attained. Refuted: where a sound "
            "certificate would show this with a probability below 0.001, all attacks together."
        )
    found += [
        f"{each.attack} REFUTES the certificate: {'; '.join(each.refuted)}" for each in summary.checked if each.refuted
    ]
    found += _stood_notes(summary)
    passes = ", ".join(
        f"{book['forward']} forward" + f" and {book['backward']} backward" * (book["backward"] > 0) + f" for {purpose}"
        for purpose, book in summary.ledger.items()
    )
    if summary.undecided is not None:
        found.append(
            f"Left undecided when sampling stopped: {100 * summary.undecided:.2g} % of the pixels of an image on "
            "average, which further copies, up to n, might have certified. Every test holds whenever sampling stops."
        )
    if summary.timed:
        found.append(
            "The clock set the number of copies of each image (per_image.csv), so that figures differ between "
            "machines; the promise is the same on all."
        )
    copies = f"; {summary.copies:g} noisy copies an image" if summary.copies else ""
    found.append(f"Passes over all images: {passes}{copies}.")
    if summary.invalid:
        found.append(
            f"{len(summary.invalid)} image(s) gave NaN or infinite answers to noisy copies, not counted: "
            + ", ".join(summary.invalid[:5])
        )
    return found + set_aside_note(summary.set_aside)


def _stood_notes(summary: CertifiedSummary) -> list[str]:
    found = []
    if summary.attacked:
        found.append(
            "Under attack: promised is what the certificates leave at least, left what the attack did; lost pixels had "
            "something promised that does not hold; bound used is how far the answers moved, of what the theory "
            "allows. One contradiction refutes the certificates."
        )
    if any(each.at == "detection" for each in summary.attacked):
        found.append("Of detection, left are pixels that are right or at which there is an alarm.")
    refuted = sorted({f"{each.attack} ({each.at})" for each in summary.attacked if each.contradicted})
    return found + ([f"REFUTED, the certificates do not hold, by {', '.join(refuted)}"] if refuted else [])


def _answer(row: CertifiedRow, summary: CertifiedSummary) -> list[str]:
    abstained = "" if row.promise is None else share(row.abstained)
    where = [share(row.boundary), share(row.interior)]
    accuracy = certified_shares(row, summary)
    return [NAMES[row.name], str(summary.images), *accuracy, abstained, _number(row.radius, ".3f"), *where]


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
