"""Contrasts of claims on rows made by hand, where what they have to find is known."""

from __future__ import annotations

import math
from itertools import product

import pytest
from scipy.stats import ttest_rel

from segradius.core.errors import InputError
from segradius.paper.contrasts import contrast
from segradius.paper.measured import Certified, Measured, Seen, Traced

IMAGES = "abcdefg"
SPREAD = dict(zip(IMAGES, (0, 3, -2, 1, -1, 4, -5), strict=True))
PAIRED = dict(zip(IMAGES, (1, 0, -1, 2, 0, -2, 0), strict=True))


def seen(attack, image, right, *, family="pspnet", role="plain", seed=0, norm="l2", eps=1.0, block="b", **more):
    network = f"{family}-{seed}" if role == "plain" else f"{role}-{family}-{seed}"
    own = {"options": {}, "labelled": 100, "classes": 4, "miou": right / 200, "reached": None, "eligible": None}
    own |= {"forward": 11, "backward": 10, "seconds": 0.5, **more}
    threat = (norm, eps) if attack else (None, None)
    of = {"block": block, "network": network, "family": family, "role": role, "seed": seed, "data": "camvid"}
    return Seen(**of, image=image, attack=attack, norm=threat[0], eps=threat[1], right=right, **own)


def two_attacks(**more):
    """PGD leaves 50 pixels of 100 and a spread, CR-PGD four fewer and a spread of the pair."""
    for image in IMAGES:
        yield seen("PGD", image, 50 + SPREAD[image], **more)
        yield seen("CR-PGD", image, 46 + SPREAD[image] + PAIRED[image], **more)


def found(name, measured, /, **given):
    whole = measured if isinstance(measured, Measured) else Measured(tuple(measured))
    return contrast(name, given)(whole)


PAIR = {"of": {"attack": "CR-PGD"}, "minus": {"attack": "PGD"}}


def test_a_difference_is_paired_over_images_whatever_their_order():
    (its,) = found("difference", sorted(two_attacks(), key=lambda row: row.right), **PAIR)
    theirs = ttest_rel([PAIRED[image] - 4.0 for image in IMAGES], [0.0] * 7).confidence_interval()
    assert (its.estimate.value, its.estimate.low, its.estimate.high) == pytest.approx((-4.0, *theirs))
    assert (its.estimate.images, its.estimate.seeds, its.unit) == (7, 1, "points")


def test_cells_are_those_that_both_sides_have():
    rows = [*two_attacks(norm="l2"), *two_attacks(norm="l1"), *(seen("PGD", image, 9, norm="linf") for image in IMAGES)]
    assert [its.cell for its in found("difference", rows, **PAIR, cells=["norm"])] == [{"norm": "l2"}, {"norm": "l1"}]
    assert found("difference", rows, of={"attack": "CR-PGD"}, minus={"attack": "SEA"}) == ()


def test_budgets_are_pooled_where_they_make_no_cells():
    rows = [*two_attacks(eps=1.0), *two_attacks(eps=2.0)]
    (both,), (one,) = found("difference", rows, **PAIR), found("difference", two_attacks(), **PAIR)
    assert (both.estimate.value, both.estimate.low) == pytest.approx((one.estimate.value, one.estimate.low))
    assert [its.cell for its in found("difference", rows, **PAIR, cells="eps")] == [{"eps": 1.0}, {"eps": 2.0}]


def test_an_image_that_one_side_lacks_or_that_is_invalid_has_no_part():
    rows = [row for row in two_attacks() if (row.image, row.attack) != ("a", "PGD")]
    rows = [seen("PGD", "b", 0, labelled=0) if (row.image, row.attack) == ("b", "PGD") else row for row in rows]
    (its,) = found("difference", rows, **PAIR)
    assert its.estimate.images == 5
    assert its.estimate.value == pytest.approx(sum(PAIRED[image] for image in "cdefg") / 5 - 4)


def test_a_drop_is_from_the_clean_images_which_have_no_threat():
    clean = [seen("", image, 90 + SPREAD[image]) for image in IMAGES]
    (its,) = found("difference", [*clean, *two_attacks()], of={"attack": "PGD"}, drop=True, cells="norm")
    assert (its.estimate.value, its.cell) == (pytest.approx(40.0), {"norm": "l2"})
    assert its.estimate.half == pytest.approx(0.0, abs=1e-9)
    (pair,) = found("difference", [*clean, *two_attacks()], **PAIR, drop=True)
    assert pair.estimate.value == pytest.approx(4.0)
    each = found("difference", [*clean, *two_attacks()], of={"attack": ["PGD", "CR-PGD"]}, drop=True, cells="attack")
    assert [(its.cell["attack"], its.estimate.value) for its in each] == [
        ("PGD", pytest.approx(40.0)), ("CR-PGD", pytest.approx(44.0)),
    ]  # fmt: skip


