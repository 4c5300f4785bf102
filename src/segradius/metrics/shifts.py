"""By how many pixels a class map is another one moved: agreement under every small shift, by quarter of an image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: The largest shift that is tried, in rows and in columns.
REACH = 8


def reach_of(height: int, width: int, most: int = REACH) -> int:
    """The largest shift that is tried on a map of this size: at most a quarter of it is cut off at each side.

    Example:
        >>> reach_of(240, 320), reach_of(24, 32), reach_of(2, 2)
        (8, 6, 0)
    """
    return min(most, height // 4, width // 4)


def shift_table(first: Tensor, second: Tensor, most: int = REACH) -> tuple[Tensor, Tensor]:
    """Pixels that agree where the second map is held to be the first moved by (dy, dx) ∈ [−most, most]².

    Every shift is judged on the same pixels of the first map, those that lie at least the largest shift from its edges,
    so that the numbers can be compared. They are told by quarter (top left, top right, bottom left, bottom right): a
    map that was scaled has another shift in each.

    Args:
        first: (N, H, W) integer.
        second: Likewise.
        most: The largest shift. Images too small for it (see `reach_of`) have −1 where none could be tried.

    Returns:
        (N, 2·most + 1, 2·most + 1, 4) int64, and the pixels of each quarter that were judged, (4,) int64.

    Example:
        >>> first = torch.arange(64).view(1, 8, 8)
        >>> table, pixels = shift_table(first, first.roll((1, -2), (1, 2)), most=2)
        >>> best_shift(table.sum((0, 3))), int(table[0, 3, 0].sum()), int(pixels.sum())
        ((1, -2), 16, 16)
    """
    reach = reach_of(first.shape[-2], first.shape[-1], most)
    height, width = (side - 2 * reach for side in first.shape[-2:])
    maps = _small(first), _small(second)
    table = torch.full((len(first), 2 * most + 1, 2 * most + 1, 4), -1, dtype=torch.int64)
    same = np.empty((height, width), dtype=np.bool_)
    for row, (mine, theirs) in enumerate(zip(*maps, strict=True)):
        inner = np.ascontiguousarray(mine[reach : reach + height, reach : reach + width])
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                y, x = reach + dy, reach + dx
                np.equal(inner, theirs[y : y + height, x : x + width], out=same)
                table[row, dy + most, dx + most] = torch.tensor(_quarters(same))
    return table, torch.tensor(_quarters(np.ones_like(same)))


def _small(maps: Tensor) -> NDArray[np.integer[Any]]:
    """The same classes in the fewest bytes that hold them."""
    most = int(maps.max())
    kind = np.uint8 if most < 2**8 else np.uint16 if most < 2**16 else np.int64
    return maps.cpu().numpy().astype(kind)


def _quarters(where: NDArray[np.bool_]) -> list[int]:
    """Pixels (H, W) that are true in each quarter."""
    middle, side = (-(-length // 2) for length in where.shape)
    parts = [part for half in (where[:middle], where[middle:]) for part in (half[:, :side], half[:, side:])]
    return [int(np.count_nonzero(part)) for part in parts]


def best_shift(table: Tensor) -> tuple[int, int]:
    """The shift (dy, dx) of most agreement in a table (2·most + 1, 2·most + 1); of equals the smallest.

    Example:
        >>> best_shift(torch.tensor([[0, 9, 0], [0, 9, 0], [0, 0, 0]]))
        (0, 0)
    """
    most = len(table) // 2
    steps = torch.arange(-most, most + 1)
    length = steps.square()[:, None] + steps.square()
    ties = table == table.max()
    place = int(torch.where(ties, length, length.max() + 1).argmin())
    return place // len(table) - most, place % len(table) - most
