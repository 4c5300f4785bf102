"""Images of whole levels: the projection against brute force, and what holds of every image and δ."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segradius.core.errors import InputError
from segradius.threats.lattice import check_held
from segradius.threats.threat import NORMS, Threat, make_threat

NORM = pytest.mark.parametrize("norm", ["l1", "l2", "linf"])


def drawn(seed: int, shape: tuple[int, ...], levels: int, *, on: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images on the lattice, or anywhere."""
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=g, dtype=torch.float64)
    return ((images * levels).round() / levels if on else images).to(dtype)


def held_to(threat: Threat, images: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
    held = threat.held(images)
    assert held is not None
    return held.images(delta), held.change(delta)


@NORM
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    eps=st.sampled_from([0.05, 0.3, 0.8, math.inf]),
    size=st.floats(0.0, 2.0),
    on=st.booleans(),
    levels=st.sampled_from([1, 7, 255, 65535]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_image_is_of_whole_levels_in_ball_and_box(norm, seed, eps, size, on, levels, dtype) -> None:
    images = drawn(seed, (3, 2, 4, 5), levels, on=on, dtype=dtype)
    threat = make_threat(norm, eps, lattice=levels)
    held = threat.held(images)
    fine = held.fits()
    assert fine.all() or not on
    delta = size * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=dtype)
    found, change = held_to(threat, images, delta)
    j = (found * levels).round()
    assert torch.equal(found, j / levels)
    assert j.min() >= 0
    assert j.max() <= levels
    length = NORMS[norm].length(change.double())
    assert (length[fine] <= eps * (1 + 2e-6)).all()
    torch.testing.assert_close(found, images + change, rtol=0, atol=6e-7)  # what float32 cannot tell from whole
    alone = torch.cat([held_to(threat, images[i : i + 1], delta[i : i + 1])[0] for i in range(3)])
    assert torch.equal(alone, found)  # a batch is its images one by one
    again, _ = held_to(threat, images, change)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-12)  # a point of the lattice stays


def brute(images: Tensor, delta: Tensor, norm: str, eps: float, levels: int) -> float:
    """Least squared distance, in levels, of a lattice point in the ball to image + δ."""
    origin, goal, least = images.flatten() * levels, (images + delta).flatten() * levels, math.inf
    for j in itertools.product(range(levels + 1), repeat=len(origin)):
        point = torch.tensor(j, dtype=torch.float64)
        if NORMS[norm].length((point - origin).unsqueeze(0)).item() <= eps * levels * (1 + 1e-9):
            least = min(least, (point - goal).square().sum().item())
    return least


@NORM
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**20), eps=st.sampled_from([0.4, 0.6, 0.9]), size=st.floats(0.1, 1.0), on=st.booleans())
def test_it_is_the_nearest_one_up_to_one_value(norm: str, seed: int, eps: float, size: float, on: bool) -> None:
    levels = 4
    images = drawn(seed, (1, 1, 2, 2), levels, on=on)
    delta = size * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    threat = make_threat(norm, eps, lattice=levels)
    if not threat.held(images).fits().all():
        return
    found, _ = held_to(threat, images, delta)
    mine = ((found - images - delta) * levels).square().sum().item()
    best = brute(images, delta, norm, eps, levels)
    assert mine >= best - 1e-9
    if norm == "linf":
        assert mine == pytest.approx(best)
        return
    # What the one value that is not given back would have brought: its move of one level towards image + δ.
    most = 2 * (delta * levels).abs().max().item() + 1
    assert mine <= best + most


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_budget_is_used_up_to_one_value_and_equal_values_are_served_all_over_the_image(norm: str) -> None:
    images = torch.full((1, 3, 20, 30), 100 / 255)
    eps = {"l1": 600.0, "l2": math.sqrt(600.0)}[norm] / 255
    held = make_threat(norm, eps, lattice=255).held(images)
    change = (held.change(torch.full_like(images, 0.7 / 255)) * 255).round()
    assert change.unique().tolist() == [0, 1]
    assert change.sum() == 600
    for part in (*change.chunk(4, 2), *change.chunk(3, 3), *change.chunk(3, 1)):
        assert 0.25 < part.mean() < 0.42  # a third of all


def test_small_steps_add_up_and_the_hull_is_where_they_count() -> None:
    images = torch.tensor([0, 100, 255]).view(1, 3, 1, 1) / 255
    threat = make_threat("linf", 0.006, lattice=255)  # 1.53 levels: one
    project, held = threat.onto(images), threat.held(images)
    delta, seen = torch.zeros_like(images), []
    for _ in range(8):
        delta = project(delta + 0.2 / 255)
        seen.append((held.change(delta) * 255).round().flatten().tolist())
    assert seen[:3] == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]
    torch.testing.assert_close(delta.flatten() * 255, torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


def test_what_is_rounded_at_random_loses_nothing_in_the_mean_and_whole_levels_stay() -> None:
    images = drawn(0, (1, 3, 8, 8), 255, on=True, dtype=torch.float32)
    held = make_threat("l2", 0.01, lattice=255).held(images)
    g = torch.Generator().manual_seed(1)
    dither = torch.rand(4000, 1, 3, 8, 8, generator=g)
    assert torch.equal(held.rounded(torch.zeros_like(images), torch.full_like(images, 1 - 2.0**-24)), images)
    found = torch.stack([held.rounded(torch.full_like(images, 0.2 / 255), each) for each in dither])
    change = ((found - images) * 255)[:, images < 1]
    assert set(change.round().unique().tolist()) == {0, 1}
    assert change.mean().item() == pytest.approx(0.2, abs=0.002)


def test_images_that_have_none_are_refused_as_are_weights_of_bands() -> None:
    off = torch.full((2, 3, 4, 4), 0.5)
    off[0] = 0.2
    with pytest.raises(InputError, match=r"image 1 has no image of 255 whole levels in its ball of linf 0\.001"):
        check_held(make_threat("linf", 0.001, lattice=255).held(off))
    check_held(make_threat("linf", 0.002, lattice=255).held(off))
    fixed = torch.ones(2, 1, 4, 4)
    fixed[1, 0, 2, 3] = 0
    with pytest.raises(InputError, match="image 1 is not of 255 whole levels at row 2, column 3"):
        check_held(make_threat("linf", 0.002, lattice=255).held(off), fixed)
    with pytest.raises(InputError, match="lattice is 255 beside band_weights 1,2,inf"):
        make_threat("l2", 1.0, band_weights="1,2,inf", lattice=255)
    for wrong in (0, 70000, 2.5, "many", True):
        with pytest.raises(InputError, match="lattice"):
            make_threat("l2", 1.0, lattice=wrong)  # type: ignore[arg-type]
    assert "lattice=255" in str(make_threat("l2", 1.0, lattice=255))
    assert "lattice" not in str(make_threat("l2", 1.0))
