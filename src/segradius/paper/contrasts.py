"""Contrasts: what a claim compares, declared before there are data, and what measurements say of it, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from segradius.core.errors import InputError, must, shown
from segradius.core.text import from_mapping, names
from segradius.core.text import refuse_unknown as refuse
from segradius.paper.estimate import Estimate, estimate, unknown
from segradius.paper.measured import Measured
from segradius.paper.rows import CLEAN, MEASURES, Choice, Row, Where, cells_of, rows_of, terms_of


@dataclass(frozen=True)
class Found:
    """What a contrast finds in a cell.

    Attributes:
        cell: Values of the fields that make cells, by name.
        estimate: In the contrast's unit.
        unit: points (of 100), s, passes, times, or nothing.
    """

    cell: Mapping[str, Any]
    estimate: Estimate
    unit: str = "points"


class Contrast(Protocol):
    """What measurements say of a claim, cell by cell; nothing where there is no row of one of its sides."""

    def __call__(self, measured: Measured) -> tuple[Found, ...]:
        """The contrast in each cell."""


NORMAL = 1.959964
"""Standard errors from a normal's mean to the end of its 95 % interval."""

CONTRASTS: dict[str, Callable[..., Contrast]] = {}


def contrast(name: str, given: Mapping[str, Any]) -> Contrast:
    """A contrast by name, from a mapping of its options.

    Raises:
        InputError: The name or an option is unknown, or one is missing.

    Example:
        >>> contrast("difference", {"of": {"attack": "CR-PGD"}, "minus": {"attack": "PGD"}})(Measured())
        ()
    """
    refuse("contrast", [name], CONTRASTS)
    return from_mapping(CONTRASTS[name], given, f"{name} key")


def _register(name: str) -> Callable[[Any], Any]:
    def add(made: Any) -> Any:
        CONTRASTS[name] = made
        return made

    return add


def _where(given: object, key: str) -> Where:
    if not isinstance(given, Mapping):
        raise InputError(f"{key} is {shown(given)}; expected a mapping such as {{attack: PGD}}")
    return given


@_register("difference")
@dataclass(frozen=True)
class Difference:
    """The share of one choice of rows minus that of another, paired over images and over networks of one family.

    Attributes:
        of: The first choice.
        minus: The second; without it the share itself is looked at.
        where: Conditions of both.
        cells: Fields whose values make cells.
        measure: What is looked at, of `MEASURES`.
        drop: Whether the share is that of the unattacked images minus that under attack.
        growth: Whether it is that with the largest ε minus that with the smallest.

    Example:
        >>> Difference({"attack": "CR-PGD"}, {"attack": "PGD"}, cells=("family", "norm"))(Measured())
        ()
    """

    of: Where
    minus: Where | None = None
    where: Where = field(default_factory=dict)
    cells: Sequence[str] = ()
    measure: str = "accuracy"
    drop: bool = False
    growth: bool = False

    def __call__(self, measured: Measured) -> tuple[Found, ...]:
        """The difference in each cell that both have."""
        choices = [*self._sides(self.of, 1.0)]
        choices += [] if self.minus is None else self._sides(self.minus, -1.0)
        rows, it = rows_of(measured, self.measure), MEASURES[self.measure]
        unit = "%" if len(choices) == 1 and it.unit == "points" else it.unit
        return _linear(rows, choices, names(self.cells), unit, it.scale)

    def _sides(self, given: Where, factor: float) -> list[Choice]:
        side = Choice(_where(given, "of or minus"), factor).also(self.where)
        if self.growth:
            ends = (("largest", factor), ("smallest", -factor))
            return [each for end, by in ends for each in self._dropped(Choice({**side.where, "eps": end}, by))]
        return self._dropped(side)

    def _dropped(self, side: Choice) -> list[Choice]:
        if not self.drop:
            return [side]
        of_attacks = ("attack", "norm", "eps", "from")
        network = {name: value for name, value in side.where.items() if name not in of_attacks}
        return [Choice({**network, "attack": CLEAN}, side.factor), Choice(side.where, -side.factor)]


@_register("against")
@dataclass(frozen=True)
class Against:
    """Each other value of some fields minus one: settings of an attack against the default, families against one.

    Attributes:
        one: Fields and the values that others are compared with, as ``{samples: 8}``.
        where: Conditions of all.
        cells: Fields whose values make cells, beside those of ``one``.
        measure: As `Difference` has it, like ``drop``.
        drop: Likewise.
        least: Values of a swept option below which others are not compared; by field.
        most: Values above which; by field.

    Example:
        >>> Against({"samples": 8}, where={"attack": "CR-PGD"})(Measured())
        ()
    """

    one: Where
    where: Where = field(default_factory=dict)
    cells: Sequence[str] = ()
    measure: str = "accuracy"
    drop: bool = False
    least: Mapping[str, float] = field(default_factory=dict)
    most: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, measured: Measured) -> tuple[Found, ...]:
        """The difference in each cell, for each other combination of values."""
        one, rows = _where(self.one, "one"), rows_of(measured, self.measure)
        chosen = [row for row in Choice(self.where).of(rows) if not row.clean]
        values = dict.fromkeys(tuple(row.field(name) for name in one) for row in chosen)
        others = [dict(zip(one, each, strict=True)) for each in values if None not in each]
        if others and dict(one) not in others:
            told = ", ".join(f"{name} {value}" for name, value in one.items())
            return (Found({}, unknown(f"{told} is not among the values"), MEASURES[self.measure].unit),)
        found: list[Found] = []
        for other in (each for each in others if each != dict(one) and self._compared(each)):
            each = Difference(other, one, self.where, self.cells, self.measure, self.drop)(measured)
            found += [Found({**other, **its.cell}, its.estimate, its.unit) for its in each]
        return tuple(found)

    def _compared(self, other: Mapping[str, Any]) -> bool:
        above = all(float(other[name]) >= least for name, least in self.least.items())
        return above and all(float(other[name]) <= most for name, most in self.most.items())