def test_growth_is_the_difference_of_the_ends_of_the_budgets():
    rows = [seen(attack, image, 60 - 10 * eps - (attack == "CR-PGD") * 2 * eps + SPREAD[image], eps=eps)
            for attack, image, eps in product(("PGD", "CR-PGD"), IMAGES, (1, 2, 5))]  # fmt: skip
    (its,) = found("difference", rows, **PAIR, growth=True)
    assert its.estimate.value == pytest.approx(-8.0)
    ends = found("difference", rows, of={"eps": "largest"}, minus={"eps": "smallest"}, cells="attack")
    assert [(each.cell["attack"], each.estimate.value) for each in ends] == [
        ("PGD", pytest.approx(-40.0)), ("CR-PGD", pytest.approx(-48.0)),
    ]  # fmt: skip


def test_a_defence_is_paired_with_the_network_of_its_seed_and_families_are_not():
    level = {0: 0, 1: 30, 2: -25}
    rows = [seen("PGD", image, 40 + level[seed] + SPREAD[image] + 5 * (role == "fast_adt"), role=role, seed=seed)
            for image, seed, role in product(IMAGES, level, ("plain", "fast_adt"))]  # fmt: skip
    (its,) = found("difference", rows, of={"role": "fast_adt"}, minus={"role": "plain"})
    assert (its.estimate.value, its.estimate.half, its.estimate.seeds) == pytest.approx((5.0, 0.0, 3), abs=1e-9)
    rows = [seen("PGD", image, 40 + level[seed] + SPREAD[image] + 5 * (family == "psanet"), family=family, seed=seed)
            for image, seed, family in product(IMAGES, level, ("pspnet", "psanet"))]  # fmt: skip
    (its,) = found("against", rows, one={"family": "pspnet"}, where={"attack": "PGD"})
    assert its.cell == {"family": "psanet"}
    assert its.estimate.value == pytest.approx(5.0)
    assert its.estimate.half > 30


def test_only_seeds_that_both_have_are_compared():
    rows = [row for seed in (0, 1) for row in two_attacks(role="plain", seed=seed)]
    rows += [row for seed in (1, 2) for row in two_attacks(role="fast_adt", seed=seed)]
    (its,) = found("difference", rows, of={"role": "fast_adt"}, minus={"role": "plain"}, where={"attack": "PGD"})
    assert (its.estimate.value, its.estimate.seeds) == (pytest.approx(0.0), 1)


def test_two_networks_of_one_family_and_seed_are_refused():
    rows = [*two_attacks(role="fast_adt"), *two_attacks(role="plain")]
    with pytest.raises(InputError, match="fast_adt-pspnet-0 and pspnet-0 for one network"):
        found("difference", rows, **PAIR)


def test_values_of_sweeps_are_compared_with_one_of_them():
    rows = [seen("CR-PGD", image, 50 + SPREAD[image] + abs(samples - 8), options={"samples": samples})
            for image, samples in product(IMAGES, (2, 8, 16))]  # fmt: skip
    cells = found("against", rows, one={"samples": 8}, where={"attack": "CR-PGD"})
    assert [(each.cell["samples"], each.estimate.value) for each in cells] == [
        (2, pytest.approx(6.0)), (16, pytest.approx(8.0)),
    ]  # fmt: skip
    (few,) = found("against", rows, one={"samples": 8}, where={"attack": "CR-PGD"}, most={"samples": 4})
    assert few.cell == {"samples": 2}
    (none,) = found("against", rows, one={"samples": 4}, where={"attack": "CR-PGD"})
    assert (none.estimate.known, none.estimate.reason) == (False, "samples 4 is not among the values")


def test_measures_are_pixels_classes_aims_passes_and_seconds():
    rows = [seen("A", image, 10 * k, classes=k + 1, miou=0.1 * k, reached=3 * k, eligible=30, forward=2 * k, seconds=k)
            for k, image in enumerate(IMAGES)]  # fmt: skip
    for measure, expected in (
        ("accuracy", 30.0),
        ("miou", 100 * sum(0.1 * k * (k + 1) for k in range(7)) / sum(range(1, 8))),
        ("reached", 30.0),
        ("passes", 16.0),
        ("seconds", 3.0),
    ):
        (its,) = found("difference", rows, of={"attack": "A"}, measure=measure)
        assert its.estimate.value == pytest.approx(expected), measure
    assert found("difference", two_attacks(), of={"attack": "PGD"}, measure="reached")[0].estimate.images == 0
    with pytest.raises(InputError, match="accuracy or miou"):
        found("difference", rows, of={"attack": "A"}, measure="dice")


