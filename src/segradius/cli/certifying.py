"""Runs a certification in a folder: what is there already, progress, the report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segradius.cli.running import (
    CERTIFICATES,
    CHECKPOINTS,
    DATABASE,
    EXPERIMENT,
    MAPS,
    clear,
    keeping,
    must_clear,
    progress_bar,
    runtime,
    screen,
    warn,
)
from segradius.core.errors import InputError
from segradius.core.storage import write_atomically
from segradius.data import Sample, SegmentationData
from segradius.evaluation import (
    Certification,
    CertifiedSummary,
    CertifyRun,
    Record,
    Records,
    Seen,
    Study,
    certified_csv,
    certified_json,
    certify_all,
    check_classes,
    cross_check,
    file_name,
    least_copies,
    resumable_certification,
    summarise_certified,
    usable,
)
from segradius.evaluation.certify_runner import missing
from segradius.models import Segmenter
from segradius.report import (
    Certified,
    certified_heading,
    certified_notes,
    certified_tables,
    draw_certified,
    draw_radii,
    map_png,
)
from segradius.report.panels import full_palette


@dataclass(frozen=True)
class CertifyPlace:
    """Where and how a certification runs; nothing here changes a number.

    Args:
        folder: Where the report goes.
        overwrite: Whether another experiment's report may be replaced.
        batch_size: Noisy copies in a pass; None for a number that suits the device.
        figures: How many images the picture shows.
        checkpoint_seconds: Between two checkpoints of an image's votes.
    """

    folder: Path
    overwrite: bool = False
    batch_size: int | None = None
    figures: int = 2
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; expected at least 1")
        if self.figures < 0:
            raise InputError(f"figures is {self.figures}; expected 0 or more")


def carry_out_certification(
    experiment: Certification, model: Seen, data: SegmentationData, region: Tensor | None, at: CertifyPlace
) -> CertifiedSummary:
    """Certify what is missing, print the tables, and write every file of the report.

    Raises:
        InputError: Another experiment is in the folder, or no image could be used.
        KeyboardInterrupt: With a message on how to go on.
    """
    started = time.perf_counter()
    check_classes(model.num_classes, len(data.classes))
    if experiment.smoothing.precision != "float32" and not isinstance(model, Segmenter):
        raise InputError(f"precision {experiment.smoothing.precision} is for --model; a target runs as it does")
    at.folder.mkdir(parents=True, exist_ok=True)
    records = _opened(experiment, at)
    left = missing(data, records)
    _doubt(experiment, model, data, left, region)
    places = at.folder / CHECKPOINTS
    model, checkpoints = resumable_certification(experiment, model, data, records, places, at.checkpoint_seconds, warn)
    run = CertifyRun(experiment, model, data, checkpoints, region, at.batch_size, studies=_studies(experiment, model))
    set_aside = _run(run, records, len(left), at.folder)
    found = [record for image in data.ids if (record := records.get(image)) is not None and record.done]
    if not any(record.finite for record in found):
        image, reason = next(iter(set_aside.items()), ("", "answers to noisy copies are NaN or infinite"))
        raise InputError(f"none of the images could be used; the first, {image}: {reason}")
    summary = summarise_certified(experiment, found, run.names, set_aside)
    facts = {**runtime(model, at.batch_size), "seconds": time.perf_counter() - started}
    _write(run, found, summary, facts, at)
    checkpoints.tidy()
    screen().print(certified_heading(experiment, model.name, data.name), markup=False, highlight=False)
    _print(summary, len(data) - len(left), len(data), at.folder)
    return summary


def _studies(experiment: Certification, model: Seen) -> dict[str, Study]:
    if experiment.crosscheck is None:
        return {}
    if not isinstance(model, Segmenter):
        raise InputError("--attack on a certificate needs the gradients of the model, and a target gives scores only")
    return {"crosscheck": cross_check(experiment, model)}


def _opened(experiment: Certification, at: CertifyPlace) -> Records:
    """The folder's records, of this experiment."""
    records, file = Records(at.folder / CERTIFICATES), at.folder / EXPERIMENT
    conflict = experiment.extends(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None
    begun = any(records.folder.glob("[!.]*.npz")) or any((at.folder / CHECKPOINTS).glob("*"))
    if (at.folder / DATABASE).exists():
        conflict, begun = "that of segradius attack", True
    if must_clear(at.folder, conflict if begun else None, at.overwrite):
        clear(at.folder)
    write_atomically(file, json.dumps(experiment.as_dict(), indent=2, ensure_ascii=False) + "\n")
    return records


def _doubt(
    experiment: Certification, model: Seen, data: SegmentationData, left: Sequence[int], region: Tensor | None
) -> None:
    """Tell by the first image that is still to be certified where no count of votes can certify a pixel.

    A region of another size than the image is told as well.
    """
    sample = next((s for place in left if isinstance(s := usable(data, place, model.num_classes), Sample)), None)
    if sample is None:
        return
    if region is not None and region.shape != sample.label.shape:
        mask, image = ("×".join(map(str, tensor.shape)) for tensor in (region, sample.label))
        warn(f"the region is {mask} and image {sample.id} is {image}: it is resized to each image (nearest neighbour)")
    it = experiment.smoothing
    least = least_copies(it, sample.label.numel())
    if least is None or it.n < least:
        needed = "no n below a million" if least is None else f"--n {least}"
        told = (
            f"n = {it.n} is too small: even a pixel with all votes is not certified at tau {it.tau:g}, alpha "
            f"{it.alpha:g} and {sample.label.numel()} pixels ({it.correction}); {needed} is the least with which one "
            "can be"
        )
        if it.radii == "none":
            raise InputError(told)
        warn(f"{told}. Radii of pixels need fewer")


def _run(run: CertifyRun, records: Records, left: int, folder: Path) -> dict[str, str]:
    """Certify under a progress bar in noisy copies."""
    it = run.experiment.smoothing
    with progress_bar("noisy copies") as bar, keeping(folder, folder / CERTIFICATES):
        task = bar.add_task("reading", total=left * (it.n0 + it.n))

        def advance(image: str, copies: int) -> None:
            bar.update(task, advance=copies, description=f"{image} σ={it.sigma:g}")

        return certify_all(replace(run, progress=advance), records)


def _write(
    run: CertifyRun, found: Sequence[Record], summary: CertifiedSummary, facts: Mapping[str, Any], at: CertifyPlace
) -> None:
    write_atomically(at.folder / "results.json", certified_json(run.experiment, summary, facts))
    write_atomically(at.folder / "per_image.csv", certified_csv(found))
    markdown = "\n\n".join(cells.markdown() for cells in certified_tables(summary))
    heading = certified_heading(run.experiment, run.model.name, run.data.name)
    write_atomically(at.folder / "table.md", "\n\n".join([heading, markdown, *certified_notes(summary)]) + "\n")
    it = run.experiment.smoothing
    title = f"{run.model.name} on {run.data.name}, σ = {it.sigma:g}, n = {it.n}, α = {it.alpha:g}"
    write_atomically(at.folder / "radius.png", draw_radii(summary, title))
    if shown := _shown(run, [record for record in found if record.finite], at.figures):
        picture = draw_certified(shown, run.data.classes, title, run.hierarchy)
        write_atomically(at.folder / "figure.png", picture)
    (at.folder / MAPS).mkdir(exist_ok=True)
    for record in found:
        kind = record.kinds["adaptive" if run.hierarchy else "segcertify"]
        palette = full_palette(run.data.classes, [torch.tensor([run.model.num_classes - 1])])
        picture = map_png(kind.classes, palette, kind.level, run.hierarchy)
        write_atomically(at.folder / MAPS / f"{file_name(record.image)}.png", picture)


def _shown(run: CertifyRun, found: Sequence[Record], figures: int) -> list[Certified]:
    """The first images for the picture, with the finest certificate there is."""
    places = {image: place for place, image in enumerate(run.data.ids)}
    return [_certified(run, record, run.data[places[record.image]]) for record in found[:figures]]


def _certified(run: CertifyRun, record: Record, sample: Sample) -> Certified:
    kind = record.kinds["adaptive" if run.hierarchy else "segcertify"]
    radius = record.kinds["radii"].radius if "radii" in record.kinds else kind.radius
    right = (sum(score.pixels.intersection) / score.labelled for score in (record.base_score, kind.score))
    base, certified = right
    own = "radii" in record.kinds
    return Certified(
        record.image, sample.image, sample.label, record.base, kind.classes, kind.level, radius, (base, certified), own
    )


def _print(summary: CertifiedSummary, reused: int, total: int, folder: Path) -> None:
    console = screen()
    for cells in certified_tables(summary)[:-1]:  # that by class is long
        console.print(cells.rich())
    if reused:
        console.print(f"{reused} of {total} images were there from an earlier run.")
    for note in certified_notes(summary):
        console.print(note, markup=False, highlight=False)
    console.print(f"Report: {folder}", markup=False, highlight=False)
