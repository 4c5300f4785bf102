"""Theorem 3, measured: bounds that hold, slopes in closed form, and regret on a network's loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.models.demo import demo
from segradius.paper.computed.regret import Regrets, regrets, settings
from segradius.paper.computed.spread import mean_of
from segradius.paper.computed.subject import Subject, compute, expected_passes


def test_regret_stays_below_its_bound_and_grows_as_the_root():
    for each in regrets([64, 256, 1024], seeds=4):
        worst = [max(values) / math.sqrt(T) for values, T in zip(each.regret, each.rounds, strict=True)]
        assert max(worst) <= each.bound
        assert 0.3 < each.slope[0] < 0.65


def test_the_slope_of_a_power_is_its_exponent():
    rounds = (64, 128, 512)
    powers = tuple((2 * T**0.5, 3 * T**0.7) for T in rounds)
    assert Regrets("", "", 1.0, rounds, powers).slope == pytest.approx((0.6, 0.1))


def test_the_settings_are_those_of_theorem_3_and_balance_its_proof():
    """With C = 1: αT G²/2 = D²/2α for the two that are derived; the letter is N times the step of its own proof."""
    found, n = settings(12), 12
    assert (found["letter"].alpha, found["letter"].gamma) == pytest.approx((12**0.5 / 2, 12**1.5 / 6))
    assert found["letter"].alpha == pytest.approx(n * found["norm"].alpha)
    for name, square in (("norm", n**2), ("moment", n**2 / (n - 1))):
        each, radius = found[name], math.sqrt(n) / 2
        assert each.alpha * square / 2 == pytest.approx(radius**2 / (2 * each.alpha))
        assert each.bound == pytest.approx(radius**2 / each.alpha + each.gamma)


def test_regret_as_a_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked, logits = [], sr.Segmenter.logits
    images = sr.open_data("scenes:16x24", limit=2)
    on = Subject("tiny", "demo", "plain", 0, "scenes", images, demo)
    options = {"first": 2, "last": 4, "seeds": 5, "network_rounds": [4, 16], "steps": 5, "eps": 3.0}
    monkeypatch.setattr(sr.Segmenter, "logits", lambda self, x: (asked.append(len(x)), logits(self, x))[1])
    found = compute("regret", [on], tmp_path, options)
    assert sum(asked) + 2 * 5 == expected_passes("regret", [on], options)  # the steps have a backward pass too
    assert [each["rounds"] for each in found["losses"]] == [[4, 16]] * 6
    for each in found["losses"]:
        means = [math.log(row[1] / row[0]) / math.log(4) for row in zip(*each["regret"], strict=True)]
        assert each["slope"]["value"] == pytest.approx(sum(means) / 5)
        assert each["slope"]["low"] < each["slope"]["value"] < each["slope"]["high"]
    (network,) = found["networks"]
    for few, many, best, clean in zip(*network["regret"], network["best"], network["clean"], strict=True):
        assert best > clean
        assert 0 < few < many
    assert compute("regret", [on], tmp_path, options) == found
    with pytest.raises(sr.InputError, match="first = 4, last = 4"):
        compute("regret", [], tmp_path, {"first": 4, "last": 4})


def test_a_mean_has_students_interval():
    values = [0.3, 0.1, 0.7, 0.2, 0.9, 0.4]
    found = mean_of(values)
    mean, spread = sum(values) / 6, torch.tensor(values).std().item()
    assert found["value"] == pytest.approx(mean)
    assert found["high"] - mean == pytest.approx(2.5706 * spread / math.sqrt(6), rel=1e-4)  # t of 5 degrees, 97.5 %
    assert math.isnan(mean_of([])["value"])
