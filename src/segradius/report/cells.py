"""Tables as text: on screen by rich, and as Markdown, from the same cells; shares in per cent with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.table import Table


class Estimate(Protocol):
    """A value with an interval around it."""

    @property
    def low(self) -> float:
        """Lower end."""

    @property
    def high(self) -> float:
        """Upper end."""


@dataclass(frozen=True)
class Cells:
    """A table as text, every row as long as ``header``; the first column is text, the others are numbers.

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

    def markdown(self) -> str:
        """The table in Markdown."""
        rule = "|".join([":--", *["--:"] * (len(self.header) - 1)])
        lines = [" | ".join(row) for row in (self.header, *self.rows)]
        body = [f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])]
        return "\n".join([f"**{self.title}**", "", *body])

    def rich(self) -> Table:
        """The table for a `rich` console."""
        table = Table(title=self.title, title_justify="left", title_style="bold")
        for place, name in enumerate(self.header):
            table.add_column(name, justify="right" if place else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table


def percent(value: float, around: Estimate, sign: str = "") -> str:
    """A share and the interval around it, in per cent; the share alone where there is no interval, as of one image."""
    if math.isnan(value):
        return "–"
    if math.isnan(around.low):
        return f"{100 * value:{sign}.1f}"
    low, high = (f"{100 * end:{sign}.1f}" for end in (around.low, around.high))
    return f"{100 * value:{sign}.1f} [{low}, {high}]"


def set_aside_note(set_aside: Mapping[str, str]) -> list[str]:
    """How many images could not be used, the first with their reasons; nothing where all could."""
    if not set_aside:
        return []
    named = "; ".join(f"{image}: {reason}" for image, reason in list(set_aside.items())[:5])
    more = ", …" if len(set_aside) > 5 else ""
    return [f"{len(set_aside)} image(s) set aside and in no figure: {named}{more}"]
