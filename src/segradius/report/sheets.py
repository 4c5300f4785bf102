"""Tables of the page: every figure of every run, with what it is sorted by and the command that made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segradius.core.escapes import visible
from segradius.evaluation.certified_by import condition
from segradius.evaluation.certify_summary import CertifiedRow
from segradius.metrics.intervals import Interval
from segradius.report.cells import percent
from segradius.report.certify_tables import NAMES
from segradius.report.story import NOTHING, Line, Story
from segradius.report.subject import SIGNS, Subject, budget, least_of

#: Headings of the shares of a row.
HEADS = {
    "dice": "Dice %",
    "iou": "IoU %",
    "pixacc": "{} %",
    "rounded_pixacc": "{} %, 8 bits",
    "miou": "MIoU %",
    "success": "success %",
}


@dataclass(frozen=True)
class Cell:
    """Of a table: what is shown, and the number that it is sorted by; None sorts by the text."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Table:
    """Of the page: its rows can be sorted, and each tells the command that made it."""

    title: str
    header: Sequence[str]
    rows: Sequence[tuple[Sequence[Cell], str]]


def _share(found: Interval) -> Cell:
    return Cell(percent(found.value, found), None if math.isnan(found.value) else 100 * found.value)


def _count(number: float, form: str = "g") -> Cell:
    return Cell("" if math.isnan(number) else format(number, form), None if math.isnan(number) else number)


def attacks_sheet(subject: Subject) -> Table:
    """Every row of every run: the unattacked images, attacks at their budgets."""
    every = [(story, line) for story in subject.attacked for line in story.lines]
    shares = [name for name in HEADS if any(_has(line, name) for _, line in every)]
    if any(story.structures for story in subject.attacked):  # most sets are rare, and their MIoU says little
        shares = [name for name in shares if "miou" not in name]
    levels = any(not math.isnan(line.levels) or line.plan[1] == "linf" for _, line in every)
    rounded = any(not math.isnan(line.rounded) for _, line in every)
    runs = len(subject.attacked) > 1
    header = ["attack", *["run"] * runs, "norm", "ε", *["ε in 1/255"] * levels, "n", "seed",
              *(HEADS[name].format(subject.words.pixacc) for name in shares), *["ε, 8 bits"] * rounded, "passes f+b",
              "s/image"]  # fmt: skip
    rows = []
    for story, line in every:
        name, norm, eps = line.plan
        grey = line.levels if not math.isnan(line.levels) else 255 * eps if norm == "linf" else math.nan
        passes = Cell(f"{line.passes[0]:g}+{line.passes[1]:g}", sum(line.passes))
        images = Cell(f"{line.images}" + f" ({line.invalid} invalid)" * (line.invalid > 0), line.images)
        cells = [Cell(name), *[Cell(story.run.name)] * runs, Cell(SIGNS.get(norm, norm)),
                 Cell(budget(norm, eps) if norm else "", eps), *[_count(grey, ".3g")] * levels, images,
                 Cell(str(story.seed), story.seed), *(_share(line.shares.get(each, NOTHING)) for each in shares),
                 *[_count(line.rounded, ".4g")] * rounded, passes, _count(line.seconds, ".2f")]  # fmt: skip
        rows.append((cells, visible(story.command)))
    return Table(f"After attack, per cent of pixels {subject.words.right} [95 % interval over images]", header, rows)


def _has(line: Line, name: str) -> bool:
    return name in line.shares and not math.isnan(line.shares[name].value)


def certificates_sheet(subject: Subject) -> Table:
    """Every answer of every certification."""
    header = ("answer", "under", "n", "seed", f"{subject.words.pixacc} %", "abstained %", "radius l2, mean",
              "boundary %", "interior %")  # fmt: skip
    rows = [(_answer(story, row), visible(story.command)) for story in subject.certified for row in story.answers]
    title = f"Certified, per cent of pixels [95 % interval over images]; an abstained one is {subject.words.wrong}"
    return Table(title, header, rows)


