"""Square attack (Andriushchenko et al. 2020): one square of the perturbation drawn anew, kept if the loss rises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.queries import Question, Turn
from segradius.errors import InputError
from segradius.threats import L2, Linf, Threat

# The share of the image that a square covers is halved after these parts of the budget (of 10,000 in the paper).
_HALVED = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Square:
    """Random search over squares, for l∞ and l2; one query a round.

    l∞: vertical stripes of ±ε at first; a round sets a square to ±ε, one sign a channel. l2: the budget of two windows
    and what is unused of ε goes into one of them, in the shape of two peaks of opposite sign, and the other is cleared.

    Attributes:
        threat: An l∞ or l2 ball.
        share: Share p of the pixels that the first squares cover, in (0, 1]; it is halved eight times over the budget.
    """

    threat: Threat
    share: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.threat.norm, L2 | Linf):
            raise InputError(f"square is defined for l2 and linf, got {self.threat.norm.name}")
        if not 0 < self.share <= 1:
            raise InputError(f"p_init must be in (0, 1], got {self.share}")

    @property
    def feasible(self) -> bool:
        """Yes."""
        return True

    @property
    def per_round(self) -> int:
        """One."""
        return 1

    def begin(self, room: Room) -> dict[str, Any]:
        """Stripes (l∞) or a grid of peaks (l2)."""
        task, images = room.task, room.task.images
        eps = room.eps.view(-1, 1, 1, 1)
        if isinstance(self.threat.norm, Linf):
            drawn = task.randomness.uniform(
                (3, 1, images.shape[3]), "stripes", device=images.device, dtype=images.dtype
            )
            delta = _signs(drawn).expand_as(images) * eps
        else:
            tile = max(3, min(images.shape[2:]) // 5)
            grid = [-(-side // tile) for side in images.shape[2:]]
            drawn = task.randomness.uniform((3, *grid), "peaks", device=images.device, dtype=images.dtype)
            peaks = _peaks(tile, images).repeat(*grid)[: images.shape[2], : images.shape[3]]
            rows, columns = (torch.arange(side, device=images.device) // tile for side in images.shape[2:])
            delta = _signs(drawn).index_select(2, rows).index_select(3, columns) * peaks
            delta = self.threat.norm.steepest(delta) * eps
        return {"delta": room.project(task.confine(delta)), "losses": None}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The start itself at first; then with a square drawn anew."""
        if state["losses"] is None:
            return Question(state["delta"].unsqueeze(0))
        task, images = room.task, room.task.images
        side = self.side(turn.progress, images.shape[2:])
        drawn = task.randomness.uniform((7,), "square", turn.round, device=images.device, dtype=images.dtype)
        first, signs = _window(images, drawn[:, :2], side), _signs(drawn[:, 4:]).view(-1, 3, 1, 1)
        if isinstance(self.threat.norm, Linf):
            proposed = torch.where(first, signs * room.eps.view(-1, 1, 1, 1), state["delta"])
        else:
            proposed = self._moved(state["delta"], room, drawn, side, signs)
        return Question(room.project(task.confine(proposed)).unsqueeze(0))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep what raised the loss."""
        (proposed,), (found,) = asked.points, losses
        if state["losses"] is None:
            return {"delta": proposed, "losses": found}
        rose = ((found - state["losses"]) * weights).sum((1, 2)) > 0
        return {
            "delta": torch.where(rose.view(-1, 1, 1, 1), proposed, state["delta"]),
            "losses": torch.where(rose.view(-1, 1, 1), found, state["losses"]),
        }

    def side(self, progress: float, shape: torch.Size) -> int:
        """Side of the squares after a part of the budget, at least 1 (l∞) or 3 (l2).

        Example:
            >>> from segradius.threats import make_threat
            >>> [Square(make_threat("linf", 0.1), 0.25).side(p, torch.Size((64, 64))) for p in (0.0, 0.15, 0.9)]
            [32, 8, 2]
        """
        share = self.share / 2 ** sum(progress > part for part in _HALVED)
        least = 1 if isinstance(self.threat.norm, Linf) else 3
        return int(min(max(round((share * shape[0] * shape[1]) ** 0.5), least), *shape))

    def _moved(self, delta: Tensor, room: Room, drawn: Tensor, side: int, signs: Tensor) -> Tensor:
        """l2: two windows; what they hold, and what is unused, goes into the first."""
        images = room.task.images
        first, second = _window(images, drawn[:, :2], side), _window(images, drawn[:, 2:4], side)
        either = first | second
        unused = (room.eps.square() - delta.square().sum((1, 2, 3))).clamp_min(0).view(-1, 1, 1, 1) / 3
        room_for = (delta.square() * either).sum((2, 3), keepdim=True) + unused
        old = delta * first
        length = old.square().sum((2, 3), keepdim=True).sqrt()
        rows, columns = (_corner(images, drawn[:, n], side, 2 + n) for n in (0, 1))
        shape = _placed(_peaks(side, images), rows, columns, images)
        new = signs * shape / shape.square().sum((2, 3), keepdim=True).sqrt() + old / length.clamp_min(1e-12)
        scale = room_for.sqrt() / new.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
        return torch.where(first, new * scale, delta * ~second)


def _signs(drawn: Tensor) -> Tensor:
    return (drawn < 0.5).to(drawn) * 2 - 1


def _corner(images: Tensor, drawn: Tensor, side: int, axis: int) -> Tensor:
    """First row or column of each window, (N,)."""
    return (drawn * (images.shape[axis] - side + 1)).long()


def _window(images: Tensor, drawn: Tensor, side: int) -> Tensor:
    """Where each image's square is, (N, 1, H, W) bool."""
    inside = []
    for n, axis in enumerate((2, 3)):
        place = torch.arange(images.shape[axis], device=images.device)
        first = _corner(images, drawn[:, n], side, axis).unsqueeze(1)
        inside.append((place >= first) & (place < first + side))
    return (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1)


