"""The one-point gradient estimator (Eq. 15)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from segradius.gradients.probe import ESTIMATORS, Draw, check_positive, combine, per_image
from segradius.gradients.sphere import Sphere
from segradius.randomness import Randomness


@ESTIMATORS.register("opge")
@dataclass(frozen=True)
class OPGE:
    """One point on a sphere around δ: L(δ + γu)/γ · v (Eq. 15, with v = n'u for p = 2).

    - **Queries** in a round: samples.
    - **Bias**: that of `TPGE`.
    - **Variance**: E‖ĝ‖² = n'²L(δ)²/γ² + n'‖P∇L‖² for p = 2, one sample and a linear loss. The first term makes it
      useless wherever L(δ) is not small beside γ‖∇L‖/√n': the price of asking once.

    Attributes:
        gamma: γ > 0, the radius of the sphere, in the unit of the images and the norm of the sphere.
        sphere: Norm, subspace and form of the directions.
        samples: Directions in a round, whose estimates are averaged.

    Raises:
        InputError: γ or the number of samples is not above zero.

    Example:
        >>> from segradius.gradients.probe import estimate
        >>> constant = lambda points: torch.ones(points.shape[0], points.shape[1], 1, 1)  # ∇L = 0
        >>> found = estimate(OPGE(gamma=0.1), constant, torch.zeros(1, 3, 1, 1), Randomness(0, ("a",)))
        >>> round(found.norm().item(), 3)  # n'L/γ
        30.0
    """

    gamma: float
    sphere: Sphere = field(default_factory=Sphere)
    samples: int = 1

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_positive("samples", self.samples)

    @property
    def queries(self) -> int:
        """One for each sample."""
        return self.samples

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """Directions on the sphere."""
        return self.sphere.draw(delta, randomness, step, self.samples)

    def points(self, delta: Tensor, draw: Draw) -> Tensor:
        """δ + γu."""
        return torch.add(delta, draw.along, alpha=self.gamma)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over the samples of the loss over γ times v."""
        return combine(per_image(losses).div_(self.gamma * self.samples), draw.dual)
