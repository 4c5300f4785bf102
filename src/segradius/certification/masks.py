"""Sets of masks that cover every place of a square patch, and what fills a mask: a function of the visible alone.

A certificate against patches rests on two things. Wherever a patch lies, one mask hides the whole of it; and what the
model sees of a masked image does not depend on what the mask hides. The second is made sure of by `hidden`, which
blanks the pixels before a fill sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.core.registry import Registry

#: From images (N, B, H, W), 0 where hidden, and where that is (N, H, W) bool, to values (N, B, H, W) to put there;
#: what it says of visible pixels is not looked at.
Fill: TypeAlias = Callable[[Tensor, Tensor], Tensor]

FILLS: Registry[Fill] = Registry("fill")


def covering(side: int, height: int, width: int, rows: int, columns: int) -> Tensor:
    """Rectangular masks of which one hides every square patch, wherever it lies, (k, H, W) bool, k ≤ rows · columns.

    The set of Xiang, Mahloujifar & Mittal (2022), in each direction: k masks of length s + p − 1 begin s apart, where p
    is the patch's side and s = ⌈(n − p + 1)/k⌉ the places of a patch on an axis of n pixels, shared out; the last one
    ends with the image. Fewer are made where so many are not needed.

    Args:
        side: Of the patch, in pixels.
        height: Of the image.
        width: Likewise.
        rows: Masks from top to bottom.
        columns: Masks from left to right.

    Raises:
        InputError: The patch does not fit into the image, or there is no mask.

    Example:
        >>> masks = covering(2, 6, 8, 2, 3)
        >>> masks.shape, missed(masks, 2), missed(masks[1:], 2)
        (torch.Size([6, 6, 8]), 0, 6)
    """
    if not 1 <= side <= min(height, width):
        raise InputError(f"the patch has side {side}; expected 1 to {min(height, width)}, in {height} × {width} pixels")
    if min(rows, columns) < 1:
        raise InputError(f"there are {rows} × {columns} masks; expected 1 or more each way")
    down, across = _bands(side, height, rows), _bands(side, width, columns)
    return (down[:, None, :, None] & across[None, :, None, :]).flatten(0, 1)


def _bands(side: int, size: int, count: int) -> Tensor:
    """The masks on one axis, (k, size) bool."""
    stride = math.ceil((size - side + 1) / count)
    length = stride + side - 1
    first = torch.arange(0, size - side + 1, stride).clamp_max(size - length).unsqueeze(1)
    pixels = torch.arange(size)
    return (pixels >= first) & (pixels < first + length)


def missed(masks: Tensor, side: int) -> int:
    """Places of a square patch that no mask hides wholly.

    Args:
        masks: (k, H, W) bool.
        side: Of the patch, in pixels.
    """
    height, width = masks.shape[1:]
    found = torch.zeros(height - side + 1, width - side + 1, dtype=torch.bool, device=masks.device)
    for mask in masks:  # so that no more than one's sums are held at once
        sums = functional.pad(mask.int(), (1, 0, 1, 0)).cumsum(0).cumsum(1)
        wide = sums[side:] - sums[:-side]
        found |= wide[:, side:] - wide[:, :-side] == side**2
    return int((~found).sum())


def check_covers(masks: Tensor, side: int) -> None:
    """Raise `InputError` unless one of the masks (k, H, W) hides the patch wherever it lies."""
    if masks.ndim != 3 or masks.dtype != torch.bool or not len(masks):
        raise InputError(f"masks are {masks.dtype} {tuple(masks.shape)}; expected bool (k, H, W), one or more")
    if places := missed(masks, side):
        raise InputError(f"a patch of side {side} is hidden by no mask at {places} of its places; expected at none")


def hidden(images: Tensor, where: Tensor, fill: Fill) -> Tensor:
    """Images whose pixels ``where`` are filled from the others alone, (N, B, H, W), differentiable in those.

    Args:
        images: (N, B, H, W).
        where: (N, H, W) bool.
        fill: Of `FILLS`, or any.

    Example:
        >>> image = torch.tensor([[[[0.25, math.nan], [0.75, 0.5]]]])
        >>> where = torch.tensor([[[False, True], [False, False]]])
        >>> hidden(image, where, FILLS["mean"]).tolist()
        [[[[0.25, 0.5], [0.75, 0.5]]]]
    """
    covered = where.unsqueeze(1)
    visible = images.masked_fill(covered, 0)
    return torch.where(covered, fill(visible, where), visible)


@FILLS.register("grey")
def grey(visible: Tensor, where: Tensor) -> Tensor:
    """One half in every band."""
    return torch.full_like(visible, 0.5)


@FILLS.register("mean")
def mean(visible: Tensor, where: Tensor) -> Tensor:
    """The mean of the visible pixels of each band; one half where none is visible."""
    seen = (~where).flatten(1).sum(1).view(-1, 1, 1, 1)
    found = visible.sum((2, 3), keepdim=True) / seen.clamp_min(1)
    return torch.where(seen > 0, found, 0.5).expand_as(visible)


@FILLS.register("pyramid")
def pyramid(visible: Tensor, where: Tensor) -> Tensor:
    """Means of ever larger blocks of visible pixels, interpolated back: push and pull (Gortler et al. 1996)."""
    weight = (~where).unsqueeze(1).to(visible.dtype)
    levels = [(visible, weight)]
    while max(visible.shape[-2:]) > 1:
        # Means over the pixels that there are, at odd edges too.
        kept = functional.avg_pool2d(weight, 2, ceil_mode=True)
        total = functional.avg_pool2d(visible * weight, 2, ceil_mode=True)
        # One visible pixel of four is believed as well as four: weights are 0 or 1, and no share is below a quarter.
        visible, weight = total / kept.clamp_min(0.25), (4 * kept).clamp_max(1)
        levels.append((visible, weight))
    found, _ = levels.pop()
    for value, trust in reversed(levels):
        above = functional.interpolate(found, size=value.shape[-2:], mode="bilinear", align_corners=False)
        found = above + trust * (value - above)
    return found
