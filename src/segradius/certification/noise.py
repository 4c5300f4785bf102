"""The Gaussian noise that makes a smoothed model of any model, and the model's answers to noisy copies of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.errors import InputError
from segradius.randomness import Randomness

#: Copies in one pass where none is asked for: more are slower for the cache of a CPU, fewer idle an accelerator.
COPIES = {"cpu": 4}
COPIES_ELSEWHERE = 32

#: From noisy copies (k, 3, H, W) to logits, scores or probabilities (k, C, H, W).
Answer = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Noise:
    """β ~ N(0, σ²I) over an image, and what happens to the sum.

    Args:
        sigma: σ > 0, images being in [0, 1].
        clamp: Whether the copy is clamped to [0, 1] before the model sees it. Either way the smoothed model is a
            function of x + β, so its certificate holds; it is another smoothed model.
        where: (H, W) bool. Noise falls on these pixels only, and the certificate holds for perturbations of these
            pixels only; None for all.

    Raises:
        InputError: For σ that is not positive, or a mask of another kind.

    Example:
        >>> Noise(0.25).copies(torch.zeros(3, 8, 8), Randomness(0, ("a",)), 0, 4).shape
        torch.Size([4, 3, 8, 8])
    """

    sigma: float
    clamp: bool = False
    where: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise InputError(f"sigma is {self.sigma}; expected a positive number, images being in [0, 1]")
        if self.where is not None and (self.where.dtype != torch.bool or self.where.ndim != 2):
            raise InputError(f"where is {self.where.dtype} {tuple(self.where.shape)}; expected bool (H, W)")

    def copies(self, image: Tensor, randomness: Randomness, first: int, count: int) -> Tensor:
        """Copies number ``first`` to ``first + count − 1`` of an image (3, H, W), each with a draw of its own.

        Copy j is the same whatever is asked for with it, so that sampling can be cut anywhere and goes on exactly.
        """
        shape, device, dtype = image.shape, image.device, image.dtype
        noisy = []
        for number in range(first, first + count):
            drawn = randomness.normal(shape, "smoothing", number, device=device, dtype=dtype).squeeze(0)
            noisy.append(torch.add(image, drawn if self.where is None else drawn.mul_(self.where), alpha=self.sigma))
        stacked = torch.stack(noisy)
        return stacked.clamp(0, 1) if self.clamp else stacked


@torch.no_grad()
def answers(
    answer: Answer,
    image: Tensor,
    noise: Noise,
    randomness: Randomness,
    first: int,
    count: int,
    *,
    together: int | None = None,
) -> Iterator[Tensor]:
    """What a model answers to consecutive noisy copies of an image, a few at a time.

    Args:
        answer: The model.
        image: (3, H, W) in [0, 1].
        noise: What is added.
        randomness: Key of the image, one id.
        first: Number of the first copy.
        count: How many copies.
        together: Copies in one pass; changes no result but by rounding.

    Yields:
        (k, C, H, W), in the order of the copies.
    """
    size = together or COPIES.get(image.device.type, COPIES_ELSEWHERE)
    for start in range(first, first + count, size):
        yield answer(noise.copies(image, randomness, start, min(size, first + count - start)))
