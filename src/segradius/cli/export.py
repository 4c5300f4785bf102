"""``segradius export``: a network as ONNX, tables of results, adversarial images, for other programs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segradius.cli.options import NetworkOptions
from segradius.core import text
from segradius.core.errors import InputError
from segradius.core.screen import note, say, warn

if TYPE_CHECKING:
    from segradius.evaluation import SavedResults

#: What can be exported, by the option that names it.
WHAT = {"model": "a network", "results": "tables of results", "adversarial": "adversarial images"}


@dataclass(frozen=True)
class ResultsOptions:
    """Results, with --results or --adversarial.

    Args:
        results: Folders of runs or studies, commas between them: all their tables, one file for each (rows, images,
            classes, differences, trace, …), a line beginning with measurement, model, data and seed. Of certifications
            certified_rows and so on. datapackage.json tells type, unit and meaning of each column.
        adversarial: Folders likewise: the adversarial images that were kept, as NPZ, exact, and PNG of 8 bits, with
            manifest.csv and metadata.jsonl: original files, eps, lengths before and after rounding, SHA-256. All are
            kept by segradius attack --save-images, and of a target; else those of the picture and the gallery.
        format: Of the tables: csv, json, or parquet, which needs the extra parquet. Default: csv.
    """

    results: str | None = None
    adversarial: str | None = None
    format: Literal["csv", "parquet", "json"] | None = None


def export(
    out: str,
    results: ResultsOptions,
    network: NetworkOptions,
    model: str | None = None,
    size: str | None = None,
) -> int:
    """Write a network, tables of results, or adversarial images in a form that other programs read.

    One of three. With --model an ONNX file that takes images in [0, 1] and gives class probabilities: normalisation,
    padding and softmax are inside; the batch is free, height and width are not. Attack the file with segradius attack
    --target onnx:FILE. Needs the extra export. With --results the tables of finished runs or studies, with
    --adversarial their adversarial images, each with all that other programs must know.

    Args:
        out: File to write, of a network; else the folder, new or of an earlier export.
        results: See `ResultsOptions`.
        network: See `NetworkOptions`.
        model: Network or card, as segradius attack takes it; package.module:callable runs that code.
        size: Height x width of a network's images, as in 240x320.
    """
    given = {"model": model, "results": results.results, "adversarial": results.adversarial}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        told = ", ".join(f"--{name} ({what})" for name, what in WHAT.items())
        said = f"{' and '.join(f'--{name}' for name in chosen)} were given" if chosen else "none was given"
        raise InputError(f"give one of {told}: {said}")
    _refuse_others(chosen[0], size, results, network)
    if model is not None:
        return _network(model, size, out, network)
    folders = text.names(results.results or results.adversarial or "")
    return _tables(folders, out, results) if results.results is not None else _images(folders, out)


def _refuse_others(chosen: str, size: str | None, results: ResultsOptions, network: NetworkOptions) -> None:
    """Raise `InputError` for an option that means nothing with what was chosen."""
    of_network = [each.name for each in fields(network) if getattr(network, each.name) != each.default]
    of_network += ["size"] if size is not None else []
    if chosen != "model" and of_network:
        raise InputError(f"{of_network[0]} is for --model, a network; --{chosen} was given")
    if chosen != "results" and results.format is not None:
        raise InputError(f"format is for --results, tables; --{chosen} was given")
    if chosen == "model" and size is None:
        raise InputError("size is missing; expected height x width of the network's images, as --size 240x320")


def _network(model: str, size: str | None, out: str, network: NetworkOptions) -> int:
    from segradius.models import export_onnx, load_model

    height_width = text.size(size)
    assert height_width is not None  # as size is a text
    found = load_model(model, **vars(network))
    export_onnx(found, out, *height_width)
    sets = f", the sets of {found.structures} yes/no channels" if found.structures else ""
    say(f"{out}: {found.num_classes} classes{sets}, {size}, {Path(out).stat().st_size:,} bytes")
    return 0


def _tables(folders: list[str], out: str, results: ResultsOptions) -> int:
    from segradius.report.tables_out import export_tables

    form = results.format or "csv"
    for table, lines in export_tables(_loaded(folders), Path(out), form).items():
        say(f"{Path(out) / table}.{form}: {lines:,} lines")
    return 0


def _images(folders: list[str], out: str) -> int:
    from segradius.report.images_out import export_images

    for taken in export_images(_loaded(folders), Path(out)):
        say(taken.told)
    say(f"Images, manifest.csv and metadata.jsonl: {out}")
    return 0


def _loaded(folders: list[str]) -> SavedResults:
    from segradius.evaluation import load_results

    found = load_results(*folders, partial=True)
    for name in found.missing:
        warn(f"{name} is not finished, and left out")
    note(f"{len(found.runs)} finished run(s)")
    return found
