"""How black-box attacks went: loss and accuracy against queries, the mean over images in its band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import unknown_name
from segradius.paper.draw_data import CLEAN, Line, value_of
from segradius.paper.draw_style import Style, dress, named, sheet, short
from segradius.paper.draw_table import by_rank
from segradius.paper.draw_words import several, word
from segradius.paper.measured import Measured, Traced
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells
from segradius.report.curve import band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What can be shown, with its label and factor.
PARTS: Mapping[str, tuple[str, float]] = {
    "loss": ("loss at the points asked about", 1.0),
    "pixacc": ("PixAcc, %", 100.0),
    "best": ("PixAcc of the best so far, %", 100.0),
}
POINTS = 120


@dataclass(frozen=True)
class Course:
    """One line of a panel: the values of each image after each of some numbers of queries.

    Attributes:
        name: In the legend.
        style: Of the line.
        grid: Numbers of queries.
        values: (images, len(grid)).
    """

    name: str
    style: Style
    grid: NDArray[np.float64]
    values: NDArray[np.float64]


def traces(
    measured: Measured, *, name: str, show: Sequence[str] = ("loss", "pixacc"), line: Sequence[str] = ("attack",),
    panels: Sequence[str] = (), log: bool = False, blocks: Sequence[str] | None = None,
    only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """Black-box attacks against queries, and a table of where they ended.

    Args:
        measured: What was measured.
        name: Of its files.
        show: Of ``loss``, ``pixacc`` and ``best``: a panel each.
        line: Keys that tell lines apart.
        panels: Keys that tell further panels apart.
        log: Whether the axis of queries is logarithmic.
        blocks: Whose measurements; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    for part in show:
        if part not in PARTS:
            raise unknown_name("part of a trace", part, PARTS)
    found = _chosen(measured.traced, blocks, only)
    if not found:
        return nothing(name, "no trace of its attacks is there")
    places = by_rank({tuple(value_of(row, key) for key in panels): None for row in found})
    keys = list({tuple(value_of(row, key) for key in line): None for row in found})
    figure, axes = sheet(len(places) * len(show), columns=len(show) if len(show) > 1 else 3, ratio=0.72)
    values: list[Line] = []
    flat = [axis for row in axes for axis in row]
    for place, panel in enumerate(places):
        mine = [row for row in found if tuple(value_of(row, key) for key in panels) == panel]
        for nth, part in enumerate(show):
            courses = _courses(mine, line, keys, part)
            axis = flat[place * len(show) + nth]
            for course in courses:
                _draw(axis, course, part)
            dress(axis, several(panels, panel), "queries an image", PARTS[part][0])
            if log:
                axis.set_xscale("log")
            axis.set_xlim((1 if log else 0), max(course.grid[-1] for course in courses))
            about = dict(zip(panels, panel, strict=True))
            values += [one for course in courses for one in _lines(course, about, part)]
    named(figure, [_handle(Style.at(nth), several(line, key)) for nth, key in enumerate(keys)])
    return Shown(name, (_table(values, panels, show),), figure, _told(found, caption), tuple(values))


def _chosen(rows: Sequence[Traced], blocks: Sequence[str] | None, only: Mapping[str, Any] | None) -> list[Traced]:
    asked = {key: value if isinstance(value, list | tuple) else [value] for key, value in (only or {}).items()}
    return [
        row for row in rows
        if (blocks is None or row.block in blocks) and all(value_of(row, key) in some for key, some in asked.items())
    ]  # fmt: skip


def _courses(rows: Sequence[Traced], line: Sequence[str], keys: Sequence[tuple[Any, ...]], part: str) -> list[Course]:
    found = []
    for place, key in enumerate(keys):
        each: dict[tuple[Any, ...], list[Traced]] = {}
        for row in rows:
            if tuple(value_of(row, name) for name in line) == key:
                each.setdefault((row.network, row.data, row.image), []).append(row)
        runs = [longest(points) for points in each.values()]
        grid = grid_of(runs) if runs else np.empty(0)
        if len(grid):
            values = np.array([at_queries(points, part, grid) for points in runs])
            found.append(Course(several(line, key), Style.at(place), grid, values))
    return found


