"""What a gate tells: its verdict in a sentence, every rule with its figures, JSON, and cases of a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from segradius.core.escapes import markdown
from segradius.evaluation.decisions import Verdict, worst
from segradius.metrics.intervals import Interval
from segradius.report.cells import Cells
from segradius.report.junit import Case, comment
from segradius.report.ruled import Judgement, Ruled

NOTE = (
    "BLOCK: the figure breaks the bound, whole interval and all. INCONCLUSIVE: the interval has the bound in it, there "
    "are too few images, or nothing was measured. An advisory rule that is not kept is a WARN."
)


def verdict_of(rules: Sequence[Ruled]) -> Verdict:
    """The worst of all rules, of advisory ones WARN at most."""
    return worst(each.verdict for each in rules)


def heading(rules: Sequence[Ruled], policy: str) -> str:
    """The verdict in a sentence.

    Args:
        rules: All.
        policy: Name of the file that they are from.
    """
    counted = Counter(each.verdict for each in rules)
    told = ", ".join(f"{counted[verdict]} {verdict}" for verdict in reversed(Verdict) if counted[verdict])
    return f"{verdict_of(rules)}: {len(rules)} rule{'s' * (len(rules) != 1)} of {policy}: {told}"


def rule_tables(rules: Sequence[Ruled]) -> list[Cells]:
    """A row for each figure of each rule, the worst rules first."""
    order = list(reversed(Verdict))
    lines = []
    for rule in sorted(rules, key=lambda rule: order.index(rule.verdict)):
        for each in rule.judged:
            verdict = Ruled(rule.rule, (each,)).verdict
            figure, images = each.figure, str(each.figure.images or "")
            said = _said(each, verdict)
            found = written(figure.found)
            lines.append([rule.rule.title, rule.rule.tier, figure.title, found, images, str(verdict), said])
    return [Cells("Rules", ("rule", "tier", "figure", "value [95 %]", "images", "verdict", "why"), lines)]


def _said(each: Judgement, verdict: Verdict) -> str:
    return each.why if each.verdict is verdict else f"{each.verdict}, but for its tier: {each.why}"


def written(found: Interval) -> str:
    """A figure with the ends of its interval, where it has any.

    Example:
        >>> written(Interval(0.5, 0.25, 0.75)), written(Interval(12.0, 12.0, 12.0))
        ('0.5 [0.25, 0.75]', '12')
    """
    if found.value != found.value:
        return ""
    if found.low != found.low or found.low == found.high:
        return f"{found.value:.4g}"
    return f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"


def rules_comment(rules: Sequence[Ruled], policy: str) -> str:
    """For a pull request."""
    return comment(markdown(heading(rules, policy)), [*(each.markdown() for each in rule_tables(rules)), NOTE])


def rules_cases(rules: Sequence[Ruled]) -> list[Case]:
    """One case of a test for each rule."""
    cases = []
    for rule in rules:
        told = [_line(each) for each in rule.judged if each.verdict is not Verdict.PASS or len(rule.judged) == 1]
        cases.append(Case(rule.rule.tier, rule.rule.title, rule.verdict, "; ".join(told), rule.is_missing))
    return cases


def _line(each: Judgement) -> str:
    figure, value = each.figure, written(each.figure.found)
    images = f" ({figure.images} images)" if figure.images else ""
    named = f"{figure.title}{' = ' if value else ''}{value}{images}"
    return f"{named}: {each.why}" if each.why else named


def rules_report(rules: Sequence[Ruled], policy: str) -> dict[str, Any]:
    """For JSON."""
    verdict = verdict_of(rules)
    return {
        "schema": 1,
        "verdict": str(verdict),
        "status": verdict.status,
        "policy": policy,
        "rules": [
            {
                "rule": rule.rule.title,
                "tier": rule.rule.tier,
                "metric": rule.rule.metric,
                "require": rule.rule.require,
                "verdict": str(rule.verdict),
                "figures": [
                    {
                        "figure": each.figure.title,
                        **vars(each.figure.found),
                        "images": each.figure.images,
                        "missing": bool(each.figure.missing),
                        "verdict": str(each.verdict),
                        "why": each.why,
                    }
                    for each in rule.judged
                ],
            }
            for rule in rules
        ],
    }