def least_sheet(subject: Subject) -> Table:
    """What stays of whole images, at least."""
    header = ("certificate", "l2 ε", "n", f"{subject.words.pixacc} %, least", "MIoU %, least")
    rows = []
    for story in subject.certified:
        for row in story.least:
            about = [Cell(_under(story)), _count(row["eps"]), _count(story.certified_images)]
            cells = [*about, *(_count(100 * row[name], ".1f") for name in ("pixacc", "miou"))]
            rows.append((cells, visible(story.command)))
    return Table("Whole images: what is left under any change of at most ε of each", header, rows)


def left_sheet(subject: Subject) -> Table:
    """What attacks left of what was promised with certainty."""
    header = ("certificate", "attack", "allowed", "n", "promised %", "left %", "lost", "bound used", "contradicted")
    rows = []
    for story in subject.certified:
        for row in story.left:
            about = [Cell(_under(story)), Cell(visible(row["attack"])), Cell(visible(row["at"]))]
            used = Cell("") if row["used"] is None else _count(row["used"], ".3f")
            shares = [_count(100 * row[name], ".1f") for name in ("promised", "left")]
            counts = [_count(row["lost"]), used, _count(row["contradicted"])]
            rows.append(([*about, _count(row["images"]), *shares, *counts], visible(story.command)))
    title = f"Certificates under attack, per cent of pixels {subject.words.right}; of a detection, or with an alarm"
    return Table(title, header, rows)


def _under(story: Story) -> str:
    return condition(story.experiment) + ", REFUTED" * bool(story.refuted)


def _answer(story: Story, row: CertifiedRow) -> list[Cell]:
    shares = [_share(each) for each in (row.pixacc, row.abstained, row.boundary, row.interior)]
    images, seed = Cell(str(story.certified_images), story.certified_images), Cell(str(story.seed), story.seed)
    about = [Cell(NAMES.get(row.name, row.name)), Cell(_under(story)), images, seed]
    return [*about, *shares[:2], _count(row.radius, ".4g"), *shares[2:]]


def overview(found: Sequence[Subject]) -> Table:
    """A row a subject: unattacked, the least left at the largest budget of each norm, certified."""
    norms = list(dict.fromkeys(line.plan[1] for subject in found for _, line in subject.strongest))
    header = ("model", "data", "unattacked %", *(f"strongest in {SIGNS.get(norm, norm)}, % left" for norm in norms),
              "certified %", "checks failed")  # fmt: skip
    rows = []
    for subject in found:
        clean = subject.attacked[0].lines[0].shares["pixacc"] if subject.attacked else NOTHING
        best: Mapping[str, Line] = {line.plan[1]: line for _, line in subject.strongest}
        left = [_strongest(best.get(norm), subject.measure) for norm in norms]
        certified = _certified(subject)
        failed = sum(each.grade == "fail" for _, each in subject.verdicts)
        cells = [Cell(subject.model), Cell(subject.data), _share(clean), *left, certified, Cell(str(failed), failed)]
        rows.append((cells, visible(subject.stories[0].command)))
    return Table("All at a glance", header, rows)


def _certified(subject: Subject) -> Cell:
    if subject.certificate is None:
        return Cell("REFUTED" if any(story.refuted for story in subject.certified) else "")
    story, row = subject.certificate
    if not story.whole:
        return _share(row.pixacc)
    radius, least = least_of(story)
    return Cell(f"at least {100 * least:.1f} within l2 {radius:.3g}", least)


def _strongest(line: Line | None, measure: str) -> Cell:
    if line is None:
        return Cell("")
    found = _share(line.shares[measure])
    aimed = " where aimed" if measure == "success" else ""
    return Cell(f"{found.text}{aimed} at {budget(*line.plan[1:])}, {line.name}", found.number)
