"""The discrete linear attack (Chen et al. 2024): the best of some stripes, then flips of halves, quarters of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import BASELINE_QUERIES, QuerySettings
from segradius.attacks.signhunter import Part
from segradius.attacks.strategy import Question, Turn, amplitude, raised_to
from segradius.attacks.stripes import Along, Bands, Stripes
from segradius.core.declared import LossName, Share, Side, WeightingName, check_fields
from segradius.threats.threat import Threat

Flips = Literal["own", "across"]


@dataclass(frozen=True)
class DiscreteLinear:
    """Stripes for a part of the queries, of which the best is kept; then parts of their row of signs are flipped.

    What is flipped is at first the whole row of signs, then its halves, its quarters, …, each kept if the loss rises.
    Every image has its own best stripes, and its own place among the parts. One query a round.

    Attributes:
        stripes: How they are drawn.
        share: Part of the rounds that draws them, at least one.
        flips: Whether signs are flipped in parts of the ``own`` row of stripes, or in parts ``across`` them.
    """

    feasible = True
    remembers = True
    per_round = 1

    stripes: Stripes = field(default_factory=Stripes)
    share: Share = 0.2
    flips: Flips = "own"

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """No stripes yet."""
        images = room.task.images
        first = Part.first(images)
        return {
            "delta": torch.zeros_like(images),
            "losses": None,
            "signs": torch.zeros_like(images),
            "columns": torch.zeros_like(first.level, dtype=torch.bool),
            "level": first.level,
            "place": first.place,
        }

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """New stripes; later the best ones with a part flipped."""
        if self._draws(room, turn):
            signs = self.stripes.signs(room, turn.round)
        else:
            signs, part = state["signs"], Part(state["level"], state["place"])
            rows, columns = (torch.arange(side, device=signs.device) for side in signs.shape[2:])
            down, length = self._row(state)
            where = torch.where(down, rows.view(1, 1, -1, 1), columns.view(1, 1, 1, -1))
            signs = torch.where(part.holds(where, length), -signs, signs)
        delta = room.project(room.task.confine(signs * amplitude(room)))
        return Question(delta.unsqueeze(0), signs)

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep what raised the loss."""
        found, kept = raised_to(state, asked, losses, weights)
        found["signs"] = torch.where(kept.view(-1, 1, 1, 1), asked.memo, state["signs"])
        if self._draws(room, turn):
            columns = kept if self.stripes.has_columns(turn.round) else torch.zeros_like(kept)
            return {**state, **found, "columns": torch.where(kept, columns, state["columns"])}
        part = Part(state["level"], state["place"]).next(self._row(state)[1])
        return {**state, **found, "level": part.level, "place": part.place}

    def _draws(self, room: Room, turn: Turn) -> bool:
        return turn.round < max(1, math.ceil(self.share * room.steps - 1e-9))

    def _row(self, state: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Whether the row that is halved runs down the image, (N, 1, 1, 1), and its length, (N,)."""
        height, width = state["signs"].shape[2:]
        down = ~state["columns"] if self.flips == "own" else state["columns"]
        return down.view(-1, 1, 1, 1), torch.where(down, height, width)


@black_box("dla")
def dla(
    threat: Threat,
    settings: QuerySettings,
    *,
    share: Share = 0.2,
    along: Along = "rows",
    width: Side | None = None,
    bands: Bands = "each",
    flips: Flips = "own",
    loss: LossName = "wrong",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Discrete linear attack (Chen et al. 2024): the best of some stripes of ±ε, then flips of parts of them.

    Published for l∞ and labels alone, with along=alternate, width=1, bands=one; in l2 and l1 stripes are scaled onto
    the ball, which is ours.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        share: Part of the queries that draws stripes.
        along: ``rows``, ``columns``, or the one and the other in turn, ``alternate``.
        width: Width of a stripe in pixels; None is a third of the image's shorter side.
        bands: ``one`` sign for all bands of a stripe, or one for ``each``.
        flips: Parts that are flipped: of the ``own`` row of stripes, or ``across`` them.
        loss: Name of the loss; ``wrong`` counts pixels, and serves a target that returns labels only.
        weighting: Name of the weighting; ``balanced`` is nearest to the published criterion, the image's mIoU.
    """
    threat.check_bounded("the size of a change")
    strategy = DiscreteLinear(Stripes(along, width, bands, count=3), share, flips)
    return settings.queried(threat, strategy, loss, weighting, BASELINE_QUERIES)
