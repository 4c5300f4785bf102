"""Stripes: rows or columns of ±ε, one sign a stripe; the part of the discrete linear attack that does most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.noise import BestOf, signs
from segradius.attacks.queries import Queried
from segradius.attacks.settings import BASELINE_QUERIES, QuerySettings
from segradius.attacks.strategy import amplitude, part_of
from segradius.core.declared import Count, LossName, Side, WeightingName, check_fields
from segradius.threats.threat import Threat

Along = Literal["rows", "columns", "alternate"]
Bands = Literal["one", "each"]


@dataclass(frozen=True)
class Stripes:
    """±a on stripes, a the largest value that may stand everywhere: ε for l∞, ε/√n for l2, ε/n for l1.

    Attributes:
        along: ``rows``, ``columns``, or ``alternate``: rows first, columns next, and so on.
        width: Width of a stripe in pixels; None is so that ``count`` of them make the image's shorter side.
        bands: ``one`` sign for all bands of a stripe, or one for ``each``.
        count: See ``width``.
    """

    along: Along = "alternate"
    width: Side | None = 1
    bands: Bands = "one"
    count: Count = 6

    def __post_init__(self) -> None:
        check_fields(self)

    def has_columns(self, step: int) -> bool:
        """Whether those of a step are columns."""
        return step % 2 == 1 if self.along == "alternate" else self.along == "columns"

    def signs(self, room: Room, step: int) -> Tensor:
        """±1, (N, B, H, W)."""
        images = room.task.images
        bands, *sides = images.shape[1:]
        width = self.width or part_of(images, self.count)
        axis = 3 if self.has_columns(step) else 2
        length = sides[axis - 2]
        shape = [bands if self.bands == "each" else 1, 1, 1]
        shape[axis - 1] = -(-length // width)
        drawn = room.task.randomness.uniform(shape, "stripes", step, device=images.device, dtype=images.dtype)
        place = torch.arange(length, device=images.device) // width
        return signs(drawn).index_select(axis, place).expand_as(images)

    def draw(self, room: Room, step: int) -> Tensor:
        """Stripes of length ε."""
        return self.signs(room, step) * amplitude(room)


@black_box("stripes")
def stripes(
    threat: Threat,
    settings: QuerySettings,
    *,
    along: Along = "rows",
    width: Side | None = None,
    bands: Bands = "each",
    loss: LossName = "wrong",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Random stripes of ±ε, the best of as many as the budget allows (first part of Chen et al. 2024).

    Published are those of one pixel in turn, all bands alike: along=alternate, width=1, bands=one. In l2 and l1 they
    are scaled onto the ball, which is ours.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        along: ``rows``, ``columns``, or the one and the other in turn, ``alternate``.
        width: Width of a stripe in pixels; None is a sixth of the image's shorter side.
        bands: ``one`` sign for all bands of a stripe, or one for ``each``.
        loss: Name of the loss; ``wrong`` counts pixels, and serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    threat.check_bounded("the size of a change")
    return settings.queried(threat, BestOf(Stripes(along, width, bands)), loss, weighting, BASELINE_QUERIES)
