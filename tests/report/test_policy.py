"""Policies in YAML: what is refused, by the number of the rule and with the nearest name; and cards and test suites."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from segradius.core.errors import InputError
from segradius.evaluation import Verdict
from segradius.report.junit import COMMENT, Case, comment, junit
from segradius.report.model_card import with_index
from segradius.report.policy import read_policy

RULE = {"metric": "pixacc", "require": "low >= 0.5"}


def written(folder: Path, policy: Any) -> Path:
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    return folder / "policy.yaml"


def test_a_policy_is_read_with_fractions_and_names(tmp_path: Path):
    rules = [
        RULE | {"eps": "4/255", "norm": "linf", "tier": "advisory", "name": "robust"},
        {"metric": "iou", "class": "road", "require": "value > 1/2", "attack": "clean", "min_images": 20},
    ]
    policy = read_policy(written(tmp_path, {"min_images": 8, "rules": rules}))
    assert [rule.title for rule in policy.rules] == ["robust", "iou of clean road: value > 1/2"]
    assert policy.rules[0].eps == 4 / 255
    assert [policy.least(rule) for rule in policy.rules] == [8, 20]


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"rules": [RULE, RULE | {"metrik": "x"}]}, "unknown key of rule 2 of the policy .* did you mean 'metric'"),
        ({"rules": [RULE | {"metric": "pixac"}]}, "rule 1 .*unknown metric 'pixac'; did you mean 'pixacc'"),
        ({"rules": [RULE | {"require": "low => 1"}]}, "rule 1 .*require is 'low => 1'; expected low, high or value"),
        ({"rules": [RULE | {"tier": "crucial"}]}, "tier is 'crucial'; expected critical or advisory"),
        ({"rules": [RULE | {"class": "road"}]}, "class is 'road', which does nothing here: it is for metric=dice or"),
        ({"rules": [RULE | {"radius": 0.1}]}, "radius is 0.1, which does nothing here"),
        ({"rules": [RULE | {"eps": "much"}]}, "eps is 'much'; expected a number"),
        ({"rules": [RULE | {"eps": -1}]}, "eps is -1; expected a number in"),
        (
            {"rules": [{"metric": "sanity", "require": "low >= 1"}]},
            "require is 'low >= 1'; expected no fail",
        ),
        ({"rules": [{"metric": "accuracy", "require": "low >= 1"}]}, "class is not given"),
        ({"rules": [{"metric": "pixacc"}]}, "rule 1 of .* has no require; expected both"),
        ({"rules": ["pixacc"]}, "rule 1 of .* is 'pixacc'; expected a mapping"),
        ({"rules": "pixacc"}, "rules of .* is 'pixacc'; expected a list"),
        ({"rules": []}, "has no rules"),
        ({"rules": [RULE, RULE]}, "has two rules 'pixacc of worst: low >= 0.5'; expected names that differ"),
        ({"rule": [RULE]}, "unknown key of the policy .* did you mean 'rules'"),
        ({"rules": [RULE], "min_images": 0}, "min_images is 0"),
        ([RULE], "is no mapping; expected rules"),
    ],
)
def test_what_is_no_policy_is_refused(tmp_path: Path, policy: Any, told: str):
    with pytest.raises(InputError, match=told):
        read_policy(written(tmp_path, policy))


HOSTILE = 'a]]></testcase><b> & "c" \'\x1b[31m\x00\ud800\u202e|`\n'


def test_a_suite_counts_its_children_and_obeys_no_name():
    cases = [
        Case("critical", HOSTILE, Verdict.BLOCK, HOSTILE),
        Case("critical", "few", Verdict.INCONCLUSIVE, "3 images"),
        Case("critical", "none", Verdict.INCONCLUSIVE, "missing", missing=True),
        Case("advisory", "warned", Verdict.WARN, "not kept"),
        Case("", "fine", Verdict.PASS, ""),
    ]
    root = ElementTree.fromstring(junit(HOSTILE, cases, dt.datetime(2026, 11, 29, tzinfo=dt.UTC)))
    (suite,) = root
    assert root.tag == "testsuites"
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "1"}
    assert suite.get("timestamp") == "2026-11-29T00:00:00"
    assert suite.find("properties/property").attrib == {"name": "verdict", "value": "BLOCK"}
    found = suite.findall("testcase")
    assert [[child.tag for child in case] for case in found] == [
        ["failure"],
        ["skipped"],
        ["error"],
        [],
        [],
    ]
    assert all(set(case.attrib) == {"classname", "name", "time"} for case in found)
    assert found[0].get("name").startswith('a]]></testcase><b> & "c" \'\\x1b[31m\\x00\\ud800')
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 5, "system-out", "system-err"]
    assert "\nWARN warned: not kept" in suite.find("system-out").text
    assert all({"type", "message"} == set(case[0].attrib) for case in (found[0], found[2]))
    assert set(suite.attrib) == {*counts, "name", "package", "id", "hostname", "timestamp", "time"}


def test_a_comment_has_room_for_so_much():
    parts = ["x" * (COMMENT // 2)] * 3 + ["the end"]
    found = comment("heading", parts)
    assert len(found) < 65_536
    assert found.startswith("## heading\n\nxxx")
    assert found.endswith("the end\n\n2 part(s) left out, as a comment has no room for them.\n")


INDEX = [{"name": "new", "results": []}]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", "---\nmodel-index:\n- name: new\n  results: []\n---\n"),
        ("# Title\n", "---\nmodel-index:\n- name: new\n  results: []\n---\n# Title\n"),
        (
            "---\nlicense: mit  # kept\nmodel-index:\n- name: old\n  results: []\ntags: [a]\n---\n# Title\n---\n",
            "---\nlicense: mit  # kept\ntags: [a]\nmodel-index:\n- name: new\n  results: []\n---\n# Title\n---\n",
        ),
        (
            "---\nmodel-index:\n- name: old\n  results: []\n---\nText",
            "---\nmodel-index:\n- name: new\n  results: []\n---\nText",
        ),
        (
            "---\r\nlicense: mit\r\n---\r\nA\r\n",
            "---\nlicense: mit\nmodel-index:\n- name: new\n  results: []\n---\nA\n",
        ),
    ],
)
def test_all_else_in_a_card_stays_as_it_is(card: str, expected: str):
    assert with_index(card, INDEX) == expected
    assert with_index(expected, INDEX) == expected


@pytest.mark.parametrize("front", ["- a\n- b", "a: [", "a: 1\na: 2"])
def test_a_card_that_begins_with_no_mapping_is_refused(front: str):
    with pytest.raises(InputError, match=re.compile("the card .*", re.S)):
        with_index(f"---\n{front}\n---\n", INDEX)
