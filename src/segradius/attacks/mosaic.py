"""Mosaic: each part of an image keeps the pattern that fooled most around it; labels alone will do (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.base import Assisted
from segradius.attacks.guided_steps import guided_steps
from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import QuerySettings
from segradius.attacks.strategy import Question, Turn, amplitude
from segradius.core.declared import Count, LossName, OddSide, Share, WeightingName, Whole, check_fields
from segradius.gradients.directions import ShiftedTiles
from segradius.gradients.local import window_sum
from segradius.threats.threat import Threat


class Pattern(NamedTuple):
    """Stripes of ±1.

    Attributes:
        rows: Stripes along the shorter side, one above the other; 0 for none.
        columns: The same for columns; with both it is a checkerboard.
        band: The band that is 1 where all others are −1, counted from the last; None where all have one sign.
        shift: By how many stripes they are moved.
    """

    rows: float
    columns: float
    band: int | None = 0
    shift: float = 0.0

    def on(self, images: Tensor) -> Tensor:
        """In the shape (B, H, W) of images (N, B, H, W).

        Example:
            >>> Pattern(2, 0).on(torch.zeros(1, 3, 4, 4))[:, :, 0].tolist()
            [[-1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]]
        """
        bands, *sides = images.shape[1:]
        rows, columns = (
            _stripes(side, stripes / min(sides), self.shift, images)
            for side, stripes in zip(sides, (self.rows, self.columns), strict=True)
        )
        signs = torch.ones(bands, dtype=images.dtype, device=images.device)
        if self.band is not None and bands > 1:
            signs.neg_()[bands - 1 - self.band % bands] = 1
        return signs.view(-1, 1, 1) * torch.outer(rows, columns)


def _stripes(length: int, per_pixel: float, shift: float, like: Tensor) -> Tensor:
    """1 and −1 in turn along a side, (length,); 1 without stripes."""
    if not per_pixel:
        return torch.ones(length, dtype=like.dtype, device=like.device)
    place = torch.arange(length, dtype=torch.float64, device=like.device)
    return (1 - 2 * (place * per_pixel + shift).floor().remainder(2)).to(like.dtype)


#: Weight of a pixel that the target is known to have wrong, in the loss of a surrogate.
FOOLED = 0.3

#: In the order in which they are asked about, as chosen on validation images (docs/black-box.md).
PATTERNS = (
    Pattern(4, 0, shift=0.5),
    Pattern(4, 0, 1),
    Pattern(4, 0, shift=1),
    Pattern(8, 0),
    Pattern(6, 0, shift=0.5),
    Pattern(0, 2),
    Pattern(4, 0),
    Pattern(6, 0, None, 1),
    Pattern(4, 4),
    Pattern(48, 0, None),
)


@dataclass(frozen=True)
class Mosaic(Assisted):
    """Asks about a few patterns on the whole image, puts the best parts together, and then redraws tiles at random.

    The perturbation has the values ±a of `LocalSearch`. In each round every pixel keeps what was proposed there if the
    sum of the loss over the window around it rose; the loss that the next round is compared with is put together from
    the answers that were kept, and is asked for once when all patterns were.

    Where there is a surrogate, every second round after the patterns asks about steps along its gradients from the
    mosaic, for the pixels that the target has right there (`segradius.attacks.guided_steps`), in the place of tiles.

    Attributes:
        patterns: How many of `PATTERNS` are asked about.
        window: Side of the window in pixels that decides, odd.
        tiles: Tiles along the shorter side of the image in the first round after the patterns.
        tiles_end: In the last; their number grows by the same factor in equal parts of the budget.
        share: Part of the tiles that draw new signs in a round, in (0, 1].
        surrogate_steps: Passes, forward and backward, of a surrogate in such a round.
        refresh: Rounds between queries of the mosaic itself, whose loss as put together drifts from its own; 0 for the
            one after the patterns alone.
    """

    feasible = True
    remembers = True  # the loss that is put together is of many rounds
    per_round = 1

    patterns: Whole = 8
    window: OddSide = 33
    tiles: Count = 3
    tiles_end: Count = 12
    share: Share = 0.3
    surrogate_steps: Count = 5
    refresh: Whole = 5

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """No perturbation, and no loss known."""
        return {"delta": torch.zeros_like(room.task.images), "losses": None, "amplitude": amplitude(room)}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """A pattern; then the mosaic of all; then the mosaic with new signs on some tiles."""
        if self._asks_itself(turn):
            return Question(state["delta"].unsqueeze(0))
        images, passes = room.task.images, (0, 0)
        if turn.round < self.patterns:
            proposed = PATTERNS[turn.round % len(PATTERNS)].on(images) * state["amplitude"]
        elif room.task.surrogate is not None and (turn.round - self.patterns) % 2:
            proposed, passes = self._guided(state, room, turn)
        else:
            proposed = self._redrawn(state, room, turn)
        return Question(room.project(room.task.confine(proposed)).unsqueeze(0), passes=passes)

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep, place by place, what raised the loss around it."""
        (proposed,), (found,) = asked.points[:], losses
        if state["losses"] is None or self._asks_itself(turn):
            return {**state, "delta": proposed, "losses": found}
        return {**state, **pieced(state, proposed, found, weights, self.window, room)}

    def _asks_itself(self, turn: Turn) -> bool:
        since = turn.round - self.patterns
        return since == 0 or (since > 0 and self.refresh > 0 and since % self.refresh == 0)

    def _guided(self, state: Mapping[str, Any], room: Room, turn: Turn) -> tuple[Tensor, tuple[int, int]]:
        """The mosaic after a few steps that fool the surrogate where the target is not fooled."""
        goal, losses = room.task.goal, state["losses"]
        fooled = losses * goal.pixels.view(-1, 1, 1) > 0.5 * goal.sign
        wanted = torch.where(fooled, FOOLED, torch.ones_like(losses))
        return guided_steps(room, state["delta"], wanted, self.surrogate_steps, turn.round)

    def _redrawn(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Tensor:
        """The mosaic with ±a a band on some tiles of a grid that is moved in every round."""
        images, keys = room.task.images, room.task.randomness
        shape = images.shape[1:]
        tiles = self.tiles * (self.tiles_end / self.tiles) ** turn.progress
        grid = ShiftedTiles(max(1, round(min(shape[1:]) / tiles)))
        bands, *counts = grid.grid(shape)
        drawn = keys.uniform((bands + 1, *counts), "mosaic", turn.round, device=images.device, dtype=images.dtype)
        drawn = torch.cat([(drawn[:, :bands] < 0.5).to(drawn) * 2 - 1, drawn[:, bands:]], 1)
        spread = grid.lift(drawn, shape, 0.0, keys, turn.round)
        return torch.where(spread[:, bands:] < self.share, spread[:, :bands] * state["amplitude"], state["delta"])


def pieced(
    state: Mapping[str, Any], proposed: Tensor, found: Tensor, weights: Tensor, window: int, room: Room
) -> dict[str, Tensor]:
    """Perturbation and loss map, of the proposal where the weighted loss rose in the window around, else of the state.

    Args:
        state: With ``delta``, (N, B, H, W), and ``losses``, (N, H, W).
        proposed: (N, B, H, W).
        found: (N, H, W) its losses.
        weights: (N, H, W) of the pixels.
        window: Side of the window in pixels, odd.
        room: Where the perturbation may be; one of parts inside the ball may lie outside, and is projected.
    """
    rose = window_sum((found - state["losses"]) * weights, window // 2) > 0
    return {
        "delta": room.project(torch.where(rose.unsqueeze(1), proposed, state["delta"])),
        "losses": torch.where(rose, found, state["losses"]),
    }


@black_box("mosaic", guidance={"samples": 0})
def mosaic(
    threat: Threat,
    settings: QuerySettings,
    *,
    patterns: Whole = 8,
    window: OddSide = 33,
    tiles: Count = 3,
    tiles_end: Count = 12,
    share: Share = 0.3,
    surrogate_steps: Count = 5,
    refresh: Whole = 5,
    loss: LossName = "wrong",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Stripes of several colours, of which each part of the image keeps the best, then tiles drawn anew (ours).

    Args:
        threat: Ball and box.
        settings: Shared settings.
        patterns: Stripes on the whole image that are asked about first, one query each.
        window: Side of the window in pixels that decides, odd.
        tiles: Tiles along the shorter side of the image, at first.
        tiles_end: At the end of the budget.
        share: Part of the tiles that draw new signs in a round.
        surrogate_steps: With a surrogate (`segradius.transferred`, ``--from``), the passes of every second round,
            forward and backward, that find what is asked about in the place of tiles.
        refresh: Rounds between queries of the mosaic itself; 0 for the one after the patterns alone.
        loss: Name of the loss; ``wrong`` counts pixels, and serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    threat.check_bounded("the size of a change")
    return settings.queried(
        threat, Mosaic(patterns, window, tiles, tiles_end, share, surrogate_steps, refresh), loss, weighting, 1000
    )