@_register("ratio")
@dataclass(frozen=True)
class Ratio:
    """The mean of one choice of rows divided by that of another, paired, on the logarithm: of times, or of passes.

    Attributes:
        of: The first choice.
        to: The second.
        where: Conditions of both.
        cells: Fields whose values make cells.
        measure: What is looked at, of `MEASURES`.

    Example:
        >>> Ratio({"attack": "CR-PGD"}, {"attack": "PGD"}, measure="passes")(Measured())
        ()
    """

    of: Where
    to: Where
    where: Where = field(default_factory=dict)
    cells: Sequence[str] = ()
    measure: str = "seconds"

    def __call__(self, measured: Measured) -> tuple[Found, ...]:
        """The ratio in each cell that both have."""
        fields = names(self.cells)
        rows = rows_of(measured, self.measure)
        chosen = [Choice(_where(side, "of or to")).also(self.where).of(rows) for side in (self.of, self.to)]
        if not all(chosen):
            return ()
        found = []
        for cell in cells_of(chosen, fields):
            above, below = terms_of(chosen, cell, fields)
            must(
                len(above) == len(below) == 1,
                "families in a ratio",
                len(above),
                "1; cells: [family] gives each its own",
            )
            its = estimate([*above, *below], lambda shares: shares[..., 0] / shares[..., 1], positive=True)
            found.append(Found(dict(zip(fields, cell, strict=True)), its, "times"))
        return tuple(found)


def _linear(
    rows: Sequence[Row], choices: Sequence[Choice], fields: Sequence[str], unit: str, scale: float
) -> tuple[Found, ...]:
    """The sum of shares times factors, in each cell that all have; of several families their mean."""
    chosen = [choice.of(rows) for choice in choices]
    if not all(chosen):
        return ()
    found = []
    for cell in cells_of(chosen, fields):
        terms = terms_of(chosen, cell, fields)
        factors = [choice.factor / len(each) for choice, each in zip(choices, terms, strict=True) for _ in each]
        flat = [term for each in terms for term in each]
        its = estimate(flat, _weighted(factors)) if flat else unknown("no row")
        found.append(Found(dict(zip(fields, cell, strict=True)), its.scaled(scale), unit))
    return tuple(found)


def _weighted(factors: Sequence[float]) -> Callable[[Tensor], Tensor]:
    def finish(shares: Tensor) -> Tensor:
        return (shares * shares.new_tensor(factors)).sum(-1)

    return finish


@_register("computed")
@dataclass(frozen=True)
class Computed:
    """A figure of a computed block, with the interval that it was given.

    Attributes:
        block: Name of the block.
        value: Key of the figure in a row, dots between keys or places in one another; a mapping of value, low, high and
            n, the number of images, or a number.
        rows: Key of the list of rows, likewise; empty where the figure stands alone.
        only: Rows with these values.
        cells: Keys of a row whose values make cells.
        error: Key of the standard error of a number.
        exact: Whether a number has no error, as a count has none.
        networks: Trained networks that a row speaks of; 0 where no network is asked.
        unit: Word for its unit.
        scale: By what it is multiplied.

    Example:
        >>> measured = Measured(computed={"regret": {"slope": {"value": 0.5, "low": 0.4, "high": 0.6}}})
        >>> [(each.estimate.low, each.estimate.high) for each in Computed("regret", "slope")(measured)]
        [(0.4, 0.6)]
    """

    block: str
    value: str
    rows: str = ""
    only: Where = field(default_factory=dict)
    cells: Sequence[str] = ()
    error: str = ""
    exact: bool = False
    networks: int = 0
    unit: str = ""
    scale: float = 1.0

    def __call__(self, measured: Measured) -> tuple[Found, ...]:
        """The figure of each row."""
        if self.block not in measured.computed:
            return ()
        whole = measured.computed[self.block]
        rows = _at(whole, self.rows) if self.rows else [whole]
        if not isinstance(rows, list):
            raise InputError(f"{self.rows} of {self.block} is {shown(rows)}; expected a list")
        chosen = [row for row in rows if all(_at(row, name) == value for name, value in self.only.items())]
        cells = [{name: _at(row, name) for name in names(self.cells)} for row in chosen]
        found = [self._estimate(row).scaled(self.scale) for row in chosen]
        return tuple(Found(cell, each, self.unit) for cell, each in zip(cells, found, strict=True))

    def _estimate(self, row: Any) -> Estimate:
        its = _at(row, self.value)
        if isinstance(its, Mapping):
            value, low, high = (_number(its.get(name)) for name in ("value", "low", "high"))
            images = int(its.get("n") or row.get("n") or 0)
        else:
            value, images = _number(its), 0
            reach = 0.0 if self.exact else NORMAL * _number(_at(row, self.error)) if self.error else math.nan
            low, high = value - reach, value + reach
        if math.isnan(value) or math.isnan(low) or math.isnan(high):
            return unknown("no interval", value, images, self.networks)
        return Estimate(value, low, high, images - 1 if images > 1 else math.inf, images, self.networks)


def _number(given: Any) -> float:
    """A number of JSON, in which there is none for what is not one."""
    return math.nan if given is None else float(given)


def _at(whole: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(whole, list) and key.isdigit() and int(key) < len(whole):
            whole = whole[int(key)]
        elif isinstance(whole, Mapping) and key in whole:
            whole = whole[key]
        else:
            raise InputError(f"there is no {key!r} of {path} in what was computed; expected one")
    return whole
