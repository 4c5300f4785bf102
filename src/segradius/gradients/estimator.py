"""What every gradient estimator is: it asks for the loss at a few perturbations, and answers with a gradient.

A round has three pure steps, and nothing is kept between them but what the key (seed, image, step) gives again:

    draw = estimator.draw(δ, randomness, step)      directions, one or more for each image
    points = estimator.points(δ, draw)              K perturbations to be queried
    gradient = estimator.gradient(losses, draw)     from the losses of those K

So a loop that was stopped between asking and answering goes on from (δ, step) and the losses it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry

Probe = Callable[[Tensor], Tensor]
"""The black box: perturbations (K, N, 3, H, W) → losses of the pixels (K, N, H, W), weighted and divided so that their
sum over the pixels is the loss L of the image (0 at void pixels). Images never mix."""


@dataclass(frozen=True)
class Draw:
    """Random directions and their duals: the mean of ⟨∇L, along⟩ · dual is the gradient.

    Attributes:
        along: (D, N, 3, H, W) directions u that the loss is probed along.
        dual: (D, N, 3, H, W) vectors v with E[u vᵀ] = P, the projection on the subspace of the directions; a multiple
            of u, or of the normal of the sphere at u. It is the same tensor as ``along`` where they are equal.
    """

    along: Tensor
    dual: Tensor


class Estimator(Protocol):
    """An estimator of the gradient of the loss from values of the loss; a frozen dataclass."""

    @property
    def queries(self) -> int:
        """K: queries in a round, for each image."""
        ...

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Draw:
        """The directions of round ``step`` for perturbations ``delta``, (N, 3, H, W)."""
        ...

    def points(self, delta: Tensor, draw: Draw) -> Tensor:
        """The perturbations to be queried, (K, N, 3, H, W). They may leave the threat model and the pixel box."""
        ...

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """The estimate, (N, 3, H, W), from the pixels' losses at the points, (K, N, H, W)."""
        ...


ESTIMATORS: Registry[type[Estimator]] = Registry("gradient estimator", "segradius.gradients")


def estimate(estimator: Estimator, probe: Probe, delta: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
    """One round: draw, ask, answer.

    Args:
        estimator: How.
        probe: The black box.
        delta: (N, 3, H, W) where the gradient is wanted.
        randomness: Keys of the N images.
        step: The round.

    Returns:
        The estimate, (N, 3, H, W).

    Example:
        >>> from segradius.gradients.estimators import ZOO
        >>> delta = torch.zeros(1, 3, 1, 1)
        >>> square = lambda points: (points - 1).square().sum(2)
        >>> estimate(ZOO(gamma=0.5, coordinates=3), square, delta, Randomness(0, ("a",))).flatten().tolist()
        [-2.0, -2.0, -2.0]
    """
    draw = estimator.draw(delta, randomness, step)
    return estimator.gradient(probe(estimator.points(delta, draw)), draw)


def two_sided(delta: Tensor, along: Tensor, gamma: float) -> Tensor:
    """δ + γu for all D directions, then δ − γu; (2D, N, 3, H, W)."""
    points = along.new_empty((2 * len(along), *along.shape[1:]))
    torch.add(delta, along, alpha=gamma, out=points[: len(along)])
    torch.sub(delta, along, alpha=gamma, out=points[len(along) :])
    return points


def central_differences(losses: Tensor, gamma: float) -> Tensor:
    """(ℓ(δ + γu) − ℓ(δ − γu))/2γ of every pixel: losses (2D, N, H, W) at `two_sided` points → (D, N, H, W).

    Subtracted pixel by pixel, as a difference of sums would lose the digits that the two have in common.
    """
    ahead, behind = losses.chunk(2)
    return (ahead - behind).div_(2 * gamma)


def per_image(losses: Tensor) -> Tensor:
    """Sum over the pixels, (D, N, H, W) → (D, N)."""
    return losses.flatten(2).sum(2)


def combine(weights: Tensor, vectors: Tensor) -> Tensor:
    """Σ_d weights[d] · vectors[d] of each image, (D, N) and (D, N, 3, H, W) → (N, 3, H, W).

    Term after term, so that it needs no copy of the vectors, and that the sum of an image does not depend on its batch.
    """
    columns = weights.view(*weights.shape, 1, 1, 1)
    total = vectors[0] * columns[0]
    for column, vector in zip(columns[1:], vectors[1:], strict=True):
        total.addcmul_(column, vector)
    return total


def check_positive(name: str, value: float) -> None:
    """Raise `InputError` unless ``value`` is above zero."""
    if not value > 0:
        raise InputError(f"{name} must be above zero, got {value}")
