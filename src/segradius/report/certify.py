"""The report of certificates: its files, of what a run kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch

from segradius.core.names import safe_names
from segradius.data.sample import Sample
from segradius.evaluation.certified_by import OWN_RADII, WITHOUT_RADII
from segradius.evaluation.certify import Certification
from segradius.evaluation.certify_summary import (
    CertifiedSummary,
    certificates,
    certified_csv,
    certified_json,
    summarise_certified,
)
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.preflight import findings, told, warnings
from segradius.evaluation.record import Record, unpack
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.report.cells import Report, nothing_usable, page
from segradius.report.certify_curve import draw_radii
from segradius.report.certify_maps import Certified, draw_certified, map_png
from segradius.report.certify_tables import certified_notes, certified_tables
from segradius.report.figures import said_of
from segradius.report.panels import (
    full_palette,
)  # fmt: skip
from segradius.report.provenance import labels_line, made


def report_certificates(run: Run[Certification], store: Store, facts: Mapping[str, Any], figures: int = 2) -> Report:
    """The report of finished certificates.

    Args:
        run: What was run.
        store: Its results.
        facts: What changes no result, for the record.
        figures: How many images the picture shows.

    Raises:
        InputError: No image could be used.
    """
    experiment, set_aside = run.experiment, store.all_set_aside()
    packed = dict(certificates(experiment, store, run.data.ids))
    found = [unpack(each) for each in packed.values()]
    if not any(record.finite for record in found):
        raise nothing_usable(set_aside, "answers to noisy copies are NaN or infinite")
    summary, seen = summarise_certified(experiment, found, run.named, set_aside), run.facts(store)
    summary = replace(summary, digest=digest_of(experiment, store, run.data.ids))
    doubts = findings(seen)
    notes = certified_notes(summary) + warnings(doubts)
    heading, shown = certified_heading(experiment, run.model.name, run.data.name), certified_tables(summary)
    rest = _files(run, found, summary, facts, figures, notes, told(seen, doubts))
    files = chain(_certificate_files(packed, run.data.ids), rest)
    return Report(summary, shown[:-1], notes, files, "images", heading)  # that by class is long


def _certificate_files(packed: Mapping[str, bytes], ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    names = safe_names(ids)
    return ((f"certificates/{names[image]}.npz", content) for image, content in packed.items())


def _files(
    run: Run[Certification],
    found: Sequence[Record],
    summary: CertifiedSummary,
    facts: Mapping[str, Any],
    figures: int,
    notes: Sequence[str],
    doubts: Mapping[str, Any],
) -> Iterator[tuple[str, str | bytes]]:
    way, classes = run.experiment.way, run.classes
    groups, title = way.groups(run.names), f"{run.model.name} on {run.data.name}, {way.short}"
    yield "per_image.csv", certified_csv(found)
    heading = certified_heading(run.experiment, run.model.name, run.data.name)
    yield "table.md", page(certified_tables(summary), [*notes, *made(facts)], heading)
    if way.key not in WITHOUT_RADII:
        yield "radius.png", draw_radii(summary, title)
    if shown := _shown(run, [record for record in found if record.finite][:figures]):
        yield "figure.png", draw_certified(shown, classes, title, groups, said_of(summary))
    names = safe_names(run.data.ids)
    palette = full_palette(classes, [torch.tensor([run.model.num_classes - 1])])
    for record in found:
        kind = record.finest
        yield f"maps/{names[record.image]}.png", map_png(kind.classes, palette, kind.level, groups)
    yield "results.json", certified_json(run.experiment, summary, facts, doubts)


def _shown(run: Run[Certification], found: Sequence[Record]) -> list[Certified]:
    """Images for the picture, with the finest certificate there is."""
    places = {image: place for place, image in enumerate(run.data.ids)}
    own = run.experiment.data.predicted
    return [_certified(record, run.data[places[record.image]], predicted=own) for record in found]


def _certified(record: Record, sample: Sample, *, predicted: bool) -> Certified:
    kind, own = record.finest, next((record.kinds[name] for name in OWN_RADII if name in record.kinds), None)
    radius = None if "detection" in record.kinds else kind.radius if own is None else own.radius
    base, certified = (sum(score.pixels.intersection) / score.labelled for score in (record.base_score, kind.score))
    label = record.base if predicted else sample.label
    return Certified(
        record.image, sample.image, label, record.base, kind.classes, kind.level, radius, (base, certified),
        own is not None, record.kinds["detection"].classes if "recovery" in record.kinds else None,
    )  # fmt: skip


def certified_heading(experiment: Certification, model: str, data: str) -> str:
    """What was certified, in a line: without it no figure below can be read."""
    options = [
        f"model {model} ({experiment.model.fingerprint})",
        ", ".join([f"data {data}", *labels_line(experiment.data)]),
        *experiment.way.heading(),
        f"seed {experiment.seed}",
    ]
    return f"Certified: {'; '.join(options)}."
