"""Sizes that images are brought to, and evaluation protocols by name: a preparation, and what void counts as in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segradius.core.declared import Side, check_fields
from segradius.core.registry import Registry
from segradius.data.prepared import Preparation
from segradius.data.void import VoidAs

PROTOCOLS: Registry[Preparation] = Registry("evaluation protocol")


@dataclass(frozen=True)
class Resize:
    """Resize an image bilinearly and its labels by nearest neighbour, as Pillow does to 8-bit images.

    Pillow widens the bilinear filter where it shrinks (antialias). An image of multiples of 1/255, as one from an 8-bit
    file, is resized as one; any other in floating point, so that no bits of it are lost.

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

    height: Side
    width: Side

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image (B, H, W) and label (H, W) at the new size."""
        if tuple(label.shape) == (self.height, self.width):
            return image, label
        target = (self.width, self.height)
        eight = (image.clamp(0, 1) * 255).round().to(torch.uint8)
        shallow = torch.equal(eight.to(image.dtype).div_(255), image)
        bands = [Image.fromarray(band) for band in (eight if shallow else image.float()).numpy()]
        resized = np.stack([np.array(band.resize(target, Image.Resampling.BILINEAR)) for band in bands])
        numbers = np.array(Image.fromarray(label.numpy().astype(np.int32)).resize(target, Image.Resampling.NEAREST))
        return (
            torch.from_numpy(resized).float().div_(255) if shallow else torch.from_numpy(resized).clamp_(0, 1),
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


@PROTOCOLS.register("sea-voc", void="background")
def sea_voc(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Short side to 473, central 473 × 473, void counts as background: Pascal VOC in SEA's code."""
    return short_side_crop(image, label, 473)


@PROTOCOLS.register("sea-ade20k", void="background")
def sea_ade20k(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Short side to 512, central 512 × 512, void is class 0 of 151: ADE20K in SEA's code."""
    return short_side_crop(image, label, 512)


@PROTOCOLS.register("segcertify-cityscapes")
def segcertify_cityscapes(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """1024 × 2048, as in the files: Cityscapes in SegCertify's code, whose model shrinks what it is given."""
    return Resize(1024, 2048)(image, label)


@PROTOCOLS.register("segcertify-pascal")
def segcertify_pascal(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Resized to 480 × 480, proportions not kept: Pascal Context in SegCertify's code."""
    return Resize(480, 480)(image, label)


def void_of(protocol: str | None) -> VoidAs:
    """What void counts as in a protocol; nothing in one that is not known.

    Example:
        >>> void_of("sea-voc"), void_of("paper-voc"), void_of(None)
        ('background', 'ignore', 'ignore')
    """
    if protocol is None or protocol not in PROTOCOLS:
        return "ignore"
    found: VoidAs = PROTOCOLS.facts(protocol).get("void", "ignore")
    return found
