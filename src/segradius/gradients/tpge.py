"""The two-point gradient estimator (Eq. 16)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from segradius.gradients.probe import (
    ESTIMATORS,
    Draw,
    central_differences,
    check_positive,
    combine,
    per_image,
    two_sided,
)
from segradius.gradients.sphere import Sphere
from segradius.randomness import Randomness


@ESTIMATORS.register("tpge")
@dataclass(frozen=True)
class TPGE:
    """Two points on a sphere around δ: (L(δ + γu) − L(δ − γu))/2γ · v (Eq. 16, with v = n'u for p = 2).

    - **Queries** in a round: 2·samples.
    - **Bias**: none for the smoothed loss L̂ of Eq. 14 when p = 2 or the form is exact; O(γ²) for L itself, zero for a
      quadratic one. On a subspace, P∇L is what is estimated.
    - **Variance**: E‖ĝ‖² = n'‖P∇L‖² for p = 2, one sample and a linear loss, whatever γ and L(δ); `Sphere` has the
      other norms. It falls as 1/samples. For a loss that is C-Lipschitz in l2, E‖ĝ‖² ≤ n'²C²/(n' − 1), by Poincaré's
      inequality on the sphere: far below the (n'C)² of Theorem 2.

    Attributes:
        gamma: γ > 0, the radius of the sphere, in the unit of the images and the norm of the sphere.
        sphere: Norm, subspace and form of the directions.
        samples: Directions in a round, whose estimates are averaged.

    Raises:
        InputError: γ or the number of samples is not above zero.

    Example:
        >>> import torch
        >>> from segradius.gradients.probe import estimate
        >>> linear = lambda points: 2 * points.sum(2)  # ∇L = 2 everywhere, ‖∇L‖² = 12
        >>> keys = Randomness(0, tuple(map(str, range(2000))))
        >>> found = estimate(TPGE(gamma=0.1), linear, torch.zeros(2000, 3, 1, 1), keys)
        >>> round(found.mean().item(), 1), round(found.square().flatten(1).sum(1).mean().item())  # 2 and 3 · 12
        (2.0, 36)
    """

    gamma: float
    sphere: Sphere = field(default_factory=Sphere)
    samples: int = 1

    def __post_init__(self) -> None:
        check_positive("gamma", self.gamma)
        check_positive("samples", self.samples)

    @property
    def queries(self) -> int:
        """Two for each sample."""
        return 2 * self.samples

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """Directions on the sphere."""
        return self.sphere.draw(delta, randomness, step, self.samples)

    def points(self, delta: Tensor, draw: Draw) -> Tensor:
        """δ + γu of all samples, then δ − γu."""
        return two_sided(delta, draw.along, self.gamma)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over the samples of the central difference times v."""
        return combine(per_image(central_differences(losses, self.gamma)).div_(self.samples), draw.dual)
