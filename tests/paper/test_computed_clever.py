"""Section 6's CLEVER: passes and prices by hand, weights that are kept, and what guides an attack how well."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.metrics import Counts, interval, pooled_accuracy
from segradius.models.demo import demo
from segradius.objectives.goal import Goal
from segradius.paper.computed.clever_radii import Scores, Setting, first_budget, of_clever, prices, slopes, smoothing
from segradius.paper.computed.spread import gain_of, share_of
from segradius.paper.computed.subject import Subject, compute, expected_passes
from segradius.radius import Ball, clever_radius, exact_radius

SCENES = "scenes:24x32"


def test_the_first_budget_is_one_at_which_the_attack_succeeds():
    sample = sr.open_data(SCENES, limit=1)[0]
    images, labels = sample.image[None], sample.label[None]
    on = Setting(demo(), {}, 255, 1.5, 2, 1, 1, 1, 0)
    found = first_budget(on, images, labels, sample.id)
    assert set(found.unique().tolist()) <= {1.5 * 2.0**k for k in range(-4, 2)}
    least = sr.make_attack("pgd", norm="l2", eps=1.5 / 16, steps=2)(demo(), images, labels, ids=(sample.id,), seed=0)
    assert torch.equal(found == 1.5 / 16, least.prediction != labels)


def test_prices_by_hand():
    """Two images, |Y| = 5, K = 2: the paper's count is N_b·N_s·|Y|, ours 1 + 2·K·N_b·N_s; the default by the sample."""
    balls = {"CLEVER (4, 8)": Ball(1.0, 4, 8, 2), "CLEVER (4, 1)": Ball(1.0, 4, 1, 2)}
    passes = {"smoothing": 8, "CLEVER (4, 8)": 129, "CLEVER (4, 1)": 17}
    seconds = [dict(zip(passes, values, strict=True)) for values in ((1.0, 60.0, 9.0), (3.0, 68.0, 11.0))]
    found = prices([Scores("", 0, passes, each, {}, {}) for each in seconds], balls, classes=5)
    rows = {row["method"]: row for row in found}
    assert [row["times_paper"] for row in found] == [1, 50 * 1024 * 5 / 8, 4 * 8 * 5 / 8, 4 * 5 / 8]
    assert [row["passes"] for row in found] == [8, 1 + 4 * 51200, 129, 17]
    assert rows["CLEVER (4, 8)"]["times_seconds"] == 64 / 2
    assert rows["CLEVER (50, 1024)"]["seconds"] == 64 * 51200 / 32
    assert [row["extrapolated"] for row in found] == [False, True, False, False]


def test_the_radii_are_those_of_the_library_with_its_passes():
    sample = sr.open_data(SCENES, limit=1)[0]
    images, keys, ball = sample.image[None], Randomness(0, ("a",)), Ball(1.0, 3, 2, 2)
    goal = Goal.leave(sample.label[None], ignore_index=255)
    on = Setting(demo(), {}, 255, 1.5, 2, 4, 1, 1, 0)
    found, book = of_clever(on, ball, images, keys, goal), Ledger(1)
    radius = clever_radius(demo(), images, keys, ball, ledger=book).radius
    torch.testing.assert_close(found.radius, radius)
    assert found.passes == int(book.forward[0]) == 1 + 2 * 2 * 6
    mean = radius[goal.counted].mean()
    torch.testing.assert_close(found.weights, torch.sigmoid(-(2 * radius / (mean / 2) - 4)))
    assert smoothing(on, images, keys).passes == 8


def test_slopes_are_the_exact_radius_of_an_affine_network():
    torch.manual_seed(0)
    model, images = sr.wrap(torch.nn.Conv2d(3, 4, 3, padding=1)), torch.rand(1, 3, 6, 6)
    places = torch.tensor([0, 7, 20])
    found = slopes(Setting(model, {}, 255, 1.5, 2, 3, 1, 1, 0), images, places)
    torch.testing.assert_close(found, exact_radius(model, images).flatten()[places])


def test_shares_and_gains_are_those_of_metrics():
    right, pixels = [30, 50, 70, 20, 60], [80, 90, 80, 70, 85]
    known = interval(pooled_accuracy, Counts(*(torch.tensor(each)[:, None] for each in (right, pixels, pixels))))
    found = share_of(right, pixels)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((known.value, known.low, known.high))
    assert gain_of(right, right, pixels) == {"value": 0, "low": 0, "high": 0, "n": 5}
    assert gain_of([40, 40], [30, 10], [100, 100])["value"] == pytest.approx(0.2)


def test_clever_as_a_computation(tmp_path: Path):
    on = Subject("tiny-0", "tiny", "plain", 0, "scenes", sr.open_data("scenes:16x24", limit=3), demo)
    options = {"settings": [[3, 4], [3, 1]], "probes": 1, "steps": 2, "limit": 3, "dear_limit": 1, "eps": 1.0}
    found = compute("clever", [on], tmp_path, options)
    used = {row["guided_by"]: row["n"] for row in found["attacks"]}
    assert used == {
        "no attack": 3, "PGD": 3, "CR-PGD": 3, "smoothing": 3, "CLEVER (3, 4)": 1, "CLEVER (3, 1)": 3,
        "CLEVER (3, 1), refreshed": 3,
    }  # fmt: skip
    rows = {row["guided_by"]: row for row in found["attacks"]}
    assert rows["PGD"]["less_pgd"]["value"] == rows["CR-PGD"]["less_cr_pgd"]["value"] == 0
    gap = rows["CLEVER (3, 1)"]["pixacc"]["value"] - rows["PGD"]["pixacc"]["value"]
    assert rows["CLEVER (3, 1)"]["less_pgd"]["value"] == pytest.approx(gap)
    assert rows["no attack"]["pixacc"]["value"] > rows["PGD"]["pixacc"]["value"]
    model, right, pixels = demo(), 0, 0
    for k in range(3):
        sample = on.images[k]
        attack = sr.make_attack("pgd", norm="l2", eps=1.0, steps=2)
        result = attack(model, sample.image[None], sample.label[None], ids=(sample.id,))
        right += int((result.prediction == sample.label).sum())
        pixels += int((sample.label != 255).sum())
    assert rows["PGD"]["pixacc"]["value"] == pytest.approx(right / pixels)
    assert [row["passes"] for row in found["prices"]] == [8, 1 + 2 * 51200, 1 + 2 * 12, 1 + 2 * 3]
    radii, attack = 8 + 25 + 7, 2 * 2 + 1
    first = radii + 1 + 6 * attack + 8 + 7  # its attacks: PGD, CR-PGD, three that are guided, one refreshed
    rest = radii - 25 + 1 + 5 * attack + 8 + 7
    assert expected_passes("clever", [on], options) == first + 2 * rest
    assert compute("clever", [on], tmp_path, options) == found
