"""Tables of measured images: rows × columns of any keys, each cell a metric with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from segradius.core.errors import InputError
from segradius.metrics.intervals import Interval
from segradius.paper.draw_data import (
    ABOUT,
    Line,
    Metric,
    Row,
    check_metric,
    chosen,
    grouped,
    line_of,
    ordered,
    pooled,
    size_of,
    value_of,
)
from segradius.paper.draw_words import several, told, word
from segradius.paper.measured import Measured, Seen
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells, percent

INTERVALS = "95 % intervals over images, of these networks; none of fewer than five images"


def table(
    measured: Measured, *, name: str, rows: Sequence[str] = ("family", "data"), columns: Sequence[str] = ("attack",),
    metrics: Sequence[str] = ("pixacc",), certified: bool = False, clean: bool = True,
    blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None,
    paper: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """A table of measured images.

    Args:
        measured: What was measured.
        name: Of its files.
        rows: Keys of a row.
        columns: Keys of a column.
        metrics: In each cell.
        certified: Of certificates, not of attacks.
        clean: Whether unattacked images are shown too.
        blocks: Whose measurements; None for all.
        only: A value or a list of values by key.
        paper: The paper's own table, beside it: ``header``, and ``rows`` of texts.
        caption: Of one's own.
    """
    every: Sequence[Row] = measured.certified if certified else measured.seen
    found = chosen(every, blocks, only)
    if not clean or ("attack" not in (*rows, *columns) and any(map(attacked, found))):
        found = [row for row in found if attacked(row)]
    if not found:
        return nothing(name, "none of its measurements is there")
    cells, values = pivot(found, rows, columns, metrics)
    tables = [cells]
    if paper is not None:
        tables.append(given(paper))
    said = f"{size_of(found)}. {INTERVALS}."
    return Shown(name, tuple(tables), None, f"{said} {caption}".strip(), tuple(values))


def attacked(row: Row) -> bool:
    """Whether a row is of more than an unattacked image."""
    return not isinstance(row, Seen) or bool(row.attack)


def pivot(
    found: Sequence[Row], rows: Sequence[str], columns: Sequence[str], metrics: Sequence[str]
) -> tuple[Cells, list[Line]]:
    """Rows × columns of metrics, as text and as flat lines.

    What was unattacked has no norm, ε or options: on the side of a table without the attack it is in every such row.

    Args:
        found: Measured images.
        rows: Keys of a row.
        columns: Keys of a column.
        metrics: In each cell.
    """
    kinds = {metric: check_metric(metric) for metric in metrics}
    down, across = _places(found, rows), _places(found, columns)
    header = [word(key) for key in rows]
    for place in across:
        name = several(columns, place, " ") or "all"
        header += [f"{name}: {kind.label}" if len(kinds) > 1 else name for kind in kinds.values()]
    body, values = [], []
    columns_of = [_of(found, columns, column) for column in across]
    for row in down:
        mine_of = {id(each) for each in _of(found, rows, row)}
        line = [told(value, key) for key, value in zip(rows, row, strict=True)]
        for column, there in zip(across, columns_of, strict=True):
            mine = [each for each in there if id(each) in mine_of]
            about = dict(zip((*rows, *columns), (*row, *column), strict=True))
            for metric, kind in kinds.items():
                cell = pooled(mine, metric) if mine else None
                line.append(in_words(cell.found, kind) if cell else "")
                values += [line_of(about, metric, cell)] if cell else []
        body.append(line)
    title = " and ".join(kind.label for kind in kinds.values())
    return Cells(title, header, body, len(rows)), values


def _places(found: Sequence[Row], keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows, or columns, in order; what was unattacked makes none of its own where the attack is not among the keys."""
    free = "attack" in keys or all(key in ABOUT for key in keys) or not any(map(attacked, found))
    own = found if free else [row for row in found if attacked(row)]
    return by_rank(grouped(own, keys))


def by_rank(keys: Mapping[tuple[Any, ...], Any] | Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Tuples of values in the order that `ordered` gives to each place.

    Example:
        >>> by_rank([("b", 2), ("a", 1), ("b", 1)])
        [('b', 1), ('b', 2), ('a', 1)]
    """
    every = list(keys)
    ranks = [{value: rank for rank, value in enumerate(ordered(column))} for column in zip(*every, strict=True)]
    return sorted(every, key=lambda each: [rank[value] for rank, value in zip(ranks, each, strict=True)])


def _of(found: Sequence[Row], keys: Sequence[str], place: tuple[Any, ...]) -> list[Row]:
    """What has these values; images without an attack have no norm or option, and stand by those of their network."""
    mine = [row for row in found if all(value_of(row, key) == value for key, value in zip(keys, place, strict=True))]
    there = {(row.network, row.data, row.image) for row in mine if attacked(row)}
    if "attack" in keys or all(key in ABOUT for key in keys) or not there:
        return mine
    return mine + [row for row in found if not attacked(row) and (row.network, row.data, row.image) in there]


def in_words(found: Interval, kind: Metric, sign: str = "") -> str:
    """A value and its interval, shares in per cent.

    Example:
        >>> in_words(Interval(0.5, 0.25, 0.75), check_metric("pixacc"))
        '50.0 [25.0, 75.0]'
        >>> in_words(Interval(3.0, 2.0, 4.0), check_metric("seconds"))
        '3.00 [2.00, 4.00]'
    """
    if kind.share:
        return percent(found.value, found, sign)
    if math.isnan(found.value):
        return "–"
    ends = "" if math.isnan(found.low) else f" [{found.low:{sign}.{kind.digits}f}, {found.high:{sign}.{kind.digits}f}]"
    return f"{found.value:{sign}.{kind.digits}f}{ends}"


def given(paper: Mapping[str, Any]) -> Cells:
    """The paper's own table, as a specification holds it."""
    header, body = paper.get("header", ()), paper.get("rows", ())
    if any(len(row) != len(header) for row in body):
        raise InputError(f"a row of the paper's table has {[len(row) for row in body]} cells; expected {len(header)}")
    return Cells(
        "In the paper", list(map(str, header)), [list(map(str, row)) for row in body], int(paper.get("words", 1))
    )
