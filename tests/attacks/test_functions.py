"""Every attack as a function: the same attack as by name, with a signature and a docstring that say what it takes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import segradius as sr
from segradius.attacks import ATTACKS, BLACK_BOX, attack_options, make_attack
from segradius.core.errors import InputError
from segradius.threats import NORMS
from tiny import batch, network

NAMES = [*ATTACKS, *BLACK_BOX]
#: Values of the shared settings, one of which is not an attack's own.
SETTINGS: Mapping[str, Any] = {
    "steps": (7,), "alpha": (0.3,), "start": ("zero", "uniform"), "restarts": (2,), "keep": ("last",), "sparse": (0.5,),
    "queries": (400,), "judge_every": (3,), "memory": (0.5,), "marks": ((50,),),
}  # fmt: skip
OTHER: Mapping[str, Any] = {
    "eps": 0.2, "norm": "linf", "projection": "radial", "band_weights": "1,2,inf", "keep": "last", "queries": 400,
}  # fmt: skip


def registered(name: str) -> Mapping[str, Any]:
    return (ATTACKS if name in ATTACKS else BLACK_BOX).facts(name)


def others(name: str) -> dict[str, Any]:
    """Options that are not the defaults, as far as the attack takes them."""
    taken = inspect.signature(getattr(sr.attacks, name)).parameters
    return {option: value for option, value in OTHER.items() if option in taken} | {
        "norm": registered(name)["norms"][-1]
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_function_and_a_name_give_the_same_attack(name: str) -> None:
    make = getattr(sr.attacks, name)
    norm = registered(name)["norms"][0]
    assert make(norm=norm) == make_attack(name, norm=norm)
    assert make(**others(name)) == make_attack(name, **others(name)) != make(norm=norm)


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_says_what_the_attack_takes(name: str) -> None:
    make = getattr(sr.attacks, name)
    taken = inspect.signature(make).parameters
    assert set(taken) == {"norm", "eps", "projection", "band_weights", "lattice", *attack_options(name)}
    assert all(p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty for p in taken.values())
    for option, parameter in attack_options(name).items():
        assert taken[option].default == parameter.default
    assert all(f"\n    {option}: " in make.__doc__ for option in taken)
    assert "See the attack's options" not in make.__doc__
    assert make.__name__ == name
    assert name in dir(sr.attacks)


@pytest.mark.parametrize("name", NAMES)
def test_no_setting_is_taken_and_ignored(name: str) -> None:
    """What an attack does not look at it has to name in ``fixed``."""
    norm = registered(name)["norms"][0]
    taken = set(SETTINGS) & set(attack_options(name))
    for option in taken:
        beside = {"weighting": "still_correct"} if option == "memory" else {}  # which looks at the scores of all rounds
        plain = make_attack(name, norm=norm, **beside)
        found = [make_attack(name, norm=norm, **beside, **{option: value}) for value in SETTINGS[option]]
        assert any(attack != plain for attack in found), option


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_refused_in_norms_that_it_is_not_defined_for(name: str) -> None:
    for norm in set(NORMS) - set(registered(name)["norms"]):
        with pytest.raises(InputError, match=f"{name} is defined for .*, got {norm}"):
            make_attack(name, norm=norm)


def test_a_function_refuses_as_the_name_does() -> None:
    with pytest.raises(InputError, match="unknown option of pgd 'step'; did you mean 'steps'"):
        sr.attacks.pgd(step=3)
    with pytest.raises(InputError, match="fgsm determines steps by itself"):
        sr.attacks.fgsm(steps=3)


@pytest.mark.parametrize("name", ["pgd", "apgd", "local_pbgd", "fgsm", "sea"])
def test_any_attack_can_be_guided(name: str) -> None:
    make = getattr(sr.attacks, name)
    assert sr.attacks.guided(make()) == make_attack(f"cr_{name}")
    assert sr.attacks.guided(make(), samples=3, sigma=0.1) == make_attack(f"cr_{name}", samples=3, sigma=0.1)
    with pytest.raises(InputError, match="did you mean 'samples'"):
        sr.attacks.guided(make(), sample=3)


@pytest.mark.parametrize(
    "before",
    ["import segradius.attacks.pgd", "from segradius.attacks.loop import Iterative", "sr.attacks.pgd()", ""],
)
def test_a_function_is_not_hidden_by_the_file_that_it_is_in(before: str) -> None:
    code = (
        f"import segradius as sr\n{before}\nsr.attacks.pgd(steps=3); sr.attacks.square()\n"
        "import segradius.attacks.pgd, segradius.attacks.square\n"
        "from segradius.attacks.pgd import Steepest\n"
        "sr.attacks.pgd(steps=3); sr.attacks.square()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_attacks_are_found_without_being_listed_and_need_nothing_from_above() -> None:
    code = (
        "import sys, segradius.attacks as a\n"
        "above = ('certification', 'targets', 'models', 'evaluation', 'report', 'cli', 'training', 'data')\n"
        "assert not [m for m in sys.modules if m.startswith(tuple(f'segradius.{room}' for room in above))]\n"
        "try: a.no_such_attack\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_attack_of_another_package_is_a_function_too() -> None:
    @sr.attacks.white_box("their_attack", fixed=("sparse",))
    def their_attack(threat: Any, settings: Any, *, strength: float = 1.0) -> Any:
        """Theirs.

        Args:
            threat: Ball and box.
            settings: Shared settings.
            strength: How strong.
        """
        return settings.iterate(sr.objectives.Objective(), threat, sr.attacks.Steepest(settings.size("l2", strength)))

    try:
        assert sr.attacks.their_attack(strength=2.0) == make_attack("their_attack", strength=2.0)
        assert "strength: How strong." in (their_attack.__doc__ or "")
        assert sr.attacks.guided(their_attack()) == make_attack("cr_their_attack")
        with pytest.raises(InputError, match="determines sparse by itself"):
            their_attack(sparse=0.1)
    finally:
        for kept in (ATTACKS._things, ATTACKS._facts):
            kept.pop("their_attack")


def test_help_is_a_page_whose_examples_run() -> None:
    page = sr.__doc__ or ""
    blocks = [line[4:] for line in page.partition("Where to find what")[0].splitlines() if line.startswith("    ")]
    images, labels = batch(count=1, dtype=torch.float32)
    names: dict[str, Any] = {"my_network": network(dtype=torch.float32), "images": images, "labels": labels}
    exec("\n".join(blocks), names)
    assert names["result"].fooled.shape == (1,)
    assert names["guided"](sr.wrap(names["my_network"]), images, labels).valid.all()
    rooms = {line.split()[0].removeprefix("sr.") for line in page.splitlines() if line.startswith("    sr.")}
    assert all(room in dir(sr) for room in rooms)
