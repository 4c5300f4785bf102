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
from segradius.metrics.intervals import interval
from segradius.metrics.statistics import (
    accuracy_image,
    class_iou,
    miou,
    miou_image,
    pixel_accuracy,
    pooled_accuracy,
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
