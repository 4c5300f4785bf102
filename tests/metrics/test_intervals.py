"""Intervals against scipy's Student interval, a plain jackknife and simulation; p-values against all sign patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit

from segradius.core.errors import InputError
from segradius.metrics.counts import Counts, count
from segradius.metrics.intervals import LEAST, interval, jackknife, paired_difference, student
from segradius.metrics.statistics import Statistic, accuracy_image, miou, miou_image, pooled_accuracy

VOID = 255
EVERY = [pooled_accuracy, accuracy_image, miou, miou_image]


def draw(seed, images=7, classes=4, right=0.5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=(images, 5, 6))
    prediction = np.where(rng.random(labels.shape) < right, labels, rng.integers(classes, size=labels.shape))
    labels = np.where(rng.random(labels.shape) < 0.2, VOID, labels)
    return count(torch.tensor(prediction), torch.tensor(labels), classes)


def of_shares(shares, size=1000):
    """Counts of images of one size with these shares of right pixels."""
    right = torch.tensor([[round(size * share)] for share in shares])
    whole = torch.full_like(right, size)
    return Counts(right, whole, whole)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([0.5, 0.9, 0.99]))
def test_of_a_mean_it_is_students_interval(seed, n, level):
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=n))
    found = jackknife(
        torch.stack([values, torch.ones(n)], 1),
        lambda sums: sums[..., 0] / sums[..., 1],
        level=level,
        least=2,
        shares=False,
    )
    mean, error = float(values.mean()), stats.sem(values.numpy())
    assert (found.low, found.high) == pytest.approx(stats.t.interval(level, n - 1, mean, error))


@pytest.mark.parametrize("statistic", EVERY, ids=lambda s: s.name)
@pytest.mark.parametrize("images", [5, 9])
def test_of_a_share_it_is_the_jackknife_on_the_logit_scale(statistic: Statistic, images):
    counts = draw(images, images)
    without = [logit(statistic(counts.select([k for k in range(images) if k != left]))) for left in range(images)]
    error = math.sqrt((images - 1) / images * sum((each - np.mean(without)) ** 2 for each in without))
    reach = stats.t.ppf(0.975, images - 1) * error
    middle = logit(statistic(counts))
    for found in (interval(statistic, counts), interval(lambda counts: statistic(counts), counts)):
        assert found.value == pytest.approx(statistic(counts))
        assert (found.low, found.high) == pytest.approx((expit(middle - reach), expit(middle + reach)))


@pytest.mark.parametrize("statistic", EVERY, ids=lambda s: s.name)
def test_an_image_without_a_part_in_the_value_changes_nothing(statistic: Statistic):
    counts = draw(3)
    void = count(torch.zeros(2, 5, 6, dtype=torch.int64), torch.full((2, 5, 6), VOID), 4)
    found, more = interval(statistic, counts), interval(statistic, Counts.joined([counts, void]))
    assert (more.value, more.low, more.high) == pytest.approx((found.value, found.low, found.high))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.8, 0.95]))
def test_a_share_lies_in_its_interval_and_that_in_0_and_1(shares, level):
    found = interval(pooled_accuracy, of_shares(shares), level=level)
    assert math.isnan(found.low) == math.isnan(found.high) == (len(shares) < LEAST)
    if len(shares) >= LEAST:
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9 <= 1 + 1e-9
        wide = interval(pooled_accuracy, of_shares(shares), level=0.999)
        assert wide.low <= found.low + 1e-12
        assert found.high <= wide.high + 1e-12


@pytest.mark.parametrize("images", [5, 8, 24, 50])
def test_where_every_image_is_lost_the_far_end_is_exact(images):
    # A population of which a share q of images is not lost at all has n lost ones with probability (1 − q)ⁿ.
    lost = interval(pooled_accuracy, of_shares([0.0] * images))
    assert (lost.value, lost.low) == (0, 0)
    assert (1 - lost.high) ** images == pytest.approx(0.05)
    whole = interval(pooled_accuracy, of_shares([1.0] * images))
    assert (whole.low, whole.high) == pytest.approx((1 - lost.high, 1.0))


@pytest.mark.parametrize("images", range(1, LEAST))
def test_of_few_images_there_is_a_value_and_no_interval(images):
    found = interval(pooled_accuracy, of_shares([0.25] * images))
    assert found.value == 0.25
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    gap = paired_difference([0.5] * images, [0.25] * images)
    assert (gap.mean, gap.p_value) == (0.25, 2 * 0.5**images)
    assert math.isnan(gap.low)


def test_nothing_has_no_value():
    for statistic in EVERY:
        found = interval(statistic, draw(0).select([]))
        assert math.isnan(found.value)
        assert math.isnan(found.low)


@pytest.mark.parametrize("images", [5, 6, 10, 24])
@pytest.mark.parametrize(("a", "b"), [(18, 3), (5, 5), (1, 8)])
def test_95_of_100_intervals_hold_the_truth(images, a, b):
    # studies/interval_coverage.py does it at length; 20,000 sets: a standard error of 0.15 %.
    drawn = torch.from_numpy(np.random.default_rng(0).beta(a, b, (images, 20_000)))
    mean = drawn.mean(0)
    low, high = student(mean, (mean * images - drawn) / (images - 1))
    held = ((low <= a / (a + b)) & (high >= a / (a + b))).double().mean()
    assert 0.935 <= held <= 0.96


def test_paired_difference_of_equal_and_of_separated_values():
    same = paired_difference([0.3, 0.4, 0.5] * 2, [0.3, 0.4, 0.5] * 2)
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    # All n differences have one sign: of 2ⁿ sign patterns exactly two reach the observed mean.
    gaps = torch.linspace(0.1, 0.2, 8)
    found = paired_difference(-gaps, torch.zeros(8))
    assert found.p_value == 2 / 2**8
    assert paired_difference(-gaps, torch.zeros(8), flips=255).p_value == pytest.approx(2 / 2**8, abs=0.02)
    assert found.mean == pytest.approx(-0.15)
    assert -0.2 < found.low < found.mean < found.high < -0.1


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_the_p_value_of_few_pairs_is_that_of_all_sign_patterns(seed, n):
    gaps = np.random.default_rng(seed).normal(size=n)
    expected = stats.permutation_test(
        (gaps, np.zeros(n)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True
    )
    assert paired_difference(gaps.tolist(), [0.0] * n).p_value == pytest.approx(expected.pvalue)


def test_paired_difference_is_antisymmetric_and_drops_nan_pairs():
    rng = np.random.default_rng(0)
    a, b = torch.tensor(rng.random((2, 30)))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert there.p_value == back.p_value
    holed = torch.cat([a, torch.tensor([math.nan, 0.5])]), torch.cat([b, torch.tensor([0.5, math.nan])])
    found = paired_difference(*holed)
    assert (found.mean, found.p_value, found.dropped) == (there.mean, there.p_value, 2)
    assert math.isnan(paired_difference([math.nan], [1.0]).mean)
    with pytest.raises(InputError, match="expected"):
        paired_difference([1.0], [1.0, 2.0])


def test_p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(3)
    p = [paired_difference(rng.normal(size=12), np.zeros(12), flips=200).p_value for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)
