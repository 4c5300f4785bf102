"""The picture of several networks under the same attacks: the paper's Figure 11, and what a defence costs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import cycle, product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from segradius.report.compare import CLEAN, Network

SIGNS = {"l1": "l1", "l2": "l2", "linf": "l∞"}
MAIN = {"l1": 750.0, "l2": 1.5, "linf": 0.006}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's
STYLES = tuple(zip(COLOURS, "os^DvPX", strict=True))
LINES: dict[str, tuple[str, Any]] = {"cr_pgd": ("CR-PGD", "-"), "pgd": ("PGD", "--")}
OTHERS: dict[str, tuple[str, Any]] = {"worst": ("worst attack", "-")}


def draw_trade_off(networks: Sequence[Network]) -> bytes:
    """A PNG with a row for each norm: PixAcc against ε as in Figure 11, and clean against worst PixAcc at one ε.

    Args:
        networks: That had the same attacks; colours repeat after the seventh.
    """
    norms = list(dict.fromkeys(norm for norm, _ in networks[0].threats))
    figure = Figure(figsize=(10, 3.9 * len(norms) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(norms), 2, squeeze=False)
    for row, norm in zip(axes, norms, strict=True):
        budgets = [eps for each, eps in networks[0].threats if each == norm]
        main = MAIN[norm] if MAIN[norm] in budgets else budgets[len(budgets) // 2]
        _curves(row[0], networks, norm, budgets)
        _trade_off(row[1], networks, norm, main)
    handles = [Line2D([], [], color=c, marker=m, label=n.label) for n, (c, m) in _styled(networks)]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=name) for name, style in _lines(networks).values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.draw_without_rendering()
    for axis in axes[:, 1]:
        name_points(axis, [network.label for network in networks])
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def name_points(axis: Axes, labels: Sequence[str]) -> None:
    """Each label beside its point, where it hides least of points, intervals and earlier labels."""
    drawn: list[Any] = list(axis.containers)
    points = [bar.lines[0].get_xydata()[0] for bar in drawn]
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in axis.transData.transform(points)]
    bars = [ends for bar in drawn for lines in bar.lines[2] for ends in lines.get_segments()]
    taken += [Bbox.from_extents(*axis.transData.transform(ends).ravel()).padded(2) for ends in bars]
    for point, label, colour in zip(points, labels, cycle(COLOURS), strict=False):
        text = axis.annotate(label, point, (0, 0), textcoords="offset points", color=colour, in_layout=False)

        def place(spot: tuple[int, int, int], text: Annotation = text) -> float:
            reach, right, up = spot
            text.set(ha="left" if right else "right", va="bottom" if up else "top")
            text.xyann = (reach if right else -reach, reach if up else -reach)
            box = text.get_window_extent()
            outside = _area(box) - _area(Bbox.intersection(box, axis.bbox))
            return sum(_area(Bbox.intersection(box, other)) for other in taken) + 10 * outside + reach

        place(min(product((6, 14, 24), (1, 0), (1, 0)), key=place))
        taken.append(text.get_window_extent())


def _styled(networks: Sequence[Network]) -> zip[tuple[Network, tuple[str, str]]]:
    return zip(networks, cycle(STYLES), strict=False)


def _lines(networks: Sequence[Network]) -> dict[str, tuple[str, Any]]:
    """Attacks with a line in the left panels: PGD and CR-PGD where they ran, else the worst of all."""
    ran = {name for name, *_ in networks[0].rows}
    return {name: line for name, line in LINES.items() if name in ran} or OTHERS


def _curves(axis: Axes, networks: Sequence[Network], norm: str, budgets: Sequence[float]) -> None:
    for network, (colour, marker) in _styled(networks):
        for attack, (_, line) in _lines(networks).items():
            plans = [CLEAN, *((attack, norm, eps) for eps in budgets if (attack, norm, eps) in network.rows)]
            heights = [100 * network.rows[plan]["pixacc"]["value"] for plan in plans]
            axis.plot([plan[2] for plan in plans], heights, line, color=colour, marker=marker, markersize=5)
    axis.set(xlabel=f"ε, {SIGNS[norm]} (0 is clean)", ylabel="PixAcc (%)", title="Accuracy against budget")
    axis.set_xticks([0, *budgets], [f"{eps:g}" for eps in (0, *budgets)])
    axis.grid(alpha=0.3)


def _trade_off(axis: Axes, networks: Sequence[Network], norm: str, eps: float) -> None:
    for network, (colour, marker) in _styled(networks):
        clean, worst = (network.rows[plan]["pixacc"] for plan in (CLEAN, ("worst", norm, eps)))
        ends = [[[100 * abs(f[end] - f["value"])] for end in ("low", "high")] for f in (clean, worst)]
        x, y = 100 * clean["value"], 100 * worst["value"]
        axis.errorbar(x, y, ends[1], ends[0], color=colour, fmt=marker, markersize=8, elinewidth=0.8, alpha=0.9)
    title = f"Trade-off, {SIGNS[norm]} ε = {eps:g}"
    axis.set(xlabel="clean PixAcc (%)", ylabel="PixAcc (%) under the worst attack", title=title)
    axis.grid(alpha=0.3)
    axis.margins(0.12)


def _area(box: Bbox | None) -> float:
    return box.width * box.height if box else 0.0