def longest(points: Sequence[Traced]) -> list[Traced]:
    """Of one image's runs with different options, as with different numbers of queries, the one with the most."""
    runs: dict[str, list[Traced]] = {}
    for point in points:
        runs.setdefault(f"{point.attack} {point.norm} {point.eps} {point.options}", []).append(point)
    return max(runs.values(), key=lambda run: run[-1].queries)


def grid_of(images: Sequence[Sequence[Traced]]) -> NDArray[np.float64]:
    """Numbers of queries at which images can be compared: from where all have a point to the last of any."""
    first = max(points[0].queries for points in images)
    every = sorted({point.queries for points in images for point in points if point.queries >= first})
    if len(every) > POINTS:
        every = [every[place] for place in np.linspace(0, len(every) - 1, POINTS).round().astype(int)]
    return np.array(every, dtype=np.float64)


def at_queries(points: Sequence[Traced], part: str, grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """The last value of an image after so many queries; what is not known is as before, also after its end."""
    known = [(point.queries, getattr(point, part)) for point in points if getattr(point, part) == getattr(point, part)]
    if not known:
        return np.full(len(grid), np.nan)
    queries, values = np.array(known, dtype=np.float64).T
    place = np.searchsorted(queries, grid, side="right") - 1
    found: NDArray[np.float64] = np.where(place >= 0, values[np.maximum(place, 0)], np.nan)
    return found


def _mean(course: Course, part: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean over images, and the ends of its interval; from where all images have a value."""
    mean = course.values.mean(0)
    low, high = _spread(course.values) if part == "loss" else band(course.values)
    return mean, low, high


def _spread(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    import torch

    from segradius.metrics.intervals import LEAST, student

    n = len(values)
    if n < LEAST:
        return np.full_like(values[0], np.nan), np.full_like(values[0], np.nan)
    mean, each = torch.from_numpy(values.mean(0)), torch.from_numpy(values)
    low, high = student(mean, (mean * n - each) / (n - 1), shares=False)
    return low.numpy(), high.numpy()


def _draw(axis: Axes, course: Course, part: str) -> None:
    mean, low, high = _mean(course, part)
    by = PARTS[part][1]
    style = course.style
    axis.fill_between(course.grid, by * low, by * high, color=style.colour, alpha=0.15, linewidth=0, step="post")
    axis.plot(
        course.grid, by * mean, color=style.colour, linestyle=style.dashes, linewidth=1.2, drawstyle="steps-post",
        marker=style.marker, markevery=max(1, len(course.grid) // 6), markersize=3,
    )  # fmt: skip


def _lines(course: Course, about: Mapping[str, Any], part: str) -> list[Line]:
    mean, low, high = _mean(course, part)
    return [
        {**about, "line": course.name, "metric": part, "queries": int(x), "value": float(v), "low": float(a),
         "high": float(b), "images": len(course.values)}
        for x, v, a, b in zip(course.grid, mean, low, high, strict=True)
    ]  # fmt: skip


def _table(values: Sequence[Line], panels: Sequence[str], show: Sequence[str]) -> Cells:
    """Where each line ended."""
    ends: dict[tuple[Any, ...], dict[str, Line]] = {}
    for line in values:
        ends.setdefault((*(line[key] for key in panels), line["line"]), {})[line["metric"]] = line
    header = [*map(word, panels), "attack", "queries", *(PARTS[part][0] for part in show)]
    body = []
    for key, last in ends.items():
        numbers = [
            f"{PARTS[part][1] * last[part]['value']:.{1 if PARTS[part][1] == 100 else 4}f}" if part in last else ""
            for part in show
        ]
        queries = max(line["queries"] for line in last.values())
        body.append([*map(str, key), f"{queries:,}", *numbers])
    return Cells("At the end, means over images", header, body, len(panels) + 1)


def _told(found: Sequence[Traced], caption: str) -> str:
    images = len({(row.data, row.image) for row in found})
    said = (
        f"{images} image{'s' * (images != 1)}. Mean over images of the points asked about, which need not lie inside "
        "the ball, and its 95 % interval; of images that were finished before, their last."
    )
    return f"{said} {caption}".strip()


def _handle(style: Style, name: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=style.colour, linestyle=style.dashes, linewidth=1.2, marker=style.marker, markersize=3,
        label=short(name or CLEAN),
    )  # fmt: skip
