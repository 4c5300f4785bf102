"""Gradients from losses alone: one point (OPGE), two (TPGE), pairs of normal directions (NES), coordinates (ZOO)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from segradius.core.declared import Count, Length, Range, Sigma, check_fields
from segradius.core.errors import must
from segradius.core.randomness import Randomness
from segradius.gradients.directions import Directions, Pixel, Units, walk
from segradius.gradients.estimator import ESTIMATORS, Around, Draw, Stack, central_differences, combine, per_image
from segradius.gradients.sphere import Sphere

#: Directions of a round, all of which are held at once.
Pairs = Annotated[int, Range("[1, 1e4]")]
Population = Annotated[int, Range("[1, 1e5]")]


@dataclass(frozen=True)
class OnSphere:
    """What estimators have in common that ask on a sphere around δ.

    Attributes:
        gamma: γ > 0, the radius of the sphere, in the unit of the images and the norm of the sphere.
        sphere: Norm, subspace and form of the directions.
        samples: Directions in a round, whose estimates are averaged.

    Raises:
        InputError: γ or the number of samples is not above zero.
    """

    sides: ClassVar[int] = 2

    gamma: Length
    sphere: Sphere = field(default_factory=Sphere)
    samples: Pairs = 1

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def queries(self) -> int:
        """One for each sample and side."""
        return self.sides * self.samples

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """Directions on the sphere."""
        return self.sphere.draw(delta, randomness, step, self.samples)

    def points(self, delta: Tensor, draw: Draw) -> Stack:
        """δ + γu of all samples, then δ − γu if both sides are asked."""
        return Around(delta, draw.along, self.gamma, self.sides)


@ESTIMATORS.register("opge")
@dataclass(frozen=True)
class OPGE(OnSphere):
    """One point on a sphere around δ: L(δ + γu)/γ · v (Eq. 15, with v = n'u for p = 2).

    - **Queries** in a round: samples.
    - **Bias**: that of `TPGE`.
    - **Variance**: E‖ĝ‖² = n'²L(δ)²/γ² + n'‖P∇L‖² for p = 2, one sample and a linear loss. The first term makes it
      useless wherever L(δ) is not small beside γ‖∇L‖/√n': the price of asking once.

    Example:
        >>> from segradius.gradients.estimator import estimate
        >>> constant = lambda points: torch.ones(points.shape[0], points.shape[1], 1, 1)  # ∇L = 0
        >>> found = estimate(OPGE(gamma=0.1), constant, torch.zeros(1, 3, 1, 1), Randomness(0, ("a",)))
        >>> round(found.norm().item(), 3)  # n'L/γ
        30.0
    """

    sides = 1

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over the samples of the loss over γ times v."""
        return combine(per_image(losses).div_(self.gamma * self.samples), draw.dual)


@ESTIMATORS.register("tpge")
@dataclass(frozen=True)
class TPGE(OnSphere):
    """Two points on a sphere around δ: (L(δ + γu) − L(δ − γu))/2γ · v (Eq. 16, with v = n'u for p = 2).

    - **Queries** in a round: 2·samples.
    - **Bias**: none for the smoothed loss L̂ of Eq. 14 when p = 2 or the form is exact; O(γ²) for L itself, zero for a
      quadratic one. On a subspace, P∇L is what is estimated.
    - **Variance**: E‖ĝ‖² = n'‖P∇L‖² for p = 2, one sample and a linear loss, whatever γ and L(δ); `Sphere` has the
      other norms. It falls as 1/samples. For a loss that is C-Lipschitz in l2, E‖ĝ‖² ≤ n'²C²/(n' − 1), by Poincaré's
      inequality on the sphere: far below the (n'C)² of Theorem 2.

    Example:
        >>> import torch
        >>> from segradius.gradients.estimator import estimate
        >>> linear = lambda points: 2 * points.sum(2)  # ∇L = 2 everywhere, ‖∇L‖² = 12
        >>> keys = Randomness(0, tuple(map(str, range(2000))))
        >>> found = estimate(TPGE(gamma=0.1), linear, torch.zeros(2000, 3, 1, 1), keys)
        >>> round(found.mean().item(), 1), round(found.square().flatten(1).sum(1).mean().item())  # 2 and 3 · 12
        (2.0, 36)
    """

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over the samples of the central difference times v."""
        return combine(per_image(central_differences(losses, self.gamma)).div_(self.samples), draw.dual)


@ESTIMATORS.register("nes")
@dataclass(frozen=True)
class NES:
    """A population of m Gaussian points: mean of (L(δ + σz) − L(δ − σz))/2σ · z over m/2 pairs, or of L(δ + σz)/σ · z.

    - **Queries** in a round: the population m, at least 100 by the paper's Table 1.
    - **Bias**: none for the loss smoothed by a Gaussian, E[L(δ + σz)]; O(σ²) for L itself, zero for a quadratic one. On
      a subspace, P∇L is what is estimated.
    - **Variance**, E‖ĝ − P∇L‖² for a linear loss: (n' + 1)/(m/2) · ‖P∇L‖² in pairs, (n'L(δ)²/σ² + (n' + 1)‖P∇L‖²)/m
      one-sided.

    Attributes:
        sigma: σ > 0, the standard deviation of every coordinate. A point is about σ√n' away: for the reach of a sphere
            of radius γ, σ = γ/√n'.
        population: m, even if in pairs.
        antithetic: Whether the points come in pairs δ ± σz.
        directions: The subspace.

    Raises:
        InputError: σ or the population is not above zero, or the population is odd and in pairs.

    Example:
        >>> from segradius.gradients.estimator import estimate
        >>> linear = lambda points: 2 * points.sum(2)
        >>> nes, keys = NES(sigma=0.1, population=40000), Randomness(0, ("a",))
        >>> found = estimate(nes, linear, torch.zeros(1, 3, 1, 1), keys)
        >>> round(found.mean().item(), 1)
        2.0
    """

    sigma: Sigma
    population: Population = 100
    antithetic: bool = True
    directions: Directions = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_fields(self)
        must(not (self.antithetic and self.population % 2), "population", self.population, "an even number, for pairs")

    @property
    def queries(self) -> int:
        """The population."""
        return self.population

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """Gaussian directions, one for each pair or point."""
        shape, count = delta.shape[1:], self.population // 2 if self.antithetic else self.population
        size = (count, *self.directions.grid(shape))
        values = randomness.normal(size, "nes", step, device=delta.device, dtype=delta.dtype)
        along = self.directions.lift(values.transpose(0, 1), shape, 0.5, randomness, step)
        return Draw(along, along)

    def points(self, delta: Tensor, draw: Draw) -> Stack:
        """δ + σz of the population; in pairs, δ + σz of all pairs and then δ − σz."""
        return Around(delta, draw.along, self.sigma, sides=2 if self.antithetic else 1)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over pairs or points of the difference quotient times z."""
        quotients = central_differences(losses, self.sigma) if self.antithetic else losses / self.sigma
        return combine(per_image(quotients).div_(len(quotients)), draw.dual)


@ESTIMATORS.register("zoo")
@dataclass(frozen=True)
class ZOO:
    """Central differences along k coordinates a round, (L(δ + γe_i) − L(δ − γe_i))/2γ at place i (Eq. 13).

    Each image goes through its coordinates in a random order of its own, that of `walk`, k in every round, and begins
    again at the end: any n'/k rounds in a row visit every coordinate once. A round keeps k numbers an image, not k
    images. Places that are not visited are 0. (`ShiftedTiles` move between rounds, so that a sweep of them visits no
    fixed set.)

    - **Queries** in a round: 2k; the paper's 2n' with ``coordinates`` = n'.
    - **Bias**: O(γ²) at the places that are visited, zero for a quadratic loss. Where the loss has a kink that no
      coordinate axis shows, the estimate need not be a subgradient.
    - **Variance**: none with k = n'. Else, with ``unbiased``, E‖ĝ − P∇L‖² = (n'/k − 1)‖P∇L‖².

    Attributes:
        gamma: γ > 0, in the unit of the images. A coordinate of a tile moves each of its m pixels by γ/√m.
        coordinates: k, at least 1 and at most n'.
        unbiased: Whether the estimate is multiplied by n'/k, which makes its mean over the random order P∇L; else the
            estimates of a sweep sum to P∇L.
        directions: The subspace.

    Raises:
        InputError: γ or k is not above zero, or (when drawing) k is above n'.

    Example:
        >>> from segradius.gradients.estimator import estimate
        >>> square = lambda points: points.square().sum(2)
        >>> keys, delta = Randomness(0, ("a",)), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        >>> sum(estimate(ZOO(gamma=0.5, coordinates=1), square, delta, keys, step) for step in range(3)).flatten()
        tensor([2., 4., 6.])
    """

    gamma: Length
    coordinates: Count = 16
    unbiased: bool = False
    directions: Directions = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def queries(self) -> int:
        """Two for each coordinate."""
        return 2 * self.coordinates

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Units:
        """The unit vectors of this round's coordinates."""
        n, k = math.prod(self.directions.grid(delta.shape[1:])), self.coordinates
        must(k <= n, "coordinates", k, f"at most {n}, the dimension of the directions")
        start, stride = walk(n, randomness, "zoo")
        turn = (step * k + torch.arange(k).unsqueeze(1)) % n
        places = ((start + stride * turn) % n).to(delta.device, non_blocking=True)
        return Units(self.directions, places, delta, randomness, step)

    def points(self, delta: Tensor, draw: Units) -> Stack:
        """δ + γe_i of all coordinates, then δ − γe_i."""
        return Around(delta, draw, self.gamma)

    def gradient(self, losses: Tensor, draw: Units) -> Tensor:
        """Each central difference at its place."""
        slopes = per_image(central_differences(losses, self.gamma))
        return combine(slopes * (draw.dimension / len(draw)) if self.unbiased else slopes, draw)
