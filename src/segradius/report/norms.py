"""The lengths that attacks without a ball needed: columns, what they mean, and a picture of the images' share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segradius.core import escapes
from segradius.evaluation.attack_summary import Row, Summary
from segradius.evaluation.norms import norm_curve
from segradius.report.panels import LINES, bare, empty, png

#: Columns of runs without a ball.
NEEDED = ("median norm", "reached %", "APSR %")
NAMES = {"l1": "‖δ‖₁", "l2": "‖δ‖₂", "linf": "‖δ‖∞"}


def norm_cells(row: Row) -> list[str]:
    """Those of `NEEDED`: median length, share of the images that got there, and the mean share of pixels."""
    if row.norms is None:
        return [""] * len(NEEDED)
    middle = "∞" if row.norms.median is None else f"{row.norms.median:.4g}"
    return [middle, f"{100 * row.norms.reached:.0f}", f"{100 * row.norms.apsr:.1f}"]


def norm_notes(summary: Summary) -> list[str]:
    """What the columns are, for each share of the pixels; nothing in a ball."""
    told = (
        "No ball: reached is the share of the images of which at least {:g} % of the pixels are fooled; median norm, "
        "of the lengths that this took, ∞ for the others; APSR, the mean share of pixels fooled"
    )
    return [told.format(100 * part) for part in dict.fromkeys(row.norms.share for row in summary.rows if row.norms)]


def draw_norms(lengths: Mapping[str, Sequence[float]], norm: str, title: str) -> bytes:
    """A PNG with one staircase for each attack: the share of the images that need no more than a length.

    Args:
        lengths: Of each image by attack, ∞ where it was not reached; at least one is finite.
        norm: l1, l2 or linf.
        title: Heading.
    """
    figure = empty(6.4, 3.8)
    axis = figure.subplots()
    curves = {name: norm_curve(each) for name, each in lengths.items()}
    end = 1.05 * max(radii[-1] for radii, _ in curves.values() if radii)
    for place, (name, (radii, shares)) in enumerate(curves.items()):
        heights = [0.0, *(100 * share for share in shares)]
        label = escapes.figure(f"{name}  {heights[-1]:.0f} %")
        steps = ([0.0, *radii, end], [*heights, heights[-1]])
        axis.plot(*steps, color=LINES[place % len(LINES)], linewidth=1.6, drawstyle="steps-post", label=label)
    axis.set_title(escapes.figure(title), fontsize=10, loc="left")
    axis.set_xlabel(f"{NAMES[norm]}, images in [0, 1]", fontsize=9)
    axis.set_ylabel("images that need no more, %", fontsize=9)
    bare(axis)
    axis.set_ylim(0, 101)
    axis.set_xlim(0, end)
    axis.legend(fontsize=8.5, frameon=False, loc="lower right")
    return png(figure, dpi=130)
