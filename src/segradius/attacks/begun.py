"""A bandit that begins where a mosaic of patterns ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.bandit import Bandit
from segradius.attacks.loop import Room
from segradius.attacks.mosaic import PATTERNS, pieced
from segradius.attacks.strategy import Question, Turn, amplitude
from segradius.core.declared import Count, OddSide, check_fields


@dataclass(frozen=True)
class Begun:
    """A `Bandit` whose first rounds ask about patterns, of which every part of an image keeps the best.

    The budget's rounds are all the bandit's, so that its step has fallen a little when it begins.

    Attributes:
        bandit: What goes on from the mosaic.
        patterns: How many of `segradius.attacks.mosaic.PATTERNS` are asked about, rounded up to whole rounds.
        window: Side of the window in pixels that decides, odd.
    """

    feasible = False
    remembers = False

    bandit: Bandit
    patterns: Count = 6
    window: OddSide = 33

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def per_round(self) -> int:
        """Those of the bandit."""
        return self.bandit.per_round

    def begin(self, room: Room) -> dict[str, Any]:
        """The bandit's state, and no loss known."""
        return {**self.bandit.begin(room), "losses": None, "amplitude": amplitude(room)}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """As many patterns as the bandit has queries a round; then what the bandit asks."""
        first = turn.round * self.per_round
        if first >= self.patterns:
            return self.bandit.ask(state, room, turn)
        images, task = room.task.images, room.task
        shown = (PATTERNS[place % len(PATTERNS)].on(images) for place in range(first, first + self.per_round))
        points = [room.project(task.confine(pattern * state["amplitude"])) for pattern in shown]
        return Question(torch.stack(points))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep of each pattern what raised the loss around it; then as the bandit."""
        if turn.round * self.per_round >= self.patterns:
            return {**state, "losses": None, **self.bandit.tell(state, room, turn, asked, losses, weights)}
        for proposed, found in zip(asked.points[:], losses, strict=True):
            better = {"delta": proposed, "losses": found}
            if state["losses"] is not None:
                better = pieced(state, proposed, found, weights, self.window, room)
            state = {**state, **better}
        return dict(state)
