"""``segradius attack --plan``: the same attack with other options, under labels, beside one another in one report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segradius.cli import main
from segradius.cli.attack import AttackOptions

GIVEN = ("--model", "demo", "--data", "scenes:24x32", "--limit", "2", "--figures", "0")
ATTACKS = {
    "short": {"attack": "pgd", "steps": 2},
    "long": {"attack": "pgd", "steps": 4, "alpha": "1/4"},
    "pbgd": {"attack": "pbgd", "queries": 10},
    "local": {"attack": "local_pbgd", "directions": "dct:1/16"},
}


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"norm": "l2", "eps": 1.5, "attacks": ATTACKS}, sort_keys=False))
    return str(path)


def attack(folder: Path, *words: str) -> int:
    return main(["attack", *GIVEN, "--out", str(folder), *words])


def lines(folder: Path, label: str) -> list[dict[str, str]]:
    with (folder / "per_image.csv").open(newline="") as file:
        return [dict(line, attack="") for line in csv.DictReader(file) if line["attack"] == label]


def results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def test_a_variant_has_the_numbers_of_its_attack_alone_and_its_label_everywhere(plan: str, tmp_path: Path):
    assert attack(tmp_path / "all", "--plan", plan, "--queries", "20") == 0
    single = ("--attack", "pgd", "--eps", "l2=1.5", "--steps", "4", "--alpha", "0.25")
    assert attack(tmp_path / "one", *single) == 0
    assert lines(tmp_path / "all", "long") == lines(tmp_path / "one", "pgd") != []
    report = results(tmp_path / "all")
    assert [row["name"] for row in report["rows"]] == ["clean", *ATTACKS, "worst of 4"]
    assert {each["attack"] for each in report["paired_differences"]} == {"short", "long", "local"}  # against pbgd
    assert "| long | l2 |" in (tmp_path / "all" / "table.md").read_text()
    with (tmp_path / "all" / "trace.csv").open(newline="") as file:
        assert {line["attack"] for line in csv.DictReader(file)} == {"pbgd", "local"}
    assert (tmp_path / "all" / "curve.png").exists()


def test_variants_are_added_to_a_folder_and_may_be_named_anew(plan: str, tmp_path: Path):
    folder = tmp_path / "out"
    assert attack(folder, "--plan", plan, "--attack", "short") == 0
    before = lines(folder, "short")
    renamed = {"brief": ATTACKS["short"], "long": ATTACKS["long"]}
    Path(plan).write_text(yaml.safe_dump({"norm": "l2", "eps": 1.5, "attacks": renamed}, sort_keys=False))
    assert attack(folder, "--plan", plan) == 0
    assert lines(folder, "brief") == before
    assert [row["name"] for row in results(folder)["rows"]] == ["clean", "brief", "long", "worst of 2"]


def options(**given: Any) -> dict[str, tuple[Any, ...]]:
    plans = AttackOptions(**given).plans("pgd")
    return {plan.label: (plan.norm, plan.eps, plan.options.get("steps"), plan.options.get("queries")) for plan in plans}


def test_the_plan_goes_before_flags_for_all_and_a_label_before_the_plan(plan: str):
    found = options(plan=plan, steps=9, queries=50, options="short.steps=3")
    assert found == {
        "short": ("l2", 1.5, 3, None),
        "long": ("l2", 1.5, 4, None),
        "pbgd": ("l2", 1.5, None, 10),
        "local": ("l2", 1.5, None, 50),
    }


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        ({}, ("l2", 1.5)),
        ({"eps": "3"}, ("l2", 3.0)),
        ({"eps": "linf=0.1"}, ("linf", 0.1)),
        ({"norm": "linf"}, ("linf", 0.006)),
    ],
)
def test_budgets_of_the_command_line_go_before_those_of_the_plan(plan: str, given: dict[str, str], budget: Any):
    assert options(plan=plan, attack="long", **given)["long"][:2] == budget


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[", "no valid YAML"),
        ("{}", "expected attacks: {LABEL: {attack: NAME, OPTION: VALUE}}"),
        ("{epss: 1, attacks: {a: {attack: pgd}}}", "'epss'; did you mean 'eps'"),
        ("attacks: {a: pgd}", "a is 'pgd'; expected {attack: NAME, OPTION: VALUE}"),
        ("attacks: {a: {attack: pgd, step: 3}}", "unknown option of a 'step'; did you mean 'steps'"),
        ("attacks: {a: {attack: pgd}, b: {attack: pgd}}", "a and b are the same attack with the same options"),
    ],
)
def test_a_plan_that_cannot_be_run_is_told(content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "plan.yaml"
    path.write_text(content)
    assert attack(tmp_path / "out", "--plan", str(path)) == 2
    assert told in capsys.readouterr().err


def test_a_label_that_is_not_in_the_plan_is_told_with_the_nearest(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert attack(tmp_path / "out", "--plan", plan, "--attack", "shrt") == 2
    assert "did you mean 'short'" in capsys.readouterr().err


def test_a_network_of_another_type_is_another_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ("--attack", "fgsm", "--eps", "l2=1.5")
    assert attack(tmp_path, *given) == attack(tmp_path, *given, "--dtype", "bfloat16", "--overwrite") == 0
    assert results(tmp_path)["experiment"]["model"]["dtype"] == "bfloat16"
    assert attack(tmp_path, *given) == 2
    assert "model.dtype is null" in capsys.readouterr().err
    assert main(["attack", "--target", "demo", *GIVEN[2:], "--dtype", "bfloat16"]) == 2
    assert "dtype is for --model" in capsys.readouterr().err
