"""The summary of a run as tables: on screen by rich, and as Markdown, from the same cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.table import Table

from segradius.evaluation import Comparison, Row, Summary


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


def tables(summary: Summary) -> list[Cells]:
    """The tables of a run: metrics of each attack, and paired differences where attacks can be compared."""
    found = [metrics_table(summary)]
    return [*found, differences_table(summary)] if summary.comparisons else found


def metrics_table(summary: Summary) -> Cells:
    """One line for each attack: accuracy left, with 95 % intervals over images, and what the attack cost."""
    header = (
        "attack",
        "norm",
        "ε",
        "images",
        "PixAcc %",
        "MIoU %",
        "MIoU/image %",
        "success %",
        "passes f+b",
        "s/image",
    )
    title = "After attack, per cent [95 % interval over images]; passes and seconds per image"
    return Cells(title, header, [_metrics(row) for row in summary.rows])


def differences_table(summary: Summary) -> Cells:
    """One line for each pair: the difference in per-image pixel accuracy."""
    header = ("attack against other", "norm", "ε", "images", "PixAcc difference, points", "p")
    title = "Paired over images: pixel accuracy after one attack minus after the other; below 0 the first is stronger"
    return Cells(title, header, [_difference(comparison) for comparison in summary.comparisons])


def notes(summary: Summary) -> list[str]:
    """What a reader must know beside the tables: images set aside or invalid, and checks that failed."""
    found = set_aside_note(summary.set_aside)
    for row in summary.rows:
        if row.invalid:
            found.append(f"{row.name} ({row.norm}): {row.invalid} image(s) gave NaN or infinite logits, not counted")
        found += _broken(row)
    return found


def set_aside_note(set_aside: Mapping[str, str]) -> list[str]:
    """How many images could not be used, the first with their reasons; nothing where all could."""
    if not set_aside:
        return []
    named = "; ".join(f"{image}: {reason}" for image, reason in list(set_aside.items())[:5])
    more = ", …" if len(set_aside) > 5 else ""
    return [f"{len(set_aside)} image(s) set aside and in no figure: {named}{more}"]


def _broken(row: Row) -> list[str]:
    if row.sanity is None:
        return []
    where, found = f"{row.name} ({row.norm}, ε = {row.eps:g})", []
    if row.sanity.length_over_eps > 1 + 1e-4:
        found.append(f"{where}: a perturbation is {row.sanity.length_over_eps:.6g} times as long as ε")
    if row.sanity.outside > 1e-6:
        found.append(f"{where}: adversarial values lie up to {row.sanity.outside:g} outside [0, 1]")
    if row.sanity.disagreement > 1e-3:
        share = f"{row.sanity.disagreement:.2%}"
        found.append(f"{where}: {share} of the predictions differ when the adversarial images are judged again")
    return found


def _metrics(row: Row) -> list[str]:
    metrics = [percent(each.value, each) for each in (row.pixacc, row.miou, row.miou_image)]
    threat = [row.norm or "", "" if row.eps is None else f"{row.eps:.4g}"]
    success = "" if math.isnan(row.success) else f"{100 * row.success:.1f}"
    cost = [f"{row.forward:g}+{row.backward:g}", f"{row.seconds:.2f}"]
    return [row.name, *threat, str(row.images), *metrics, success, *cost]


def _difference(comparison: Comparison) -> list[str]:
    found = comparison.difference
    threat = [comparison.norm, f"{comparison.eps:.4g}", str(comparison.images)]
    points = percent(found.mean, found, sign="+")
    return [f"{comparison.attack} − {comparison.against}", *threat, points, f"{found.p_value:.2g}"]


def percent(value: float, around: Estimate, sign: str = "") -> str:
    """A share and the interval around it, in per cent; the share alone where there is no interval, as of one image."""
    if math.isnan(value):
        return "–"
    if math.isnan(around.low):
        return f"{100 * value:{sign}.1f}"
    low, high = (f"{100 * end:{sign}.1f}" for end in (around.low, around.high))
    return f"{100 * value:{sign}.1f} [{low}, {high}]"
