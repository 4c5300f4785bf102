"""Sanity verdicts for a reader: a table of all, and lines of those that want to be looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

from segradius.evaluation.evidence import SanityVerdict
from segradius.evaluation.facts import Finding
from segradius.report.cells import Cells

#: In which order they stand, and what they are called when they are counted.
GRADES = {"fail": "failed", "warn": "to be looked at", "pass": "passed", "open": "open"}


def sanity_table(found: Sequence[SanityVerdict]) -> Cells:
    """One line for each check, those that want to be looked at first."""
    ordered = sorted(found, key=lambda each: list(GRADES).index(each.verdict))
    rows = [
        (each.name, each.verdict, each.text, each.advice, "" if math.isnan(each.value) else f"{each.value:.4g}")
        for each in ordered
    ]
    title = f"Sanity of these figures: {counted(found)} (docs/sanity.md says what each looks at)"
    return Cells(title, ("check", "verdict", "what was seen", "what to do", "value"), rows, words=4)


def sanity_lines(found: Sequence[SanityVerdict], warned: Sequence[Finding] = ()) -> list[str]:
    """For the screen: those that want to be looked at and are not among warnings that are told anyway; a count of all.

    Args:
        found: Verdicts.
        warned: What else is told.

    Example:
        >>> sanity_lines([SanityVerdict("void", "pass", "…"), SanityVerdict("huge", "fail", "PGD leaves 80 %")])
        ['Sanity (huge, fail): PGD leaves 80 %.', 'Sanity checks: 1 failed (huge), 1 passed.']
    """
    texts = " ".join(each.text for each in warned)
    lines = [each.line for each in found if each.fired and each.text not in texts]
    return [*lines, f"Sanity checks: {counted(found)}."] if found else []


def counted(found: Sequence[SanityVerdict]) -> str:
    """How many of each grade, with the names of all but those that passed.

    Example:
        >>> counted([SanityVerdict("void", "pass", "…"), SanityVerdict("steps", "open", "…")])
        '1 passed, 1 open (steps)'
    """
    parts = []
    for grade, said in GRADES.items():
        names = [each.name for each in found if each.verdict == grade]
        if names:
            parts.append(f"{len(names)} {said}" + ("" if grade == "pass" else f" ({', '.join(names)})"))
    return ", ".join(parts)
