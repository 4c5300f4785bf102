"""Certified accuracy against radius, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segradius.core import escapes
from segradius.evaluation.certified_by import OWN_RADII
from segradius.evaluation.certify_summary import (
    CertifiedRow,
    CertifiedSummary,
)
from segradius.report.certify_tables import NAMES
from segradius.report.figures import Words, said_of
from segradius.report.panels import (
    LINES,
    bare,
    empty,
    png,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_radii(summary: CertifiedSummary, title: str) -> bytes:
    """A PNG of certified pixel accuracy against radius, and below how many pixels have which radius of their own."""
    rows = [row for row in summary.rows if row.curve is not None]
    own = [row for row in rows if row.name in OWN_RADII]
    figure, said = empty(6.4, 3.6 if not own else 5.6), said_of(summary)
    axes = figure.subplots(1 + len(own), 1, squeeze=False, sharex=True, height_ratios=[3, 2][: 1 + len(own)])[:, 0]
    axes[0].set_title(escapes.figure(title), fontsize=10, loc="left")
    for name, marker in (("base", "ko"), ("smoothed", "kx")):
        for row in summary.rows:
            if row.name == name:
                axes[0].plot(0, 100 * row.pixacc.value, marker, markersize=5, clip_on=False, label=NAMES[name])
    for colour, row in zip(LINES, rows, strict=False):
        shares, edges = steps(row)
        axes[0].stairs(100 * np.array(shares), edges, color=colour, linewidth=1.6, label=NAMES[row.name])
    _draw_whole(axes[0], summary)
    axes[0].set_ylabel(f"certified {said.pixacc}, %", fontsize=9)
    axes[0].set_ylim(0, 100)
    axes[0].legend(fontsize=8, frameon=False)
    for axis, row in zip(axes[1:], own, strict=True):
        _bars(axis, row, LINES[rows.index(row)], said)
    for axis in axes:
        bare(axis)
    axes[-1].set_xlabel("l2 radius, images in [0, 1]", fontsize=9)
    axes[-1].set_xlim(left=0)
    return png(figure)


def _draw_whole(axes: Axes, summary: CertifiedSummary) -> None:
    """What is left of whole images at least, and what attacks left of them."""
    if summary.whole is not None:
        shares = 100 * np.array(summary.whole.accuracy)
        axes.plot(summary.whole.edges, shares, color="black", linewidth=1.6, label="of whole images, at least")
        lengths = {f"ε = {row.eps:g}": row.eps for row in summary.whole.rows}
        left = [(lengths[each.at], 100 * each.left) for each in summary.attacked if each.at in lengths]
        if left:
            axes.plot(*zip(*left, strict=True), "v", color="black", markersize=4, label="left by attacks")


def steps(row: CertifiedRow) -> tuple[Sequence[float], Sequence[float]]:
    """Certified accuracy between radii, and the radii: never more than is certified at the end of an interval."""
    assert row.curve is not None
    if row.name not in OWN_RADII:
        return (row.pixacc.value,), (0.0, 0.0 if math.isnan(row.radius) else row.radius)
    reached = 1 + sum(share > 0 for share in row.curve.accuracy[1:])
    return row.curve.accuracy[1 : 1 + reached], row.curve.edges[: 1 + reached]


def _bars(axis: Axes, row: CertifiedRow, colour: str, said: Words) -> None:
    """Share of the labelled pixels in each interval of radii: right ones dark, wrong ones on top."""
    assert row.curve is not None
    pixels = sum(each.pixels for each in row.classes)
    certified, right = (100 * np.array(part) / pixels for part in (row.curve.certified, row.curve.right))
    axis.stairs(certified, row.curve.edges, fill=True, color=colour, alpha=0.35, label=f"certified, {said.wrong}")
    axis.stairs(right, row.curve.edges, fill=True, color=colour, label=f"certified, {said.right}")
    axis.set_ylabel("labelled pixels, %", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
