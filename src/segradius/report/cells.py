"""Tables as text: on screen by rich, and as Markdown, from the same cells; shares in per cent with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from segradius.core.errors import InputError
from segradius.core.escapes import markdown, visible
from segradius.metrics.intervals import Difference, Interval


@dataclass(frozen=True)
class Cells:
    """A table as text, every row as long as ``header``; the first ``words`` columns are text, the others are numbers.

    Example:
        >>> print(Cells("Two", ("name", "value"), (("a", "1"),)).markdown())
        **Two**
        <BLANKLINE>
        | name | value |
        |:--|--:|
        | a | 1 |
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def markdown(self) -> str:
        """The table in Markdown."""
        rule = "|".join(":--" if place < self.words else "--:" for place in range(len(self.header)))
        lines = [" | ".join(map(markdown, row)) for row in (self.header, *self.rows)]
        body = [f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])]
        return "\n".join([f"**{markdown(self.title)}**", "", *body])

    def rich(self) -> Table:
        """The table for a `rich` console."""
        table = Table(title=Text(visible(self.title)), title_justify="left", title_style="bold")
        for place, name in enumerate(self.header):
            table.add_column(Text(visible(name)), justify="right" if place >= self.words else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(visible(each)) for each in row))
        return table


def page(tables: Sequence[Cells], notes: Sequence[str] = (), heading: str = "") -> str:
    """A heading, tables and notes in Markdown."""
    above = [markdown(heading)] if heading else []
    return "\n\n".join([*above, *(cells.markdown() for cells in tables), *map(markdown, notes)]) + "\n"


@dataclass(frozen=True)
class Report:
    """What a run tells.

    Attributes:
        summary: In numbers.
        tables: On screen.
        notes: Under them.
        files: Path in the folder and content of each; made one by one when asked for.
        unit: What was run, in the plural.
        heading: Above all.
        style: Of the notes.
    """

    summary: Any
    tables: Sequence[Cells]
    notes: Sequence[str]
    files: Iterator[tuple[str, str | bytes]]
    unit: str
    heading: str = ""
    style: str = ""


def nothing_usable(set_aside: Mapping[str, str], otherwise: str) -> InputError:
    """An error for a run none of whose images could be used; ``otherwise`` where none was set aside."""
    image, reason = next(iter(set_aside.items()), ("", otherwise))
    return InputError(f"none of the images could be used; the first, {image}: {reason}")


def percent(value: float, around: Interval | Difference, sign: str = "") -> str:
    """A share and the interval around it, in per cent; the share alone where there is no interval, as of one image."""
    if math.isnan(value):
        return "–"
    if math.isnan(around.low):
        return f"{100 * value:{sign}.1f}"
    low, high = (f"{100 * end:{sign}.1f}" for end in (around.low, around.high))
    return f"{100 * value:{sign}.1f} [{low}, {high}]"


def share(found: Interval) -> str:
    """A share and its interval, in per cent."""
    return percent(found.value, found)


def set_aside_note(set_aside: Mapping[str, str]) -> list[str]:
    """How many images could not be used, the first with their reasons; nothing where all could."""
    if not set_aside:
        return []
    named = "; ".join(f"{image}: {reason}" for image, reason in list(set_aside.items())[:5])
    more = ", …" if len(set_aside) > 5 else ""
    return [f"{len(set_aside)} image(s) set aside and in no figure: {named}{more}"]
