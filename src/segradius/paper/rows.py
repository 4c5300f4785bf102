"""Rows of measurements that a claim is about: chosen by what they are of, cut into cells, paired, made into terms."""

from __future__ import annotations

import fnmatch
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from segradius.core.errors import InputError, one_of
from segradius.paper.estimate import Term
from segradius.paper.measured import Measured, Of, Seen, Traced

Where = Mapping[str, Any]
"""Field or swept option of a row, and its value, a list of values, or a text with ``*``; ``attack: clean`` is the
unattacked image, ``eps: largest`` or ``smallest`` one end of what was measured in each norm."""

ENDS: dict[str, Callable[[Iterable[float]], float]] = {"largest": max, "smallest": min}

CLEAN = "clean"


@dataclass(frozen=True)
class Row:
    """A row and the share that is looked at in it.

    Attributes:
        of: The row.
        above: Numerator; NaN where the row has no such share.
        below: Denominator.
    """

    of: Of
    above: float
    below: float

    def field(self, name: str) -> Any:
        """A swept option by name, or else a field; None where it has neither."""
        return getattr(self.of, "options", {}).get(name, getattr(self.of, name, None))

    @property
    def clean(self) -> bool:
        """Whether it is of an unattacked image, which has no threat and no option of an attack."""
        return getattr(self.of, "attack", None) == ""


@dataclass(frozen=True)
class Measure:
    """What is looked at in rows.

    Attributes:
        rows: Of all that was measured.
        unit: By what a share is multiplied, and the word for it.
        scale: Likewise.
    """

    rows: Callable[[Measured], Iterator[Row]]
    unit: str = "points"
    scale: float = 100.0


def _seen(share: Callable[[Seen], tuple[float, float]]) -> Callable[[Measured], Iterator[Row]]:
    return lambda measured: (Row(each, *(map(float, share(each)))) for each in measured.seen)


def _runs(share: Callable[[Sequence[Traced]], tuple[float, float]]) -> Callable[[Measured], Iterator[Row]]:
    """Rows of whole runs of black-box attacks, each its points by queries."""

    def rows(measured: Measured) -> Iterator[Row]:
        runs = defaultdict(list)
        for each in measured.traced:
            options = tuple(sorted(each.options.items()))
            runs[each.block, each.network, each.data, each.image, each.attack, options, each.norm, each.eps].append(
                each
            )
        for points in runs.values():
            points.sort(key=lambda each: each.queries)
            yield Row(points[-1], *map(float, share(points)))

    return rows


def _falls(points: Sequence[Traced]) -> tuple[float, float]:
    """Of the steps from one point to the next, those on which the loss is lower than before."""
    return sum(after.loss < before.loss for before, after in pairwise(points)), len(points) - 1


def _below_mean(points: Sequence[Traced]) -> tuple[float, float]:
    """Mean accuracy over the run, each point as long as it lasted: the area under the curve."""
    spans = [(before.pixacc, after.queries - before.queries) for before, after in pairwise(points)]
    return sum(accuracy * span for accuracy, span in spans), sum(span for _, span in spans)


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(_seen(lambda row: (row.right, row.labelled))),
    "miou": Measure(_seen(lambda row: (row.miou * row.classes, row.classes))),
    "reached": Measure(_seen(lambda row: (math.nan, 1) if row.eligible is None else (row.reached or 0, row.eligible))),
    "seconds": Measure(_seen(lambda row: (row.seconds, 1)), "s", 1.0),
    "passes": Measure(_seen(lambda row: (row.forward + row.backward, 1)), "passes", 1.0),
    "certified": Measure(lambda measured: (Row(each, each.right, each.labelled) for each in measured.certified)),
    "loss": Measure(_runs(lambda points: (points[-1].loss - points[0].loss, 1)), "", 1.0),
    "falls": Measure(_runs(_falls)),
    "gained": Measure(_runs(lambda points: (points[-1].pixacc - points[0].pixacc, 1))),
    "curve": Measure(_runs(_below_mean)),
}
"""What can be looked at: pooled pixel accuracy; the paper's MIoU; pixels that reached their aim; time and passes an
image; pixels that are right and certified; of black-box runs the rise of the loss, the share of steps on which it
falls, the change of accuracy from the first point to the last, and the mean of accuracy over the run."""


@dataclass(frozen=True)
class Choice:
    """Rows by what they are of, with the factor of their share in a contrast.

    Attributes:
        where: Which rows.
        factor: Of the share.
    """

    where: Where
    factor: float = 1.0

    def also(self, more: Where) -> Choice:
        """The same with more conditions, which do not replace its own."""
        return replace(self, where={**more, **self.where})

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """Those that it is about."""
        ends = {name: value for name, value in self.where.items() if isinstance(value, str) and value in ENDS}
        plain = {name: value for name, value in self.where.items() if name not in ends}
        found = [row for row in rows if all(_is(row, name, value) for name, value in plain.items())]
        for name, end in ends.items():
            found = _at_end(found, name, ENDS[end])
        return found


def _is(row: Row, name: str, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_is(row, name, each) for each in value)
    has = row.field(name)
    if name == "attack" and value == CLEAN:
        return bool(has == "")
    if isinstance(value, str) and "*" in value:
        return has is not None and fnmatch.fnmatchcase(str(has), value)
    return bool(has == value)


