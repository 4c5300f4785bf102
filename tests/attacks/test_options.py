"""Every option of every attack, loss, weighting, estimator: rubbish is refused in one line, or is no rubbish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest

import segradius as sr
from rubbish import Tally, feed_dataclass, is_one_line
from segradius.attacks import ATTACKS, BLACK_BOX, attack_options, make_attack
from segradius.core.declared import Eps, Range
from segradius.core.errors import InputError
from segradius.gradients.directions import DIRECTIONS
from segradius.gradients.estimator import ESTIMATORS
from segradius.gradients.sphere import Sphere
from segradius.objectives.losses import LOSSES
from segradius.objectives.weightings import WEIGHTINGS
from segradius.radius.clever import Ball

NAMES = [prefix + name for name in (*ATTACKS, *BLACK_BOX) for prefix in ("", "cr_")]
#: What must stand beside an option for it to mean something.
BESIDE: dict[str, dict[str, Any]] = {
    "memory": {"weighting": "still_correct"}, "momentum": {"step": "steepest"}, "samples_per_round": {"window": 33},
    "sigma": {"samples": 2}, "precision": {"samples": 2}, "clamp": {"samples": 2},
    "place": {"patch": 0.01},
}  # fmt: skip


def facts(name: str) -> Any:
    base = name.removeprefix("cr_")
    return (ATTACKS if base in ATTACKS else BLACK_BOX).facts(base)


def test_every_option_of_every_attack_takes_what_it_declares_and_refuses_the_rest(record_property: Callable[..., None]):
    tally, attacks = Tally(), 0
    for name in NAMES:
        attacks += 1
        norm = facts(name)["norms"][0]
        options = attack_options(name)
        for option, parameter in options.items():
            beside = {k: v for k, v in BESIDE.get(option, {}).items() if k in options}
            plain = make_attack(name, norm=norm, **beside)
            tally.feed(
                name,
                option,
                parameter.annotation,
                lambda value, name=name, norm=norm, beside=beside, option=option: make_attack(
                    name, norm=norm, **beside | {option: value}
                ),
                plain,
                parameter.default,
            )
    for name, norm in (("pgd", "l1"), ("cr_local_pbgd", "l2")):
        plain = make_attack(name, norm=norm)
        for option, kind, default in (("eps", Eps | str | None, None), ("projection", str, "euclidean")):
            tally.feed(
                name,
                option,
                kind,
                lambda value, name=name, norm=norm, option=option: make_attack(name, norm=norm, **{option: value}),
                plain,
                default,
            )
        tally.feed(
            name,
            "norm",
            str | Annotated[float, Range("[1, inf]")],
            lambda value, name=name: make_attack(name, norm=value),
            plain,
            norm,
        )
    record_property("options", str(tally))
    print(f"\n{attacks} attacks, {tally}")
    assert tally.wrong == []
    assert tally.found["refused"] > 10 * tally.found["accepted"] > 0


@pytest.mark.parametrize("registry", [LOSSES, WEIGHTINGS, ESTIMATORS, DIRECTIONS], ids=lambda r: r.kind)
def test_every_field_of_what_attacks_are_made_of_does_so_too(registry: Any, record_property: Callable[..., None]):
    tally = Tally()
    for name in registry:
        feed_dataclass(tally, registry[name])
    record_property("options", f"{registry.kind}: {tally}")
    print(f"\n{registry.kind}: {tally}")
    assert tally.wrong == []


@pytest.mark.parametrize(
    "part",
    [
        sr.attacks.Settings, sr.attacks.QuerySettings, sr.attacks.StepSize, sr.attacks.Momentum, sr.attacks.Apgd,
        sr.attacks.SparseApgd, sr.attacks.Averaged, sr.attacks.Ascent, sr.attacks.LocalSearch, sr.attacks.Simba,
        sr.attacks.Steepest, Sphere, Ball,
    ],
)  # fmt: skip
def test_every_field_of_a_part_that_is_composed_by_hand_does_so_too(part: type):
    tally = Tally()
    feed_dataclass(tally, part)
    assert tally.wrong == []


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("name", [n for n in ATTACKS if "sparse" in attack_options(n)])
def test_sparse_steps_are_for_l1_alone(name: str, norm: str) -> None:
    with pytest.raises(InputError, match=f"sparse is 0.2, which does nothing in {name}: it is for norm=l1"):
        make_attack(name, norm=norm, sparse=0.2)
    assert make_attack(name, norm="l1", sparse=0.2) != make_attack(name, norm="l1")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dag_alg3", {"norm": "linf", "first": "nope"}, "first is 'nope'; expected uniform or zero"),
        ("dag_alg3", {"norm": "linf", "steps": 0}, "steps is 0; expected a whole number in"),
        ("dag_alg3", {"norm": "linf", "alpha": 0}, "alpha is 0; expected a number in"),
        ("dag", {"steps": 0}, "steps is 0; expected a whole number in"),
        ("pgd", {"steps": 10**12}, "steps is 1000000000000; expected a whole number in"),
        ("cr_pgd", {"samples": 10**9}, "samples is 1000000000; expected a whole number in"),
        ("pgd", {"weighting": "cr(sigma=x)"}, "sigma is 'x'; expected a number in"),
        ("cr_pgd", {"weighting": "cr(a=3)"}, "cr_pgd is weighted by cr of itself"),
        ("cr_pgd", {"samples": 0, "sigma": 0.1}, "sigma is 0.1, which does nothing in cr_pgd: .* samples is 0"),
        ("pbgd", {"memory": 0.5}, "memory is 0.5, which does nothing in pbgd"),
        ("cr_pbgd", {"memory": 0.5}, "memory is 0.5, which does nothing in cr_pbgd"),
        ("pbgd", {"momentum": 0.5}, "momentum is 0.5, which does nothing in pbgd: it is for step=steepest"),
        ("ensemble", {"members": "pgd+apgd", "alpha": 0.1}, "apgd determines alpha by itself"),
        ("ensemble", {"members": "pgd+fgsm", "steps": 5}, "fgsm determines steps by itself"),
        ("ensemble", {"members": "pgd+pgd"}, "expected every member once"),
        ("ensemble", {"members": "pgd+pbgd"}, "pbgd cannot be a part of this attack"),
        ("pgd", {"eps": float("inf")}, "eps is inf, and the step length is a part of it"),
        ("pgd", {"eps": float("inf"), "alpha": 1.0, "start": "uniform"}, "eps is inf, and a uniform start"),
        ("apgd", {"eps": float("inf")}, "eps is inf, and the first step"),
        ("square", {"eps": float("inf")}, "eps is inf, and the size of a change"),
        ("pgd", {"eps": float("nan")}, "eps nan is not above zero"),
        ("pgd", {"steps": "5"}, "steps is '5'; expected a whole number in"),
        ("pgd", {"norm": 3}, "unknown norm '3'"),
        ("pgd", {"norm": True}, "unknown norm 'True'"),
    ],
)
def test_what_means_nothing_is_refused_in_words(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_attack(name, **options)
    assert is_one_line(str(caught.value))


def test_a_norm_may_be_written_as_numpy_and_torch_write_it() -> None:
    for norm, same in ((1, "l1"), (2, "l2"), (2.0, "l2"), (float("inf"), "linf"), ("inf", "linf"), ("L2", "l2")):
        assert sr.attacks.pgd(norm=norm) == sr.attacks.pgd(norm=same)
        assert sr.make_threat(norm) == sr.make_threat(same)


def test_options_of_a_guided_ensemble_reach_the_members_that_were_guided_before() -> None:
    attack = make_attack("cr_ensemble", samples=3, members=("pgd", "cr_pgd"))
    weights = {member.objective.weighting for member in attack.method.members.values()}  # type: ignore[attr-defined]
    assert {each.samples for each in weights} == {3}  # type: ignore[attr-defined]
