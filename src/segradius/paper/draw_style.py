"""How figures of the paper look: sizes of a page with two columns, lines that are told apart without colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segradius.core import escapes
from segradius.report.panels import LINES, empty

if TYPE_CHECKING:  # a run without pictures does without Matplotlib, which takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Widths of a column and of a page, inches.
COLUMN, PAGE = 3.4, 7.0
#: Of text, points.
SIZE = 8.0
SMALL = 7.0
DASHES: tuple[Any, ...] = (
    "-",
    (0, (4, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.5, 1.2, 1.5)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++")


@dataclass(frozen=True)
class Style:
    """How a line is drawn: its colour alone, its dashes alone and its marker alone tell it from the others."""

    colour: str
    dashes: Any
    marker: str
    hatch: str

    @classmethod
    def clean(cls) -> Style:
        """Of what was not attacked, in grey."""
        return cls("#7F7F7F", DASHES[0], MARKS[0], HATCHES[0])

    @classmethod
    def at(cls, place: int) -> Style:
        """The style of the line at a place.

        Example:
            >>> Style.at(0).colour, Style.at(1).marker
            ('#0072B2', 's')
        """
        return cls(*(every[place % len(every)] for every in (LINES, DASHES, MARKS, HATCHES)))


def sheet(
    panels: int, columns: int = 3, ratio: float = 0.82, legend: int = 1, below: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels, in rows, and its axes: one row for each row of panels, or two where each has one below.

    Args:
        panels: How many.
        columns: At most, side by side.
        ratio: Height of a panel by its width.
        legend: Lines of text to leave room for.
        below: Height of a second panel below each, as a share of its own; 0 for none.
    """
    across = min(panels, columns)
    down = -(-panels // columns)
    width = COLUMN if across == 1 else PAGE
    cell = width / max(across, 1.35)
    heights = [1.0, below] * down if below else [1.0] * down
    tall = sum(heights) * cell * ratio + 0.2 * legend + 0.25 * down
    figure = empty(width, tall, w_pad=0.02, h_pad=0.03, wspace=0.02, hspace=0.02)
    axes = figure.subplots(len(heights), across, squeeze=False, gridspec_kw={"height_ratios": heights})
    step = 2 if below else 1
    for place in range(across * down):
        if place >= panels:
            for each in axes[:, place % across][place // across * step : place // across * step + step]:
                each.set_axis_off()
    return figure, [list(row) for row in axes]


def dress(axis: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """An axis's words and lines: two of its sides, small text, faint lines across."""
    axis.tick_params(which="both", labelsize=SMALL, width=0.6)
    axis.tick_params(length=2.5)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_linewidth(0.6)
    axis.grid(axis="y", color="0.9", linewidth=0.5)
    axis.set_axisbelow(True)
    axis.set_title(wrapped(title, 30), fontsize=SIZE, loc="left", pad=4)
    axis.set_xlabel(escapes.figure(x), fontsize=SIZE, labelpad=2)
    axis.set_ylabel(escapes.figure(y), fontsize=SIZE, labelpad=2)


def wrapped(words: str, width: int) -> str:
    r"""Text for a figure, in lines of at most so many signs, cut where even two do not hold it.

    Example:
        >>> wrapped("a network with a long name", 16)
        'a network with a\nlong name'
    """
    import textwrap

    lines = textwrap.wrap(words, width, break_long_words=True) or [""]
    if len(lines) > 2:
        lines = [lines[0], lines[1][: width - 1] + "…"]
    return "\n".join(map(escapes.figure, lines))


def named(figure: Figure, handles: Sequence[Any], columns: int = 4) -> None:
    """One legend for all panels, below them."""
    if handles:
        longest = max(len(str(each.get_label())) for each in handles)
        width = figure.get_size_inches()[0]
        fitting = max(1, int(width / (0.55 + 0.062 * longest)))
        figure.legend(
            handles=list(handles), loc="outside lower center", ncols=min(columns, fitting, len(handles)), frameon=False,
            fontsize=SMALL, handlelength=2.6, columnspacing=1.2,
        )  # fmt: skip


def short(name: str, most: int = 40) -> str:
    """A name for a legend, cut where it is too long.

    Example:
        >>> short("a" * 9, 5)
        'aaaa…'
    """
    return escapes.figure(name if len(name) <= most else f"{name[: most - 1]}…")
