"""What the Square attack does in a square, by norm, at a place of its own in each image."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from segradius.attacks.loop import Room


class Move(Protocol):
    """How squares change a perturbation in one norm; a frozen dataclass."""

    def side(self, share: float, height: int, width: int) -> int:
        """Side of a square that holds a share of the pixels."""
        ...

    def first(self, room: Room) -> Tensor:
        """Where the search begins, (N, 3, H, W), not projected."""
        ...

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """The perturbation with a square changed at a random place of each image, not projected."""
        ...


class Places(NamedTuple):
    """A square at a random place of each image.

    Attributes:
        rows: (N, H) place of each row in its square; below 0 or above its side where outside.
        columns: (N, W) of each column.
        side: Its side.
    """

    rows: Tensor
    columns: Tensor
    side: int

    @staticmethod
    def of(drawn: Tensor, side: int, height: int, width: int) -> Places:
        """From two uniform numbers an image, (N, 2)."""
        corners = (drawn * drawn.new_tensor([height - side + 1, width - side + 1])).long()
        corners = torch.minimum(corners, corners.new_tensor([height - side, width - side]))  # against rounding up
        rows, columns = (
            torch.arange(length, device=drawn.device) - corners[:, axis : axis + 1]
            for axis, length in enumerate((height, width))
        )
        return Places(rows, columns, side)

    @property
    def inside(self) -> Tensor:
        """The pixels of the squares, (N, 1, H, W) bool."""
        rows, columns = ((part >= 0) & (part < self.side) for part in self[:2])
        return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)

    def put(self, patterns: Tensor, which: Tensor) -> Tensor:
        """Pattern ``which``, (N,), of ``patterns``, (P, side, side), in each square and 0 around it; (N, 1, H, W)."""
        rows, columns = (part.clamp(0, self.side - 1) for part in self[:2])
        found = patterns[which.view(-1, 1, 1), rows.unsqueeze(2), columns.unsqueeze(1)]
        return found.unsqueeze(1) * self.inside


@dataclass(frozen=True)
class Signs:
    """l∞: every value is ±ε; vertical stripes at first, then one sign a channel in a square."""

    def side(self, share: float, height: int, width: int) -> int:
        """√(p·HW), at least 1, and less than the image's shorter side."""
        return max(1, min(round(math.sqrt(share * height * width)), min(height, width) - 1))

    def first(self, room: Room) -> Tensor:
        """Stripes of one column."""
        images = room.task.images
        drawn = _uniform(room, (3, 1, images.shape[3]), "stripes")
        return (_signs(drawn) * room.eps.view(-1, 1, 1, 1)).expand_as(images)

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """±ε for each channel in the square."""
        drawn = _uniform(room, (5,), "square", step)
        values = _signs(drawn[:, 2:]) * room.eps.unsqueeze(1)
        places = Places.of(drawn[:, :2], side, *delta.shape[2:])
        return torch.where(places.inside, values.view(-1, 3, 1, 1), delta)


@dataclass(frozen=True)
class Pyramids:
    """l2: the square becomes a pair of pyramids of opposite signs, whose length is taken from a second square.

    The perturbation always has length ε, before it is cut with the pixel box: a square gets a pattern added to its own
    values, with the length that both squares had, and the second square is emptied.
    """

    def side(self, share: float, height: int, width: int) -> int:
        """√(p·HW), odd, at least 3, if the image is that large."""
        shorter = min(height, width)
        return min(max(round(math.sqrt(share * height * width)), 3) | 1, shorter - 1 | 1)

    def first(self, room: Room) -> Tensor:
        """A grid of pairs of pyramids, five along the image's shorter side."""
        images = room.task.images
        side = max(1, min(images.shape[2:]) // 5)
        counts = [length // side for length in images.shape[2:]]
        # Where each row and column lies in the grid, which is centred; what is left at the borders stays empty.
        rows, columns = (
            torch.arange(length, device=images.device) - (length - count * side) // 2
            for length, count in zip(images.shape[2:], counts, strict=True)
        )
        drawn = _uniform(room, (4, *counts), "pyramids")
        inside = ((rows >= 0) & (rows < side * counts[0])).unsqueeze(1) & (columns >= 0) & (columns < side * counts[1])
        spread = drawn[:, :, (rows // side).clamp(0, counts[0] - 1)][..., (columns // side).clamp(0, counts[1] - 1)]
        patterns = pyramids(side, images.dtype, images.device)
        pattern = patterns[(spread[:, 3] < 0.5).long(), (rows % side).unsqueeze(1), columns % side]
        return _of_length(_signs(spread[:, :3]) * (pattern * inside).unsqueeze(1), room)

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """The pattern is added in one square, scaled to the length of both, and the other square emptied."""
        drawn = _uniform(room, (8,), "square", step)
        there, other = (Places.of(part, side, *delta.shape[2:]) for part in (drawn[:, :2], drawn[:, 2:4]))
        here, either = there.inside, there.inside | other.inside
        pattern = there.put(pyramids(side, delta.dtype, delta.device), (drawn[:, 4] < 0.5).long())
        own = delta * here
        added = _signs(drawn[:, 5:]).view(-1, 3, 1, 1) * pattern + own / (_power(own).sqrt() + 1e-10)
        spare = (room.eps.square().view(-1, 1, 1, 1) - _power(delta).sum(1, keepdim=True)).clamp_min(0)
        length = (spare / 3 + _power(delta * either)).sqrt()
        added = added * (length / _power(added).sqrt().clamp_min(1e-10))
        return _of_length(room.task.confine(torch.where(either, added, delta)), room)


#: What squares do, by norm.
MOVES: Mapping[str, Move] = {"linf": Signs(), "l2": Pyramids()}


@functools.lru_cache(maxsize=32)
def pyramids(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A pair of pyramids of opposite signs and unit length side by side, one over the other and beside it; (2, s, s).

    Example:
        >>> pyramids(2, torch.float32, torch.device("cpu"))[0].sign()
        tensor([[ 1.,  1.],
                [-1., -1.]])
    """
    upper, lower = _pyramid(side // 2, side), _pyramid(side - side // 2, side)
    pattern = torch.cat([upper, -lower])
    pattern = pattern / pattern.norm()
    return torch.stack([pattern, pattern.T]).to(device=device, dtype=dtype)


def _pyramid(height: int, width: int) -> Tensor:
    """Σ_{k ≥ d} 1/(k + 1)² at distance d from the middle, k up to half the longer side; of unit length, float64."""
    rows, columns = (
        (torch.arange(length, dtype=torch.float64) - length // 2).abs_().long() for length in (height, width)
    )
    terms = torch.arange(max(height, width) // 2 + 1, dtype=torch.float64).add_(1).pow_(-2)
    steps = terms.flip(0).cumsum(0).flip(0)
    values = steps[torch.maximum(rows.unsqueeze(1), columns)]
    return values / values.norm() if height else values


def _uniform(room: Room, shape: tuple[int, ...], purpose: str, step: int = 0) -> Tensor:
    images = room.task.images
    return room.task.randomness.uniform(shape, purpose, step, device=images.device, dtype=images.dtype)


def _signs(drawn: Tensor) -> Tensor:
    return (drawn < 0.5).to(drawn) * 2 - 1


def _power(delta: Tensor) -> Tensor:
    """Σ δ² of each channel, (N, 3, 1, 1)."""
    return delta.square().sum((2, 3), keepdim=True)


def _of_length(delta: Tensor, room: Room) -> Tensor:
    """Scaled to ‖δ‖₂ = ε; zero stays zero."""
    length = room.threat.norm.length(delta).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * (room.eps / length).view(-1, 1, 1, 1)
