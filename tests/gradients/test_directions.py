"""Subspaces of directions: orthogonality, duality of tiles, and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from known import DOUBLE, columns, keys, normal
from scipy import fft

from segradius.core.errors import InputError
from segradius.gradients import DIRECTIONS, Dct, Pixel, ShiftedTiles, Tiles, dimension

SHAPE = (3, 5, 7)
ALL = [Pixel(), Tiles(2), Tiles(3), Tiles(100), ShiftedTiles(2), ShiftedTiles(3), Dct(0.4), Dct(1.0)]


def test_every_registered_set_of_directions_is_tested():
    assert {type(each) for each in ALL} == {DIRECTIONS[name] for name in DIRECTIONS}


@pytest.mark.parametrize("directions", ALL, ids=str)
@pytest.mark.parametrize("step", [0, 1])
def test_columns_are_orthonormal(directions, step: int):
    basis = columns(directions, SHAPE, 0.5, keys(2), step)
    n = dimension(directions, SHAPE)
    assert basis.shape == (2, 105, n)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(n, dtype=DOUBLE).expand(2, n, n))


@pytest.mark.parametrize("directions", [Tiles(2), Tiles(3), ShiftedTiles(2), ShiftedTiles(3)], ids=str)
def test_columns_of_tiles_have_unit_norm_for_each_exponent_and_are_dual(directions):
    ones, half, sums = (columns(directions, SHAPE, exponent, keys(2), 4) for exponent in (0.0, 0.5, 1.0))
    torch.testing.assert_close(ones.abs().amax(1), torch.ones_like(ones[:, 0]))
    torch.testing.assert_close(sums.abs().sum(1), torch.ones_like(ones[:, 0]))
    torch.testing.assert_close(sums.mT @ ones, half.mT @ half)


def test_tiles_are_a_kronecker_product_cut_at_the_border():
    values = normal(2, 3, 3, 4)
    found = Tiles(2).lift(values, SHAPE, 0.0, keys(2))
    assert np.array_equal(found, np.kron(values.numpy(), np.ones((2, 2)))[..., :5, :7])


def test_shifted_tiles_are_tiles_moved_around_the_borders_image_by_image():
    values, randomness = normal(2, 4, 3, 2, 3), keys(4)  # two draws of four images
    for step in range(5):
        found = ShiftedTiles(3).lift(values, SHAPE, 0.5, randomness, step)
        still = Tiles(3).lift(values, SHAPE, 0.5, randomness, step)
        rows, across = (randomness.integers(3, f"tile {axis}", step).tolist() for axis in ("rows", "columns"))
        for image, offset in enumerate(zip(rows, across, strict=True)):
            moved = still[:, image].roll((-offset[0], -offset[1]), (-2, -1))
            assert torch.equal(found[:, image], moved)
    offsets = {int(randomness.integers(3, "tile rows", step)[0]) for step in range(50)}
    assert offsets == {0, 1, 2}


def test_dct_is_the_inverse_transform_of_the_lowest_frequencies():
    values = normal(2, 3, 2, 3)
    padded = np.zeros((2, 3, 5, 7))
    padded[:, :, :2, :3] = values.numpy()
    found = Dct(0.4).lift(values, SHAPE, 0.5, keys(2))
    np.testing.assert_allclose(found, fft.idctn(padded, axes=(2, 3), norm="ortho"), atol=1e-12)


def test_pixels_are_not_copied():
    values = normal(2, *SHAPE)
    assert Pixel().lift(values, SHAPE, 0.5, keys(2)) is values


@pytest.mark.parametrize(("kind", "wrong"), [(Tiles, 0), (ShiftedTiles, -1), (Dct, 0.0), (Dct, 1.5)])
def test_wrong_sizes_are_refused_by_name(kind, wrong):
    with pytest.raises(InputError, match=f"is {wrong}; expected"):
        kind(wrong)
