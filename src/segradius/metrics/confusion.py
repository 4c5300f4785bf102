"""What labels were taken for: pixels of each image by label and predicted class, the pairs that occur alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.metrics.counts import check_classes

#: Up to so many pairs of classes are counted in a table of all of them, more by sorting the pixels.
TABLE = 1 << 20
#: Cells that are held before they are added up.
HELD = 1 << 20


def confusions(prediction: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255) -> list[Tensor]:
    """Count the labelled pixels of each image by label and predicted class.

    Args:
        prediction: Predicted classes in [0, C), (N, H, W) integer.
        labels: Classes in [0, C) or ``ignore_index``, (N, H, W) integer.
        num_classes: C.
        ignore_index: Label of pixels that do not count.

    Returns:
        For each image (K, 3) int64 on the CPU: label, class, and how many pixels, for each pair that occurs, in order.

    Raises:
        InputError: A class is out of range.

    Example:
        >>> confusions(torch.tensor([[[0, 1, 1, 1]]]), torch.tensor([[[0, 0, 0, 255]]]), 2)[0].tolist()
        [[0, 0, 1], [0, 1, 2]]
    """
    counted = labels != ignore_index
    check_classes("the prediction", prediction, num_classes)
    check_classes("the label", labels.masked_fill(~counted, 0), num_classes)
    pairs = torch.where(counted, labels * num_classes + prediction, -1)
    return [_cells(each.flatten(), num_classes) for each in pairs]


def _cells(pairs: Tensor, num_classes: int) -> Tensor:
    """From label · C + class of each pixel, −1 where it does not count."""
    if num_classes**2 <= TABLE:
        totals = torch.bincount(pairs + 1, minlength=1)[1:]
        which = totals.nonzero().squeeze(1)
        pixels = totals[which]
    else:
        which, pixels = torch.unique(pairs[pairs >= 0], return_counts=True)
    return torch.stack([which // num_classes, which % num_classes, pixels], 1).cpu()


def pooled(images: Iterable[Tensor]) -> Tensor:
    """The sum of what `confusions` counted in several images, in its form.

    Example:
        >>> one, two = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1], [0, 1, 3]])
        >>> pooled([one, two]).tolist()
        [[0, 0, 1], [0, 1, 5]]
    """
    total, waiting, held = np.empty((0, 3), np.int64), list[NDArray[np.int64]](), 0
    for cells in images:
        waiting.append(cells.numpy())
        held += len(cells)
        if held > HELD:
            total, waiting, held = _added([total, *waiting]), [], 0
    return torch.from_numpy(_added([total, *waiting]))


def _added(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    cells = np.concatenate(parts)
    pairs, place = np.unique(cells[:, :2], axis=0, return_inverse=True)
    sums = np.zeros(len(pairs), np.int64)
    np.add.at(sums, place.reshape(-1), cells[:, 2])
    return np.concatenate([pairs, sums[:, None]], 1)
