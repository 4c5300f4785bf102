"""Random numbers keyed by (seed, image id, purpose, step), never by place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Draw = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Randomness:
    """A source of random tensors whose row i depends only on the seed, the id of image i, the purpose and the step.

    A batch therefore draws what its images would draw one by one, in any order and on any number of workers.

    Args:
        seed: The seed of the run.
        ids: One name for each image of the batch.

    Example:
        >>> both = Randomness(0, ("a", "b")).normal((2,), "noise", step=3)
        >>> alone = Randomness(0, ("b",)).normal((2,), "noise", step=3)
        >>> bool((both[1] == alone[0]).all())
        True
    """

    seed: int
    ids: tuple[str, ...]

    def spawn(self, key: str) -> Randomness:
        """An independent source for the same images, as a restart or a member of an ensemble needs."""
        return Randomness(_key(self.seed, "spawn", key), self.ids)

    def rows(self, draw: Draw, purpose: str, step: int, device: torch.device) -> Tensor:
        """Stack ``draw(generator)`` over the images, each with a generator of its own."""
        generator = torch.Generator(device=device)
        drawn = [draw(generator.manual_seed(_key(self.seed, i, purpose, step))) for i in self.ids]
        return drawn[0].unsqueeze(0) if len(drawn) == 1 else torch.stack(drawn)

    def normal(
        self,
        shape: Sequence[int],
        purpose: str,
        step: int = 0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Standard normal numbers of shape (N, *shape)."""
        device = torch.device(device)
        return self.rows(
            lambda g: torch.randn(tuple(shape), generator=g, device=device, dtype=dtype), purpose, step, device
        )

    def uniform(
        self,
        shape: Sequence[int],
        purpose: str,
        step: int = 0,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Uniform numbers in [0, 1) of shape (N, *shape)."""
        device = torch.device(device)
        return self.rows(
            lambda g: torch.rand(tuple(shape), generator=g, device=device, dtype=dtype), purpose, step, device
        )

    def integers(self, high: int, purpose: str, step: int = 0) -> Tensor:
        """One integer in [0, high) for each image, on the CPU; shape (N,), int64."""
        return self.rows(lambda g: torch.randint(high, (), generator=g), purpose, step, torch.device("cpu"))


def _key(*parts: object) -> int:
    """A 63-bit seed from the parts, the same on every machine and in every Python process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
