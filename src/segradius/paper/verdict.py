"""Whether claims of the paper hold at a scale, as far as what was measured there can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segradius.paper.claim import ABSENT, FAILS, HOLDS, OPEN, Claim, Part, Rule, claims
from segradius.paper.contrasts import Found
from segradius.paper.estimate import LEVEL, Estimate, holm
from segradius.paper.measured import Measured

ALPHA = (1 - LEVEL) / 2
"""Of a one-sided test: that of a 95 % interval's end."""


@dataclass(frozen=True)
class Judged:
    """A cell of a claim: what was found and what it says.

    Attributes:
        part: Of the claim that it is of.
        found: The contrast.
        word: `HOLDS`, `FAILS` or `OPEN`.
        why: It is open; empty otherwise.
        p_value: Of the claim's being true of the cell, adjusted by Holm over all cells of the claim.
    """

    part: Part
    found: Found
    word: str
    why: str
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """A claim at a scale.

    Attributes:
        claim: The claim.
        word: `HOLDS`, `FAILS`, `OPEN` or `ABSENT`.
        why: In a line.
        cells: What it rests on.
    """

    claim: Claim
    word: str
    why: str
    cells: tuple[Judged, ...] = ()

    @property
    def images(self) -> tuple[int, int]:
        """The fewest and the most of any cell."""
        return _ends([each.found.estimate.images for each in self.cells])

    @property
    def seeds(self) -> tuple[int, int]:
        """Networks a group, likewise."""
        return _ends([each.found.estimate.seeds for each in self.cells])


def _ends(numbers: Sequence[int]) -> tuple[int, int]:
    return (min(numbers), max(numbers)) if numbers else (0, 0)


def judge(claim: Claim, measured: Measured) -> Verdict:
    """The verdict on a claim.

    It holds where the interval of every cell is in the region of its rule: each cell is tested at the level of the
    whole, as all have to hold (R. L. Berger, *Multiparameter hypothesis testing and acceptance sampling*, Technometrics
    24, 1982). It does not hold where the region is rejected in some cell, by Holm's method over all cells of the claim.
    Else it is open, as it is where there are fewer networks than the claim takes.

    Args:
        claim: The claim.
        measured: What was measured at a scale.

    Raises:
        InputError: A contrast does not fit what was measured.

    Example:
        >>> judge(claims()[0], Measured()).word
        'not measured'
    """
    found = [(part, part.contrast(measured)) for part in claim.parts]
    absent = [part for part, its in found if not its]
    if len(absent) == len(found):
        return Verdict(claim, ABSENT, "")
    cells = _judged([(part, each) for part, its in found for each in its], claim.networks)
    word, why = _joined(cells, absent)
    return Verdict(claim, word, why, cells)


def judged(measured: Measured, all_claims: Sequence[Claim] | None = None) -> tuple[Verdict, ...]:
    """The verdict on each claim.

    Args:
        measured: What was measured at a scale.
        all_claims: The claims; the paper's unless given.

    Example:
        >>> {each.word for each in judged(Measured())}
        {'not measured'}
    """
    return tuple(judge(each, measured) for each in (claims() if all_claims is None else all_claims))


def _judged(found: Sequence[tuple[Part, Found]], networks: int) -> tuple[Judged, ...]:
    against = holm([part.rule.p_value(each.estimate) for part, each in found])
    return tuple(
        Judged(part, each, *_word(part.rule, each.estimate, p, networks), p)
        for (part, each), p in zip(found, against, strict=True)
    )


def _word(rule: Rule, found: Estimate, p_value: float, networks: int) -> tuple[str, str]:
    if not found.known:
        return OPEN, found.reason or "no interval"
    if found.seeds < networks and networks > 1:
        few = f"{found.seeds or 'no'} trained network{'s' if found.seeds != 1 else ''} a group"
        return OPEN, f"{few}; a comparison of networks or defences takes {networks}"
    if rule.holds(found):
        return HOLDS, ""
    if p_value < ALPHA:
        return FAILS, ""
    return OPEN, "rejected alone, not beside the other cells" if rule.fails(
        found
    ) else "the interval reaches across the limit"


def _joined(cells: Sequence[Judged], absent: Sequence[Part]) -> tuple[str, str]:
    """The word for all, and why."""
    n = len(cells)
    held, failed, left = ([each for each in cells if each.word == word] for word in (HOLDS, FAILS, OPEN))
    told = "" if n == 1 else f"{len(held)} of {n} cells hold, {len(failed)} do not, {len(left)} are open"
    missing = [f"not measured: {each.says or 'a part'}" for each in absent]
    if failed:
        return FAILS, "; ".join(filter(None, [told, *missing]))
    if missing or left:
        reasons = dict.fromkeys(each.why for each in left)
        return OPEN, "; ".join(filter(None, [told, *reasons, *missing]))
    slight = sum(_slight(each) for each in cells)
    less = "" if not slight else f"by less than would matter{f' in {slight}' if n > 1 else ''}"
    return HOLDS, "; ".join(filter(None, [f"in all {n} cells" if n > 1 else "", less]))


def _slight(cell: Judged) -> bool:
    """Whether what holds is surely less than would matter."""
    return cell.part.rule.matters > 0 and cell.part.rule.fails(cell.found.estimate)


def label(cell: Judged, cells: Sequence[Judged]) -> str:
    """What a cell is, by what tells it from the others of its part."""
    own = [each.found.cell for each in cells if each.part is cell.part]
    names = [name for name in cell.found.cell if len({str(each.get(name)) for each in own}) > 1]
    words = [_said(name, cell.found.cell[name]) for name in names]
    return ", ".join([*([cell.part.says] if cell.part.says else []), *words]) or "all"


def _said(name: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else "l∞" if value == "linf" else str(value)
    return text if name in ("family", "norm", "data", "network", "role", "attack") else f"{name} {text}"


def facts(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON holds it; no number where there is none."""
    cells = [
        {
            "cell": {"part": each.part.says, **each.found.cell},
            "rule": each.part.rule.told(each.found.unit),
            "unit": each.found.unit,
            **{name: _finite(getattr(each.found.estimate, name)) for name in ("value", "low", "high", "df")},
            "images": each.found.estimate.images,
            "seeds": each.found.estimate.seeds,
            "verdict": each.word,
            "why": each.why,
            "p_value": _finite(each.p_value),
        }
        for each in verdict.cells
    ]
    it = verdict.claim
    about = {name: getattr(it, name) for name in ("number", "name", "group", "says", "where", "paper", "networks")}
    return {**about, "elements": list(it.elements), "verdict": verdict.word, "why": verdict.why, "cells": cells}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
