"""What a black-box attack asks and how it goes on: the contract of a strategy, and what greedy searches share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.gradients.estimator import Stack


class Turn(NamedTuple):
    """Where in its run an attack is: index of the round, and queries spent over the budget, in [0, 1)."""

    round: int
    progress: float


class Question(NamedTuple):
    """Perturbations to ask about, (K, N, B, H, W), and what the strategy wants back with the answers.

    What a point has outside the changeable pixels is dropped before it is asked about.

    Attributes:
        points: What is asked about.
        memo: What comes back.
        passes: Forward and backward passes of the surrogate that it took, over each image.
    """

    points: Stack
    memo: Any = None
    passes: tuple[int, int] = (0, 0)


class Strategy(Protocol):
    """What to ask next and what to make of the answers; a frozen dataclass.

    Its state is a dict of tensors and None, with the current iterate as ``delta``, (N, B, H, W).
    """

    @property
    def feasible(self) -> bool:
        """Whether every point it asks about lies inside the threat model, so that the best of them may be returned."""

    @property
    def remembers(self) -> bool:
        """Whether it compares losses of different rounds; an annealed loss then stands still, at its end."""

    @property
    def per_round(self) -> int:
        """Queries of a round, at most."""

    def begin(self, room: Room) -> dict[str, Any]:
        """The state before the first round."""

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """What to ask in a round."""

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """The state after the answers.

        Args:
            state: That in which was asked.
            room: Where the iterate may move.
            turn: The round.
            asked: What `ask` gave.
            losses: (K, N, H, W), to be raised; over the counted pixels of an image, so that they sum up to its mean
                loss, and 0 elsewhere.
            weights: (N, H, W) of the pixels.
        """


def raised(before: Tensor, after: Tensor, weights: Tensor) -> Tensor:
    """Whether the weighted loss rose from one map (N, H, W) to another, (N,).

    Both are seen under the same weights, as weights change from round to round. Subtracted pixel by pixel: the
    difference of two sums would lose the digits that they have in common.
    """
    return ((after - before) * weights).sum((1, 2)) > 0


def moved(state: Mapping[str, Any], proposed: Tensor, losses: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Iterate and loss map, of the proposal for the images (N,) that ``kept`` it, else of the state."""
    at = kept.view(-1, 1, 1)
    return {
        "delta": torch.where(at.unsqueeze(1), proposed, state["delta"]),
        "losses": torch.where(at, losses, state["losses"]),
    }


def raised_to(
    state: Mapping[str, Any], asked: Question, losses: Tensor, weights: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """What a search keeps of the one point a round that it asked about: the first, then what raised the loss.

    Returns:
        Iterate and loss map, as `moved`, and the images (N,) that kept the point.
    """
    (proposed,), (found,) = asked.points[:], losses
    if state["losses"] is None:
        return {"delta": proposed, "losses": found}, torch.ones_like(weights[:, 0, 0], dtype=torch.bool)
    kept = raised(state["losses"], found, weights)
    return moved(state, proposed, found, kept), kept


def amplitude(room: Room) -> Tensor:
    """The value that may stand everywhere in the ball: ε over the norm of an image of ones; (N, 1, 1, 1).

    Of ones in the bands that may change.
    """
    ones = torch.ones_like(room.task.images)
    ones = ones if room.task.weights is None else ones * room.task.weights.isfinite()
    return (room.eps / room.threat.norm.length(ones)).view(-1, 1, 1, 1)


def part_of(images: Tensor, parts: int) -> int:
    """So many pixels of the shorter side of images (N, B, H, W), at least one.

    Example:
        >>> part_of(torch.zeros(1, 3, 96, 128), 3)
        32
    """
    return max(1, round(min(images.shape[2:]) / parts))
