"""Losses whose gradients are known, subspaces as matrices, and tests of a mean that take its own error into account."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.randomness import Randomness
from segradius.gradients import Directions, Estimator, Probe, estimate

DOUBLE = torch.float64
Maps = Callable[[Tensor], Tensor]  # (M, 3, H, W) -> (M, H, W)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def keys(count: int, seed: int = 0) -> Randomness:
    return Randomness(seed, tuple(f"image {i}" for i in range(count)))


def probe(maps: Maps, baseline: Tensor | float = 0.0) -> Probe:
    """A black box from a function of images; ``baseline`` (N, H, W) is subtracted."""
    return lambda points: maps(points.flatten(0, 1)).unflatten(0, points.shape[:2]) - baseline


def smooth(images: Tensor) -> Tensor:
    """A smooth loss in which the pixels mix, as in a convolutional network."""
    hidden = functional.conv2d(images, normal(4, 3, 3, 3, seed=1), padding=1).tanh()
    return functional.conv2d(hidden, normal(1, 4, 3, 3, seed=2), padding=1)[:, 0].sin()


def linear(slope: Tensor, constant: float = 0.0) -> Maps:
    """⟨slope, δ⟩ + constant, slope (3, H, W)."""
    pixels = slope[0].numel()
    return lambda images: (images * slope).sum(1) + constant / pixels


def cubic(slope: Tensor) -> Maps:
    """Σ slope_i δ_i³."""
    return linear_in(slope, 3)


def linear_in(slope: Tensor, power: int) -> Maps:
    return lambda images: (images**power * slope).sum(1)


def autograd(maps: Maps, delta: Tensor) -> Tensor:
    """The gradient of the sum of each image's map."""
    delta = delta.clone().requires_grad_()
    return torch.autograd.grad(maps(delta).sum(), delta)[0]


def columns(directions: Directions, shape: tuple[int, ...], exponent: float, randomness: Randomness, step: int):
    """The linear map as a matrix of each image, (N, 3HW, n')."""
    grid = directions.grid(shape)
    units = torch.eye(grid[0] * grid[1] * grid[2], dtype=DOUBLE).view(-1, 1, *grid)
    units = units.expand(-1, len(randomness.ids), *grid)
    return directions.lift(units, shape, exponent, randomness, step).flatten(2).permute(1, 2, 0)


def project(directions: Directions, grad: Tensor, randomness: Randomness, step: int) -> Tensor:
    """P∇L by least squares, (N, 3, H, W)."""
    basis = columns(directions, tuple(grad.shape[1:]), 0.5, randomness, step)
    return (basis @ torch.linalg.lstsq(basis, grad.flatten(1).unsqueeze(2)).solution).view_as(grad)


def many(estimator: Estimator, maps: Maps, delta: Tensor, count: int, step: int = 0) -> Tensor:
    """``count`` independent estimates at one δ (3, H, W), drawn as so many images; (count, 3HW)."""
    return estimate(estimator, probe(maps), delta.expand(count, -1, -1, -1), keys(count), step).flatten(1)


def assert_mean(values: Tensor, expected: Tensor | float, precision: float | None = None) -> None:
    """The mean over dim 0 is ``expected`` within 4.5 of its standard errors; these are below ``precision``."""
    error = values.std(0) / len(values) ** 0.5
    if precision is not None:
        assert float(error.max()) < precision
    away = (values.mean(0) - expected).abs()
    assert bool((away <= 4.5 * error + 1e-12).all()), f"{(away / error).max():.1f} standard errors away"


def assert_direction_and_scale(found: Tensor, expected: Tensor, precision: float) -> None:
    """The mean of ``found`` (R, N, m) is ``expected`` (N, m), or (R, N, m), in every value and in its length.

    The length is ⟨ĝ, g⟩/‖g‖², whose standard error is below ``precision``.
    """
    expected = expected.expand_as(found)
    assert_mean(found - expected, 0.0)
    scale = (found * expected).sum(2) / expected.square().sum(2)
    assert_mean(scale, 1.0, precision)
