"""Bandits with time and data priors (Ilyas, Engstrom & Madry 2019): a gradient on tiles, learnt from round to round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.loop import Room, StepSize
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import BASELINE_QUERIES, QuerySettings, in_norm
from segradius.attacks.strategy import Question, Turn, amplitude, part_of
from segradius.core.declared import Length, LossName, Positive, Side, WeightingName, check_fields
from segradius.gradients.directions import Tiles
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class BanditsTD:
    """A prior v on tiles, learnt by gradient ascent on ⟨∇L, v⟩, and steepest steps along it (Algorithms 1 to 3).

    A round asks at x + δ + γq/‖q‖₂ for q = v ± ηu, u Gaussian of unit mean square length on the tiles; the difference
    of the losses over γη times ηu is the gradient for v. In l∞ v stays in (−1, 1), by exponentiated gradients; else it
    moves by plain ascent. Then δ ← Proj(δ + α·steepest(v)).

    Attributes:
        size: α.
        gamma: γ, in l2; None is `GAMMA` times the l2 length of the largest image of one value in the ball.
        exploration: η.
        online_lr: Learning rate of the prior.
        tile: Side of a tile in pixels, the data prior; None is a sixth of the image's shorter side.
    """

    feasible = False  # the points around an iterate on the border of the ball lie outside
    remembers = False
    per_round = 2

    size: StepSize
    gamma: Length | None = None
    exploration: Positive = 1.0
    online_lr: Positive = 100.0
    tile: Side | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """No perturbation, and a prior that knows nothing."""
        images = room.task.images
        grid = self._tiles(room).grid(images.shape[1:])
        return {"delta": torch.zeros_like(images), "prior": images.new_zeros(len(images), *grid)}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """Two points, along the prior with noise and with its opposite."""
        prior, keys = state["prior"], room.task.randomness
        drawn = keys.normal(prior.shape[1:], "bandits", turn.round, device=prior.device, dtype=prior.dtype)
        noise = drawn * (self.exploration / math.sqrt(prior[0].numel()))
        v, reach = self._prior(prior, room), self._reach(room)
        return Question(
            torch.stack([torch.addcmul(state["delta"], self._along(q, room), reach) for q in (v + noise, v - noise)]),
            noise,
        )

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Learn the prior, and step along it."""
        rise = ((losses[0] - losses[1]) * weights).sum((1, 2)).view(-1, 1, 1, 1)
        slope = rise / (self._reach(room) * self.exploration) * asked.memo
        # v ← tanh(artanh(v) + λg) is the exponentiated step; what is kept is 2·artanh(v), which never saturates.
        rate = 2 * self.online_lr if self._is_bounded(room) else self.online_lr
        prior = state["prior"] + rate * slope
        direction = room.threat.norm.steepest(self._lifted(self._prior(prior, room), room))
        moved = torch.addcmul(state["delta"], direction, self.size.of(room))
        return {"delta": room.project(moved), "prior": prior}

    def _prior(self, kept: Tensor, room: Room) -> Tensor:
        return torch.tanh(kept / 2) if self._is_bounded(room) else kept

    def _is_bounded(self, room: Room) -> bool:
        return room.threat.norm.name == "linf"

    def _reach(self, room: Room) -> Tensor:
        """γ, (N, 1, 1, 1)."""
        if self.gamma is not None:
            return torch.full_like(room.eps, self.gamma).view(-1, 1, 1, 1)
        return amplitude(room) * (GAMMA * math.sqrt(room.task.images[0].numel()))

    def _tiles(self, room: Room) -> Tiles:
        return Tiles(self.tile or part_of(room.task.images, 6))

    def _lifted(self, values: Tensor, room: Room) -> Tensor:
        task = room.task
        return task.confine(self._tiles(room).lift(values, task.images.shape[1:], 0.0, task.randomness))

    def _along(self, values: Tensor, room: Room) -> Tensor:
        """Of unit length in l2; zero stays zero."""
        lifted = self._lifted(values, room)
        length = lifted.square().flatten(1).sum(1).sqrt().clamp_min(torch.finfo(lifted.dtype).tiny)
        return lifted / length.view(-1, 1, 1, 1)


#: Tuned by norm (docs/black-box.md): γ in units of the l2 length of the largest image of one value, α in units of ε.
GAMMA = 0.5
ALPHA: Mapping[str, float] = {"l1": 0.5, "l2": 0.5, "linf": 1.0}
RATE = 10.0


@black_box("bandits")
def bandits(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: Length | None = None,
    alpha: Length | None = None,
    exploration: Positive = 1.0,
    online_lr: Positive = RATE,
    tile: Side | None = None,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Bandits with time and data priors (Ilyas et al. 2019): a gradient on tiles, carried from round to round.

    Published for l∞ (ε = 0.05: gamma=0.1, alpha=0.01, exploration=1, online_lr=100) and l2 (ε = 5: 0.01, 0.5, 0.01,
    0.1), 50 tiles a side of the image; l1 is ours, with l2's steps of the prior.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        gamma: Distance of the queries from the iterate, in l2; None is a share of the ball's extent.
        alpha: Length of a step in the threat's norm; None is a share of ε.
        exploration: Length of the noise on the prior.
        online_lr: Learning rate of the prior.
        tile: Side of a tile in pixels; None is a sixth of the image's shorter side.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    threat.check_bounded("the distance of the queries")
    norm = threat.norm.name
    size = StepSize(in_norm(alpha, threat, ALPHA[norm]))
    return settings.queried(
        threat, BanditsTD(size, gamma, exploration, online_lr, tile), loss, weighting, BASELINE_QUERIES
    )