def _at_end(rows: Sequence[Row], name: str, end: Callable[[Iterable[float]], float]) -> list[Row]:
    """Rows with the largest, or smallest, value among those of their threat's norm."""
    known = [row for row in rows if row.field(name) is not None]
    values = defaultdict(set)
    for row in known:
        values[row.field("norm")].add(row.field(name))
    return [row for row in known if row.field(name) == end(values[row.field("norm")])]


def _key(row: Row, fields: Sequence[str]) -> tuple[Any, ...]:
    """Its cell; None where it has no such field, as an unattacked image has no norm."""
    return tuple(row.field(name) for name in fields)


def _fits(row: Row, cell: Sequence[Any], fields: Sequence[str]) -> bool:
    """Whether a row is of a cell; what an unattacked image does not have, as a norm, is not asked of it."""
    has = [(row.field(name), value) for name, value in zip(fields, cell, strict=True)]
    return all(mine == value or (row.clean and mine in (None, "")) for mine, value in has)


def cells_of(chosen: Sequence[Sequence[Row]], fields: Sequence[str]) -> list[tuple[Any, ...]]:
    """The cells that all choices of attacked images have rows of, in the order of the first of them."""
    attacked = [rows for rows in chosen if rows and not rows[0].clean] or list(chosen)
    keys = [dict.fromkeys(_key(row, fields) for row in rows) for rows in attacked]
    return [key for key in keys[0] if all(key in others for others in keys[1:])]


def terms_of(chosen: Sequence[Sequence[Row]], cell: Sequence[Any], fields: Sequence[str]) -> list[list[Term]]:
    """Terms of a cell, for each choice one a family: of the networks and images that all have.

    Networks of one family with one seed belong together, as a defence does with the network that it started from. An
    image has a part in the terms where it has one under every budget and every value of an option.

    Args:
        chosen: Rows, by choice.
        cell: Values of the fields.
        fields: Names of the fields that make cells.

    Raises:
        InputError: A choice has two networks of one family and seed, or two rows of the same image under the same
            attack.
    """
    tables = [_Table.of([row for row in rows if _fits(row, cell, fields)]) for rows in chosen]
    seeds: dict[str, list[int]] = {}
    for table in tables:
        for family in table.families:
            mine = table.seeds(family)
            seeds[family] = [seed for seed in seeds.get(family, mine) if seed in mine]
    images = (
        [image for image in tables[0].images if all(table.whole(image, seeds) for table in tables)] if tables else []
    )
    return [[table.term(family, seeds[family], images) for family in table.families] for table in tables]


@dataclass(frozen=True)
class _Table:
    """Rows of a choice by family, seed, image and point, which is a budget and values of options."""

    rows: Mapping[tuple[str, int], Mapping[tuple[str, str], Mapping[Any, Row]]]
    points: frozenset[Any]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Table:
        found: dict[Any, dict[Any, dict[Any, Row]]] = {}
        labels: dict[tuple[str, int], str] = {}
        for row in rows:
            network, image = (row.of.family, row.of.seed), (row.of.data, row.of.image)
            if labels.setdefault(network, row.of.network) != row.of.network:
                two = f"{labels[network]} and {row.of.network}"
                raise InputError(f"a claim takes {two} for one network, as family and seed are the same; expected one")
            options = tuple(sorted((name, str(value)) for name, value in getattr(row.of, "options", {}).items()))
            point = (*(getattr(row.of, name, None) for name in ("block", "attack", "norm", "eps", "answer")), options)
            at = found.setdefault(network, {}).setdefault(image, {})
            if point in at:
                raise InputError(f"{row.of.network} has two rows of {image[1]} under {point}; expected one")
            at[point] = row
        return cls(found, frozenset(point for images in found.values() for at in images.values() for point in at))

    @property
    def families(self) -> list[str]:
        return list(dict.fromkeys(family for family, _ in self.rows))

    @property
    def images(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys(image for images in self.rows.values() for image in images))

    def seeds(self, family: str) -> list[int]:
        return sorted(seed for name, seed in self.rows if name == family)

    def whole(self, image: tuple[str, str], seeds: Mapping[str, Sequence[int]]) -> bool:
        """Whether all networks have a share of the image at every point."""
        for family in self.families:
            for seed in seeds[family]:
                at = self.rows[family, seed].get(image, {})
                if at.keys() != self.points or not all(
                    row.below > 0 and math.isfinite(row.above) for row in at.values()
                ):
                    return False
        return True

    def term(self, family: str, seeds: Sequence[int], images: Sequence[tuple[str, str]]) -> Term:
        def part(name: str) -> torch.Tensor:
            sums = [
                [sum(getattr(row, name) for row in self.rows[family, seed][image].values()) for image in images]
                for seed in seeds
            ]
            return torch.tensor(sums, dtype=torch.float64).reshape(len(seeds), len(images))

        return Term(family, part("above"), part("below"))


def rows_of(measured: Measured, measure: str) -> list[Row]:
    """All rows with what is looked at in them.

    Raises:
        InputError: There is no such measure.
    """
    one_of(MEASURES, measure=measure)
    return list(MEASURES[measure].rows(measured))
