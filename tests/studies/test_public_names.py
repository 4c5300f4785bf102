"""Studies and examples are users: they import the faces' public names and nothing else, and tell their options."""

from __future__ import annotations

import ast
import importlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES, EXAMPLES = (sorted((ROOT / folder).glob("*.py")) for folder in ("studies", "examples"))
ROOMS = (
    *("attacks", "certification", "data", "evaluation", "gradients", "metrics", "models", "objectives"),
    *("radius", "report", "speed", "targets", "threats", "training"),
)
FACES = {"segradius", "segradius.paper", "segradius.paper.computed", *(f"segradius.{room}" for room in ROOMS)}


def used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of everything of the package that a study uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segradius"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("segradius"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sr":
            yield "segradius", node.attr


@pytest.mark.parametrize("study", STUDIES + EXAMPLES, ids=lambda path: path.stem)
def test_a_study_or_example_uses_public_names_alone(study: Path):
    tree = ast.parse(study.read_text(encoding="utf-8"))
    for module, name in used(tree):
        if (module, name) != ("segradius.core", "text"):
            assert module in FACES, f"{module} is no face"
            assert not name or name in importlib.import_module(module).__all__, f"{name} is not on the face {module}"
    private = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert not private or study in EXAMPLES  # of other libraries


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_study_tells_its_options(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", [str(study), "--help"])
    monkeypatch.syspath_prepend(str(study.parent))  # as where it is run
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(study), run_name="__main__")
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out
