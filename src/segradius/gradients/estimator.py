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
from typing import Any, Protocol

import torch
from torch import Tensor

from segradius.core.randomness import Randomness
from segradius.core.registry import Registry

Probe = Callable[[Tensor], Tensor]
"""The black box: perturbations (K, N, B, H, W) → losses of the pixels (K, N, H, W), weighted and divided so that their
sum over the pixels is the loss L of the image (0 at void pixels). Images never mix."""


@dataclass(frozen=True)
class Draw:
    """Random directions and their duals: the mean of ⟨∇L, along⟩ · dual is the gradient.

    Attributes:
        along: (D, N, B, H, W) directions u that the loss is probed along.
        dual: (D, N, B, H, W) vectors v with E[u vᵀ] = P, the projection on the subspace of the directions; a multiple
            of u, or of the normal of the sphere at u. It is the same tensor as ``along`` where they are equal.
    """

    along: Tensor
    dual: Tensor


class Stack(Protocol):
    """Images (K, N, B, H, W) that need not all be there at once: a tensor, or what makes those that are looked at."""

    def __len__(self) -> int:
        """K."""

    def __getitem__(self, place: slice, /) -> Tensor:
        """Those at places in a row, (k, N, B, H, W)."""


@dataclass(frozen=True)
class Around:
    """Perturbations around δ: δ + γu for all directions u, then δ − γu if on both ``sides``; a `Stack`.

    Attributes:
        delta: (N, B, H, W) δ.
        along: (D, N, B, H, W) the directions.
        gamma: γ.
        sides: 1 or 2.

    Example:
        >>> points = Around(torch.zeros(1, 3, 1, 1), torch.ones(4, 1, 3, 1, 1), 0.5)
        >>> len(points), points[3:5].flatten().tolist()
        (8, [0.5, 0.5, 0.5, -0.5, -0.5, -0.5])
    """

    delta: Tensor
    along: Stack
    gamma: float
    sides: int = 2

    def __len__(self) -> int:
        return self.sides * len(self.along)

    def __getitem__(self, place: slice, /) -> Tensor:
        """The perturbations at places in a row."""
        first, last, _ = place.indices(len(self))
        found, count = self.delta.new_empty(last - first, *self.delta.shape), len(self.along)
        for side, gamma in zip(range(self.sides), (self.gamma, -self.gamma), strict=False):
            low, high = (min(max(end - side * count, 0), count) for end in (first, last))
            if low < high:
                out = found[low + side * count - first : high + side * count - first]
                torch.add(self.delta, self.along[low:high], alpha=gamma, out=out)
        return found


class Estimator(Protocol):
    """An estimator of the gradient of the loss from values of the loss; a frozen dataclass."""

    @property
    def queries(self) -> int:
        """K: queries in a round, for each image."""

    def draw(self, delta: Tensor, randomness: Randomness, step: int = 0) -> Any:
        """The directions of round ``step`` for perturbations ``delta``, (N, B, H, W): a `Draw`, or its own form."""

    def points(self, delta: Tensor, draw: Any) -> Stack:
        """The perturbations to be queried, (K, N, B, H, W). They may leave the threat model and the pixel box."""

    def gradient(self, losses: Tensor, draw: Any) -> Tensor:
        """The estimate, (N, B, H, W), from the pixels' losses at the points, (K, N, H, W)."""


ESTIMATORS: Registry[type[Estimator]] = Registry("gradient estimator", "segradius.gradients")


def estimate(estimator: Estimator, probe: Probe, delta: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
    """One round: draw, ask, answer.

    Args:
        estimator: How.
        probe: The black box.
        delta: (N, B, H, W) where the gradient is wanted.
        randomness: Keys of the N images.
        step: The round.

    Returns:
        The estimate, (N, B, H, W).

    Example:
        >>> from segradius.gradients.estimators import ZOO
        >>> delta = torch.zeros(1, 3, 1, 1)
        >>> square = lambda points: (points - 1).square().sum(2)
        >>> estimate(ZOO(gamma=0.5, coordinates=3), square, delta, Randomness(0, ("a",))).flatten().tolist()
        [-2.0, -2.0, -2.0]
    """
    draw = estimator.draw(delta, randomness, step)
    return estimator.gradient(probe(estimator.points(delta, draw)[:]), draw)


def central_differences(losses: Tensor, gamma: float) -> Tensor:
    """(ℓ(δ + γu) − ℓ(δ − γu))/2γ of every pixel: losses (2D, N, H, W) on both sides, `Around` δ → (D, N, H, W).

    Subtracted pixel by pixel, as a difference of sums would lose the digits that the two have in common.
    """
    ahead, behind = losses.chunk(2)
    return (ahead - behind).div_(2 * gamma)


def per_image(losses: Tensor) -> Tensor:
    """Sum over the pixels, (D, N, H, W) → (D, N)."""
    return losses.flatten(2).sum(2)


def combine(weights: Tensor, vectors: Stack) -> Tensor:
    """Σ_d weights[d] · vectors[d] of each image, (D, N) and (D, N, B, H, W) → (N, B, H, W).

    Term after term, so that it needs no copy of the vectors, and that the sum of an image does not depend on its batch.
    """
    columns = weights.view(*weights.shape, 1, 1, 1)
    total = vectors[:1][0] * columns[0]
    for d in range(1, len(vectors)):
        total.addcmul_(columns[d], vectors[d : d + 1][0])
    return total
