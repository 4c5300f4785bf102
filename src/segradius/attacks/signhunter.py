"""SignHunter (Al-Dujaili & O'Reilly 2020): signs of parts of the image, halved again and again, flipped and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from segradius.attacks.loop import Room
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import BASELINE_QUERIES, QuerySettings
from segradius.attacks.strategy import Question, Turn, amplitude, raised_to
from segradius.core.declared import LossName, WeightingName, check_fields
from segradius.threats.threat import Threat

Order = Literal["bands", "pixels"]


class Part(NamedTuple):
    """Which part of a row of values each image flips: the ``place``-th of 2^level parts, (N,) int64 each.

    Example:
        >>> part = Part.first(torch.zeros(1))
        >>> for _ in range(3): part = part.next(5)
        >>> part.holds(torch.arange(5).view(1, -1), 5).tolist()  # the first quarter, two of five
        [[True, True, False, False, False]]
    """

    level: Tensor
    place: Tensor

    @staticmethod
    def first(like: Tensor) -> Part:
        """The whole row, for each image of ``like``."""
        zero = torch.zeros(len(like), dtype=torch.long, device=like.device)
        return Part(zero, zero)

    def size(self, length: Tensor | int) -> Tensor:
        """Values of a part of this level, ⌈length / 2^level⌉."""
        parts = torch.ones_like(self.level) << self.level
        return (length + parts - 1) // parts

    def holds(self, where: Tensor, length: Tensor | int) -> Tensor:
        """Which places (N, …) of the row are in it."""
        size = self.size(length)
        first, last = (end.view(-1, *(1,) * (where.dim() - 1)) for end in (self.place * size, (self.place + 1) * size))
        return (where >= first) & (where < last)

    def next(self, length: Tensor | int) -> Part:
        """The next part, of the next level after the last; after parts of one value the whole row again."""
        size = self.size(length)
        over = (self.place + 1) * size >= length
        level = self.level + over
        level = torch.where(over & (size <= 1), 0, level)
        return Part(level, torch.where(over, 0, self.place + 1))


@dataclass(frozen=True)
class SignHunter:
    """All values + at first; a part changes its signs if that raises the loss: the whole image, halves, quarters.

    Every value is ±a, a the largest that may stand everywhere: ε for l∞, ε/√n for l2, ε/n for l1. One query a round.

    Attributes:
        order: How values stand in the row that is halved: ``bands``, one after the other, as published; or ``pixels``,
            where a part has all bands of its pixels.
    """

    feasible = True
    remembers = True
    per_round = 1

    order: Order = "bands"

    def __post_init__(self) -> None:
        check_fields(self)

    def begin(self, room: Room) -> dict[str, Any]:
        """All signs +, whose loss is not known."""
        images = room.task.images
        first = Part.first(images)
        delta = self._points(torch.ones_like(images), room)
        return {
            "delta": delta,
            "losses": None,
            "signs": torch.ones_like(images),
            "level": first.level,
            "place": first.place,
        }

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """All signs + themselves, then one part with the other sign."""
        signs = state["signs"]
        if state["losses"] is not None:
            part = Part(state["level"], state["place"])
            signs = torch.where(part.holds(self._row(signs), self._length(signs)), -signs, signs)
        return Question(self._points(signs, room).unsqueeze(0), signs)

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Keep the signs that raised the loss, and go on to the next part."""
        found, kept = raised_to(state, asked, losses, weights)
        signs = torch.where(kept.view(-1, 1, 1, 1), asked.memo, state["signs"])
        part = Part(state["level"], state["place"])
        part = part if state["losses"] is None else part.next(self._length(signs))
        return {**found, "signs": signs, "level": part.level, "place": part.place}

    def _points(self, signs: Tensor, room: Room) -> Tensor:
        return room.project(room.task.confine(signs * amplitude(room)))

    def _length(self, images: Tensor) -> int:
        return images[0].numel() if self.order == "bands" else images[0, 0].numel()

    def _row(self, images: Tensor) -> Tensor:
        """The place of each value in the row, (1, B, H, W) or (1, 1, H, W)."""
        shape = images.shape[1:] if self.order == "bands" else (1, *images.shape[2:])
        return torch.arange(self._length(images), device=images.device).view(1, *shape)


@black_box("signhunter")
def signhunter(
    threat: Threat,
    settings: QuerySettings,
    *,
    order: Order = "bands",
    loss: LossName = "margin",
    weighting: WeightingName = "uniform",
) -> Queried:
    """SignHunter (Al-Dujaili & O'Reilly 2020): parts of the image change sign, from the whole down to single values.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        order: How values stand in the row that is halved: ``bands``, one after the other, or ``pixels``, where a part
            has all bands of its pixels.
        loss: Name of the loss; ``wrong`` serves a target that returns labels only.
        weighting: Name of the weighting.
    """
    threat.check_bounded("the size of a change")
    return settings.queried(threat, SignHunter(order), loss, weighting, BASELINE_QUERIES)
