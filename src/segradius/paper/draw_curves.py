"""A metric against a budget or an option: one panel a network and data, bands over images, thin lines a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from segradius.metrics.intervals import Interval
from segradius.paper.draw_data import (
    ABOUT,
    Line,
    Metric,
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
from segradius.paper.draw_style import Style, dress, named, sheet, short
from segradius.paper.draw_table import INTERVALS, attacked, by_rank, in_words
from segradius.paper.draw_words import several, told, word
from segradius.paper.measured import Measured, Seen
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Asked:
    """What a figure of curves shows; see `curves`."""

    x: str
    line: tuple[str, ...]
    panels: tuple[str, ...]
    metric: str
    log: bool
    clean: bool
    against: str

    @property
    def kind(self) -> Metric:
        """The metric's label and form."""
        return check_metric(self.metric)


@dataclass(frozen=True)
class Drawn:
    """One line of a panel.

    Attributes:
        key: Its values of the keys that tell lines apart, by key.
        style: Of the line.
        points: Measured images by value of x; None is the value of what was not swept.
        start: The same networks unattacked, where that is a point of the line.
    """

    key: Mapping[str, Any]
    style: Style
    points: Mapping[Any, Sequence[Seen]]
    start: Sequence[Seen]

    @property
    def name(self) -> str:
        """In the legend."""
        return several(tuple(self.key), tuple(self.key.values()))

    @property
    def others(self) -> dict[str, Any]:
        """The key without the attack."""
        return {key: value for key, value in self.key.items() if key != "attack"}

    @property
    def swept(self) -> dict[Any, Sequence[Seen]]:
        """Those that have a value of x, by size."""
        first = {0.0: self.start} if self.start else {}
        return first | {x: self.points[x] for x in ordered(self.points) if x is not None}


