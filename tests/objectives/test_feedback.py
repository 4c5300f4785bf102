"""What is kept of an answer, against a look at every pixel."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from segradius.objectives.view import look


def answers(seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, classes, 3, 5, generator=g, dtype=torch.float64).softmax(1)
    return scores, torch.randint(classes, (2, 3, 5), generator=g)


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_look_finds_the_score_of_the_reference_and_the_largest_other(seed: int, classes: int) -> None:
    scores, reference = answers(seed, classes)
    found = look(scores.clone(), reference)
    for image, row, column in torch.ones_like(reference).nonzero().tolist():
        pixel = scores[image, :, row, column].tolist()
        assert found.own[image, row, column] == pixel.pop(int(reference[image, row, column]))
        assert found.rival[image, row, column] == max(pixel)


def test_confidence_is_the_largest_score() -> None:
    scores, reference = answers(0)
    assert torch.equal(look(scores.clone(), reference).confidence, scores.amax(1))


def test_an_image_with_one_score_that_is_no_number_is_not_finite() -> None:
    for value in (math.nan, math.inf):
        for channel in range(4):
            scores, reference = answers(1)
            scores[1, channel, 2, 3] = value
            assert look(scores, reference).finite.tolist() == [True, False]


def test_blend_moves_towards_the_other_by_its_share() -> None:
    one, other = (look(*answers(seed)) for seed in (2, 3))
    mixed = one.blend(other, 0.7)
    assert torch.allclose(mixed.own, 0.3 * one.own + 0.7 * other.own)
    assert torch.allclose(mixed.rival, 0.3 * one.rival + 0.7 * other.rival)
    assert torch.equal(one.blend(other, 0.0).own, one.own)
    assert torch.equal(one.blend(other, 1.0).rival, other.rival)
