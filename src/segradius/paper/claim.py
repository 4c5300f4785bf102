"""What the paper claims, in our own words, and by which contrast and rule it is judged, declared before the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, is_whole, must, shown
from segradius.core.safe_yaml import from_yaml, read_yaml
from segradius.core.text import from_mapping, names, refuse_unknown
from segradius.paper.contrasts import Contrast, contrast
from segradius.paper.estimate import Estimate

HOLDS = "holds"
FAILS = "does not hold"
OPEN = "not decidable at this scale"
ABSENT = "not measured"
WORDS = (HOLDS, FAILS, OPEN, ABSENT)
"""Verdicts."""

RULES = ("below", "above", "within", "matters")


@dataclass(frozen=True)
class Rule:
    """Where the value of a contrast is if a claim is true.

    Attributes:
        low: Lower end of that region.
        high: Upper end.
        matters: Of a region with one end: the least distance from it, in the contrast's unit, at which the claim would
            say anything; a value that is surely less far is no support of it.

    Raises:
        InputError: The region is empty, or ``matters`` is negative or beside two ends.

    Example:
        >>> beats = Rule(high=0.0, matters=0.5)
        >>> beats.holds(Estimate(-1.0, -1.4, -0.6)), beats.fails(Estimate(-0.1, -0.3, 0.1))
        (True, True)
    """

    low: float = -math.inf
    high: float = math.inf
    matters: float = 0.0

    def __post_init__(self) -> None:
        must(self.low < self.high, "the region of a claim", [self.low, self.high], "[low, high], low before high")
        must(math.isinf(self.low) != math.isinf(self.high) or self.matters == 0, "matters", self.matters, "one end")
        must(self.matters >= 0, "matters", self.matters, "at least 0")

    def holds(self, found: Estimate) -> bool:
        """Whether the whole interval is in the region."""
        return found.known and self.low < found.low and found.high < self.high

    def fails(self, found: Estimate) -> bool:
        """Whether the whole interval is outside it, or where the value would not matter."""
        return found.known and (found.low > self.high - self.matters or found.high < self.low + self.matters)

    def p_value(self, found: Estimate) -> float:
        """p-value of the value's being in the region and mattering, below 0.025 where it fails."""
        beyond = found.p_value(self.high - self.matters, "above"), found.p_value(self.low + self.matters, "below")
        return min(beyond)

    def told(self, unit: str) -> str:
        """The rule in words."""
        after = f" {unit}" if unit else ""
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"between {self.low:g} and {self.high:g}{after}"
        end, word = (self.high, "below") if math.isinf(self.low) else (self.low, "above")
        return f"{word} {end:g}{after}" + (f", by {self.matters:g} to matter" if self.matters else "")


@dataclass(frozen=True)
class Part:
    """A contrast and where it has to be.

    Attributes:
        says: What is compared, in a few words; empty of a claim's only part.
        contrast: What is compared.
        rule: Where it has to be.
    """

    says: str
    contrast: Contrast
    rule: Rule


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        number: On the page.
        name: In the packed verdicts.
        group: Heading of the page that it stands under.
        says: The claim in one line.
        where: In the paper.
        paper: The paper's figures.
        elements: Elements whose runs it is judged by, the first named in the command.
        parts: All have to hold.
        networks: Trained networks a group that a verdict takes: 3 where the claim compares networks or defences.
        reason: How it is judged, or what limits it; shown whatever the verdict.
        notes: By verdict, what explains it; shown with that verdict alone.
    """

    number: int
    name: str
    group: str
    says: str
    where: str
    paper: str
    elements: Sequence[str]
    parts: Sequence[Part]
    networks: int = 1
    reason: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


def rule(given: Mapping[str, Any]) -> Rule:
    """A rule from its keys: ``below`` or ``above`` and ``matters``, or ``within``.

    Raises:
        InputError: There is not exactly one of the three, or its value is none.

    Example:
        >>> rule({"below": 0, "matters": 0.5}).told("points"), rule({"within": [-1, 1]}).told("points")
        ('below 0 points, by 0.5 to matter', 'between -1 and 1 points')
    """
    ends = [name for name in ("below", "above", "within") if name in given]
    must(len(ends) == 1, "the rule of a claim", dict(given), "one of below, above and within")
    value, matters = given[ends[0]], _number("matters", given.get("matters", 0.0))
    if ends[0] == "within":
        must(isinstance(value, list) and len(value) == 2, "within", value, "[low, high]")
        low, high = (_number("within", end) for end in value)
        return Rule(low, high, matters)
    end = _number(ends[0], value)
    return Rule(high=end, matters=matters) if ends[0] == "below" else Rule(low=end, matters=matters)


def _number(name: str, value: object) -> float:
    must(isinstance(value, (int, float)) and not isinstance(value, bool), name, value, "a number")
    return float(value)  # type: ignore[arg-type]  # must has seen to it


def claims(path: Path | None = None) -> tuple[Claim, ...]:
    """The claims of a YAML file, in order.

    Args:
        path: Of the file; the paper's unless given.

    Raises:
        InputError: A key is unknown or missing, a number or name stands twice; the message names the claim.

    Example:
        >>> first = claims()[0]
        >>> first.number, first.where
        (1, 'Section 5.2.1, Table 3')
    """
    what = f"the claims {path}" if path else "the claims of the paper"
    given = read_yaml(path, what) if path else from_yaml((files(__package__) / "claims.yaml").read_text("utf-8"), what)
    if not isinstance(given, list):
        raise InputError(f"{what} are {shown(given)}; expected a list")
    found = tuple(_claim(each, number) for number, each in enumerate(given, 1))
    labels = [each.name for each in found]
    for label in labels:
        must(labels.count(label) == 1, f"the name {label} of claims", labels.count(label), "one claim of a name")
    groups = [group for group, _ in groupby(each.group for each in found)]
    must(len(groups) == len(set(groups)), f"groups of {what}", groups, "each in one place")
    return found


def _claim(given: object, number: int) -> Claim:
    what = f"claim {given.get('name', number)}" if isinstance(given, Mapping) else f"claim {number}"
    if not isinstance(given, Mapping):
        raise InputError(f"{what} is {shown(given)}; expected a mapping")
    listed = given.get("parts", [])
    must(isinstance(listed, list) and bool(listed), f"parts of {what}", listed, "a list of contrasts")
    parts = tuple(_part(each, what) for each in listed)
    elements = tuple(names(given.get("elements", ())))
    must(bool(elements), f"elements of {what}", list(elements), "names of elements")
    must(is_whole(given.get("networks", 1), 1), f"networks of {what}", given.get("networks"), "a number, at least 1")
    refuse_unknown(f"verdict of {what}", given.get("notes", {}), WORDS)
    own = {**given, "number": number, "parts": parts, "elements": elements}
    return from_mapping(Claim, own, f"{what} key")


def _part(given: object, what: str) -> Part:
    if not isinstance(given, Mapping) or "contrast" not in given:
        raise InputError(f"a part of {what} is {shown(given)}; expected a mapping with a contrast")
    options = {name: value for name, value in given.items() if name not in (*RULES, "contrast", "says")}
    try:
        return Part(str(given.get("says", "")), contrast(str(given["contrast"]), options), rule(given))
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
