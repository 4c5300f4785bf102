"""Verdicts for a pipeline: JUnit XML, which GitHub, GitLab and Jenkins show, and Markdown that fits into a comment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

from segradius.core.escapes import visible
from segradius.evaluation.decisions import Verdict, worst

#: Characters that a comment on a pull request may have; some of them are left for what a pipeline adds.
COMMENT = 60_000


@dataclass(frozen=True)
class Case:
    """A row or a rule, and what became of it.

    Attributes:
        group: Where it belongs.
        name: What it is.
        verdict: Of it.
        told: The figures, and why; in one line.
        missing: Whether there was nothing to judge.
    """

    group: str
    name: str
    verdict: Verdict
    told: str
    missing: bool = False


def junit(suite: str, cases: Sequence[Case], at: dt.datetime | None = None) -> bytes:
    """JUnit XML of a suite, one test case each: BLOCK is a failure, INCONCLUSIVE skipped, what is missing an error.

    WARN passes; the suite's output says of every case what there is to say. Nothing in a name ends or begins a tag.
    Valid by the schemas of Apache Ant (where a case has no output of its own) and of Jenkins.

    Args:
        suite: Its name.
        cases: In order.
        at: When; now unless given.

    Example:
        >>> print(junit("gate", [Case("a", "clean < 1", Verdict.BLOCK, "low is 0.5")]).decode())
        <?xml version='1.0' encoding='utf-8'?>
        <testsuites>
          <testsuite name="gate" ...
            <testcase classname="a" name="clean &lt; 1" time="0">
              <failure type="BLOCK" message="low is 0.5">low is 0.5</failure>
        ...
    """
    kinds = [_kind(case) for case in cases]
    counts = {name: str(kinds.count(kind)) for name, kind in _COUNTED.items()}
    begun = (at or dt.datetime.now(dt.UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    root = Xml.Element("testsuites")
    facts = {"package": "segradius", "id": "0", "hostname": "localhost", "timestamp": begun, "time": "0"}
    all_of = Xml.SubElement(root, "testsuite", {"name": visible(suite), "tests": str(len(cases)), **counts, **facts})
    Xml.SubElement(
        Xml.SubElement(all_of, "properties"),
        "property",
        {"name": "verdict", "value": str(worst(case.verdict for case in cases))},
    )
    for case, kind in zip(cases, kinds, strict=True):
        named = {"classname": visible(case.group) or "segradius", "name": visible(case.name), "time": "0"}
        one = Xml.SubElement(all_of, "testcase", named)
        told = visible(case.told)
        if kind in ("failure", "error"):
            Xml.SubElement(one, kind, {"type": str(case.verdict), "message": told}).text = told
        elif kind == "skipped":
            Xml.SubElement(one, kind, {"message": told})
    said = (f"{case.verdict} {visible(case.name)}: {visible(case.told)}" for case in cases if case.told)
    Xml.SubElement(all_of, "system-out").text = "\n".join(said)
    Xml.SubElement(all_of, "system-err")
    Xml.indent(root)
    found: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def _kind(case: Case) -> str:
    if case.verdict is Verdict.BLOCK:
        return "failure"
    if case.verdict is Verdict.INCONCLUSIVE:
        return "error" if case.missing else "skipped"
    return ""


def comment(heading: str, parts: Sequence[str]) -> str:
    """Markdown of as many parts as fit into a comment on a pull request, and a line that says how many do not.

    Args:
        heading: The first line, without the signs that make it one.
        parts: In Markdown, the most important first.

    Example:
        >>> print(comment("A", ["one", "x" * 70_000, "two"]))
        ## A
        <BLANKLINE>
        one
        <BLANKLINE>
        two
        <BLANKLINE>
        1 part(s) left out, as a comment has no room for them.
        <BLANKLINE>
    """
    kept, room = [f"## {heading}"], COMMENT - len(heading)
    for part in parts:
        if len(part) + 2 <= room:
            kept.append(part)
            room -= len(part) + 2
    if left_out := len(parts) + 1 - len(kept):
        kept.append(f"{left_out} part(s) left out, as a comment has no room for them.")
    return "\n\n".join(kept) + "\n"
