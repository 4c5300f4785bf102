"""What was computed, as a table of its rows or as lines: of blocks that give numbers of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segradius.core.errors import InputError, unknown_name
from segradius.metrics.intervals import Interval, jackknife
from segradius.paper.draw_data import Line, ordered
from segradius.paper.draw_style import Style, dress, named, sheet, short
from segradius.paper.draw_words import NAMES, told, word
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDS = "95 % intervals, of five values and more."


def rows(
    measured: Measured, *, name: str, source: str = "rows", columns: Mapping[str, str] | Sequence[str] | None = None,
    digits: int = 3, decimals: int | None = None, percents: Sequence[str] = (), errors: Sequence[str] = (),
    title: str = "",
    blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """A table of what was computed.

    Args:
        measured: What was measured.
        name: Of its files.
        source: Where the rows are in what a block found, with dots between keys: a list of mappings, or a mapping.
        columns: Headings by key, or keys; all keys unless given. Dots lead into what a cell holds.
        digits: That count, of numbers.
        decimals: Digits behind the point, in the place of ``digits``.
        percents: Keys of shares.
        errors: Keys of pairs: a value and its standard error.
        title: Of the table.
        blocks: Whose findings; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    found = list(rows_of(measured, blocks, source, only))
    if not found:
        return nothing(name, "it was not computed")
    keys = columns if isinstance(columns, Mapping) else {key: word(key) for key in columns or _flat_keys(found)}
    missing = [key for key in keys if all(_at(row, key) is None for row in found)]
    if missing and not any(key in row for key in missing for row in found):
        raise unknown_name(f"column of {name}", missing[0], _flat_keys(found))
    wordy = [key for key in keys if any(isinstance(_at(row, key), str) for row in found)]
    keys = {key: keys[key] for key in (*wordy, *(key for key in keys if key not in wordy))}
    write = partial(_number, digits=digits, decimals=decimals)
    body = [[_cell(_at(row, key), key, write, key in percents, key in errors) for key in keys] for row in found]
    values = [one for row in found for one in [_line({key: _at(row, key) for key in keys})]]
    said = f"Brackets: {ENDS} {caption}" if any("[" in cell for row in body for cell in row) else caption
    return Shown(
        name, (Cells(title or "Computed", list(keys.values()), body, len(wordy)),), None, said.strip(), tuple(values)
    )


def lines(
    measured: Measured, *, name: str, x: str, y: Sequence[str], line: Sequence[str], panels: Sequence[str] = (),
    source: str = "rows", log: str = "", labels: Mapping[str, str] | None = None, slopes: Sequence[float] = (),
    blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """What was computed as lines; rows that hold lists are taken as so many points.

    Args:
        measured: What was measured.
        name: Of its files.
        x: Key of the lower axis, of a row or of what holds the rows.
        y: Keys, a panel each.
        line: Keys that tell lines apart.
        panels: Keys that tell further panels apart.
        source: As of `rows`.
        log: Axes that are logarithmic: ``x``, ``y`` or ``xy``.
        labels: Of axes, by key.
        slopes: Powers of x that are drawn beside, as ½ for √T, through the first point of the first line.
        blocks: Whose findings; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    if log not in ("", "x", "y", "xy"):
        raise InputError(f"log is {log!r}; expected x, y or xy")
    points = [point for row in rows_of(measured, blocks, source, only) for point in _points(row, x, y)]
    if not points:
        return nothing(name, "it was not computed")
    said = {key: (labels or {}).get(key, word(key)) for key in (x, *y)}
    places = list(dict.fromkeys(tuple(_at(point, key) for key in panels) for point in points))
    kinds = list(dict.fromkeys(tuple(_at(point, key) for key in line) for point in points))
    figure, axes = sheet(len(places) * len(y), columns=3 if len(y) == 1 else len(y), ratio=0.78)
    flat = [axis for row in axes for axis in row]
    for place, panel in enumerate(places):
        here = [point for point in points if tuple(_at(point, key) for key in panels) == panel]
        for nth, key in enumerate(y):
            axis = flat[place * len(y) + nth]
            for kind in kinds:
                mine = [point for point in here if tuple(_at(point, each) for each in line) == kind]
                _refuse_mixed(mine, x, _named(line, kind) or name)
                _draw(axis, mine, x, key, Style.at(kinds.index(kind)))
            _powers(axis, here, x, key, slopes)
            axis.set_xscale("log" if "x" in log else "linear")
            axis.set_yscale("log" if "y" in log else "linear")
            dress(axis, _named(panels, panel), said[x], said[key])
    named(figure, [_handle(Style.at(at), _named(line, kind)) for at, kind in enumerate(kinds)])
    kept = [_line({key: _at(point, key) for key in (*panels, *line, x, *y)}) for point in points]
    return Shown(name, (), figure, f"Bands: {ENDS} {caption}".strip(), tuple(kept))


def rows_of(
    measured: Measured, blocks: Sequence[str] | None, source: str, only: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of what blocks found, each with the plain values of what holds it.

    Raises:
        InputError: A block found nothing of that name.
    """
    asked = {key: value if isinstance(value, list | tuple) else [value] for key, value in (only or {}).items()}
    for block, found in measured.computed.items():
        if blocks is not None and block not in blocks:
            continue
        holder = found
        for key in source.split(".")[:-1]:
            holder = holder[key]
        last = source.split(".")[-1]
        if last not in holder:
            raise unknown_name(f"part of what {block} found", last, holder)
        inside = holder[last]
        if isinstance(inside, Mapping):
            inside = [{"name": key, **value} for key, value in inside.items()]
        above = {key: value for key, value in holder.items() if key != last and _plain(value)}
        for row in inside:
            whole = {**above, **row}
            if all(_at(whole, key) in values for key, values in asked.items()):
                yield whole if len(row) == len(whole) else {**row, **{k: v for k, v in above.items() if k not in row}}


def _plain(value: Any) -> bool:
    """Whether it is a value, or a list of values, not something that holds rows."""
    return not isinstance(value, Mapping) and not (
        isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)
    )


