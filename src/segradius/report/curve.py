"""A picture of accuracy against queries: the mean over images, with its band, one line an attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.core import escapes
from segradius.evaluation.trace import ImageTrace
from segradius.metrics.intervals import LEAST, student
from segradius.report.figures import GIVEN, Words
from segradius.report.panels import LINES, bare, empty, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """How one attack went on several images.

    Attributes:
        name: Of the attack.
        queries: Its budget.
        before: For each image the share of pixels that the attack does not have where it wants them without any attack;
            for an untargeted one, the pixel accuracy.
        traces: Of each image.
    """

    name: str
    queries: int
    before: tuple[float, ...]
    traces: tuple[ImageTrace, ...]

    @cached_property
    def verified(self) -> bool:
        """Whether points inside the threat model were judged before the budget was spent, so that there is a curve."""
        known = [len({value for value in trace.best if not math.isnan(value)}) for trace in self.traces]
        return max(known, default=0) > 1

    def values(self, grid: Sequence[int]) -> NDArray[np.float64]:
        """Each image's share after so many queries, (images, len(grid)): of the best point, or of those asked about."""
        return np.array([self._shares(*each, grid) for each in zip(self.before, self.traces, strict=True)])

    def _shares(self, before: float, trace: ImageTrace, grid: Sequence[int]) -> list[float]:
        """Those of one image."""
        judged = [self.verified or queries >= trace.queries[-1] for queries in grid]
        return [
            trace.best_at(queries, before) if known else trace.pixacc_at(queries, before)
            for queries, known in zip(grid, judged, strict=True)
        ]


def draw_curves(
    curves: Sequence[Curve], title: str, *, targeted: bool = False, log: bool | None = None, said: Words = GIVEN
) -> bytes:
    """A PNG with one line for each attack: mean over its images, in its 95 % interval.

    A line is dashed where no point inside the threat model was judged on the way; it shows the points asked about, and
    its dot the verdict at the end.

    Args:
        curves: At least one.
        title: Heading.
        targeted: Whether the attacks had a target.
        log: Logarithmic axis of queries; None where budgets differ ten times or exceed 5,000.
        said: What pixels that agree with their labels are called.
    """
    budgets = [curve.queries for curve in curves]
    log = max(budgets) >= min(5000, 10 * min(budgets)) if log is None else log
    figure = empty(6.4, 3.8)
    axis = figure.subplots()
    if log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:,.0f}")
    ends = [_line(axis, curve, LINES[place % len(LINES)], log=log) for place, curve in enumerate(curves)]
    axis.set_title(escapes.figure(title), fontsize=10, loc="left")
    axis.set_xlabel("queries per image, those for the radius and for judging included", fontsize=9)
    axis.set_ylabel("pixels not where aimed, %" if targeted else f"{said.pixacc}, %, mean over images", fontsize=9)
    bare(axis)
    axis.set_ylim(0, 100)
    _names(axis, curves, ends)
    return png(figure, dpi=130)


def _line(axis: Axes, curve: Curve, colour: str, *, log: bool) -> float:
    """Draw one curve; the height at which it ends."""
    grid = grid_of(curve.queries, log=log)
    values = curve.values(grid)
    mean, (low, high) = 100 * values.mean(0), (100 * end for end in band(values))
    axis.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0, step="post")
    dashes = "-" if curve.verified else (0, (4, 2))
    axis.plot(grid, mean, color=colour, linewidth=1.6, linestyle=dashes, drawstyle="steps-post")
    axis.plot(grid[-1], mean[-1], "o", color=colour, markersize=4, clip_on=False)
    return float(mean[-1])


def _names(axis: Axes, curves: Sequence[Curve], ends: Sequence[float]) -> None:
    """Each attack's name beside the end of its line, moved apart where they would overlap."""
    heights = spread(ends, gap=6.0)
    for place, (curve, end, height) in enumerate(zip(curves, ends, heights, strict=True)):
        axis.annotate(
            escapes.figure(f"{curve.name}  {end:.1f} %"),
            (curve.queries, end),
            xytext=(1.02, height / 100),
            textcoords=axis.transAxes,
            color=LINES[place % len(LINES)],
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": LINES[place % len(LINES)], "linewidth": 0.5, "alpha": 0.6},
        )
    if not all(curve.verified for curve in curves):
        note = "dashed: the points asked about, not judged inside the ball; the dot is the verdict"
        axis.text(0, -0.2, note, transform=axis.transAxes, fontsize=7.5, color="0.35", va="top")


def spread(heights: Sequence[float], gap: float, top: float = 100.0) -> list[float]:
    """Heights in [0, ``top``] in the same order, at least ``gap`` apart, and not far from where they were.

    Example:
        >>> spread([50, 51, 90], gap=6)
        [50.0, 56.0, 90.0]
        >>> spread([99, 100], gap=6)
        [94.0, 100.0]
    """
    order = sorted(range(len(heights)), key=lambda place: (heights[place], place))
    placed = [float(heights[place]) for place in order]
    for at in range(1, len(placed)):
        placed[at] = max(placed[at], placed[at - 1] + gap)
    ceiling = top
    for at in reversed(range(len(placed))):
        placed[at] = min(placed[at], ceiling)
        ceiling = placed[at] - gap
    found = dict(zip(order, placed, strict=True))
    return [found[place] for place in range(len(heights))]


def grid_of(queries: int, *, log: bool) -> list[int]:
    """Numbers of queries from none, or from one on a logarithmic axis, to the budget."""
    even = np.geomspace(1, queries, _POINTS) if log else np.linspace(0, queries, _POINTS)
    return sorted({*even.round().astype(int).tolist()})


def band(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of the mean over images of shares (N, len(grid)), (len(grid),) twice; NaN for too few images."""
    n = len(values)
    if n < LEAST:
        return np.full_like(values[0], np.nan), np.full_like(values[0], np.nan)
    mean, each = torch.from_numpy(values.mean(0)), torch.from_numpy(values)
    low, high = student(mean, (mean * n - each) / (n - 1))
    return low.numpy(), high.numpy()
