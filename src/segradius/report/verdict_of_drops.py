"""What a comparison with a baseline tells: its verdict in a sentence, its rows as tables, JSON, and cases of a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from segradius.core.escapes import markdown
from segradius.evaluation.decisions import Verdict
from segradius.evaluation.drops import Drop, Judged
from segradius.report.cells import Cells, percent
from segradius.report.junit import Case, comment

HEADER = ("attack", "norm", "ε", "figure", "images")


def heading(found: Judged, labels: tuple[str, str], allowed: float) -> str:
    """The verdict in a sentence.

    Args:
        found: The rows.
        labels: Names of baseline and candidate.
        allowed: How much of a drop may be, in [0, 1].
    """
    counted = Counter(row.verdict for row in found.rows if row.verdict is not None)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in reversed(Verdict) if counted[verdict])
    before, after = labels
    what = f"{after} against {before}, of which at most {100 * allowed:g} points may be lost"
    return f"{found.verdict}: {what}: {told or 'nothing could be compared'}"


def drop_tables(found: Judged, labels: tuple[str, str], *, whole: bool = True) -> list[Cells]:
    """The rows that were judged, the worst first, and those that are only told.

    Args:
        found: The rows.
        labels: Names of baseline and candidate.
        whole: Whether those are all told; else where the interval has not 0 in it.
    """
    order = list(reversed(Verdict))
    rows = sorted((row for row in found.rows if row.verdict), key=lambda row: order.index(row.verdict or Verdict.PASS))
    told = [row for row in found.rows if row.verdict is None and (whole or row.drop.low > 0 or row.drop.high < 0)]
    limits = f"{100 * found.level:g} % interval; p that no more is lost than may be, adjusted for all rows"
    several = any(row.about.measurement for row in found.rows)
    first = (*(("measurement",) if several else ()), *HEADER)
    points = (*(f"{label} %" for label in labels), "lost, points")
    lines = [[*_about(row, several), *_points(row), _p(row), str(row.verdict), row.why] for row in rows]
    tables = [Cells(f"Paired over images, {limits}", (*first, *points, "p", "verdict", "why"), lines)]
    if told:
        lines = [[*_about(row, several), *_points(row), row.why] for row in told]
        tables.append(
            Cells("By class, told and not judged: --max-class-drop judges them", (*first, *points, "why"), lines)
        )
    return tables


def _about(row: Drop, several: bool) -> list[str]:
    about = row.about
    budget = f"{row.about.sign} = {about.eps:.4g}" if about.norm else ""
    named = [about.measurement] if several else []
    return [*named, about.attack, about.norm, budget.removeprefix("ε = "), about.figure, str(row.images)]


def _points(row: Drop) -> list[str]:
    whole = [f"{100 * value:.1f}" if value == value else "–" for value in (row.before, row.after)]
    return [*whole, percent(row.drop.value, row.drop, sign="+")]


def _p(row: Drop) -> str:
    return f"{row.p_value:.2g}" if row.p_value == row.p_value else "–"


def rules(found: Judged) -> str:
    """By what rule verdicts are given."""
    how = (
        "all assignments of signs"
        if found.exact
        else f"assignments of signs drawn at random, least p-value {found.resolution:.1g}"
    )
    return (
        f"BLOCK: more is lost than may be (p ≤ {found.limit:g}, adjusted for all rows). PASS: the upper end of the "
        f"interval is within what may be lost; WARN: it is, and something is lost (adjusted p ≤ {found.limit:g}). "
        f"INCONCLUSIVE: neither is known, or something is missing. Intervals and p-values: {how}."
    )


def drops_comment(found: Judged, labels: tuple[str, str], allowed: float, notes: Sequence[str]) -> str:
    """For a pull request."""
    above = markdown(heading(found, labels, allowed))
    tables = [cells.markdown() for cells in drop_tables(found, labels)]
    return comment(above, [tables[0], *map(markdown, [*notes, rules(found)]), *tables[1:]])


def drops_cases(found: Judged) -> list[Case]:
    """The judged rows as cases of a test."""
    cases = []
    for row in found.rows:
        if row.verdict is not None:
            points = f"lost {percent(row.drop.value, row.drop, sign='+')} points" if row.images else ""
            told = "; ".join(part for part in (points, row.why) if part)
            title = row.about.title.removeprefix(f"{row.about.measurement}: ")
            cases.append(Case(row.about.measurement or "compare", title, row.verdict, told, not row.images))
    return cases


def drops_report(
    found: Judged, labels: tuple[str, str], allowed: Mapping[str, float | None], notes: Sequence[str]
) -> dict[str, Any]:
    """For JSON."""
    before, after = labels
    return {
        "schema": 1,
        "verdict": str(found.verdict),
        "status": found.verdict.status,
        "baseline": before,
        "candidate": after,
        **allowed,
        "level": found.level,
        "exact": found.exact,
        "resolution": found.resolution,
        "rows": [row.as_dict() for row in found.rows],
        "notes": list(notes),
    }
