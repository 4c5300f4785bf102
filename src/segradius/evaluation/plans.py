"""From names, budgets and options to attacks that are fully spelt out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from segradius.attacks import attack_options, make_attack
from segradius.core.errors import InputError, unknown_name
from segradius.data import BadSampleError, SegmentationData
from segradius.evaluation.experiment import AttackPlan
from segradius.objectives.weightings import balanced_weights

SHARED = {"projection": "euclidean"}
"""Options that every attack takes, which are the threat's and no recipe's."""


def make_plans(
    names: Sequence[str], budgets: Sequence[tuple[str, float]], options: Mapping[str, Any] | None = None
) -> tuple[AttackPlan, ...]:
    """Every attack in every threat model, each with those of ``options`` that it takes, and its defaults for the rest.

    Args:
        names: Attacks.
        budgets: Pairs of norm and ε.
        options: Options by name, or by attack and name as in ``sea.steps``: for that attack and its ``cr_`` form alone,
            before those for all. None values are as if not given.

    Raises:
        InputError: For an unknown attack or norm, an option that none of the attacks takes, or a bad value.

    Example:
        >>> plain, guided = make_plans(["pgd", "cr_pgd"], [("l2", 1.5)], {"samples": 4, "steps": 10})
        >>> plain.options["steps"], guided.options["samples"], "samples" in plain.options
        (10, 4, False)
        >>> [plan.options["steps"] for plan in make_plans(["pgd", "sea"], [("l2", 1.5)], {"steps": 9, "sea.steps": 99})]
        [9, 99]
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    takes = {name: _defaults(name) for name in dict.fromkeys(names)}
    _check_taken(given, takes)
    plans = tuple(
        AttackPlan(name, norm, eps, known | _for_attack(name, given, known))
        for norm, eps in dict.fromkeys(budgets)
        for name, known in takes.items()
    )
    for plan in plans:
        make_attack(plan.name, norm=plan.norm, eps=plan.eps, **plan.options)
    return plans


def with_class_weights(plans: Sequence[AttackPlan], data: SegmentationData, num_classes: int) -> tuple[AttackPlan, ...]:
    """The plans with class-balancing weights counted in ``data``, where an attack takes them and has none yet.

    Args:
        plans: Attacks.
        data: The images; those that cannot be read count nowhere.
        num_classes: Classes of the model.
    """
    lacking = [plan for plan in plans if plan.options.get("class_weights", ()) is None]
    if not lacking:
        return tuple(plans)
    weights = balanced_weights(_class_pixels(data, num_classes))
    return tuple(
        replace(plan, options={**plan.options, "class_weights": weights}) if plan in lacking else plan for plan in plans
    )


def _check_taken(given: Mapping[str, Any], takes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `InputError` for an option that no attack takes."""
    for option in given:
        if not any(_for_attack(name, {option: 0}, known) for name, known in takes.items()):
            error = unknown_name("option", option, {known for each in takes.values() for known in each})
            raise InputError(f"none of the attacks {', '.join(takes)} takes {option!r}: {error}")


def _for_attack(name: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The given options that an attack takes; those for it alone go before those for all."""
    found = {option: value for option, value in given.items() if option in known}
    for prefix in dict.fromkeys((name.removeprefix("cr_"), name)):
        own = {option.removeprefix(f"{prefix}."): value for option, value in given.items()}
        found |= {o: v for o, v in own.items() if o in known and f"{prefix}.{o}" in given}
    return found


def _defaults(name: str) -> dict[str, Any]:
    """Options that an attack takes, with their defaults."""
    return SHARED | {o: p.default for o, p in attack_options(name).items() if p.default is not inspect.Parameter.empty}


def _class_pixels(data: SegmentationData, num_classes: int) -> torch.Tensor:
    """Labelled pixels of each class over the readable images; (num_classes,) int64."""
    total = torch.zeros(num_classes, dtype=torch.int64)
    for place in range(len(data)):
        try:
            label = data[place].label
        except BadSampleError:
            continue
        usable = label[(label != data.classes.ignore_index) & (label >= 0) & (label < num_classes)]
        total += torch.bincount(usable, minlength=num_classes)
    return total
