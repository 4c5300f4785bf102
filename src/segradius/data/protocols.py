"""Evaluation protocols: what is done to an image and its labels before they are attacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.registry import Registry

Preparation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of image (3, H, W) in [0, 1] and label (H, W) that gives both at another size."""

PROTOCOLS: Registry[Preparation] = Registry("evaluation protocol")


@dataclass(frozen=True)
class Resize:
    """Resize an image bilinearly and its labels by nearest neighbour, as Pillow does to 8-bit images.

    Pillow widens the bilinear filter where it shrinks (antialias). The image is rounded to multiples of 1/255, which
    changes nothing in what came from an 8-bit file.

    Args:
        height: Height after resizing, in pixels.
        width: Width after resizing, in pixels.

    Raises:
        InputError: A side is below 1.

    Example:
        >>> image, label = Resize(2, 3)(torch.ones(3, 4, 6), torch.full((4, 6), 7))
        >>> tuple(image.shape), label.tolist()
        ((3, 2, 3), [[7, 7, 7], [7, 7, 7]])
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"size {self.height}×{self.width} (height × width): both must be at least 1")

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and label (H, W) at the new size."""
        if tuple(label.shape) == (self.height, self.width):
            return image, label
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        target = (self.width, self.height)
        resized = np.array(Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR))
        numbers = np.array(Image.fromarray(label.numpy().astype(np.int32)).resize(target, Image.Resampling.NEAREST))
        return (
            torch.from_numpy(resized).permute(2, 0, 1).contiguous().float().div_(255),
            torch.from_numpy(numbers.astype(np.int64)),
        )


def short_side_crop(image: Tensor, label: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Resize the shorter side to ``side``, keeping proportions, and cut the central square.

    Fractions are treated as torchvision's ``Resize`` and ``CenterCrop`` treat them: the longer side is rounded down,
    the offset to the nearest whole number (halves to even).
    """
    height, width = label.shape
    short = min(height, width)
    image, label = Resize(side * height // short, side * width // short)(image, label)
    top, left = (round((length - side) / 2) for length in label.shape)
    return image[:, top : top + side, left : left + side], label[top : top + side, left : left + side]


@PROTOCOLS.register("native")
def native(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Every image at its own size."""
    return image, label


@PROTOCOLS.register("paper-voc")
def paper_voc(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Short side to 473, central 473 × 473: Pascal VOC in the paper's code."""
    return short_side_crop(image, label, 473)


@PROTOCOLS.register("paper-ade20k")
def paper_ade20k(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Short side to 473, central 473 × 473: ADE20K in the paper's code."""
    return short_side_crop(image, label, 473)


@PROTOCOLS.register("paper-cityscapes")
def paper_cityscapes(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Resized to height 513, width 1025: Cityscapes in the paper's code."""
    return Resize(513, 1025)(image, label)
