"""From a text such as ``voc:PATH`` to a data set, its samples prepared as a protocol or a size says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segradius.core.declared import Images, Side, check_fields, read
from segradius.core.errors import InputError, one_of, shown
from segradius.core.registry import Registry
from segradius.data.listing import told
from segradius.data.prepared import Preparation, Prepared, spread
from segradius.data.sample import DATA, SegmentationData

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


def counted(data: SegmentationData) -> str:
    """How many images of a data set are used, and what of its files was left out, in a line.

    Example:
        >>> counted(open_data("scenes:24x32", limit=3))
        'scenes/val: 3 of 64 images to read; 0 files left out'
    """
    source = data.source if isinstance(data, Prepared) else data
    whole, (slices, files) = len(source), getattr(source, "stacks", (0, 0))
    used = f"{len(data)} images" if len(data) == whole else f"{len(data)} of {whole} images"
    used += f" ({slices} slices of {files} file{'' if files == 1 else 's'})" if files else ""
    return f"{data.name}: {used} to read; {told(getattr(data, 'left_out', ()))}"


def open_data(
    spec: str,
    *,
    split: str | None = None,
    size: tuple[int, int] | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    stride: int = 1,
    order: Literal["given", "spread"] = "given",
) -> SegmentationData:
    """Open a data set by name; files are listed now and read one by one when asked for.

    Args:
        spec: ``NAME:PATH``, as ``voc:PATH``, of a name in `DATA`; ``scenes`` or ``scenes:HEIGHTxWIDTH``. What follows
            ``python:`` is run: name what you trust.
        split: Which part, by the data set's own names; its evaluation part by default.
        size: (height, width) to which all images are resized; excludes ``protocol``.
        protocol: Name of an evaluation protocol in `PROTOCOLS`.
        limit: Keep at most this many samples, from the first.
        stride: Keep only every stride-th sample, as neighbouring frames of a video look alike; before ``limit``.
        order: ``spread`` for one of which ``limit`` takes samples from everywhere, and more of them with a larger one.

    Raises:
        InputError: The name, path, split, size, protocol or limit is not usable, or an image has no mask.

    Example:
        >>> data = open_data("scenes:60x80", split="test", limit=3)
        >>> len(data), data.ids[0], tuple(data[0].image.shape)
        (3, 'test-00000', (3, 60, 80))
    """
    preparation = _preparation(size, protocol)
    stride, limit = read("stride", Images, stride), read("limit", Images | None, limit)
    name, _, path = spec.partition(":")
    if name not in DATA and (advice := _place(spec)):
        raise InputError(f"unknown data set {shown(spec)}, which is {advice}. Known: {', '.join(DATA)}")
    source = DATA[name](path, split)
    one_of(("given", "spread"), order=order)
    places: Sequence[int] = range(0, len(source), stride)
    if order == "spread":
        places = [places[place] for place in spread(len(places))]
    return Prepared(source, places[:limit], preparation)


#: What to write before a file, by its ending.
_FILES = {
    ".json": "coco:, or list: of a list of pairs,",
    ".jsonl": "list:",
    ".csv": "list:",
    ".tsv": "list:",
    ".parquet": "hfdata:",
    ".arrow": "hfdata:",
    ".yaml": "folder:",
    ".yml": "folder:",
}


def _place(text: str) -> str:
    """What a text names that is the place of data and no data set, and what to write; nothing of another text."""
    path, _, _ = text.partition(",")
    try:
        if text and Path(text).is_dir():
            return f"a folder: write folder:{text}, or the name of its layout in place of folder"
        before = _FILES.get(Path(path).suffix.lower())
        return f"a file: write {before} before it" if before and Path(path).is_file() else ""
    except (OSError, ValueError):  # too long for a path, say
        return ""


def _preparation(size: tuple[int, int] | None, protocol: str | None) -> Preparation:
    if size is None:
        return PROTOCOLS[protocol or "native"]
    if protocol is not None:
        raise InputError(f"size {size} and protocol {protocol!r} exclude each other: a protocol sets the size")
    if len(size) != 2:
        raise InputError(f"size {size}: expected (height, width)")
    return Resize(*size)
