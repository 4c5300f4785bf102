"""Zeroth-order optimisation: central differences coordinate by coordinate (Eq. 13; Chen et al. 2017)."""

from __future__ import annotations

import math
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


@ESTIMATORS.register("zoo")
@dataclass(frozen=True)
class ZOO:
    """Central differences along k coordinates a round, (L(δ + γe_i) − L(δ − γe_i))/2γ at place i (Eq. 13).

    Each image goes through its coordinates in a random order of its own, k in every round, and begins again at the end:
    any n'/k rounds in a row visit every coordinate once. Places that are not visited are 0.

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
        >>> from segradius.gradients.probe import estimate
        >>> square = lambda points: points.square().sum(2)
        >>> keys, delta = Randomness(0, ("a",)), torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        >>> sum(estimate(ZOO(gamma=0.5, coordinates=1), square, delta, keys, step) for step in range(3)).flatten()
        tensor([2., 4., 6.])
    """

    gamma: float
    coordinates: int = 16
    unbiased: bool = False
    directions: Directions = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_positive("coordinates", self.coordinates)

    @property
    def queries(self) -> int:
        """Two for each coordinate."""
        return 2 * self.coordinates

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """The unit vectors of this round's coordinates."""
        shape, grid = delta.shape[1:], self.directions.grid(delta.shape[1:])
        n, k = math.prod(grid), self.coordinates
        if k > n:
            raise InputError(f"coordinates must be at most {n}, the dimension of the directions, got {k}")
        turn = (step * k + torch.arange(k)) % n
        places = randomness.rows(lambda g: torch.randperm(n, generator=g)[turn], "zoo", 0, torch.device("cpu"))
        units = delta.new_zeros(k, len(delta), n).scatter_(2, places.T.unsqueeze(2).to(delta.device), 1.0)
        along = self.directions.lift(units.unflatten(2, grid), shape, 0.5, randomness, step)
        return Draw(along, along * (n / k) if self.unbiased else along)

    def points(self, delta: Tensor, draw: Draw) -> Tensor:
        """δ + γe_i of all coordinates, then δ − γe_i."""
        return two_sided(delta, draw.along, self.gamma)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Each central difference at its place."""
        return combine(per_image(central_differences(losses, self.gamma)), draw.dual)
