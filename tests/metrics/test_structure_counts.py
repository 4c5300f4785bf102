"""Figures of structures that may overlap, and of a foreground: a plain loop over yes/no masks, and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_f1_score, multilabel_f1_score, multilabel_jaccard_index

from segradius.core.errors import InputError
from segradius.core.label_sets import to_masks, to_sets
from segradius.evaluation.foreground import Named, foreground_of, of_image
from segradius.metrics import Counts, class_dice, class_iou, count, dice, dice_image, miou, worst_miou

VOID = 255


def draw(seed: int, images: int = 4, structures: int = 3, absent: int | None = None) -> tuple[np.ndarray, ...]:
    """Yes/no maps (N, K, H, W) predicted and labelled, and where the label is void, (N, H, W)."""
    rng = np.random.default_rng(seed)
    shape = (images, structures, 6, 7)
    labels = rng.random(shape) < 0.4
    predicted = np.where(rng.random(shape) < 0.7, labels, rng.random(shape) < 0.4)
    if absent is not None:
        labels[:, absent] = predicted[:, absent] = False
    return predicted, labels, rng.random((images, 6, 7)) < 0.2


def counted(predicted: np.ndarray, labels: np.ndarray, void: np.ndarray) -> Counts:
    prediction, sets = (to_sets(torch.tensor(masks)) for masks in (predicted, labels))
    structures = labels.shape[1]
    found = count(prediction, sets.masked_fill(torch.tensor(void), VOID), 2**structures, VOID, structures)
    return found


def loop(predicted: np.ndarray, labels: np.ndarray, void: np.ndarray) -> tuple[float, float]:
    """Dice and IoU of one yes/no map, pixel by pixel; NaN where it is nowhere."""
    both = either = 0
    for place in np.ndindex(*labels.shape):
        if not void[place]:
            both += int(predicted[place] and labels[place])
            either += int(predicted[place] or labels[place])
    return (2 * both / (both + either), both / either) if either else (math.nan, math.nan)


@pytest.mark.parametrize("seed", range(3))
def test_each_structure_is_as_a_plain_loop_counts_it_pooled_and_by_image(seed: int):
    predicted, labels, void = draw(seed, absent=1)
    labels[2, 0] = predicted[2, 0] = False  # the first structure is not in the third image
    found = counted(predicted, labels, void).foreground
    pooled = [loop(predicted[:, k], labels[:, k], void) for k in range(3)]
    np.testing.assert_allclose(class_dice(found), [d for d, _ in pooled])
    np.testing.assert_allclose(class_iou(found), [j for _, j in pooled])
    assert math.isnan(class_dice(found)[1])  # nowhere: no figure, neither 0 nor 1
    assert dice(found) == pytest.approx(np.nanmean([d for d, _ in pooled]))
    assert miou(found) == pytest.approx(np.nanmean([j for _, j in pooled]))
    each = [[loop(predicted[n, k], labels[n, k], void[n])[0] for k in range(3)] for n in range(4)]
    assert dice_image(found) == pytest.approx(np.nanmean(each))
    for pixels, shares in zip(counted(predicted, labels, void).images, each, strict=True):
        mean, _, *of_each = of_image(pixels)
        assert mean == pytest.approx(np.nanmean(shares))
        np.testing.assert_allclose(of_each[::2], shares)


@pytest.mark.parametrize("seed", range(3))
def test_structures_equal_torchmetrics(seed: int):
    predicted, labels, void = draw(seed)
    found = counted(predicted, labels, void).foreground
    target = torch.tensor(np.where(void[:, None], -1, labels))
    options = {"num_labels": 3, "average": "none", "ignore_index": -1}
    f1 = multilabel_f1_score(torch.tensor(predicted).int(), target, **options)
    torch.testing.assert_close(class_dice(found).float(), f1)
    iou = multilabel_jaccard_index(torch.tensor(predicted).int(), target, **options)
    torch.testing.assert_close(class_iou(found).float(), iou)


def test_the_foreground_of_two_classes_is_the_second():
    predicted, labels, void = draw(5, structures=1)
    marked = torch.tensor(labels[:, 0]).long().masked_fill(torch.tensor(void), VOID)
    plain = count(torch.tensor(predicted[:, 0]).long(), marked, 2)
    assert plain.structures is None
    assert plain.foreground.images == counted(predicted, labels, void).foreground.images
    f1 = binary_f1_score(torch.tensor(predicted[:, 0]).int(), marked.masked_fill(marked == VOID, -1), ignore_index=-1)
    assert dice(plain.foreground) == pytest.approx(float(f1), rel=1e-6)
    assert count(marked.clamp_max(1), marked, 3).foreground is None


def test_an_image_without_structure_in_label_and_prediction_is_in_no_figure():
    none, one = np.zeros((1, 1, 6, 7), bool), np.ones((1, 1, 6, 7), bool)
    void = np.zeros((1, 6, 7), bool)
    assert all(map(math.isnan, of_image(counted(none, none, void).images[0])))
    assert list(of_image(counted(one, none, void).images[0])) == [0.0, 0.0, 0.0, 0.0]  # said, and not there
    both = counted(np.concatenate([none, one]), np.concatenate([none, one]), np.concatenate([void, void]))
    assert dice_image(both.foreground) == 1.0
    asked = foreground_of(both, [both], Named((), ("organ",)))
    assert (asked.dice.value, asked.structures[0].pixels) == (1.0, 42)


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_rows_come_back_and_add_up_whatever_the_structures(seed: int, structures: int):
    predicted, labels, void = draw(seed, structures=structures)
    found = counted(predicted, labels, void)
    assert Counts.of(found.images).images == found.images
    assert Counts.joined([found.select([0, 1]), found.select([2, 3])]).images == found.images
    assert Counts.chosen([found, found], torch.tensor([0, 1, 1, 0])).images == found.images
    assert torch.equal(found.foreground.labelled.sum(0), torch.tensor((labels & ~void[:, None]).sum((0, 2, 3))))
    assert (found.foreground.intersection <= found.foreground.predicted).all()
    again = to_masks(to_sets(torch.tensor(labels)), structures)
    assert torch.equal(again, torch.tensor(labels))


def test_without_structures_rows_are_what_they_were():
    labels = torch.tensor([[[0, 1, 2, VOID]]])
    assert [pixels.plain for pixels in count(labels.clamp_max(2), labels, 3).images] == [[[1, 1, 1]] * 3]


def test_the_least_dice_is_that_of_the_best_choice_of_members():
    tables = [counted(*draw(seed, images=3)) for seed in (1, 2)]
    labels = draw(1, images=3)[1:]
    tables[1] = counted(draw(2, images=3)[0], *labels)
    tables[0] = counted(draw(1, images=3)[0], *labels)
    found = [each.foreground for each in tables]
    choice = worst_miou(found, statistic=dice)
    every = [dice(Counts.chosen(found, torch.tensor([a, b, c]))) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert dice(Counts.chosen(found, choice)) == pytest.approx(min(every))


def test_too_few_classes_for_the_sets_are_refused():
    with pytest.raises(InputError, match="4 classes are not the 8 sets of 3 structures"):
        count(torch.zeros(1, 2, 2).long(), torch.zeros(1, 2, 2).long(), 4, structures=3)
