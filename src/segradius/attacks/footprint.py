"""How far a change of the input reaches in the output of a target, found with queries; it tells how wide to listen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.attacks.task import ScoreModel
from segradius.errors import InputError
from segradius.feedback import look
from segradius.goal import Goal
from segradius.randomness import Randomness


@dataclass(frozen=True)
class Footprint:
    """What share of a tile's effect on the scores falls within a distance of it.

    Attributes:
        share: (D,) at distance d = 0, 1, … in pixels from the middle of the tile (the larger of rows and columns), of
            the effect above that at the largest distance, which comes from everywhere (a pooling of the whole image,
            say). It ends at 1.
        background: Part of all effect that comes from everywhere, in [0, 1].
    """

    share: Tensor
    background: float

    def window(self, share: float = 0.8) -> int:
        """Side of the square around a tile that holds this share of its effect; odd."""
        return 2 * int((self.share < share).sum()) + 1


@torch.no_grad()
def footprint(
    target: ScoreModel,
    images: Tensor,
    labels: Tensor,
    *,
    tile: int = 16,
    spacing: int = 112,
    size: float = 0.1,
    samples: int = 4,
    seed: int = 0,
    ignore_index: int = 255,
) -> Footprint:
    """Change tiles that are far apart, and see where the label's score moves; samples + 1 queries an image.

    Args:
        target: Whose scores.
        images: (N, 3, H, W) in [0, 1].
        labels: (N, H, W) int64.
        tile: Side of a tile in pixels.
        spacing: Distance of tiles that are changed together, at least twice the tile; effects beyond half of it are
            not told apart.
        size: How much a tile is changed, up or down by channel.
        samples: Random choices of tiles and signs.
        seed: Of those.
        ignore_index: Value of void pixels, whose scores are not looked at.

    Raises:
        InputError: The spacing is too small, or the image smaller than half of it.

    Example:
        >>> import segradius as sr
        >>> model = sr.wrap(torch.nn.Conv2d(3, 2, 9, padding=4), num_classes=2)
        >>> labels = torch.zeros(1, 96, 96, dtype=torch.long)
        >>> found = footprint(model, torch.full((1, 3, 96, 96), 0.5), labels, tile=8, spacing=48)
        >>> found.window(1.0) <= 17  # a tile of 8 and 4 pixels around it
        True
    """
    if spacing < 2 * tile or spacing > 2 * min(images.shape[2:]):
        raise InputError(f"spacing is {spacing}; expected at least 2·tile and at most twice the image's shorter side")
    keys = Randomness(seed, tuple(map(str, range(len(images)))))
    goal = Goal.leave(labels, ignore_index=ignore_index)
    clean = look(target.scores(images), goal.reference).own
    reach = spacing // 2
    total = images.new_zeros(reach)
    pixels = images.new_zeros(reach)
    for sample in range(samples):
        offset = keys.uniform((2, 1), "footprint offset", sample).mul_(spacing).long().to(images.device)
        distance = torch.maximum(
            _distance(images.shape[2], offset[:, 0], spacing).unsqueeze(2),
            _distance(images.shape[3], offset[:, 1], spacing).unsqueeze(1),
        )
        signs = keys.uniform((3, 1, 1), "footprint sign", sample, device=images.device).lt(0.5).to(images) * 2 - 1
        changed = images + size * signs * (distance * 2 <= tile).unsqueeze(1)
        effect = (look(target.scores(changed.clamp(0, 1)), goal.reference).own - clean).abs()
        seen = goal.counted & (distance < reach)
        total.index_add_(0, distance[seen], effect[seen])
        pixels.index_add_(0, distance[seen], torch.ones_like(effect[seen]))
    density = total / pixels.clamp_min(1)
    background = density[-max(1, reach // 8) :].mean()
    above = ((density - background) * pixels).clamp_min(0).cumsum(0)
    whole = total.sum().clamp_min(torch.finfo(total.dtype).tiny)
    return Footprint((above / above[-1].clamp_min(1e-30)).cpu(), float(background * pixels.sum() / whole))


def _distance(length: int, offset: Tensor, spacing: int) -> Tensor:
    """Distance of each place to the nearest of the middles offset + k·spacing, (N, length)."""
    place = (torch.arange(length, device=offset.device) - offset + spacing // 2) % spacing
    return (place - spacing // 2).abs()
