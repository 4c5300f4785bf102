"""Counts and metrics against an independent confusion matrix, torchmetrics, closed forms and exhaustive search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from segradius.core.errors import InputError
from segradius.metrics.counts import Counts, count
from segradius.metrics.statistics import (
    Statistic,
    accuracy_image,
    bootstrap,
    class_iou,
    interval,
    miou,
    miou_image,
    paired_difference,
    pixel_accuracy,
    pooled_accuracy,
    resampled,
    success,
    worst_accuracy,
    worst_miou,
)

VOID = 255


def draw(seed, images=3, classes=4, absent=(), void=0.2, right=0.5):
    """Labels with void pixels and predictions that are partly right."""
    rng = np.random.default_rng(seed)
    known = [c for c in range(classes) if c not in absent]
    labels = rng.choice(known, (images, 5, 6))
    prediction = np.where(rng.random(labels.shape) < right, labels, rng.choice(known, labels.shape))
    labels = np.where(rng.random(labels.shape) < void, VOID, labels)
    return torch.tensor(prediction), torch.tensor(labels)


def confusion(prediction, labels, classes):
    """The confusion matrix of each image, pixel by pixel."""
    matrix = np.zeros((len(labels), classes, classes), dtype=int)
    for n, y, x in np.ndindex(*labels.shape):
        if labels[n, y, x] != VOID:
            matrix[n, labels[n, y, x], prediction[n, y, x]] += 1
    return matrix


def ious(matrix):
    """IoU of each class that occurs."""
    both, either = np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return [b / e for b, e in zip(both, either, strict=True) if e]


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_the_confusion_matrix(seed):
    prediction, labels = draw(seed, absent=(2,))
    labels[1] = VOID
    matrix = confusion(prediction.numpy(), labels.numpy(), 4)
    counts = count(prediction, labels, 4)
    np.testing.assert_array_equal(counts.intersection, [np.diag(m) for m in matrix])
    np.testing.assert_array_equal(counts.predicted, matrix.sum(1))
    np.testing.assert_array_equal(counts.labelled, matrix.sum(2))
    accuracies = [np.trace(m) / m.sum() for m in matrix if m.sum()]
    np.testing.assert_allclose(pixel_accuracy(counts)[[0, 2]], accuracies)
    assert math.isnan(pixel_accuracy(counts)[1])
    assert pooled_accuracy(counts) == pytest.approx(np.trace(matrix.sum(0)) / matrix.sum())
    assert accuracy_image(counts) == pytest.approx(np.mean(accuracies))
    np.testing.assert_allclose(class_iou(counts)[[0, 1, 3]], ious(matrix.sum(0)))
    assert math.isnan(class_iou(counts)[2])
    assert miou(counts) == pytest.approx(np.mean(ious(matrix.sum(0))))
    assert miou_image(counts) == pytest.approx(np.mean([iou for m in matrix for iou in ious(m)]))


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_torchmetrics(seed):
    prediction, labels = draw(seed, classes=5)
    counts = count(prediction, labels, 5)
    each = multiclass_jaccard_index(prediction, labels, 5, average="none", ignore_index=VOID)
    torch.testing.assert_close(class_iou(counts).float(), each)
    assert miou(counts) == pytest.approx(float(each.mean()), rel=1e-6)
    micro = multiclass_accuracy(prediction, labels, 5, average="micro", ignore_index=VOID)
    assert pooled_accuracy(counts) == pytest.approx(float(micro), rel=1e-6)


def test_the_three_means_differ_as_defined():
    # Image 0: 4 pixels, all right, class 0. Image 1: 2 pixels of class 1, one predicted as 0, and 2 void ones.
    labels = torch.tensor([[[0, 0, 0, 0]], [[1, 1, VOID, VOID]]])
    prediction = torch.tensor([[[0, 0, 0, 0]], [[1, 0, 0, 0]]])
    counts = count(prediction, labels, 3)
    assert pooled_accuracy(counts) == pytest.approx(5 / 6)
    assert accuracy_image(counts) == pytest.approx(3 / 4)
    assert miou(counts) == pytest.approx((4 / 5 + 1 / 2) / 2)
    assert miou_image(counts) == pytest.approx((1 + 0 + 1 / 2) / 3)


def test_nothing_labelled_has_no_value():
    counts = count(torch.zeros(2, 1, 3, dtype=torch.int64), torch.full((2, 1, 3), VOID), 2)
    for statistic in (pooled_accuracy, accuracy_image, miou, miou_image):
        assert math.isnan(statistic(counts))
        assert math.isnan(interval(statistic, counts).low)
        assert math.isnan(interval(statistic, counts.select([])).value)


@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_counts_add_over_splits(seed, split):
    prediction, labels = draw(seed, images=4)
    whole = count(prediction, labels, 4)
    parts = [count(prediction[:split], labels[:split], 4), count(prediction[split:], labels[split:], 4)]
    joined = Counts.joined(parts)
    assert len(joined) == len(whole) == 4
    halves = [count(prediction[..., :2], labels[..., :2], 4), count(prediction[..., 2:], labels[..., 2:], 4)]
    for name in ("intersection", "predicted", "labelled", "union"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
        assert torch.equal(getattr(whole.select([3, 0]), name), getattr(whole, name)[[3, 0]])
        assert torch.equal(sum(getattr(half, name) for half in halves), getattr(whole, name))


def test_ignored_pixels_do_not_count_whatever_the_index():
    prediction, labels = draw(0, void=0.3)
    counts = count(prediction, labels, 4)
    prediction[labels == VOID] = 3
    same = count(prediction, labels.where(labels != VOID, -1), 4, ignore_index=-1)
    for name in ("intersection", "predicted", "labelled"):
        assert torch.equal(getattr(counts, name), getattr(same, name))
    without_zero = count(prediction, labels.where(labels != VOID, 0), 4, ignore_index=0)
    assert without_zero.labelled[:, 0].tolist() == [0, 0, 0]


def test_count_refuses_what_it_cannot_count():
    ones = torch.ones(2, 1, 2, dtype=torch.int64)
    with pytest.raises(InputError, match="prediction of image 1 holds class 4; expected classes from 0 to 1"):
        count(torch.tensor([[[0, 1]], [[4, 0]]]), ones, 2)
    with pytest.raises(InputError, match="label of image 0 holds class -1"):
        count(ones, torch.tensor([[[-1, 1]], [[1, 255]]]), 2)
    with pytest.raises(InputError, match="shape"):
        count(ones, ones[:1], 2)
    with pytest.raises(InputError, match="float32"):
        count(ones.float(), ones, 2)


def test_interval_of_a_mean_is_the_normal_one():
    # Images of one size: pooled accuracy is a mean of independent values, so the central limit theorem gives the ends.
    prediction, labels = draw(1, images=400, void=0)
    counts = count(prediction, labels, 4)
    values = pixel_accuracy(counts)
    error = 1.96 * float(values.std(correction=0)) / 20
    found = interval(pooled_accuracy, counts)
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + error, abs=0.1 * error)
    wide = interval(pooled_accuracy, counts, level=0.99)
    assert wide.low < found.low < found.high < wide.high


@pytest.mark.parametrize("statistic", [pooled_accuracy, accuracy_image, miou, miou_image], ids=lambda s: s.name)
def test_resampling_by_sums_equals_resampling_by_images(statistic: Statistic):
    prediction, labels = draw(2, images=7, absent=(3,))
    labels[4] = VOID
    counts = count(prediction, labels, 4)
    fast = interval(statistic, counts, resamples=50)
    slow = interval(lambda counts: statistic(counts), counts, resamples=50)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high), rel=1e-12)


def test_paired_difference_of_equal_and_of_separated_values():
    same = paired_difference([0.3, 0.4, 0.5], [0.3, 0.4, 0.5])
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    # All n differences have one sign: of 2ⁿ sign patterns exactly two reach the observed mean.
    gaps = torch.linspace(0.1, 0.2, 8)
    found = paired_difference(-gaps, torch.zeros(8), flips=40_000)
    assert found.p_value == pytest.approx(2 / 2**8, rel=0.2)
    assert found.mean == pytest.approx(-0.15)
    assert -0.2 < found.low < found.mean < found.high < -0.1


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


def test_one_image_has_a_value_and_no_interval():
    prediction, labels = draw(1, images=1)
    counts = count(prediction, labels, 4)
    found = interval(pooled_accuracy, counts)
    assert found.value == pooled_accuracy(counts)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    gap = paired_difference([0.5], [0.25])
    assert (gap.mean, gap.p_value) == (0.25, 1.0)
    assert math.isnan(gap.low)


def test_p_values_are_uniform_without_an_effect():
    rng = np.random.default_rng(3)
    p = [paired_difference(rng.normal(size=12), np.zeros(12), resamples=2, flips=200).p_value for _ in range(200)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_success_counts_pixels_that_were_right():
    labels = torch.tensor([[[0, 0, 1, VOID]], [[1, 1, 1, 1]]])
    before = torch.tensor([[[0, 1, 1, VOID]], [[0, 0, 0, 0]]])
    after = torch.tensor([[[1, 1, 1, 0]], [[1, 1, 1, 1]]])
    found = success(before, after, labels)
    assert found[0] == 0.5
    assert math.isnan(found[1])


def members_of(seed, images, members, classes=3):
    rng = np.random.default_rng(seed)
    labels = torch.tensor(rng.integers(classes, size=(images, 3, 4)))
    wrong = torch.tensor(rng.integers(classes, size=(members, images, 3, 4)))
    right = torch.tensor(rng.random((members, images, 3, 4)) < rng.random((members, images, 1, 1)))
    return [count(torch.where(right[k], labels, wrong[k]), labels, classes) for k in range(members)]


def chosen(members, choice):
    return Counts.joined([members[k].select([i]) for i, k in enumerate(choice)])


def test_worst_accuracy_is_the_least_of_each_image():
    members = members_of(0, 10, 3)
    choice = worst_accuracy(members)
    each = torch.stack([pixel_accuracy(member) for member in members])
    torch.testing.assert_close(pixel_accuracy(chosen(members, choice)), each.amin(0))
    with pytest.raises(InputError, match="at least one"):
        worst_accuracy([])
    with pytest.raises(InputError, match="member 1"):
        worst_accuracy([members[0], members_of(9, 10, 1)[0]])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_worst_miou_is_below_every_member_and_no_single_change_lowers_it(seed, images, members, order):
    alternatives = members_of(seed, images, members)
    choice = worst_miou(alternatives, seed=order)
    found = miou(chosen(alternatives, choice))
    assert all(found <= miou(member) + 1e-12 for member in alternatives)
    assert found <= miou(chosen(alternatives, worst_accuracy(alternatives))) + 1e-12
    for image, member in itertools.product(range(images), range(members)):
        other = choice.clone()
        other[image] = member
        assert miou(chosen(alternatives, other)) >= found - 1e-6


def test_worst_miou_comes_close_to_exhaustive_search():
    gaps = []
    for seed in range(60):
        members = members_of(seed, 3, 2)
        least = min(miou(chosen(members, choice)) for choice in itertools.product(range(2), repeat=3))
        gaps.append(miou(chosen(members, worst_miou(members))) - least)
    assert min(gaps) >= -1e-12
    assert np.mean(np.array(gaps) < 1e-9) >= 0.9
    assert max(gaps) < 0.03


def test_resampled_sums_are_what_intervals_are_taken_of():
    parts = torch.rand(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sums = resampled(parts, resamples=500, seed=3)
    rows = torch.randint(7, (500, 7), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(sums, parts[rows].sum(1))
    found = bootstrap(parts, lambda totals: totals[..., 0] / totals[..., 1], resamples=500, seed=3)
    low, high = np.quantile((sums[:, 0] / sums[:, 1]).numpy(), (0.025, 0.975))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
