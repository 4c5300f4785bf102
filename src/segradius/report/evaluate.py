"""How accurate a model is, for a reader: over the images, and by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segradius.evaluation.attack_files import per_image_csv, results_json, summary_structures_csv
from segradius.evaluation.attack_summary import Summary, summarise
from segradius.evaluation.class_summary import ClassRow, classes_csv
from segradius.evaluation.confusion import confusion_csv
from segradius.evaluation.job import Experiment
from segradius.evaluation.preflight import findings, told, warnings
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.report.cells import Cells, Report, nothing_usable, page, set_aside_note, share
from segradius.report.figures import GIVEN, Words, about, figures, said_of, shares
from segradius.report.provenance import heading, made


def report_accuracy(run: Run[Experiment], store: Store, facts: Mapping[str, Any]) -> Report:
    """The report of images that were judged and not attacked.

    Args:
        run: What was run.
        store: Its results.
        facts: What changes no result, for the record.

    Raises:
        InputError: No image could be used.
    """
    experiment = run.experiment
    summary = summarise(experiment, store, run.data.ids, run.named)
    if not summary.rows[0].images:
        raise nothing_usable(summary.set_aside, "the data set is empty")
    rows, asked = summary.rows[0].classes, summary.rows[0].foreground
    said = said_of(summary)
    by = (
        classes_table(asked.structures, "structure", said)
        if asked and asked.structures
        else classes_table(rows, said=said)
    )
    tables, seen = [accuracy_table(summary), by], run.facts(store)
    doubts = findings(seen)
    notes = set_aside_note(summary.set_aside) + warnings(doubts)

    def files() -> Iterator[tuple[str, str]]:
        yield "per_image.csv", per_image_csv(experiment, store, run.data.ids, run.named)
        yield "classes.csv", classes_csv(((), row) for row in rows)
        yield "confusion.csv", confusion_csv(experiment, store, run.data.ids, run.names)
        if (structures := summary_structures_csv(summary)) is not None:
            yield "structures.csv", structures
        yield "table.md", page(tables, [*notes, *made(facts)], heading(run, summary.rows[0].images))
        yield "results.json", results_json(experiment, summary, {}, facts, told(seen, doubts))

    return Report(summary, tables, notes, files(), "images", heading(run, summary.rows[0].images), "yellow")


def accuracy_table(summary: Summary) -> Cells:
    """One line: accuracy over all images."""
    row = summary.rows[0]
    header = ("images", *figures(summary), "s/image")
    title = f"{said_of(summary).report}, per cent [95 % interval over images]{about(row.foreground)}"
    return Cells(title, header, [[str(row.images), *shares(row), f"{row.seconds:.3f}"]])


def classes_table(rows: Sequence[ClassRow], what: str = "class", said: Words = GIVEN) -> Cells:
    """One line for each class, or structure."""
    lines = [(row.name, str(row.pixels), *map(share, (row.accuracy, row.iou, row.dice))) for row in rows]
    return Cells(f"By {what}, over all images", (what, "pixels", f"{said.accuracy} %", "IoU %", "Dice %"), lines)
