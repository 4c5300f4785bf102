"""Noise: one random point of the ball after another, of which the best is kept; what every search has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import BASELINE_QUERIES, QuerySettings
from segradius.attacks.strategy import Question, Turn, part_of, raised_to
from segradius.core.declared import DirectionsText, LossName, WeightingName, check_fields
from segradius.gradients.directions import Directions, Pixel, Tiles, parse_directions
from segradius.threats.threat import Threat

Values = Literal["uniform", "signs"]


class Drawing(Protocol):
    """A random perturbation that knows nothing of the target; a frozen dataclass."""

    def draw(self, room: Room, step: int) -> Tensor:
        """One for each image, (N, B, H, W), not projected; ``step`` keys the random numbers."""


@dataclass(frozen=True)
class BestOf:
    """One drawn point a round; the one with the highest loss is kept.

    Attributes:
        drawing: What is drawn.
    """

    feasible = True
    remembers = True
    per_round = 1

    drawing: Drawing

    def begin(self, room: Room) -> dict[str, Any]:
        """No perturbation; the first drawn one takes its place, whatever its loss."""
        return {"delta": torch.zeros_like(room.task.images), "losses": None}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """A new one."""
        drawn = self.drawing.draw(room, turn.round)
        return Question(room.project(room.task.confine(drawn)).unsqueeze(0))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep the better."""
        return {**state, **raised_to(state, asked, losses, weights)[0]}


@dataclass(frozen=True)
class Noise:
    """Random points of length ε.

    Attributes:
        values: ``uniform`` on the sphere of the coordinates, or ``signs``: all coordinates ± one size.
        directions: Whose coordinates: `Pixel`, or coarser ones; None is tiles of a third of the image's shorter side.
    """

    values: Values = "uniform"
    directions: Directions | None = field(default_factory=Pixel)

    def __post_init__(self) -> None:
        check_fields(self)

    def draw(self, room: Room, step: int) -> Tensor:
        """Drawn in coordinates, lifted to the image and scaled to ε."""
        images, keys, norm = room.task.images, room.task.randomness, room.threat.norm
        directions = Tiles(part_of(images, 3)) if self.directions is None else self.directions
        grid = directions.grid(images.shape[1:])
        if self.values == "signs":
            drawn = signs(keys.uniform(grid, "noise", step, device=images.device, dtype=images.dtype))
        else:
            drawn = norm.sample_sphere(images.new_empty(len(images), *grid), keys, step)
        lifted = room.task.confine(directions.lift(drawn, images.shape[1:], 0.0, keys, step))
        length = norm.length(lifted).clamp_min(torch.finfo(lifted.dtype).tiny)
        return lifted * (room.eps / length).view(-1, 1, 1, 1)


def signs(drawn: Tensor) -> Tensor:
    """±1 from uniform numbers in [0, 1).

    Example:
        >>> signs(torch.tensor([0.2, 0.7])).tolist()
        [1.0, -1.0]
    """
    return (drawn < 0.5).to(drawn) * 2 - 1


@black_box("noise")
def noise(
    threat: Threat,
    settings: QuerySettings,
    *,
    values: Values = "signs",
    directions: DirectionsText | None = None,
    loss: LossName = "wrong",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Random noise of length ε, the best of as many as the budget allows.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        values: What is drawn: ``signs``, all coordinates ± one size, or ``uniform`` on the sphere.
        directions: Whose coordinates: ``pixel``, ``tiles:S``, ``shifted_tiles:S`` or ``dct:F``, as for ``pbgd``;
            None is tiles of a third of the image's shorter side.
        loss: Name of the loss; ``wrong`` counts pixels, and serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    threat.check_bounded("the size of a change")
    chosen = None if directions is None else parse_directions(directions)
    return settings.queried(threat, BestOf(Noise(values, chosen)), loss, weighting, BASELINE_QUERIES)
