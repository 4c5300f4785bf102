"""Square attack (Andriushchenko et al. 2020): random search over squares that shrink, for l∞ and l2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segradius.attacks.greedy import moved, raised
from segradius.attacks.loop import Room
from segradius.attacks.moves import Move
from segradius.attacks.strategy import Question, Turn
from segradius.errors import InputError

# The share p of pixels in a square is halved where 10,000 · progress passes these.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True)
class Square:
    """Random search that changes one square of each image a round and keeps it if the weighted loss rose.

    Attributes:
        move: What is done in a square: `Signs` for l∞, `Pyramids` for l2; see `MOVES`.
        p_init: Share of the pixels in the first square, in (0, 1]; it is halved nine times over the budget.
    """

    move: Move
    p_init: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.p_init <= 1:
            raise InputError(f"p_init must be in (0, 1], got {self.p_init}")

    @property
    def feasible(self) -> bool:
        """Yes."""
        return True

    @property
    def remembers(self) -> bool:
        """Yes."""
        return True

    @property
    def per_round(self) -> int:
        """One."""
        return 1

    def begin(self, room: Room) -> dict[str, Any]:
        """The first perturbation, whose loss is not known."""
        task = room.task
        first = self.move.first(room) if task.warm is None else task.warm
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
        if state["losses"] is None:
            return {"delta": state["delta"], "losses": losses[0]}
        return moved(state, asked.points[0], losses[0], raised(state["losses"], losses[0], weights))


def share(p_init: float, progress: float) -> float:
    """Share of the pixels in a square: the paper's schedule for 10,000 rounds, rescaled to ``progress`` in [0, 1).

    Example:
        >>> [share(0.8, progress) for progress in (0.0, 0.002, 0.03, 0.3, 0.9)]
        [0.8, 0.4, 0.1, 0.0125, 0.0015625]
    """
    return float(p_init / 2 ** sum(10_000 * progress > mark for mark in _HALVINGS))
