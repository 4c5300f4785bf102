"""Shifts between class maps: found exactly, on the same pixels for all, by quarter where a map was scaled."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from segradius.metrics import best_shift, reach_of, renaming, shift_table

STEPS = st.integers(-8, 8)


def blobs(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A map (1, height, width) of four classes in blobs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 4, height // 6, width // 6, generator=generator)
    return functional.interpolate(coarse, size=(height, width), mode="bilinear").argmax(1)


@settings(deadline=None, max_examples=15)
@given(STEPS, STEPS)
def test_a_map_that_was_moved_is_found_where_it_was_moved_to(dy: int, dx: int):
    first = blobs(48, 60)
    table, judged = shift_table(first, first.roll((dy, dx), (1, 2)))
    assert best_shift(table[0].sum(-1)) == (dy, dx)
    assert int(table[0, dy + 8, dx + 8].sum()) == int(judged.sum()) == (48 - 16) * (60 - 16)


def test_every_number_is_that_of_a_count_pixel_by_pixel():
    first, second = blobs(20, 24), blobs(20, 24, seed=1)
    table, judged = shift_table(first, second)
    reach = reach_of(20, 24)
    assert reach == 5
    assert judged.tolist() == [35, 35, 35, 35]
    for dy in range(-8, 9):
        for dx in range(-8, 9):
            if max(abs(dy), abs(dx)) > reach:
                assert table[0, dy + 8, dx + 8].tolist() == [-1] * 4
                continue
            places = [(y, x) for y in range(5, 15) for x in range(5, 19)]
            same = sum(int(first[0, y, x] == second[0, y + dy, x + dx]) for y, x in places)
            assert int(table[0, dy + 8, dx + 8].sum()) == same


def test_a_map_that_was_magnified_moves_away_from_the_middle_in_every_quarter():
    first = blobs(96, 120)
    larger = functional.interpolate(first[None].float(), scale_factor=1.1, mode="nearest")[0].long()
    second = larger[:, 5:101, 6:126]  # the middle stays where it is
    table, _ = shift_table(first, second)
    quarters = [best_shift(table[0, ..., quarter]) for quarter in range(4)]
    assert [(y < 0, x < 0) for y, x in quarters] == [(True, True), (True, False), (False, True), (False, False)]
    assert all(y != 0 and x != 0 for y, x in quarters)


def test_of_equal_shifts_the_smallest_is_told():
    flat = torch.zeros(1, 32, 32, dtype=torch.int64)
    assert best_shift(shift_table(flat, flat)[0][0].sum(-1)) == (0, 0)


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_a_renaming_is_undone_and_what_need_not_be_renamed_is_not(classes: int):
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(classes))
    pairs = torch.zeros(classes, classes, dtype=torch.int64)
    pairs[range(classes), order] = torch.arange(1, classes + 1)
    assert renaming(pairs) == tuple(order.tolist())
    assert renaming(torch.zeros(classes, classes, dtype=torch.int64)) == tuple(range(classes))
