"""A metric over two keys, swept options mostly: a map of cells, with the best and the paper's marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segradius.core.errors import InputError
from segradius.paper.draw_curves import of_panel
from segradius.paper.draw_data import (
    Line,
    Metric,
    Pooled,
    check_metric,
    chosen,
    difference,
    grouped,
    line_of,
    ordered,
    pooled,
    size_of,
    value_of,
)
from segradius.paper.draw_style import SIZE, SMALL, dress, named, sheet, wrapped
from segradius.paper.draw_table import INTERVALS, attacked, by_rank, in_words, pivot
from segradius.paper.draw_words import several, told, word
from segradius.paper.measured import Measured, Seen
from segradius.paper.outputs import Shown, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Cell = tuple[Any, Any]


def heat(
    measured: Measured, *, name: str, y: str, x: str, panels: Sequence[str] = ("family", "data"),
    metric: str = "pixacc", mark: Mapping[str, Any] | None = None, best: str = "low",
    blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """A map of cells, and its table.

    Args:
        measured: What was measured.
        name: Of its files.
        y: Key of the rows: a swept option, or a field.
        x: Key of the columns.
        panels: Keys that tell panels apart.
        metric: In a cell.
        mark: The paper's values of both options; the cell is outlined and compared with the best.
        best: ``low`` or ``high``: which value is the best; ``none`` marks none.
        blocks: Whose measurements; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    if best not in ("low", "high", "none"):
        raise InputError(f"best is {best!r}; expected low, high or none")
    rows = [row for row in chosen(measured.seen, blocks, only) if attacked(row)]
    found = [row for row in rows if value_of(row, x) is not None and value_of(row, y) is not None]
    if not found:
        return nothing(name, "none of its measurements is there")
    kind = check_metric(metric)
    places = by_rank(grouped(found, panels))
    figure, axes = sheet(len(places), ratio=0.8)
    values: list[Line] = []
    notes: list[str] = []
    for place, panel in enumerate(places):
        mine = [row for row in found if of_panel(row, panels, panel)]
        groups = {(key[0], key[1]): some for key, some in grouped(mine, [y, x]).items()}
        cells = {key: pooled(some, metric) for key, some in groups.items()}
        top = _best(cells, best)
        marked = _marked(mark, y, x)
        axis = axes[place // len(axes[0])][place % len(axes[0])]
        _draw(axis, cells, kind, top, marked)
        dress(axis, several(panels, panel), word(x), word(y) if place % len(axes[0]) == 0 else "")
        axis.spines[:].set_visible(False)
        axis.grid(visible=False)
        values += [
            line_of({**dict(zip(panels, panel, strict=True)), y: key[0], x: key[1]}, metric, cells[key])
            for key in by_rank(cells)
        ]
        notes.append(_note(several(panels, panel), groups, metric, top, marked, (y, x)))
    named(figure, _handles(mark is not None, best))
    table, _ = pivot(found, (*panels, y), (x,), (metric,))
    said = f"{size_of(found)}. {INTERVALS}. {' '.join(notes)}"
    return Shown(name, (table,), figure, f"{said} {caption}".strip(), tuple(values))


def _best(cells: Mapping[Cell, Pooled], best: str) -> Cell | None:
    if best == "none":
        return None
    sign = 1 if best == "low" else -1
    return min(cells, key=lambda key: (math.isnan(cells[key].found.value), sign * cells[key].found.value))


def _marked(mark: Mapping[str, Any] | None, y: str, x: str) -> Cell | None:
    if mark is None:
        return None
    if set(mark) != {y, x}:
        raise InputError(f"mark is {dict(mark)}; expected values of {y} and {x}")
    return mark[y], mark[x]


def _draw(axis: Axes, cells: Mapping[Cell, Pooled], kind: Metric, best: Cell | None, marked: Cell | None) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    by = 100.0 if kind.share else 1.0
    down, across = ordered(key[0] for key in cells), ordered(key[1] for key in cells)
    grid = np.array([[by * cells[r, c].found.value if (r, c) in cells else np.nan for c in across] for r in down])
    low, high = np.nanmin(grid), np.nanmax(grid)
    middle, half = (low + high) / 2, max((high - low) / 2, 0.05 * by / 2)  # differences of next to nothing look so
    axis.imshow(grid, cmap="cividis", vmin=middle - half, vmax=middle + half, aspect="auto")
    wide = max(6, 36 // len(across))
    axis.set_xticks(range(len(across)), [wrapped(told(each), wide) for each in across])
    axis.set_yticks(range(len(down)), [wrapped(told(each), 14) for each in down])
    for (r, c), cell in cells.items():
        row, column = down.index(r), across.index(c)
        share = (by * cell.found.value - middle + half) / (2 * half)
        dark = sum(colormaps["cividis"](share)[:3]) < 1.5
        strong = "bold" if (r, c) == best else "normal"
        text = f"{by * cell.found.value:.{kind.digits}f}"
        axis.text(
            column, row, text, ha="center", va="center", fontsize=SIZE, color="white" if dark else "black",
            fontweight=strong,
        )  # fmt: skip
        for key, dashes in ((best, "-"), (marked, (0, (2, 1.5)))):
            if (r, c) == key:
                inset = 0.42 if dashes == "-" else 0.46
                box = (column - inset, row - inset), 2 * inset, 2 * inset
                colour = "white" if dark else "black"
                axis.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linestyle=dashes, linewidth=1.1))
    axis.tick_params(labelsize=SMALL)


def _handles(marked: bool, best: str) -> list[Any]:
    from matplotlib.patches import Patch

    words = {"low": "lowest", "high": "highest"}
    found = [Patch(fill=False, edgecolor="black", label=words[best])] if best in words else []
    dashed = Patch(fill=False, edgecolor="black", linestyle=(0, (2, 1.5)), label="the paper's")
    return [*found, dashed] if marked else found


def _note(
    panel: str,
    groups: Mapping[Cell, Sequence[Seen]],
    metric: str,
    best: Cell | None,
    marked: Cell | None,
    keys: Sequence[str],
) -> str:
    """What the paper's cell differs from the best by."""
    if best is None:
        return ""
    where = f"{panel}: " if panel else ""
    at = several(keys, best)
    if marked is None or marked not in groups:
        return f"{where}best at {at}."
    if marked == best:
        return f"{where}best at {at}, the paper's."
    gap = difference(groups[marked], groups[best], metric)
    return f"{where}best at {at}; the paper's cell is {in_words(gap, check_metric(metric), '+')} away from it, paired."
