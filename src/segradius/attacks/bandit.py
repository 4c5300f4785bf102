"""Strategies that climb an estimated gradient: PBGD with any estimator and any step (Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from segradius.attacks.loop import Observation, Room, Step
from segradius.attacks.strategy import Question, Turn
from segradius.gradients import Estimator


@dataclass(frozen=True)
class Bandit:
    """Projected ascent along an estimated gradient, δ ← Proj(δ + α·ĝ) (Eq. 17 and 19).

    Attributes:
        estimator: How the gradient is estimated; it determines the queries of a round.
        step: How the iterate moves.
        start: ``"zero"``, or ``"uniform"`` in the ball.
    """

    estimator: Estimator
    step: Step
    start: Literal["zero", "uniform"] = "zero"

    @property
    def feasible(self) -> bool:
        """No: the points around an iterate on the border of the ball lie outside."""
        return False

    @property
    def remembers(self) -> bool:
        """No."""
        return False

    @property
    def per_round(self) -> int:
        """Those of the estimator."""
        return self.estimator.queries

    def begin(self, room: Room) -> dict[str, Any]:
        """The first iterate; no state of the step yet."""
        return {"delta": first_iterate(room, self.start), "step": None}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The estimator's points around the iterate."""
        delta = state["delta"]
        draw = self.estimator.draw(delta, room.task.randomness, turn.round)
        return Question(room.task.confine(self.estimator.points(delta, draw)), draw)

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Estimate and step."""
        return self.move(state, room, turn, self.estimator.gradient(losses * weights, asked.memo), losses)

    def move(
        self, state: Mapping[str, Any], room: Room, turn: Turn, gradient: Tensor, losses: Tensor
    ) -> dict[str, Any]:
        """Step along a gradient, (N, 3, H, W), that was estimated from losses (K, N, H, W)."""
        value = losses.sum((0, 2, 3)) / len(losses)
        seen = Observation(state["delta"], room.task.confine(gradient), value, turn.round)
        moved, step = self.step.advance(seen, room, state["step"])
        return {"delta": moved, "step": step}


def first_iterate(room: Room, start: str) -> Tensor:
    """Where an attack begins, inside the threat; a warm start goes before its own."""
    task = room.task
    if task.warm is not None:
        return room.project(task.confine(task.warm))
    if start == "zero":
        return torch.zeros_like(task.images)
    return room.project(task.confine(room.threat.start(task.images, task.randomness)))
