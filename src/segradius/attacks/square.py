"""Square attack (Andriushchenko et al. 2020): random search over squares that shrink, for l∞ and l2."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import PAPER_QUERIES, QuerySettings
from segradius.attacks.strategy import Question, Turn, moved, raised
from segradius.core.declared import LossName, Share, WeightingName, check_fields
from segradius.threats.threat import Threat


class Move(Protocol):
    """How squares change a perturbation in one norm; a frozen dataclass."""

    def side(self, share: float, height: int, width: int) -> int:
        """Side of a square that holds a share of the pixels."""

    def first(self, room: Room) -> Tensor:
        """Where the search begins, (N, B, H, W), not projected."""

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """The perturbation with a square changed at a random place of each image, not projected."""


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
        rows, columns = (
            torch.arange(length, device=drawn.device)
            - (drawn[:, axis : axis + 1] * (length - side + 1)).long().clamp_(max=length - side)  # against rounding up
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
        drawn = _uniform(room, (images.shape[1], 1, images.shape[3]), "stripes")
        return (_signs(drawn) * room.eps.view(-1, 1, 1, 1)).expand_as(images)

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """±ε for each channel in the square."""
        drawn = _uniform(room, (2 + delta.shape[1],), "square", step)
        values = _signs(drawn[:, 2:]) * room.eps.unsqueeze(1)
        places = Places.of(drawn[:, :2], side, *delta.shape[2:])
        return torch.where(places.inside, values.view(*delta.shape[:2], 1, 1), delta)


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
        bands = images.shape[1]
        drawn = _uniform(room, (bands + 1, *counts), "pyramids")
        inside = ((rows >= 0) & (rows < side * counts[0])).unsqueeze(1) & (columns >= 0) & (columns < side * counts[1])
        spread = drawn[:, :, (rows // side).clamp(0, counts[0] - 1)][..., (columns // side).clamp(0, counts[1] - 1)]
        patterns = pyramids(side, images.dtype, images.device)
        pattern = patterns[(spread[:, bands] < 0.5).long(), (rows % side).unsqueeze(1), columns % side]
        return _of_length(_signs(spread[:, :bands]) * (pattern * inside).unsqueeze(1), room)

    def propose(self, delta: Tensor, side: int, room: Room, step: int) -> Tensor:
        """The pattern is added in one square, scaled to the length of both, and the other square emptied."""
        bands = delta.shape[1]
        drawn = _uniform(room, (5 + bands,), "square", step)
        there, other = (Places.of(part, side, *delta.shape[2:]) for part in (drawn[:, :2], drawn[:, 2:4]))
        here, either = there.inside, there.inside | other.inside
        pattern = there.put(pyramids(side, delta.dtype, delta.device), (drawn[:, 4] < 0.5).long())
        own = delta * here
        added = _signs(drawn[:, 5:]).view(-1, bands, 1, 1) * pattern + own / (_power(own).sqrt() + 1e-10)
        spare = (room.eps.square().view(-1, 1, 1, 1) - _power(delta).sum(1, keepdim=True)).clamp_min(0)
        length = (spare / bands + _power(delta * either)).sqrt()
        added = added * (length / _power(added).sqrt().clamp_min(1e-10))
        return _of_length(room.task.confine(torch.where(either, added, delta)), room)


#: What squares do, by norm.
MOVES: Mapping[str, Move] = {"linf": Signs(), "l2": Pyramids()}


# The side of the squares falls with the budget, so that one after another is needed again for each batch.
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
    """Σ δ² of each band, (N, B, 1, 1)."""
    return delta.square().sum((2, 3), keepdim=True)


def _of_length(delta: Tensor, room: Room) -> Tensor:
    """Scaled to ‖δ‖₂ = ε; zero stays zero."""
    length = room.threat.norm.length(delta).clamp_min(torch.finfo(delta.dtype).tiny)
    return delta * (room.eps / length).view(-1, 1, 1, 1)


# The share p of pixels in a square is halved where 10,000 · progress passes these.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Random search that changes one square of each image a round and keeps it if the weighted loss rose.

    Attributes:
        move: What is done in a square: `Signs` for l∞, `Pyramids` for l2; see `MOVES`.
        p_init: Share of the pixels in the first square, in (0, 1]; it is halved nine times over the budget.
    """

    feasible = True
    remembers = True
    per_round = 1

    move: Move
    p_init: Share = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """The first perturbation, whose loss is not known."""
        task = room.task
        first = self.move.first(room) if task.warm is None else task.coordinates(task.warm)
        return {"delta": room.project(task.confine(first)), "losses": None}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The first perturbation itself, then one square changed."""
        delta = state["delta"]
        if state["losses"] is None:
            return Question(delta.unsqueeze(0))
        side = self.move.side(share(self.p_init, turn.progress), *delta.shape[2:])
        proposed = room.task.confine(self.move.propose(delta, side, room, turn.round))
        return Question(room.project(proposed).unsqueeze(0))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep the square where the loss rose."""
        (proposed,), (found,) = asked.points[:], losses
        if state["losses"] is None:
            return {"delta": state["delta"], "losses": found}
        return moved(state, proposed, found, raised(state["losses"], found, weights))


def share(p_init: float, progress: float) -> float:
    """Share of the pixels in a square: the paper's schedule for 10,000 rounds, rescaled to ``progress`` in [0, 1).

    Example:
        >>> [share(0.8, progress) for progress in (0.0, 0.002, 0.03, 0.3, 0.9)]
        [0.8, 0.4, 0.1, 0.0125, 0.0015625]
    """
    return float(p_init / 2 ** sum(10_000 * progress > mark for mark in _HALVINGS))


@black_box("square", norms=("l2", "linf"))
def square(
    threat: Threat,
    settings: QuerySettings,
    *,
    p_init: Share = 1.0,
    loss: LossName = "margin",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Square attack (Andriushchenko et al. 2020), l2 and l∞: one square drawn anew, kept if the loss rises.

    Args:
        threat: An l2 or l∞ ball.
        p_init: Share of the pixels that the first squares cover.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
    """
    threat.check_bounded("the size of a change")
    return settings.queried(threat, Square(MOVES[threat.norm.name], p_init), loss, weighting, PAPER_QUERIES)
