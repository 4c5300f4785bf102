"""Windows that cover an image: where they start, how they are cut out, and the mean over them at each pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def window_starts(side: int, crop: int, stride: float) -> list[int]:
    """First pixels of the windows that cover a side: ⌈crop · stride⌉ apart, the last one moved back to the border.

    Args:
        side: Pixels to cover, at least ``crop``.
        crop: Pixels of a window.
        stride: Part of ``crop``, in (0, 1].

    Returns:
        The starts, ascending, from 0 to side − crop.

    Example:
        >>> window_starts(20, 9, 2 / 3)
        [0, 6, 11]
    """
    step = math.ceil(crop * stride)
    return [min(i * step, side - crop) for i in range(math.ceil((side - crop) / step) + 1)]


def cut(images: Tensor, rows: Sequence[int], columns: Sequence[int], crop: tuple[int, int]) -> Tensor:
    """Windows of images, as one batch.

    Args:
        images: (N, C, H, W).
        rows: First row of each row of windows.
        columns: First column of each column of windows.
        crop: (height, width) of a window.

    Returns:
        (N · len(rows) · len(columns), C, height, width): image by image, row by row.
    """
    bands = torch.stack([images[..., row : row + crop[0], :] for row in rows], 1)
    windows = torch.stack([bands[..., column : column + crop[1]] for column in columns], 2)
    return windows.flatten(0, 2)


def average(windows: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Mean over the windows at each pixel; gives back the images that `cut` took them from.

    Args:
        windows: (N · len(rows) · len(columns), C, h, w), in the order of `cut`.
        rows: As in `cut`; the windows leave no gap.
        columns: Likewise.

    Returns:
        (N, C, H, W), where the last windows end at H and W.
    """
    grid = windows.reshape(-1, len(rows), len(columns), *windows.shape[1:])
    return _mean_along(_mean_along(grid.unbind(2), columns, -1).unbind(1), rows, -2)


def margins(side: int, crop: int) -> tuple[int, int]:
    """Pixels to add before and after a side to make it at least as long as a window, the odd one after.

    Example:
        >>> margins(5, 8), margins(9, 8)
        ((1, 2), (0, 0))
    """
    missing = max(crop - side, 0)
    return missing // 2, missing - missing // 2


def pad(images: Tensor, margins: tuple[int, int, int, int], colour: Sequence[float]) -> Tensor:
    """Images with a border of one colour.

    Args:
        images: (N, C, H, W).
        margins: Pixels to add at the left, right, top and bottom.
        colour: C numbers in the unit of the images.

    Returns:
        (N, C, H + top + bottom, W + left + right); ``images`` itself where nothing is to be added.
    """
    if not any(margins):
        return images
    channels = zip(images.unbind(1), colour, strict=True)
    return torch.stack([functional.pad(channel, margins, value=value) for channel, value in channels], 1)


def _mean_along(windows: Sequence[Tensor], starts: Sequence[int], dim: int) -> Tensor:
    """Mean of overlapping windows along one dimension, between one start or end and the next at a time.

    Views are joined instead of added into a canvas: scattered sums are not deterministic on CUDA.
    """
    crop = windows[0].shape[dim]
    edges = sorted({edge for start in starts for edge in (start, start + crop)})
    parts = []
    for low, high in pairwise(edges):
        here = [w.narrow(dim, low - s, high - low) for s, w in zip(starts, windows, strict=True) if s <= low < s + crop]
        parts.append(torch.stack(here).mean(0))
    return torch.cat(parts, dim)
