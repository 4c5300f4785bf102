"""The contents of the files of a certification's folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from segradius.evaluation.certify_summary import CertifiedSummary
from segradius.evaluation.certifying import Certification
from segradius.evaluation.files import null
from segradius.evaluation.records import Record
from segradius.evaluation.scoring import Score

CERTIFIED_COLUMNS = (
    "answer", "image", "valid", "pixels", "right", "pixacc", "abstained", "boundary", "boundary_right",
    "mean_radius", "copies", "forward",
)  # fmt: skip


def certified_json(experiment: Certification, summary: CertifiedSummary, runtime: Mapping[str, Any]) -> str:
    """The whole report as JSON. ``identity`` depends on the experiment only; NaN is written as null.

    Args:
        experiment: What was run, with every default spelt out.
        summary: What came out.
        runtime: What changes no result: versions, device, batch size.
    """
    described = {"identity": experiment.identity, "experiment": experiment.as_dict()}
    told = "The certificates speak of all pixels, void ones too; metrics count labelled pixels only."
    report = described | asdict(summary) | {"about": told, "runtime": dict(runtime)}
    return json.dumps(null(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def certified_csv(found: Sequence[Record]) -> str:
    """One line for each answer and image, in the order of the data."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CERTIFIED_COLUMNS)
    writer.writerows(chain.from_iterable(zip(*map(_lines, found), strict=True)))  # answer by answer
    return text.getvalue()


def _lines(record: Record) -> Iterator[list[Any]]:
    yield _line("base", record, record.base_score)
    if record.majority_score is not None:
        yield _line("smoothed", record, record.majority_score)
    for name, kind in record.kinds.items():
        yield _line(name, record, kind.score)


def _line(name: str, record: Record, score: Score) -> list[Any]:
    right, certified = sum(score.pixels.intersection), sum(score.certified)
    radius = f"{score.radius / certified:.9g}" if certified else ""
    forward = sum(book["forward"] for book in record.passes.values())
    return [
        name,
        record.image,
        int(record.finite),
        score.labelled,
        right,
        f"{right / score.labelled:.9g}",
        score.abstained,
        score.boundary[1],
        score.boundary[0],
        radius,
        record.n0 + record.n,
        forward,
    ]
