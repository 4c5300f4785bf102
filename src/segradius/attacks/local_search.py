"""Local search: every region of an image proposes, and keeps its proposal if the loss around it rose (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import QuerySettings
from segradius.attacks.strategy import Question, Turn, amplitude
from segradius.core.declared import LossName, OddSide, Share, Side, WeightingName, Whole, check_fields
from segradius.gradients.local import window_sum
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class LocalSearch:
    """Random search that decides region by region: one query tries as many proposals as there are regions.

    The perturbation has one value ±a a channel on each tile, with a the largest that keeps ‖δ‖ ≤ ε on all pixels: ε for
    l∞, ε/√n for l2, ε/n for l1. In each round a random part of the tiles draws new signs. A tile keeps them if the sum
    of the loss over the window around it rose; the loss that the next round is compared with is put together from the
    answers that were kept. No gradient, no step size, and one query a round.

    Attributes:
        tile: Side of a tile in pixels.
        window: Side of the window in pixels that decides, odd.
        share: Part of the tiles that propose in a round, in (0, 1].
        refresh: Rounds between queries of the iterate itself, as the loss that was put together drifts from its own; 0
            for never.
    """

    feasible = True
    remembers = True  # the loss that is put together is of many rounds
    per_round = 1

    tile: Side = 16
    window: OddSide = 49
    share: Share = 0.3
    refresh: Whole = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """No perturbation, and no loss known."""
        return {"delta": torch.zeros_like(room.task.images), "losses": None, "amplitude": amplitude(room)}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The iterate itself where its loss is not known well enough; else with new signs on some tiles."""
        if self._asks_itself(state, turn):
            return Question(state["delta"].unsqueeze(0))
        task = room.task
        height, width = (-(-side // self.tile) for side in task.images.shape[2:])
        bands = task.images.shape[1]
        drawn = task.randomness.uniform(
            (bands + 1, height, width), "regions", turn.round, device=task.images.device, dtype=task.images.dtype
        )
        chosen = self._on_pixels(drawn[:, bands:] < self.share, task.images)
        signs = (drawn[:, :bands] < 0.5).to(drawn) * 2 - 1
        values = self._on_pixels(signs * state["amplitude"], task.images)
        proposed = room.project(task.confine(torch.where(chosen, values, state["delta"])))
        return Question(proposed.unsqueeze(0))

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep, region by region, what raised the loss around it."""
        (proposed,), (found,) = asked.points[:], losses
        if self._asks_itself(state, turn):
            return {**state, "delta": proposed, "losses": found}
        gain = window_sum((found - state["losses"]) * weights, self.window // 2)
        kept = self._on_pixels(self._at_tiles(gain).unsqueeze(1) > 0, proposed)
        return {
            **state,
            "delta": torch.where(kept, proposed, state["delta"]),
            "losses": torch.where(kept.squeeze(1), found, state["losses"]),
        }

    def _asks_itself(self, state: Mapping[str, Any], turn: Turn) -> bool:
        return state["losses"] is None or (self.refresh > 0 and turn.round % self.refresh == 0)

    def _at_tiles(self, maps: Tensor) -> Tensor:
        """Values at the middle of each tile, (N, H, W) → (N, h, w)."""
        middles = [
            torch.arange(self.tile // 2, side + self.tile // 2, self.tile, device=maps.device).clamp_(max=side - 1)
            for side in maps.shape[1:]
        ]
        return maps.index_select(1, middles[0]).index_select(2, middles[1])

    def _on_pixels(self, values: Tensor, like: Tensor) -> Tensor:
        """Each tile's value on its pixels, (N, c, h, w) → (N, c, H, W).

        Columns first: whole rows are then copied at a stretch, which is eight times as fast.
        """
        rows, columns = (torch.arange(side, device=values.device) // self.tile for side in like.shape[2:])
        return values.index_select(3, columns).index_select(2, rows)


@black_box("local_search", guidance={"samples": 0})
def local_search(
    threat: Threat,
    settings: QuerySettings,
    *,
    tile: Side = 16,
    window: OddSide = 49,
    share: Share = 0.1,
    refresh: Whole = 0,
    loss: LossName = "margin",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Random search that decides region by region, by the loss around each (ours); one query a round, no step size.

    Args:
        tile: Side of a tile in pixels.
        window: Side of the window in pixels that decides, odd.
        share: Part of the tiles that propose in a round.
        refresh: Rounds between queries of the iterate itself; 0 for never.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
    """
    threat.check_bounded("the size of a change")
    return settings.queried(threat, LocalSearch(tile, window, share, refresh), loss, weighting, 1000)