def curves(
    measured: Measured, *, name: str, x: str = "eps", line: Sequence[str] = ("attack",),
    panels: Sequence[str] = ("family", "data"), metric: str = "pixacc", log: bool = False, clean: bool = True,
    against: str = "", blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """A figure of curves, and their table.

    Args:
        measured: What was measured.
        name: Of its files.
        x: Key of the lower axis.
        line: Keys that tell lines apart.
        panels: Keys that tell panels apart.
        metric: Of the left axis.
        log: Whether the lower axis is logarithmic.
        clean: Whether unattacked images are shown too: at ε = 0, or as a level where x is something else.
        against: An attack; below each panel stands what others differ from it by, paired over images.
        blocks: Whose measurements; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    asked = Asked(x, tuple(line), tuple(panels), metric, log, clean, against)
    found = chosen(measured.seen, blocks, only)
    if not any(map(attacked, found)):
        return nothing(name, "none of its measurements is there")
    places = by_rank(grouped([row for row in found if attacked(row)], asked.panels))
    lines = list(grouped([row for row in found if attacked(row)], asked.line))
    figure, axes = sheet(len(places), legend=1 + len(lines) // 4, below=0.45 if against else 0.0)
    step, across = (2 if against else 1), len(axes[0])
    values: list[Line] = []
    handles: dict[str, Any] = {}
    for place, panel in enumerate(places):
        mine = _of(found, asked.panels, panel)
        every = drawn_lines(mine, asked, lines)
        axis = axes[place // across * step][place % across]
        _draw(axis, every, asked, handles)
        _level(axis, mine, asked, handles)
        dress(
            axis, several(asked.panels, panel), "" if against else label_of(asked.x, mine), _left(asked, place % across)
        )
        values += _values(every, asked, panel)
        if against:
            axis.tick_params(labelbottom=False)
            below = axes[place // across * step + 1][place % across]
            below.sharex(axis)
            below.sharey(axes[1][0]) if below is not axes[1][0] else None
            values += _differences(below, every, asked, panel)
            dress(below, "", label_of(asked.x, mine), f"minus {short(against, 12)}" if place % across == 0 else "")
    _level_axes([axis for row in axes[::step] for axis in row][: len(places)], asked)
    named(figure, list(handles.values()))
    return Shown(name, tuple(tables_of(values, asked)), figure, _told(found, asked, caption), tuple(values))


def of_panel(row: Seen, keys: Sequence[str], panel: Sequence[Any]) -> bool:
    """Whether a row has these values of these keys; what was unattacked has any norm, ε and option."""
    return all(
        value_of(row, key) == value or (not attacked(row) and key not in (*ABOUT, "attack"))
        for key, value in zip(keys, panel, strict=True)
    )


def _of(found: Sequence[Seen], keys: Sequence[str], panel: Sequence[Any]) -> list[Seen]:
    """The attacked images of a panel, and the same images unattacked on the same networks."""
    mine = [row for row in found if attacked(row) and of_panel(row, keys, panel)]
    there = {(row.network, row.data, row.image) for row in mine}
    return mine + [row for row in found if not attacked(row) and (row.network, row.data, row.image) in there]


def _level_axes(axes: Sequence[Axes], asked: Asked) -> None:
    """The same left axis in all panels, so that they can be compared."""
    if asked.kind.share:
        top = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(0, top)


def drawn_lines(mine: Sequence[Seen], asked: Asked, lines: Sequence[tuple[Any, ...]]) -> list[Drawn]:
    """The lines of a panel, each in the style that it has in all panels."""
    groups = grouped([row for row in mine if attacked(row)], asked.line)
    found = []
    for place, key in enumerate(lines):
        if key in groups:
            there = {(row.network, row.data, row.image) for row in groups[key]}
            start = [row for row in mine if not attacked(row) and (row.network, row.data, row.image) in there]
            shown = start if asked.x == "eps" and asked.clean and not asked.log else []
            about = dict(zip(asked.line, key, strict=True))
            found.append(Drawn(about, Style.at(place), grouped_by(groups[key], asked.x), shown))
    return found


def grouped_by(rows: Sequence[Seen], key: str) -> dict[Any, list[Seen]]:
    """Measured images by the value of one key."""
    return {value[0]: some for value, some in grouped(rows, [key]).items()}


def label_of(x: str, rows: Sequence[Seen]) -> str:
    """What stands at the lower axis: ε with its norm where there is one."""
    norms = {row.norm for row in rows if row.norm}
    norm = f" ({told(next(iter(norms)), 'norm')})" if x == "eps" and len(norms) == 1 else ""
    return f"{word(x)}{norm}"


def _left(asked: Asked, column: int) -> str:
    return asked.kind.label if column == 0 else ""


def scaled(found: Interval, kind: Metric) -> tuple[float, float, float]:
    """Low end, value and high end, as the axis has them."""
    by = 100.0 if kind.share else 1.0
    return by * found.low, by * found.value, by * found.high


def _draw(axis: Axes, lines: Sequence[Drawn], asked: Asked, handles: dict[str, Any]) -> None:
    every = ordered({x for line in lines for x in line.swept})
    at = positions(every)
    top = 0.0
    for line in lines:
        bands = [scaled(pooled(rows, asked.metric).found, asked.kind) for rows in line.swept.values()]
        top = max([top, *(max(v, h if h == h else v) for _, v, h in bands)])
        if bands:
            _one(axis, line, [at[x] for x in line.swept], np.array(bands), asked, at)
        if None in line.points:
            level = scaled(pooled(line.points[None], asked.metric).found, asked.kind)
            top = max(top, level[1])
            axis.axhline(level[1], color=line.style.colour, linestyle=line.style.dashes, linewidth=1.0)
        handles.setdefault(line.name, _handle(line, bool(bands)))
    if asked.log:
        axis.set_xscale("log")
    _ends(axis, every, at, asked)
    if asked.kind.share:
        axis.set_ylim(0, min(100.0, 10 * np.ceil((top + 4) / 10)))


def _one(axis: Axes, line: Drawn, at: Sequence[float], bands: Any, asked: Asked, where: Mapping[Any, float]) -> None:
    style = line.style
    axis.fill_between(at, bands[:, 0], bands[:, 2], color=style.colour, alpha=0.15, linewidth=0)
    look = {"color": style.colour, "linestyle": style.dashes}
    axis.plot(at, bands[:, 1], linewidth=1.3, marker=style.marker, markersize=3.2, clip_on=False, **look)
    networks = list(dict.fromkeys(row.network for rows in line.swept.values() for row in rows))
    for network in networks if len(networks) > 1 else ():
        own = {x: [row for row in rows if row.network == network] for x, rows in line.swept.items()}
        points = [
            (where[x], scaled(pooled(rows, asked.metric).found, asked.kind)[1]) for x, rows in own.items() if rows
        ]
        axis.plot(*zip(*points, strict=True), linewidth=0.5, alpha=0.7, **look)


def positions(values: Sequence[Any]) -> dict[Any, float]:
    """Where values stand on an axis: numbers at themselves, words side by side.

    Example:
        >>> positions([1, 2.5]), positions(["a", "b"])
        ({1: 1.0, 2.5: 2.5}, {'a': 0.0, 'b': 1.0})
    """
    if all(isinstance(each, int | float) for each in values):
        return {each: float(each) for each in values}
    return {each: float(place) for place, each in enumerate(values)}


def _ends(axis: Axes, every: Sequence[Any], at: Mapping[Any, float], asked: Asked) -> None:
    """Ends of the lower axis: those of the data, with a little room."""
    if not every:
        axis.set_xticks([])
        return
    low, high = min(at.values()), max(at.values())
    if asked.log:
        axis.set_xlim(low / 1.15, high * 1.15)
    else:
        room = 0.04 * (high - low) or 0.5
        axis.set_xlim(low - (0 if low == 0 else room), high + room)
    words = not all(isinstance(each, int | float) for each in every)
    if words or len(every) <= 6:
        axis.set_xticks([at[each] for each in every], [short(told(each), 14) for each in every])
        axis.minorticks_off()


def _handle(line: Drawn, swept: bool) -> Any:
    from matplotlib.lines import Line2D

    style = line.style
    marker = style.marker if swept else "None"
    return Line2D(
        [], [], color=style.colour, linestyle=style.dashes, linewidth=1.3, marker=marker, markersize=3.2,
        label=short(line.name),
    )  # fmt: skip


def _level(axis: Axes, mine: Sequence[Seen], asked: Asked, handles: dict[str, Any]) -> None:
    """The unattacked networks as a dotted level, where x is not ε."""
    clean = [row for row in mine if not attacked(row)]
    if asked.x == "eps" or not asked.clean or not clean:
        return
    from matplotlib.lines import Line2D

    value = scaled(pooled(clean, asked.metric).found, asked.kind)[1]
    axis.axhline(value, color="0.35", linestyle=(0, (1, 2)), linewidth=0.9)
    if asked.kind.share:
        axis.set_ylim(0, max(axis.get_ylim()[1], min(100.0, 10 * np.ceil((value + 4) / 10))))
    handles.setdefault("clean", Line2D([], [], color="0.35", linestyle=(0, (1, 2)), linewidth=0.9, label="clean"))


def _about(asked: Asked, panel: Sequence[Any], line: Drawn, x: Any) -> Line:
    return {**dict(zip(asked.panels, panel, strict=True)), "line": line.name, asked.x: x}


def _values(lines: Sequence[Drawn], asked: Asked, panel: Sequence[Any]) -> list[Line]:
    found = []
    for line in lines:
        level = {None: line.points[None]} if None in line.points else {}
        for x, rows in {**level, **line.swept}.items():
            found.append(line_of(_about(asked, panel, line, x), asked.metric, pooled(rows, asked.metric)))
    return found


def tables_of(values: Sequence[Line], asked: Asked) -> Iterator[Cells]:
    """The numbers of a figure as tables, of the metric and of differences: a row a line, a column a value of x."""
    for metric in dict.fromkeys(line["metric"] for line in values):
        mine = [line for line in values if line["metric"] == metric]
        at = ordered(line[asked.x] for line in mine)
        keys = (*asked.panels, "line")
        rows: dict[tuple[Any, ...], dict[Any, str]] = {}
        for line in mine:
            found = Interval(line["value"], line["low"], line["high"])
            told_ = in_words(found, asked.kind, "+" if metric != asked.metric else "")
            rows.setdefault(tuple(line[key] for key in keys), {})[line[asked.x]] = told_
        header = [*map(word, keys), *(several([asked.x], [x]) or f"no {word(asked.x)}" for x in at)]
        body = [
            [*(told(value, key) for key, value in zip(keys, place, strict=True)), *(cells.get(x, "") for x in at)]
            for place, cells in rows.items()
        ]
        title = f"{asked.kind.name} minus {asked.against}, points" if metric != asked.metric else asked.kind.label
        yield Cells(title, header, body, len(keys))


def _differences(axis: Axes, lines: Sequence[Drawn], asked: Asked, panel: Sequence[Any]) -> list[Line]:
    """Draw what lines differ from the one they are compared with by, at the same x or its level."""
    partners = [line for line in lines if line.key.get("attack") == asked.against]
    at = positions(ordered({x for line in lines for x in line.swept}))
    found = []
    axis.axhline(0, color="0.35", linewidth=0.7)
    bases = [next((each for each in partners if each.others == line.others), line) for line in lines]
    compared = [(line, base) for line, base in zip(lines, bases, strict=True) if base is not line]
    for nth, (line, base) in enumerate(compared):
        pairs = {x: base.points.get(x, base.points.get(None)) for x in line.points if x is not None}
        gaps = {x: difference(line.points[x], other, asked.metric) for x, other in pairs.items() if other}
        if not gaps:
            continue
        bands = np.array([scaled(gaps[x], asked.kind) for x in ordered(gaps)])
        reach = np.nan_to_num(np.abs(bands[:, [0, 2]].T - bands[:, 1]))
        aside = 0.0 if asked.log else 0.012 * (nth - (len(compared) - 1) / 2) * (max(at.values()) - min(at.values()))
        axis.errorbar(
            [at[x] + aside for x in ordered(gaps)], bands[:, 1], reach, color=line.style.colour,
            marker=line.style.marker, linestyle=line.style.dashes, markersize=3, linewidth=0.9, elinewidth=0.8,
            capsize=1.8,
        )  # fmt: skip
        for x in ordered(gaps):
            ends = {"value": gaps[x].value, "low": gaps[x].low, "high": gaps[x].high}
            found.append({**_about(asked, panel, line, x), "metric": f"{asked.metric} minus {base.name}", **ends})
    return found


def _told(found: Sequence[Seen], asked: Asked, caption: str) -> str:
    parts = [f"{size_of(found)}. Bands: {INTERVALS}."]
    if any(len({row.network for row in rows}) > 1 for rows in grouped(found, (*asked.panels, *asked.line)).values()):
        parts.append("Thin lines: each network by itself.")
    if asked.against:
        parts.append(
            f"Below: points that an attack leaves more than {asked.against}, paired over images; below 0 is stronger."
        )
    return " ".join([*parts, caption]).strip()
