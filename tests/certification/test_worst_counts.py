"""Certified counts of what is asked with yes or no are the least that any answer with the certified pixels can have."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.certification.certificate import Certificate, certified_counts
from segradius.core.label_sets import to_masks
from segradius.evaluation.record import Kind, Record, pack, score_answer, score_certificate, unpack
from segradius.metrics.counts import Pixels, count
from segradius.metrics.statistics import class_dice, class_iou, dice

VOID = 255


def drawn(seed: int, classes: int, void: float = 0.2) -> tuple[Certificate, torch.Tensor, torch.Tensor]:
    """A certificate of a random guess, random labels, and another answer that agrees with it where it is certified."""
    generator = torch.Generator().manual_seed(seed)
    guess, labels, other = (torch.randint(classes, (5, 6), generator=generator) for _ in range(3))
    right, sure, left_out = (torch.rand(5, 6, generator=generator) for _ in range(3))
    guess = torch.where(right < 0.6, labels, guess)
    certified = sure < 0.6
    labels = labels.masked_fill(left_out < void, VOID)
    found = Certificate(guess, certified, torch.where(certified, 0.5, 0.0), 0.25, 0.001, "image")
    return found, labels, torch.where(certified, guess, other)


@pytest.mark.parametrize(("classes", "structures"), [(2, 0), (2, 1), (4, 2), (8, 3)])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31))
def test_no_answer_with_the_certified_pixels_has_less_dice(classes: int, structures: int, seed: int):
    found, labels, answer = drawn(seed, classes)
    worst = certified_counts(found, labels, classes, VOID, structures=structures).foreground
    other = count(answer[None], labels[None], classes, VOID, structures).foreground
    for measure in (class_dice, class_iou):
        low, high = measure(worst), measure(other)
        assert (low <= high + 1e-12)[~high.isnan()].all()
        assert (low[~low.isnan() & high.isnan()] == 0).all()  # what occurs only there is said by nobody else
    assert math.isnan(dice(worst)) == math.isnan(dice(other)) or dice(worst) == 0
    assert math.isnan(dice(other)) or dice(worst) <= dice(other) + 1e-12


@pytest.mark.parametrize(("classes", "structures"), [(2, 0), (2, 1), (4, 2), (8, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_a_loop_over_pixels(classes: int, structures: int, seed: int):
    found, labels, _ = drawn(seed, classes)
    asked = max(structures, 1)
    both, said, labelled = ([0] * asked for _ in range(3))
    answers = found.prediction.flatten().tolist()
    for answer, label in zip(answers, labels.flatten().tolist(), strict=True):
        if label == VOID:
            continue
        for k in range(asked):
            is_there = bool(to_masks(torch.tensor([[label]]), asked)[k, 0, 0])
            yes = not is_there if answer == -1 else bool(to_masks(torch.tensor([[answer]]), asked)[k, 0, 0])
            said[k], labelled[k], both[k] = said[k] + yes, labelled[k] + is_there, both[k] + (yes and is_there)
    score = score_certificate(found, labels, classes, VOID, [0, 1], structures=structures)
    counts = certified_counts(found, labels, classes, VOID, structures=structures)
    assert counts.foreground.images[0].plain == [both, said, labelled]
    assert counts.images[0] == score.pixels
    right = ((found.prediction == labels) & (labels != VOID)).sum()
    assert sum(score.pixels.intersection) == right  # a wrong answer is right nowhere


def test_of_more_classes_an_abstained_pixel_is_predicted_as_none():
    found, labels, _ = drawn(0, 3)
    counts = certified_counts(found, labels, 3, VOID)
    assert int(counts.predicted.sum()) == int((found.certified & (labels != VOID)).sum())


def test_a_record_of_an_earlier_version_reads_as_the_worst_too():
    found, labels, _ = drawn(1, 2)
    now = score_certificate(found, labels, 2, VOID, [0, 1])
    sure = found.certified & (labels != VOID)
    before = [int((sure & (found.guess == c)).sum()) for c in (0, 1)]  # abstained pixels were predicted as nothing
    assert sum(before) < sum(now.pixels.predicted)
    old = replace(now, pixels=Pixels(now.pixels.intersection, before, now.pixels.labelled))
    base = score_answer(found.guess, labels, 2, VOID)
    kinds = {"segcertify": Kind(found.prediction, found.radius, None, "image", old)}
    record = Record("a", found.guess, base, kinds)
    again = unpack(pack(record))
    assert again.kinds["segcertify"].score.pixels.plain == now.pixels.plain
    assert again.base_score.pixels.plain == base.pixels.plain
