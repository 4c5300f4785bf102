"""The rules that an assessment is judged by unless others are given, and what their verdict means in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segradius.evaluation.decisions import Verdict
from segradius.report.ruled import Ruled
from segradius.report.verdict_of_rules import verdict_of, written

#: Of a verdict, in words.
MEANS = {
    Verdict.PASS: "all rules are kept, as far as these attacks can tell",
    Verdict.WARN: "no critical rule is broken; look at those that warn before you release",
    Verdict.INCONCLUSIVE: "it is not known whether a critical rule is kept: more images, that is more budget, may tell",
    Verdict.BLOCK: "a critical rule is broken, by more than chance",
}
#: Points of accuracy that attacks may take at the budget of most interest: more warns, and more keeps a release back.
WARNS, BLOCKS = 0.1, 0.25
#: The same at others.
FURTHER = 0.5

HEAD = """\
# What a release must keep to. These bounds are common sense, not a norm: change them to what your use needs, and run
# the same segradius assess again, or: segradius gate FOLDER --policy FOLDER/policy.yaml
# docs/gate.md says what a rule may be. ε has the unit of images in [0, 1]: 0.00392… is one of 255 grey levels.
min_images: 8

rules:
  - name: no sanity check failed
    metric: sanity
    require: no fail

  - name: every image could be used
    metric: set_aside
    require: value <= 0
"""


def default_policy(threats: Sequence[tuple[str, float]]) -> str:
    """The rules as YAML, with what each is for.

    Args:
        threats: Norms and budgets of the attacks, that of most interest first.

    Example:
        >>> default_policy([("linf", 0.25)]).count("- name:")
        4
    """
    (norm, eps), *others = threats
    rules = [
        _rule("no quarter of the pixels", norm, eps, BLOCKS, "critical"),
        _rule("no tenth", norm, eps, WARNS, "advisory"),
        *(_rule("no half", norm, eps, FURTHER, "advisory") for norm, eps in others),
    ]
    return "\n".join([HEAD, *rules])


def _rule(share: str, norm: str, eps: float, most: float, tier: str) -> str:
    """That a drop, paired over images, is known to be no larger."""
    length = f"{255 * eps:.3g}/255" if norm == "linf" else f"{eps:.4g}"
    return f"""\
  - name: attacks at {norm} {length} take {share}
    tier: {tier}
    metric: drop
    attack: worst
    norm: {norm}
    eps: {eps!r}
    require: high <= {most}
"""


def verdict_lines(judged: Sequence[Ruled], file: str) -> Iterator[str]:
    """The verdict, and each rule that is not kept, in sentences.

    Args:
        judged: All rules.
        file: That they are from.
    """
    verdict = verdict_of(judged)
    yield f"Verdict by the rules in {file}: {verdict}: {MEANS[verdict]}."
    for rule in sorted(judged, key=lambda each: list(Verdict).index(each.verdict), reverse=True):
        if rule.verdict is Verdict.PASS:
            continue
        worst = max(rule.judged, key=lambda each: list(Verdict).index(each.verdict))
        figure = written(worst.figure.found)
        told = f"{worst.figure.title} = {figure}" if figure else worst.figure.title
        why = f"{worst.why}, and " if worst.why else ""
        yield f"  {rule.verdict} ({rule.rule.tier}): {rule.rule.title}: {told}; {why}{rule.rule.require} is required."
