"""``segradius gate``."""

from __future__ import annotations

from pathlib import Path

from segradius.cli.verdict_files import VerdictFiles
from segradius.core.screen import say


def gate(
    folders: list[str],
    /,
    policy: str,
    model_card: str | None = None,
    files: VerdictFiles = VerdictFiles(),  # noqa: B008  # frozen
) -> int:
    """Decide by the rules of a policy whether what was measured may be released.

    A rule is a bound on an end of a figure's interval: accuracy, MIoU, IoU of a class, certified accuracy, what an
    attack takes, images set aside, sanity verdicts. Of critical rules BLOCK is for what is known to be broken and
    INCONCLUSIVE for what is not known to be kept: too few images, a bound inside the interval, a figure that nobody
    measured. Advisory rules warn. The worst rule is the verdict. Exit status: 0 PASS or WARN, 4 INCONCLUSIVE, 5 BLOCK,
    2 for input that cannot be used.

    Args:
        folders: Folders of finished runs of segradius attack, evaluate or certify, or of studies.
        policy: YAML file with the rules.
        model_card: File of a model card for Hugging Face, which gets the figures as model-index; the rest of it stays.
        files: See `VerdictFiles`.
    """
    from segradius.core.screen import console
    from segradius.core.storage import as_json, write_atomically
    from segradius.report.junit import junit
    from segradius.report.model_card import write_card
    from segradius.report.policy import read_policy
    from segradius.report.ruled import ruled, sources
    from segradius.report.verdict_of_rules import (
        NOTE,
        heading,
        rule_tables,
        rules_cases,
        rules_comment,
        rules_report,
        verdict_of,
    )

    name, rules, found = Path(policy).name, read_policy(policy), sources(folders)
    judged = ruled(rules, found)
    card = write_card(Path(model_card), found) if model_card else ""
    files.write(
        lambda: junit(f"segradius gate {name}", rules_cases(judged)),
        lambda: rules_comment(judged, name),
        lambda: as_json(rules_report(judged, name)),
    )
    if model_card:
        write_atomically(Path(model_card), card)
    for cells in rule_tables(judged):
        console().print(cells.rich())
    say(NOTE)
    say(heading(judged, name))
    return verdict_of(judged).status
