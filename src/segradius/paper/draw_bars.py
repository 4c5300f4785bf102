"""A metric as bars: groups of networks or data, a bar an attack or defence, with intervals over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segradius.paper.draw_curves import of_panel, scaled
from segradius.paper.draw_data import CLEAN, check_metric, chosen, grouped, pooled, size_of
from segradius.paper.draw_style import Style, dress, named, sheet, short, wrapped
from segradius.paper.draw_table import INTERVALS, attacked, by_rank, pivot
from segradius.paper.draw_words import several
from segradius.paper.measured import Measured, Seen
from segradius.paper.outputs import Shown, nothing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Of a group, of the distance between two.
WIDE = 0.8


def bars(
    measured: Measured, *, name: str, group: Sequence[str] = ("family",), bar: Sequence[str] = ("attack",),
    panels: Sequence[str] = ("data",), metric: str = "pixacc", clean: bool = True,
    blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """Bars, and their table.

    Args:
        measured: What was measured.
        name: Of its files.
        group: Keys that tell groups apart.
        bar: Keys that tell bars of a group apart.
        panels: Keys that tell panels apart.
        metric: Height of a bar.
        clean: Whether unattacked images are shown too, where the attack is a key.
        blocks: Whose measurements; None for all.
        only: A value or a list of values by key.
        caption: Of one's own.
    """
    found = chosen(measured.seen, blocks, only)
    if not clean or ("attack" not in (*group, *bar) and any(map(attacked, found))):
        found = [row for row in found if attacked(row)]
    if not found:
        return nothing(name, "none of its measurements is there")
    kind = check_metric(metric)
    places, kinds = by_rank(grouped(found, panels)), by_rank(grouped(found, bar))
    groups = by_rank(grouped(found, group))
    coloured = [key for key in kinds if CLEAN not in key]
    styles = {key: Style.at(coloured.index(key)) if key in coloured else Style.clean() for key in kinds}
    figure, axes = sheet(len(places), columns=max(1, min(3, 9 // len(groups))), ratio=0.62, legend=1 + len(kinds) // 4)
    for place, panel in enumerate(places):
        mine = [row for row in found if of_panel(row, panels, panel)]
        axis = axes[place // len(axes[0])][place % len(axes[0])]
        for nth, key in enumerate(kinds):
            own = [row for row in mine if of_panel(row, bar, key)]
            _draw(axis, own, (group, groups), (nth, len(kinds)), styles[key], metric)
        dress(axis, several(panels, panel), "", kind.label if place % len(axes[0]) == 0 else "")
        wide = max(8, 30 // len(groups))
        axis.set_xticks(range(len(groups)), [wrapped(several(group, key), wide) for key in groups])
        axis.set_xlim(-0.6, len(groups) - 0.4)
        axis.set_ylim(0, 100 if kind.share else None)
    named(figure, [_handle(styles[key], short(several(bar, key))) for key in kinds])
    table, values = pivot(found, (*panels, *group), bar, (metric,))
    points = " Dots: each network by itself." if _repeated(found, (*panels, *group, *bar)) else ""
    return Shown(name, (table,), figure, f"{size_of(found)}. {INTERVALS}.{points} {caption}".strip(), tuple(values))


def _draw(
    axis: Axes,
    rows: Sequence[Seen],
    group: tuple[Sequence[str], Sequence[Any]],
    nth: tuple[int, int],
    style: Style,
    metric: str,
) -> None:
    keys, groups = group
    width = WIDE / nth[1]
    for place, key in enumerate(groups):
        mine = [row for row in rows if of_panel(row, keys, key)]
        if not mine:
            continue
        at = place - WIDE / 2 + (nth[0] + 0.5) * width
        low, value, high = scaled(pooled(mine, metric).found, check_metric(metric))
        axis.bar(
            at, value, width * 0.92, color=style.colour, hatch=style.hatch, edgecolor="white", linewidth=0, alpha=0.85
        )
        reach = np.nan_to_num([[value - low], [high - value]])
        axis.errorbar(at, value, reach, color="0.15", elinewidth=0.8, capsize=1.8, linestyle="none")
        networks = grouped(mine, ["network"])
        each = [scaled(pooled(some, metric).found, check_metric(metric))[1] for some in networks.values()]
        if len(each) > 1:
            dots: dict[str, Any] = {
                "color": "black",
                "markeredgecolor": "white",
                "markeredgewidth": 0.4,
                "markersize": 2.6,
            }
            axis.plot(np.linspace(at - 0.2 * width, at + 0.2 * width, len(each)), each, "o", **dots)


def _repeated(rows: Sequence[Seen], keys: Sequence[str]) -> bool:
    return any(len({row.network for row in some}) > 1 for some in grouped(rows, keys).values())


def _handle(style: Style, name: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=style.colour, hatch=style.hatch, edgecolor="white", linewidth=0, alpha=0.85, label=name)
