"""Reading image and mask files exactly: what a file says is what the tensor holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segradius.data.sample import RGB
from segradius.errors import InputError, missing_extra

Ints = NDArray[np.int64]

JPEG_TOLERANCE = 32
"""How far a channel of a JPEG mask may lie from its palette colour; farther pixels are ignored."""
JPEG_STRAY = 0.1
"""The largest share of ignored pixels of that kind; a mask with more is refused."""

# Pillow widens 2- and 4-bit grey to 0–255; a mask needs the number that was stored.
_GREY_SCALE = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class MaskKey:
    """What the values and colours of a mask mean.

    Args:
        values: Pairs (value in the mask, label), for masks of one number a pixel.
        colours: Pairs (colour in the mask, label), for RGB masks; empty where a data set has none.
        ignore_index: Label of the pixels of a JPEG mask that have no colour of the palette.
    """

    values: tuple[tuple[int, int], ...]
    colours: tuple[tuple[RGB, int], ...] = ()
    ignore_index: int = 255


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB, turned upright by its EXIF orientation; shape (H, W, 3), uint8.

    Grey and palette images become RGB; an alpha channel is dropped.

    Raises:
        InputError: The file holds 16-bit or float values.
        OSError: It is absent, truncated or no image.
    """
    with Image.open(path) as file:
        if file.mode[0] in "IF":
            raise InputError(f"the image has pixels of mode {file.mode!r}; expected 8 bits a channel")
        # Pillow warns where a palette holds transparency and is not read as RGBA first.
        upright = ImageOps.exif_transpose(file.convert("RGBA") if file.mode == "P" else file)
        return np.asarray(upright.convert("RGB"))


def read_labels(path: Path, key: MaskKey) -> Ints:
    """A mask file as labels, translated once by ``key``; shape (H, W), int64.

    JPEG masks are matched to the nearest colour of the palette, as JPEG changes values. Other masks are read exactly:
    by colour where they are RGB, else by the number stored (grey of 1 to 16 bits, or the index of a palette PNG).

    Raises:
        InputError: A value or colour is not in ``key``, or the mask is of a kind that it cannot explain.
        OSError: The file is absent, truncated or no image.
    """
    if path.suffix == ".mat":
        return translate(_read_sbd(path), key.values)
    with Image.open(path) as file:
        scale = _GREY_SCALE.get(str(file.tile[0][3]), 1) if file.tile else 1
        jpeg, mask = file.format == "JPEG", ImageOps.exif_transpose(file)
        if jpeg:
            return _nearest_colours(_packed(mask), key)
        if mask.mode in ("RGB", "RGBA"):
            return _exact_colours(_packed(mask), key)
        if mask.mode == "LA":
            mask = mask.getchannel("L")
        if mask.mode == "F":
            raise InputError("the mask holds floating-point values; expected whole numbers or colours")
        return translate(np.asarray(mask).astype(np.int64) // scale, key.values)


def translate(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> Ints:
    """Replace every value by its label.

    Args:
        raw: Values, shape (H, W).
        pairs: Pairs (value, label).

    Raises:
        InputError: A value has no label; the message names it and its first pixel (row, column).

    Example:
        >>> translate(np.array([[0, 7], [7, 255]]), ((0, 255), (7, 0), (255, 255))).tolist()
        [[255, 0], [0, 255]]
    """
    labels, known = _look_up(raw, pairs)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        value, expected = raw[row, column], _ranges(sorted(value for value, _ in pairs))
        raise InputError(f"value {value} in the mask at pixel (row {row}, column {column}); expected {expected}")
    return labels


def _look_up(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> tuple[Ints, NDArray[np.bool_]]:
    keys, labels = np.array(sorted(pairs), dtype=np.int64).T
    place = np.searchsorted(keys, raw).clip(max=len(keys) - 1)
    return np.asarray(labels[place]), np.asarray(keys[place] == raw)


def _packed(mask: Image.Image) -> Ints:
    red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int64), -1, 0)
    return np.asarray((red << 16) + (green << 8) + blue)


def _exact_colours(packed: Ints, key: MaskKey) -> Ints:
    if not key.colours:
        raise InputError("the mask is an RGB image, and no palette says what its colours mean")
    pairs = tuple(((r << 16) + (g << 8) + b, label) for (r, g, b), label in key.colours)
    labels, known = _look_up(packed, pairs)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        colour = tuple(int(packed[row, column]) >> shift & 255 for shift in (16, 8, 0))
        raise InputError(f"colour {colour} in the mask at pixel (row {row}, column {column}) is not in the palette")
    return labels


def _nearest_colours(packed: Ints, key: MaskKey) -> Ints:
    if not key.colours:
        raise InputError("the mask is a JPEG, which changes values: give a palette, or store masks as PNG")
    seen, inverse = np.unique(packed, return_inverse=True)
    channels = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=-1)
    colours = np.array([colour for colour, _ in key.colours])
    distance = np.abs(channels[:, None] - colours).max(-1)
    labels = np.array([label for _, label in key.colours])[distance.argmin(1)]
    stray = distance.min(1) > JPEG_TOLERANCE
    share = float(stray[inverse].mean())
    if share > JPEG_STRAY:
        raise InputError(
            f"{share:.0%} of the pixels of the JPEG mask lie more than {JPEG_TOLERANCE} "
            "from every colour of the palette"
        )
    labels[stray] = key.ignore_index
    return np.asarray(labels[inverse].reshape(packed.shape).astype(np.int64))


def _read_sbd(path: Path) -> Ints:
    """The class mask of a MATLAB file of the Semantic Boundaries Dataset."""
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise missing_extra("scipy", "hf") from None
    contents: dict[str, Any] = loadmat(path)
    mask: NDArray[Any] = contents["GTcls"][0]["Segmentation"][0]
    return mask.astype(np.int64)


def _ranges(values: list[int]) -> str:
    """Sorted whole numbers as text, runs shortened: '0–10, 255'."""
    starts = [v for i, v in enumerate(values) if i == 0 or values[i - 1] != v - 1]
    ends = [v for i, v in enumerate(values) if i == len(values) - 1 or values[i + 1] != v + 1]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))
