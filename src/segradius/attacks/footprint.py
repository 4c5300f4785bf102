"""How far a change of the input reaches in the output of a target, found with queries; it tells how wide to listen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.contracts import ScoreModel
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.objectives.goal import Goal
from segradius.objectives.view import look


@dataclass(frozen=True)
class Footprint:
    """What share of a tile's effect on the scores falls within a distance of it.

    Attributes:
        share: (…, D) at distance d = 0, 1, … in pixels from the middle of the tile (the larger of rows and columns), of
            the effect above that at the largest distance, which comes from everywhere (a pooling of the whole image,
            say). It ends at 1.
        background: (…) part of all effect that comes from everywhere, in [0, 1].
    """

    share: Tensor
    background: Tensor

    def reach(self, share: float = 0.8) -> Tensor:
        """Distance within which this share of the effect falls, (…) int64."""
        return (self.share < share).sum(-1)

    def window(self, share: float = 0.8) -> int:
        """Side of the square around a tile that holds this share of its effect; odd. For a single footprint."""
        return 2 * int(self.reach(share)) + 1


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
        images: (N, B, H, W) in [0, 1].
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
    check_spacing(spacing, tile, images.shape)
    keys = Randomness(seed, tuple(map(str, range(len(images)))))
    goal = Goal.leave(labels, ignore_index=ignore_index)
    clean = look(target.scores(images), goal.reference).own
    tally = images.new_zeros(len(images), 2, spacing // 2)
    for sample in range(samples):
        change, distance = probe(images, keys, sample, tile, spacing, size)
        found = look(target.scores((images + change).clamp(0, 1)), goal.reference).own
        tally = tally + tallied((found - clean).abs(), distance, goal.counted, spacing // 2)
    return measured(tally.sum(0))


def check_spacing(spacing: int, tile: int, shape: Sequence[int]) -> None:
    """Raise `InputError` unless tiles of this spacing can be told apart in images of ``shape`` (N, B, H, W)."""
    if not 2 * tile <= spacing <= 2 * min(shape[2:]):
        raise InputError(
            f"spacing is {spacing}; expected at least {2 * tile}, twice the tile, and at most {2 * min(shape[2:])}, "
            "twice the image's shorter side"
        )


def probe(images: Tensor, keys: Randomness, sample: int, tile: int, spacing: int, size: float) -> tuple[Tensor, Tensor]:
    """Tiles far apart, changed by ±size a channel; (N, B, H, W), and the distance of each pixel to one, (N, H, W)."""
    offset = keys.uniform((2, 1), "footprint offset", sample).mul_(spacing).long().to(images.device)
    distance = torch.maximum(
        _distance(images.shape[2], offset[:, 0], spacing).unsqueeze(2),
        _distance(images.shape[3], offset[:, 1], spacing).unsqueeze(1),
    )
    signs = (
        keys.uniform((images.shape[1], 1, 1), "footprint sign", sample, device=images.device).lt(0.5).to(images) * 2 - 1
    )
    return size * signs * (distance * 2 <= tile).unsqueeze(1), distance


def tallied(effect: Tensor, distance: Tensor, counted: Tensor, reach: int) -> Tensor:
    """Sum of the effect (N, H, W) and number of pixels, by distance below ``reach``; (N, 2, reach)."""
    place = distance.clamp(max=reach).flatten(1)
    both = torch.stack([effect.masked_fill(~counted, 0).flatten(1), counted.flatten(1).to(effect)], 1)
    found = effect.new_zeros(len(effect), 2, reach + 1)
    return found.scatter_add_(2, place.unsqueeze(1).expand_as(both), both)[..., :reach]


def measured(tally: Tensor) -> Footprint:
    """The footprint from sums of effects and pixels, (…, 2, D), one for each leading index."""
    total, pixels = tally.unbind(-2)
    density = total / pixels.clamp_min(1)
    far = max(1, total.shape[-1] // 8)
    background = density[..., -far:].mean(-1, keepdim=True)
    above = ((density - background) * pixels).clamp_min(0).cumsum(-1)
    tiny = torch.finfo(total.dtype).tiny
    share = above / above[..., -1:].clamp_min(tiny)
    from_everywhere = (background * pixels).sum(-1) / total.sum(-1).clamp_min(tiny)
    return Footprint(share, from_everywhere)


def _distance(length: int, offset: Tensor, spacing: int) -> Tensor:
    """Distance of each place to the nearest of the middles offset + k·spacing, (N, length)."""
    place = (torch.arange(length, device=offset.device) - offset + spacing // 2) % spacing
    return (place - spacing // 2).abs()
