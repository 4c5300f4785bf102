"""The summary of a certification as tables, and what a reader must know beside them."""

from __future__ import annotations

import math

from segradius.evaluation import Certification, CertifiedRow, CertifiedSummary, check_rows
from segradius.metrics.statistics import Interval
from segradius.report.table import Cells, percent, set_aside_note

NAMES = {
    "base": "the model",
    "smoothed": "smoothed, uncertified",
    "segcertify": "certified",
    "adaptive": "certified, groups",
    "radii": "certified, own radii",
}


def certified_heading(experiment: Certification, model: str, data: str) -> str:
    """What was certified, in a line: without it no figure below can be read."""
    it = experiment.smoothing
    k = f" with k = {it.k}" if it.correction == "kfwer" else ""
    early = "" if it.early_stop is None else f" at most, stopped at {it.early_stop:g} undecided"
    options = [
        f"model {model} ({experiment.model.fingerprint})",
        f"data {data}",
        f"σ = {it.sigma:g}",
        f"n₀ = {it.n0}, n = {it.n}{early}",
        f"α = {it.alpha:g}, τ = {it.tau:g}, correction {it.correction}{k}",
        f"seed {experiment.seed}",
        f"precision {it.precision}",
    ]
    options += ["noisy copies clamped"] if it.clamp else []
    options += [f"noise inside the region {it.region}"] if it.region else []
    return f"Certified: {'; '.join(options)}."


def certified_tables(summary: CertifiedSummary) -> list[Cells]:
    """One line for each answer, for each attack on the certificates, and for each class."""
    attacked = [attacks_table(summary)] if summary.checked else []
    return [answers_table(summary), *attacked, classes_table(summary)]


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


def attacks_table(summary: CertifiedSummary) -> Cells:
    """What became of certified pixels under attacks inside their radius, by attack and by what it aimed at."""
    header = ("attack, aim", "images", "pixels", "flipped", "lost", "below bound", "images lost", "images below",
              "bound used", "refuted")  # fmt: skip
    rows = []
    for name, each, caught in check_rows(summary.checked):
        counts = (each.images, each.pixels, each.flipped, each.lost, each.below, each.images_lost, each.images_below)
        rows.append((name, *map(str, counts), "" if each.used is None else f"{each.used:.2f}", caught))
    return Cells("Certified pixels under attack inside the certified radius", header, rows)


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
    passes = ", ".join(
        f"{book['forward']} forward" + f" and {book['backward']} backward" * (book["backward"] > 0) + f" for {purpose}"
        for purpose, book in summary.ledger.items()
    )
    found.append(f"Passes over all images: {passes}; {summary.copies:g} noisy copies an image.")
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
