"""The version of results.json, what every such file begins with, and the JSON Schema that says what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from segradius.core.safe_json import from_json

#: Of results.json. Within a version names are added; a change that would mislead a reader makes another one.
VERSION = 1


def head(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """What a results.json begins with: its version, and the command that makes it, without secrets.

    Args:
        runtime: What changes no result, as `segradius.report.provenance.runtime` has it.

    Example:
        >>> head({"command": "segradius demo"})
        {'schema': 1, 'command': 'segradius demo'}
    """
    return {"schema": VERSION, "command": str(runtime.get("command", ""))}


def results_schema(version: int = VERSION) -> dict[str, Any]:
    """The JSON Schema (2020-12) of results.json, which is in the package as ``evaluation/schemas/results-1.json``.

    Args:
        version: Which.

    Raises:
        FileNotFoundError: There is no such version.

    Example:
        >>> results_schema()["$id"]
        'urn:segradius:results:1'
    """
    file = files("segradius.evaluation") / "schemas" / f"results-{version}.json"
    found: dict[str, Any] = from_json(file.read_text("utf-8"), file.name)
    return found