def _at(row: Mapping[str, Any], key: str) -> Any:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _flat_keys(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values one cell can hold."""
    every = dict.fromkeys(key for row in found for key in row)
    return [key for key in every if all(_is_flat(row.get(key)) for row in found)]


def _is_flat(value: Any) -> bool:
    return "value" in value if isinstance(value, Mapping) else not isinstance(value, list | tuple)


def interval_of(value: Any) -> Interval | None:
    """A number, what JSON holds of an interval, or several values as their mean; None of anything else.

    Example:
        >>> interval_of({"value": 1.0, "low": 0.5, "high": None})
        Interval(value=1.0, low=0.5, high=nan)
        >>> interval_of([1.0, 3.0]).value, interval_of("text")
        (2.0, None)
    """
    if isinstance(value, Mapping) and "value" in value:
        return Interval(*(_float(value.get(key)) for key in ("value", "low", "high")))
    if isinstance(value, list | tuple) and value and all(isinstance(each, int | float) for each in value):
        known = torch.tensor(value, dtype=torch.float64)
        parts = torch.stack([known, torch.ones_like(known)], 1)
        return jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1], shares=False)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Interval(float(value), math.nan, math.nan) if number else None


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _cell(value: Any, key: str, write: Callable[[float], str], share: bool, error: bool) -> str:
    if error and isinstance(value, list | tuple):
        return f"{write(value[0])} ± {_number(value[1], 2)}"
    found = interval_of(value)
    if found is None:
        return "" if value is None else NAMES.get(key, {}).get(str(value), told(value))
    if share:
        return percent(found.value, found)
    if isinstance(value, int):
        return f"{value:,}"
    ends = "" if math.isnan(found.low) else f" [{write(found.low)}, {write(found.high)}]"
    return f"{write(found.value)}{ends}"


def _number(value: float, digits: int, decimals: int | None = None) -> str:
    if math.isnan(value):
        return "–"
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    return f"{value:,.0f}" if 10**digits <= abs(value) < 1e7 else f"{value:.{digits}g}"


def _line(row: Mapping[str, Any]) -> Line:
    """A flat line: ends of an interval in columns of their own."""
    found: Line = {}
    for key, value in row.items():
        each = None if isinstance(value, bool) else interval_of(value)
        if each is None or isinstance(value, int | float):
            found[key] = value
        else:
            found |= {key: each.value, f"{key}_low": each.low, f"{key}_high": each.high}
    return found


def _points(row: Mapping[str, Any], x: str, y: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One for each value of x."""
    along = _at(row, x)
    if along is None or all(_at(row, key) in (None, [], ()) for key in y):
        return
    if not isinstance(along, list | tuple):
        yield dict(row)
        return
    for key in y:
        if len(_at(row, key) or along) != len(along):
            raise InputError(f"{key} has {len(_at(row, key))} values; expected {len(along)}, as {x} has")
    for place, value in enumerate(along):
        yield {**row, x: value, **{key: _at(row, key)[place] for key in y if _at(row, key)}}


def _refuse_mixed(points: Sequence[Mapping[str, Any]], x: str, line: str) -> None:
    known = [_at(point, x) for point in points]
    twice = next((value for value in known if known.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"{line}: more than one value at {x} = {told(twice)}; expected what differs among `line`")


def _draw(axis: Axes, points: Sequence[Mapping[str, Any]], x: str, y: str, style: Style) -> None:
    known = {_at(point, x): interval_of(_at(point, y)) for point in points}
    at = [value for value in ordered(known) if known[value] is not None]
    bands = np.array([[each.low, each.value, each.high] for value in at if (each := known[value])]).reshape(-1, 3)
    axis.fill_between(at, bands[:, 0], bands[:, 2], color=style.colour, alpha=0.15, linewidth=0)
    axis.plot(
        at, bands[:, 1], color=style.colour, linestyle=style.dashes, linewidth=1.2, marker=style.marker, markersize=3.2
    )


def _powers(axis: Axes, points: Sequence[Mapping[str, Any]], x: str, y: str, slopes: Sequence[float]) -> None:
    at = np.array(ordered(_at(point, x) for point in points), dtype=np.float64)
    first = next((each for point in points if (each := interval_of(_at(point, y)))), None)
    for slope in slopes if first is not None else ():
        height = first.value * (at / at[0]) ** slope if first else at
        axis.plot(at, height, color="0.45", linewidth=0.8, linestyle=(0, (1, 2)))
        axis.annotate(f"∝ {_power(slope)}", (at[-1], height[-1]), fontsize=6.5, color="0.35", ha="right", va="bottom")


def _power(slope: float) -> str:
    return {0.5: "√T", 1.0: "T"}.get(slope, f"T^{slope:g}")


def _named(keys: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(told(value, key) for key, value in zip(keys, values, strict=True) if value is not None)


def _handle(style: Style, name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=style.colour, linestyle=style.dashes, linewidth=1.2, marker=style.marker, markersize=3.2,
        label=short(name),
    )  # fmt: skip
