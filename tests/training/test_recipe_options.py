"""Every option of a recipe, a defence and a certificate: rubbish is refused in one line, or is no rubbish."""

from __future__ import annotations

from typing import Any

import pytest

from rubbish import Tally, feed_dataclass
from segradius.certification import Noise, PixelRadii, Sampling, SegCertify
from segradius.evaluation import CrossChecking, Smoothing
from segradius.training import SCHEDULES, Augmentation, Engine, Ohem, Optimiser, Recipe, SegmentationLoss, WeightAverage
from segradius.training.adversaries import ADVERSARIES, GaussianNoise, make_adversary
from segradius.training.watch import Watch

KINDS = [
    *(SCHEDULES[name] for name in SCHEDULES), Optimiser, Recipe, Augmentation, Ohem, SegmentationLoss, WeightAverage,
    GaussianNoise, Engine, Watch, Noise, SegCertify, PixelRadii, Smoothing,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_field_takes_what_it_declares_and_refuses_the_rest(kind: Any) -> None:
    tally = Tally()
    feed_dataclass(tally, kind)
    print(f"\n{kind.__name__}: {tally}")
    assert tally.wrong == []


@pytest.mark.parametrize(("kind", "given"), [(Sampling, {"noise": Noise(0.1)}), (CrossChecking, {"attacks": ("pgd",)})])
def test_a_field_beside_others_does_so_too(kind: Any, given: dict[str, Any]) -> None:
    tally = Tally()
    feed_dataclass(tally, kind, **given)
    assert tally.wrong == []


def test_every_option_of_a_defence_does_so_too() -> None:
    tally = Tally()
    for name, options in {
        "gaussian": {"sigma": float, "sigma_max": float | None, "clamp": bool},
        "pgd_at": {"steps": int},
        "cr_fast_adt": {"samples": int, "a": float},
    }.items():
        plain = make_adversary(name)
        for option, kind in options.items():
            default = {"sigma": 0.25, "sigma_max": None, "clamp": False, "steps": 3, "samples": 8, "a": 2.0}[option]
            build = lambda value, name=name, option=option: make_adversary(name, **{option: value})  # noqa: E731
            tally.feed(name, option, kind, build, plain, default)
    print(f"\ndefences: {tally}")
    assert tally.wrong == []
    assert set(ADVERSARIES) >= {"gaussian", "pgd_at", "cr_fast_adt"}
