"""Tables of runs and studies as files for other programs: CSV, Parquet or JSON, described as a Data Package."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from segradius.core.errors import missing_extra
from segradius.core.escapes import cell
from segradius.core.storage import as_json
from segradius.evaluation.columns import Cell, column
from segradius.evaluation.loaded import SavedResults, SavedRun, about_of
from segradius.evaluation.tidy import FILES
from segradius.report.outbox import Outbox, outbox

Format = Literal["csv", "parquet", "json"]
Line = Mapping[str, Cell]
Write = Callable[[Path, str, Sequence[str], Iterable[Line]], int]

#: What describes the tables: `Data Package <https://datapackage.org>`_ of Frictionless Data.
PACKAGE = "datapackage.json"
#: Of certifications, whose tables have other columns than those of attacks.
CERTIFIED = "certified_"
#: Rows that are held at a time.
CHUNK = 20_000


def export_tables(found: SavedResults, folder: Path, form: Format = "csv") -> dict[str, int]:
    """Write every table of some runs into a folder, one file for all of them.

    A line begins with what it is of: measurement, model, data and seed. Tables of certifications are apart, as
    ``certified_rows`` beside ``rows``. ``datapackage.json`` has type, unit and meaning of each column.

    Args:
        found: The runs.
        folder: New, empty, or of an earlier export, whose files go.
        form: Of the files.

    Returns:
        Lines by table.

    Raises:
        InputError: The folder holds other files.
        MissingExtraError: PyArrow, which Parquet takes, is not installed.
    """
    write: Write = partial(_parquet, *_pyarrow()) if form == "parquet" else {"csv": _csv, "json": _json}[form]
    counts: dict[str, int] = {}
    with outbox(folder, PACKAGE) as out:
        described = []
        for table, name, runs in tables_of(found):
            header = header_of(runs, name)
            with out.writing(f"{table}.{form}") as path:
                counts[table] = write(path, name, header, lines_of(runs, name))
            described.append(_resource(out, f"{table}.{form}", name, header, counts[table]))
        out.write(PACKAGE, _package(found, described))
    return counts


def tables_of(found: SavedResults) -> list[tuple[str, str, list[SavedRun]]]:
    """Name of each table, what it is called in a run, and the runs that have it."""
    kinds = {"": [run for run in found.runs if run.kind != "certify"]}
    kinds[CERTIFIED] = [run for run in found.runs if run.kind == "certify"]
    return [
        (prefix + name, name, [run for run in runs if name in run.tables])
        for prefix, runs in kinds.items()
        for name in dict.fromkeys(name for run in runs for name in run.tables)
    ]


def header_of(runs: Sequence[SavedRun], name: str) -> tuple[str, ...]:
    """The columns that a table of any of the runs has, in order."""
    found: dict[str, None] = dict.fromkeys(about_of(runs[0]))
    for run in runs:  # of a file the first line has all columns
        for line in islice(run.table(name), 1 if name in FILES else None):
            found |= dict.fromkeys(line)
    return tuple(found)


def lines_of(runs: Sequence[SavedRun], name: str) -> Iterator[Line]:
    """The lines of a table of all runs."""
    for run in runs:
        about = about_of(run)
        yield from (about | line for line in run.table(name))


def _csv(path: Path, name: str, header: Sequence[str], lines: Iterable[Line]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(cell, header))
        for line in lines:
            writer.writerow(_text(line.get(each)) for each in header)
            count += 1
    return count


def _json(path: Path, name: str, header: Sequence[str], lines: Iterable[Line]) -> int:
    """A list with an object on each line, in which a program that reads line by line finds its way too."""
    count = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("[")
        for line in lines:
            told = json.dumps({each: line.get(each) for each in header}, ensure_ascii=False, allow_nan=False)
            file.write(f"{',' if count else ''}\n{told}")
            count += 1
        file.write("\n]\n")
    return count


def _parquet(arrow: Any, parquet: Any, path: Path, name: str, header: Sequence[str], lines: Iterable[Line]) -> int:
    types = {"string": arrow.string(), "integer": arrow.int64(), "number": arrow.float64()}
    about = {each: column(name, each) for each in header}
    schema = arrow.schema(
        [arrow.field(each, types[it.kind], metadata={"description": it.told}) for each, it in about.items()]
    )
    count, rest = 0, iter(lines)
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while chunk := list(islice(rest, CHUNK)):
            columns = [[_readable(line.get(each)) for line in chunk] for each in header]
            arrays = [arrow.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            count += len(chunk)
    return count


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", "parquet") from error


def _text(value: Cell) -> object:
    return repr(value) if isinstance(value, float) else cell(value)


def _readable(value: Cell) -> Cell:
    """A text in UTF-8, which a path that is none may not be."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _resource(out: Outbox, file: str, name: str, header: Sequence[str], rows: int) -> dict[str, Any]:
    columns = {each: column(name, each) for each in header}
    fields = [{"name": each, "type": it.kind, "description": it.told} for each, it in columns.items()]
    return {
        "name": Path(file).stem.replace("_", "-"),
        "path": file,
        "format": Path(file).suffix[1:],
        "bytes": (out.folder / file).stat().st_size,
        "hash": f"sha256:{out.sums[file]}",
        "rows": rows,
        "schema": {"fields": fields, "missingValues": [""]},
    }


def _package(found: SavedResults, resources: Sequence[Mapping[str, Any]]) -> str:
    runs = [
        {"measurement": run.name, "kind": run.kind, "command": run.command, "digest": run.digest and run.digest.results}
        for run in found.runs
    ]
    told = {"name": "segradius-results", "profile": "data-package", "runs": runs, "missing": list(found.missing)}
    return as_json(told | {"resources": list(resources)})
