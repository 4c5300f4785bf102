"""What attacks return that look for the shortest perturbation which fools a share of the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Result, Task
from segradius.attacks.incumbent import Incumbent
from segradius.attacks.loop import Room, judge_between
from segradius.core.ledger import Ledger
from segradius.objectives.goal import Goal
from segradius.threats.projections import choose

#: Share of the counted pixels to fool, that of Rony et al. (2023).
SHARE = 0.99


@dataclass(frozen=True)
class Shortest:
    """The shortest iterate that fools a share of the counted pixels, and what is inside the ball.

    Iterates may be anywhere in the box. Without a ball (``eps=inf``) the shortest that fools the share is returned or,
    where none does, the one that fools most. In a ball that one is projected and judged, at the price of a forward
    pass, and returned unless an iterate that lay inside by itself fools more.

    Attributes:
        found: The shortest that fools the share; before there is one, the one with the most fooled pixels.
        length: (N,) of that, in the norm of the threat.
        reached: (N,) bool, whether it fools the share.
        inside: The iterate with the most fooled pixels of those inside the ball.
        valid: (N,) whether all logits so far were finite.
        room: Where the attack is.
        share: In (0, 1].
    """

    found: Incumbent
    length: Tensor
    reached: Tensor
    inside: Incumbent
    valid: Tensor
    room: Room
    share: float

    @staticmethod
    def none(room: Room, share: float) -> Shortest:
        """Before the first iterate."""
        nothing = Incumbent.none(room.task)
        endless = torch.full_like(room.eps, math.inf)
        return Shortest(nothing, endless, ~nothing.valid, nothing, nothing.valid, room, share)

    def offer(self, delta: Tensor, prediction: Tensor, finite: Tensor, goal: Goal, *, best: bool) -> Shortest:
        """Take an iterate where its logits are finite and, if ``best``, it is better; no host sync."""
        fooled = goal.fooled(prediction).flatten(1).sum(1)
        length, reached = self.room.threat.norm.length(delta), goal.reached(prediction, self.share)
        better, inside = finite, self.inside
        if best:
            shorter = length < self.length
            more = (fooled > self.found.fooled) | ((fooled == self.found.fooled) & shorter)
            better = finite & torch.where(self.reached, reached & shorter, reached | more)
            fits = finite & (length <= self.room.eps) & (fooled > inside.fooled)
            inside = inside.replaced(fits, delta, prediction, fooled)
        return replace(
            self,
            found=self.found.replaced(better, delta, prediction, fooled),
            length=choose(better, length, self.length),
            reached=choose(better, reached, self.reached),
            inside=inside,
            valid=self.valid & finite,
        )

    def result(self, task: Task[Any], ledger: Ledger) -> Result:
        """As an attack's result, inside the threat."""
        room, found = self.room, self.found
        endless = room.threat.eps if isinstance(room.threat.eps, tuple) else (room.threat.eps,)
        if any(math.isfinite(eps) for eps in endless):
            inside = judge_between(self.inside, room, room.project(found.delta), ledger)
            free = room.eps == math.inf
            found = inside.replaced(free, found.delta, found.prediction, found.fooled)
        return replace(found, valid=self.valid).result(task, ledger)


def widest(room: Room) -> Tensor:
    """Length of the longest δ in the box, (N,), in the norm of the threat."""
    corner = torch.maximum(-room.box.low, room.box.high)
    return room.threat.norm.length(room.task.confine(corner))


def half_cosine(step: int, steps: int) -> float:
    """What falls along half a cosine, from 1 at the first step towards 0.

    Example:
        >>> half_cosine(0, 4), round(half_cosine(2, 4), 6)
        (1.0, 0.5)
    """
    return (1 + math.cos(math.pi * step / steps)) / 2
