"""The pipelines in examples/ci: what they run is run, on the demo, and the policy beside them is kept."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from segradius.cli import main as segradius

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PIPELINES = {file.name: file.read_text("utf-8") for file in sorted((EXAMPLES / "ci").glob("*.yml"))}


def scripts(pipeline: Any) -> Iterator[str]:
    """Every shell line of a pipeline."""
    if isinstance(pipeline, dict):
        for name, inner in pipeline.items():
            if name in ("run", "script"):
                yield from (inner.splitlines() if isinstance(inner, str) else inner)
            else:
                yield from scripts(inner)
    elif isinstance(pipeline, list):
        for inner in pipeline:
            yield from scripts(inner)


def commands(pipeline: str) -> list[list[str]]:
    """Of segradius, in order."""
    lines = list(scripts(yaml.safe_load(pipeline)))
    found = [match[1] for line in lines for match in re.finditer(r"(?:^|then )segradius ([^;]*)", line)]
    return [shlex.split(each) for each in found]


def test_both_pipelines_run_the_same_and_need_no_secret_and_no_host():
    assert sorted(PIPELINES) == ["github-actions.yml", "gitlab-ci.yml"]
    first, second = map(commands, PIPELINES.values())
    assert first == second
    assert [each[0] for each in first] == ["run", "gate", "compare"]
    for text in PIPELINES.values():
        assert not re.search(r"secrets\.|token|://|\.(com|io|org)\b", text, re.I)


def test_the_commands_pass_on_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    run, gate, compare = commands(PIPELINES["gitlab-ci.yml"])
    assert segradius(run) == 0
    assert segradius(gate) == 0
    shutil.copytree("measured", "baseline")
    assert segradius(compare) == 0
    for name in ("gate", "compare"):
        suite = ElementTree.parse(f"{name}.xml").getroot()[0]
        assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "0", "0")
        assert Path(f"{name}.md").read_text().startswith("## PASS: ")
