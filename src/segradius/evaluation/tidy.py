"""Tables with one value a cell, from what a run found out: rows, classes, differences, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from segradius.evaluation.attack_summary import Row, Summary
from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary
from segradius.evaluation.columns import Cell

#: Those that are files of a run; the others are made of results.json.
FILES = {"images": "per_image.csv", "trace": "trace.csv", "confusion": "confusion.csv"}
#: Of an interval.
ENDS = {"value", "low", "high"}
#: Parts of a row that have lines or columns of their own.
PARTS = ("ledger", "curve", "sanity", "rounded")


def names_of(summary: Summary | CertifiedSummary) -> tuple[str, ...]:
    """Names of the tables that there can be: those of `FILES`, and those that have lines."""
    structures = ("structures",) if summary.structures else ()
    if isinstance(summary, Summary):
        pairs = ("differences",) if summary.comparisons else ()
        return "rows", "images", "classes", *structures, *pairs, "trace", "confusion"
    return "rows", "images", "classes", *structures, "curve", *(("checks",) if summary.checked else ())


def tabled(summary: Summary | CertifiedSummary, name: str) -> Iterator[dict[str, Cell]]:
    """Lines of a table that is no file of a run.

    Args:
        summary: What the run found out.
        name: One of `names_of` it, and not of `FILES`.
    """
    for line in MAKERS[name](summary):
        yield {column: _plain(value) for column, value in line.items()}


def flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it, with an interval as three columns, and without what has lines of its own.

    Example:
        >>> flat({"name": "pgd", "pixacc": {"value": 0.5, "low": 0.4, "high": 0.6}, "sanity": {"outside": 0.0}})
        {'name': 'pgd', 'pixacc': 0.5, 'pixacc_low': 0.4, 'pixacc_high': 0.6, 'sanity_outside': 0.0}
    """
    line: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, Mapping) and value.keys() == ENDS:
            line |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        elif isinstance(value, Mapping) and name not in ("ledger", "curve"):
            line |= {f"{name}_{inner}": each for inner, each in flat(value).items()}
        elif name == "zero_gradient":
            line[name] = len(value)
        elif not isinstance(value, Mapping | list | tuple) and name not in PARTS:
            line[name] = value
    return line


def _rows(summary: Summary | CertifiedSummary) -> Iterator[dict[str, Any]]:
    images = {} if isinstance(summary, Summary) else {"images": summary.images}
    for row in summary.rows:
        found = flat(row.as_dict())
        yield {"attack" if isinstance(row, Row) else "answer": found.pop("name")} | images | found


def _classes(summary: Summary | CertifiedSummary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        for each in row.classes:
            found = flat(asdict(each))
            yield _about(row) | {"class": found.pop("name")} | found


def _structures(summary: Summary | CertifiedSummary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        for each in row.foreground.structures if row.foreground else ():
            found = flat(asdict(each))
            yield _about(row) | {"structure": found.pop("name")} | found


def _differences(summary: Summary) -> Iterator[dict[str, Any]]:
    for pair in summary.comparisons:
        found = asdict(pair)
        yield found | found.pop("difference")


def _curve(summary: CertifiedSummary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        if row.curve is not None:
            parts = row.curve.edges, row.curve.certified, row.curve.right, row.curve.accuracy
            for values in zip_longest(*parts):
                yield {"answer": row.name} | dict(
                    zip(("radius", "certified", "right", "accuracy"), values, strict=True)
                )


def _checks(summary: CertifiedSummary) -> Iterator[dict[str, Any]]:
    for each in summary.checked:
        rest = {"refuted": "+".join(each.refuted) or None, "needed": each.needed}
        for aim, found in each.summaries.items():
            yield {"attack": each.attack, "aim": aim} | asdict(found) | rest


MAKERS: Mapping[str, Callable[[Any], Iterator[dict[str, Any]]]] = {
    "rows": _rows,
    "classes": _classes,
    "structures": _structures,
    "differences": _differences,
    "curve": _curve,
    "checks": _checks,
}


def _about(row: Row | CertifiedRow) -> dict[str, Any]:
    return {"attack": row.name, "norm": row.norm, "eps": row.eps} if isinstance(row, Row) else {"answer": row.name}


def _plain(value: Any) -> Cell:
    return None if isinstance(value, float) and not math.isfinite(value) else value