def test_a_ratio_of_passes():
    rows = [seen(attack, image, 0, forward=k * (1 + (attack == "CR-PGD")), backward=0)
            for attack, (k, image) in product(("PGD", "CR-PGD"), enumerate(IMAGES, 3))]  # fmt: skip
    (its,) = found("ratio", rows, of={"attack": "CR-PGD"}, to={"attack": "PGD"}, measure="passes")
    assert (its.estimate.value, its.estimate.low, its.estimate.high) == pytest.approx((2.0, 2.0, 2.0))
    assert its.unit == "times"


def traced(attack, image, losses, accuracies):
    of = ("b", "pspnet-0", "pspnet", "plain", 0, "camvid", image, attack, {}, "l2", 10.0)
    points = zip(losses, accuracies, strict=True)
    return [Traced(*of, 2 * k, loss, accuracy, math.nan) for k, (loss, accuracy) in enumerate(points, 1)]


def test_traces_tell_how_often_the_loss_falls_and_the_area_under_the_accuracy():
    up, down = ((1, 2, 3, 4), (0.9, 0.8, 0.6, 0.5)), ((1, 0, 3, 2), (0.9, 0.9, 0.9, 0.5))
    rows = [row for image in IMAGES for name, it in (("TPGE", up), ("OPGE", down)) for row in traced(name, image, *it)]
    whole = Measured(traced=tuple(rows))
    for measure, expected in (("falls", 200 / 3), ("loss", -2.0), ("gained", 0.0), ("curve", 100 * (0.9 - 2.3 / 3))):
        (its,) = found("difference", whole, of={"attack": "OPGE"}, minus={"attack": "TPGE"}, measure=measure)
        assert its.estimate.value == pytest.approx(expected), measure


def test_certificates_are_rows_too():
    of, options = ("b", "gaussian-0", "pspnet", "gaussian", 0, "camvid"), {"sigma": 0.25}
    rights = product(IMAGES, {"base": 80, "certified": 60}.items())
    rows = tuple(Certified(*of, image, options, answer, right, 100, 0, 50) for image, (answer, right) in rights)
    where = {"of": {"answer": "certified"}, "minus": {"answer": "base"}}
    (its,) = found("difference", Measured(certified=rows), **where, measure="certified")
    assert its.estimate.value == pytest.approx(-20.0)


def test_computed_figures_have_the_intervals_that_they_were_given():
    rows = [{"label": label, "d": {"r": {"value": mean, "low": mean - 1, "high": mean + 1, "n": 10}}, "x": 2.0}
            for label, mean in (("a", -3.0), ("b", 4.0))]  # fmt: skip
    whole = Measured(computed={"allocation": {"rows": rows}})
    given = {"block": "allocation", "rows": "rows", "value": "d.r", "cells": "label"}
    one, two = found("computed", whole, **given)
    assert (one.cell, one.estimate.low, one.estimate.images, two.estimate.high) == ({"label": "a"}, -4.0, 10, 5.0)
    (one,) = found("computed", whole, **given, only={"label": "b"}, scale=100)
    assert one.estimate.value == 400.0
    (one, _) = found("computed", whole, block="allocation", rows="rows", value="x")
    assert (one.estimate.known, one.estimate.reason) == (False, "no interval")
    (one, _) = found("computed", whole, block="allocation", rows="rows", value="x", exact=True, networks=1)
    assert (one.estimate.low, one.estimate.high, one.estimate.seeds) == (2.0, 2.0, 1)
    pair = Measured(computed={"estimators": {"scale": [1.02, 0.01]}})
    (one,) = found("computed", pair, block="estimators", value="scale.0", error="scale.1")
    assert (one.estimate.low, one.estimate.high) == pytest.approx((1.02 - 0.0196, 1.02 + 0.0196), abs=1e-6)
    assert found("computed", whole, block="regret", value="x") == ()
    with pytest.raises(InputError, match="no 'y' of y"):
        found("computed", whole, block="allocation", value="y")


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="did you mean 'minus'"):
        contrast("difference", {"of": {}, "minu": {}})
    with pytest.raises(InputError, match="did you mean 'difference'"):
        contrast("diference", {})
    with pytest.raises(InputError, match="expected a mapping such as"):
        found("difference", two_attacks(), of="PGD")
