"""SimBA (Guo et al. 2019): one direction after another, kept if the loss rises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import PAPER_QUERIES, QuerySettings
from segradius.attacks.strategy import Question, Turn, amplitude, moved, raised
from segradius.core.declared import DirectionsText, Length, LossName, WeightingName, check_fields
from segradius.gradients.directions import Directions, Pixel, dimension, parse_directions, walk
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Simba:
    """Try δ + αq for a direction q of an orthonormal basis; if the loss does not rise, δ − αq; then the next q.

    Directions come in random order, without replacement until all were tried. Points are projected into the threat.
    One query a round; each image has its own place in its own order.

    Attributes:
        alpha: Length α > 0 of a step, in l2; None is `STEP` times the l2 length of the largest image of one value in
            the ball.
        directions: The basis: `Pixel`, or `Dct` for the lowest frequencies.
    """

    feasible = True
    remembers = True
    per_round = 1

    alpha: Length | None
    directions: Directions = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """No perturbation; the first query asks about the clean image. Each image's walk through the basis begins."""
        images = room.task.images
        size = dimension(self.directions, images.shape[1:])
        start, stride = (part.to(images.device) for part in walk(size, room.task.randomness, "simba"))
        place = torch.zeros_like(start)
        losses = {"delta": torch.zeros_like(images), "losses": None}
        return {**losses, "place": place, "back": place.bool(), "start": start, "stride": stride}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The iterate itself at first; then a step along the direction of each image's place, or back."""
        if state["losses"] is None:
            return Question(state["delta"].unsqueeze(0))
        images, task = room.task.images, room.task
        chosen = (state["start"] + state["stride"] * state["place"]) % dimension(self.directions, images.shape[1:])
        along = self.directions.unit(chosen, images, task.randomness, turn.round)
        step = torch.where(state["back"].view(-1, 1, 1, 1), -along, along) * self._length(room)
        return Question(room.project(task.confine(state["delta"] + step)).unsqueeze(0))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep what raised the loss, and go on to the next direction; else go back first."""
        (proposed,), (found,) = asked.points[:], losses
        if state["losses"] is None:
            return {**state, "losses": found}
        rose = raised(state["losses"], found, weights)
        done = rose | state["back"]
        return {**state, **moved(state, proposed, found, rose), "place": state["place"] + done, "back": ~done}

    def _length(self, room: Room) -> Tensor:
        """α, (N, 1, 1, 1)."""
        if self.alpha is not None:
            return torch.full_like(room.eps, self.alpha).view(-1, 1, 1, 1)
        return amplitude(room) * (STEP * math.sqrt(room.task.images[0].numel()))


#: Tuned (docs/black-box.md): α in units of the l2 length of the largest image of one value in the ball, which is ε in
#: l2, ε·√n in l∞ and ε/√n in l1.
STEP = 1.6


@black_box("simba")
def simba(
    threat: Threat,
    settings: QuerySettings,
    *,
    alpha: Length | None = None,
    directions: DirectionsText = "dct:1/32",
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """SimBA (Guo et al. 2019): one direction of a basis after another, kept if the loss rises.

    Args:
        alpha: Length of a step, in l2; None is a share of ε in l2, and as far elsewhere.
        directions: The basis: ``dct:F`` for the lowest part F of the frequencies, or ``pixel``.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
    """
    if alpha is None:
        threat.check_bounded("the length of a step")
    return settings.queried(threat, Simba(alpha, parse_directions(directions)), loss, weighting, PAPER_QUERIES)
