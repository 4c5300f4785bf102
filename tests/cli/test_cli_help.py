"""The defaults that ``segradius attack --help`` tells are those of the attacks that are made."""

from __future__ import annotations

from typing import Any

import docstring_parser
import pytest

from segradius.attacks import ATTACKS, BLACK_BOX, Attack, attack_options, make_attack
from segradius.attacks.base import changed
from segradius.cli.attack import AttackOptions
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import CertifiedRadius, factors
from segradius.report.results import DEFAULT

NAMES = [*ATTACKS, *BLACK_BOX]
HELP = {
    param.arg_name: " ".join((param.description or "").split())
    for param in docstring_parser.parse(AttackOptions.__doc__ or "").params
}


def told(option: str) -> str:
    """What is said of the default."""
    return HELP[option].partition("Default: ")[2].removesuffix(".")


def made(name: str, **options: Any) -> Attack:
    facts = (ATTACKS if name.removeprefix("cr_") in ATTACKS else BLACK_BOX).facts(name.removeprefix("cr_"))
    return make_attack(name, norm=facts["norms"][0], **options)


def radii(attack: Attack) -> list[CertifiedRadius]:
    """The radii that an attack is guided by."""
    found: list[CertifiedRadius] = []

    def look(objective: Objective) -> Objective:
        found.extend(each for each in factors(objective.weighting) if isinstance(each, CertifiedRadius))
        return objective

    changed(attack.method, Objective, look)
    assert found
    return found


def by_value(values: dict[str, Any]) -> str:
    """As the help tells it: the value of most, and those of which it is another."""
    most = max(values.values(), key=list(values.values()).count)
    others: dict[Any, list[str]] = {}
    for name, value in values.items():
        if value != most:
            others.setdefault(value, []).append(name)
    return "; ".join([str(most), *(f"{value} for {' and '.join(names)}" for value, names in others.items())])


@pytest.mark.parametrize("option", ["samples", "sigma"])
def test_defaults_of_the_radius_are_those_of_every_guided_attack(option: str) -> None:
    values = {f"cr_{name}": {getattr(radius, option) for radius in radii(made(f"cr_{name}"))} for name in NAMES}
    assert all(len(each) == 1 for each in values.values())
    assert told(option) == by_value({name: each.pop() for name, each in values.items()})


@pytest.mark.parametrize("samples", [0, 1, 5, 8])
def test_the_interval_is_as_many_steps_as_samples_and_twice_that_without_gradients(samples: int) -> None:
    assert told("every") == "M for white-box attacks, 2M for black-box ones, 1 where M is 0"
    for name in set(NAMES) - {"ensemble"}:  # whose members may have radii of their own
        expected = max(samples, 1) if name in ATTACKS or samples == 0 else 2 * samples
        assert {radius.interval for radius in radii(made(f"cr_{name}", samples=samples))} == {expected}


def test_the_default_budgets_are_those_that_are_told() -> None:
    budgets = {guided + name: made(guided + name).total_steps for name in BLACK_BOX for guided in ("", "cr_")}
    own = {name for name, budget in budgets.items() if budget == 1000}
    paper = {guided + name for name in ("nes", "opge", "pbgd", "simba", "square", "zoo") for guided in ("", "cr_")}
    assert own == budgets.keys() - paper
    assert {name for name, budget in budgets.items() if budget == 37505} == {"cr_pbgd"}
    assert {budgets[name] for name in budgets.keys() - own - {"cr_pbgd"}} == {30001}
    assert told("queries") == (
        "the attack's own: 1000, or of the paper's attacks 30001 and of cr_pbgd 37505, which are its 15,000 rounds"
    )


@pytest.mark.parametrize("option", ["keep", "restarts", "judge_every"])
def test_defaults_that_are_the_same_for_all_are_told(option: str) -> None:
    defaults = {str(attack_options(name)[option].default) for name in NAMES if option in attack_options(name)}
    assert defaults == {told(option).partition(",")[0]}


@pytest.mark.parametrize(("norm", "steps"), [("l1", 50), ("l2", 50), ("linf", 20)])
def test_steps_of_the_papers_attacks_are_told(norm: str, steps: int) -> None:
    assert told("steps") == "the attack's own; the paper's 50 for l1 and l2, 20 for linf"
    assert make_attack("pgd", norm=norm).total_steps == make_attack("cr_pgd", norm=norm).total_steps == steps


def test_each_option_tells_one_default_and_attack_the_one_of_each_case() -> None:
    assert all(text.count("Default:") <= 1 for text in HELP.values())
    assert "Default:" not in HELP["attack"]
    for case in (",".join(DEFAULT), "with target local_pbgd,local_search", "with plan all that it has"):
        assert HELP["attack"].count(case) == 1
