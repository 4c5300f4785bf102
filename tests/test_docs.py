"""The documentation's examples: Python blocks marked runnable run, every ``segradius …`` line parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from segradius.cli import build_parser
from segradius.cli.parser import gather

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?P<mark>^<!-- runnable -->\n)?^```(?P<language>python|bash|console)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    runnable: bool


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        yield Block(page, line, match["language"], match["code"], match["mark"] is not None)


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of each segradius command in a shell block, continuation lines joined."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for i, word in enumerate(words):
            if word == "segradius" and (i == 0 or words[i - 1] == "&&"):
                end = next((j for j in range(i, len(words)) if words[j] in {"&&", "|", ">", ";"}), len(words))
                yield words[i + 1 : end]


def reader_has() -> dict[str, Any]:
    """What the pages' Python blocks take for granted: a network and a batch of the reader's own."""
    torch.manual_seed(0)
    return {
        "my_network": torch.nn.Conv2d(3, 5, 3, padding=1),
        "images": torch.rand(2, 3, 24, 32),
        "labels": torch.randint(5, (2, 24, 32)),
    }


def test_commands_are_found_through_prompts_continuations_and_comments():
    code = "$ pip install . && segradius demo\nsegradius list \\\n  attacks  # names\nmy-segradius no\n"
    assert list(commands(code)) == [["demo"], ["list", "attacks"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_marked_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = reader_has()
    for block in blocks(page):
        if block.runnable and block.language == "python":
            # The blank lines make a traceback name the page's own line.
            exec(compile("\n" * block.line + block.code, str(page), "exec"), names)


def parses(arguments: list[str]) -> bool:
    try:
        build_parser().parse_args(gather(arguments))
    except SystemExit as stop:  # argparse's way to refuse, and to have answered --help
        return stop.code in (0, None)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_segradius_commands_parse(page: Path):
    shell = [block for block in blocks(page) if block.language != "python"]
    wrong = [(block.line, shlex.join(c)) for block in shell for c in commands(block.code) if not parses(c)]
    assert wrong == []


def test_a_command_that_does_not_exist_does_not_parse(capsys: pytest.CaptureFixture[str]):
    assert not parses(["atack"])
    assert "atack" in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_intervals_are_told_as_they_are_made_and_the_bootstrap_only_of_figures_measured_with_it():
    told = {
        page.name for page in PAGES if re.search(r"bootstrap|resampling (the|of) images", page.read_text("utf-8"), re.I)
    }
    assert told <= {"results.md", "black-box.md", "defences.md", "models.md", "cli.md"}  # tables of earlier versions
    assert "[Student's *t* of the jackknife](cli.md#intervals)" in (ROOT / "docs" / "index.md").read_text("utf-8")
