"""The predicted class of each pixel from coarse logits, without all of them at the size of the image at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segradius.core.prediction import predict, predict_slices
from segradius.models.preprocessing import SizeRule

# Resized logits at a time: more are no faster, and on a CPU slower for its cache.
_AT_ONCE, _AT_ONCE_ELSEWHERE = 2**22, 2**26

# Classes that are resized together begin at multiples of this, and are no fewer than the other: interpolation then
# rounds each as it does among all of them, whichever of its ways it takes for a layout and a number of channels.
_CLASSES, _LEAST = 16, 4


def predict_undone(coarse: Tensor, size: SizeRule, height: int, width: int) -> tuple[Tensor, Tensor]:
    """As `segradius.core.prediction.predict` of ``size.undo(coarse, height, width)``, to the bit, in less memory.

    Args:
        coarse: Logits (N, C, h, w), at the network's output size.
        size: What sizes the network takes.
        height: Of the images before `SizeRule.fit`, in pixels.
        width: Likewise.

    Returns:
        Largest logit and its class, (N, height, width) each.

    Example:
        >>> coarse = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 2, 1, 2)
        >>> predict_undone(coarse, SizeRule(), 1, 4)[1]
        tensor([[[1, 1, 0, 0]]])
    """
    if coarse.shape[-2:] == (height, width) == size.target(height, width) and coarse.is_contiguous():
        return predict(coarse)
    classes, most = coarse.shape[1], _AT_ONCE if coarse.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    together = max(1, most // max(1, classes * height * width))
    whole = classes * height * width <= most or height + width <= 128

    def undone(part: Tensor) -> Tensor:
        return size.undo(part, height, width).contiguous()

    found = [
        predict(undone(images)) if whole else predict_slices(undone(some) for some in _slices(images))
        for images in torch.split(coarse, together)
    ]
    return found[0] if len(found) == 1 else (torch.cat([top for top, _ in found]), torch.cat([c for _, c in found]))


def _slices(coarse: Tensor) -> Iterator[Tensor]:
    """(N, c, h, w) each, in the memory layout of all of them."""
    classes = coarse.shape[1]
    starts = range(0, max(1, classes - _LEAST + 1), _CLASSES)
    last_layout = coarse.is_contiguous(memory_format=torch.channels_last) and not coarse.is_contiguous()
    layout = torch.channels_last if last_layout else torch.contiguous_format
    for start, end in zip(starts, [*starts[1:], classes], strict=True):
        yield coarse[:, start:end].contiguous(memory_format=layout)
