"""Natural evolution strategies: Gaussian directions, one-sided or in pairs (Ilyas et al. 2018; Wierstra et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from segradius.errors import InputError
from segradius.gradients.directions import Directions, Pixel
from segradius.gradients.probe import (
    ESTIMATORS,
    Draw,
    central_differences,
    check_positive,
    combine,
    per_image,
    two_sided,
)
from segradius.randomness import Randomness


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
        >>> from segradius.gradients.probe import estimate
        >>> linear = lambda points: 2 * points.sum(2)
        >>> found = estimate(NES(sigma=0.1, population=4000), linear, torch.zeros(1, 3, 1, 1), Randomness(0, ("a",)))
        >>> round(found.mean().item(), 1)
        2.0
    """

    sigma: float
    population: int = 100
    antithetic: bool = True
    directions: Directions = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_positive("sigma", self.sigma)
        check_positive("population", self.population)
        if self.antithetic and self.population % 2:
            raise InputError(f"population must be even for pairs, got {self.population}")

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

    def points(self, delta: Tensor, draw: Draw) -> Tensor:
        """δ + σz of the population; in pairs, δ + σz of all pairs and then δ − σz."""
        if self.antithetic:
            return two_sided(delta, draw.along, self.sigma)
        return torch.add(delta, draw.along, alpha=self.sigma)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over pairs or points of the difference quotient times z."""
        quotients = central_differences(losses, self.sigma) if self.antithetic else losses / self.sigma
        return combine(per_image(quotients).div_(len(quotients)), draw.dual)
