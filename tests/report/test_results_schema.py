"""results.json of every kind is as its JSON Schema says, and the schema says all that is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from saved_runs import runs
from segradius.evaluation import results_schema

SCHEMA = results_schema()
KINDS = ["attack", "evaluate", "targeted", "predicted", "bands", "structures", "aside", "hostile", "target", "certify",
         "groups", "crosscheck", "lipschitz", "masks", "soft"]  # fmt: skip


def strict(schema: Any) -> Any:
    """The schema, with no name allowed that it does not describe."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(value) for name, value in schema.items()}
    return (
        found | {"unevaluatedProperties": False} if found.get("type") == "object" and "properties" in found else found
    )


def closed() -> dict[str, Any]:
    found = strict(deepcopy(SCHEMA))
    found["$defs"]["common"].pop("unevaluatedProperties")  # those that refer to it have more
    for way in ("smoothing", "lipschitz", "masks"):
        found["$defs"][way].pop("unevaluatedProperties")  # options, as they are declared
    return found


def objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if isinstance(inner, dict | list):
            if isinstance(inner, dict) and name not in ("properties", "$defs") and "$ref" not in inner:
                yield f"{path}/{name}", inner
            yield from objects(inner, f"{path}/{name}")


@pytest.mark.parametrize("kind", KINDS)
def test_reports_of_every_kind_are_valid_and_hold_nothing_that_is_not_described(kind: str):
    report = json.loads((runs()[kind] / "results.json").read_text())
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(report)] == []
    assert [error.message for error in Draft202012Validator(closed()).iter_errors(report)] == []


def test_the_schema_is_one_and_describes_every_name():
    Draft202012Validator.check_schema(SCHEMA)
    lacking = [
        f"{path}/{name}"
        for path, inner in objects(SCHEMA)
        for name, value in inner.get("properties", {}).items()
        if not path.startswith("/if") and not {"description", "$ref", "oneOf"} & value.keys()
    ]
    assert lacking == []


def test_a_report_with_more_names_is_valid_and_one_with_another_meaning_is_not():
    report = json.loads((runs()["attack"] / "results.json").read_text())
    valid = Draft202012Validator(SCHEMA).is_valid
    report["rows"][0]["news"] = report["news"] = 1
    assert valid(report)
    assert len(list(Draft202012Validator(closed()).iter_errors(report))) >= 2
    for path, wrong in {"schema": 2, "command": None, "digest": {}, "rows": [], "seed": 3}.items():
        other = deepcopy(report)
        (other["experiment"] if path == "seed" else other)[path] = wrong if path != "seed" else "3"
        assert not valid(other), path
    report["rows"][0]["pixacc"]["value"] = 1.5
    assert not valid(report)


def test_a_report_begins_with_its_version_and_command():
    report = json.loads((runs()["certify"] / "results.json").read_text())
    assert list(report)[:2] == ["schema", "command"]
    assert report["command"].startswith("segradius certify --model demo --data scenes:24x32")