def _placed(shape: Tensor, rows: Tensor, columns: Tensor, images: Tensor) -> Tensor:
    """A (side, side) pattern at each image's window, 0 elsewhere; (N, 1, H, W)."""
    side = len(shape)
    row = torch.arange(images.shape[2], device=images.device) - rows.unsqueeze(1)
    column = torch.arange(images.shape[3], device=images.device) - columns.unsqueeze(1)
    inside = ((row >= 0) & (row < side)).unsqueeze(2) & ((column >= 0) & (column < side)).unsqueeze(1)
    found = shape[row.clamp(0, side - 1).unsqueeze(2), column.clamp(0, side - 1).unsqueeze(1)]
    return (found * inside).unsqueeze(1)


def _peaks(side: int, images: Tensor) -> Tensor:
    """η: a pyramid of one sign on the upper half of a square, of the other on the lower; (side, side), of length 1."""
    upper = _pyramid(side // 2, side, images)
    both = torch.cat([upper, -_pyramid(side - side // 2, side, images)])
    return both / both.square().sum().sqrt()


def _pyramid(height: int, width: int, images: Tensor) -> Tensor:
    """Steps that rise to the middle, Σ_{k=0}^{M} 1/(n + 1 − k)² with M the steps from the border."""
    n = height // 2
    rows = (torch.arange(1, height + 1, device=images.device) - n - 1).abs()
    columns = (torch.arange(1, width + 1, device=images.device) - width // 2 - 1).abs()
    steps = n - torch.maximum(rows.unsqueeze(1), columns.unsqueeze(0) - (width // 2 - n))
    terms = 1.0 / (n + 1 - torch.arange(n + 1, device=images.device, dtype=images.dtype)).square()
    return terms.cumsum(0)[steps.clamp(0, n)]
