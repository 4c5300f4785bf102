"""The numbers that a picture file stores, where Pillow gives them exactly."""

from __future__ import annotations

import re

import numpy as np

from segradius.core.errors import InputError, missing_extra
from segradius.data.numbers import Numbers, refuse_shape
from segradius.data.pixels import Picture, Pixels, Readable, as_rgb, as_shown, is_deep, refuse_transparent
from segradius.data.reading import Reading

_ALPHA = {"LA": 2, "RGBA": 4}
_RAW = ((r"I;16[BN]?S", np.int16), (r"I;32[BN]?S", np.int32), (r"F;32[BN]?F", np.float32), (r"I;16[BN]?", np.uint16))
"""Pillow's names of layouts whose numbers it gives exactly, and their types."""


def picture_numbers(picture: Picture, reading: Reading) -> Numbers | None:
    """What a picture stores; None where Pillow does not give it exactly.

    Without a range, one of 8 bits or fewer a channel has the numbers 0–255 as which it is shown, as everywhere.

    Args:
        picture: Decoded.
        reading: Its bands say whether alpha is one of them, its range whether fewer bits than 8 stay as they are.

    Raises:
        InputError: It is not opaque, or has a mode that is not read.
    """
    mode = picture.image.mode
    if is_deep(picture) and mode not in ("I", "F") and not mode.startswith("I;16"):
        return None
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _deep(picture)
    if _ALPHA.get(mode) == reading.bands and reading.bands is not None:
        if picture.raw == "RGBa":  # of which Pillow divides colours by alpha
            return None
        return _of(np.asarray(picture.image), picture)
    if reading.range is None:
        return _of(as_rgb(picture), picture)
    if re.search(r";\d*I|;8$", picture.raw):
        return None
    return _shallow(picture)


def _shallow(picture: Picture) -> Numbers | None:
    """Of 8 bits or fewer, the numbers before they are stretched to 0–255."""
    mode, levels = picture.image.mode, picture.levels or 255
    if mode not in ("1", "L", "LA"):
        numbers = as_rgb(picture)
    elif mode == "1":
        return _of(np.asarray(picture.image).astype(np.uint8), picture, 1)
    else:
        if mode == "LA" or "transparency" in picture.image.info:
            alpha = np.asarray(picture.image.convert("LA").getchannel("A"))
            refuse_transparent(alpha, "the image")
        numbers = np.asarray(picture.image.getchannel("L"))
    if levels == 255:
        return _of(numbers, picture)
    return _of(np.rint(numbers * (levels / 255)).astype(np.uint8), picture, levels)


def _deep(picture: Picture) -> Numbers | None:
    """Of more than 8 bits in one band."""
    mode, raw, numbers = picture.image.mode, picture.raw, np.asarray(picture.image)
    if raw.endswith(";I"):
        return None
    if "transparency" in picture.image.info:
        raise InputError("the image has a transparent grey; expected an opaque picture")
    if picture.levels is not None:  # a PGM, of which Pillow stretches the numbers
        largest = picture.levels
        stored = np.rint(numbers * (largest / 65535)).astype(np.uint16)
        return _of(stored, picture, largest if largest != 65535 else None)
    if mode.startswith("I;16"):
        return _of(numbers.astype(np.uint16), picture, 4095 if raw == "I;12" else None)
    found = next((dtype for pattern, dtype in _RAW if re.fullmatch(pattern, raw)), None)
    return None if found is None else _of(numbers.astype(found), picture)


def _of(numbers: Pixels, picture: Picture, largest: int | None = None) -> Numbers:
    banded = numbers[..., None] if numbers.ndim == 2 else numbers
    refuse_shape(*banded.shape)
    return Numbers(lambda _: banded, largest=largest, orientation=picture.orientation)


def deep_png(path: Readable, picture: Picture) -> Numbers:
    """A PNG of 16 bits a channel in several channels, of which Pillow keeps 8.

    Args:
        path: Of it.
        picture: The same, as Pillow decodes it.

    Raises:
        InputError: One of its colours is transparent, or imagecodecs, which decodes it, is not installed.
    """
    if "transparency" in picture.image.info:
        raise InputError("the image has a transparent colour; expected an opaque picture")
    try:
        import imagecodecs
    except ImportError:
        raise InputError(f"{not_exact(picture)} ({missing_extra('imagecodecs', 'tiff')})") from None
    with path.open("rb") as stream:
        decoded: Pixels = imagecodecs.png_decode(stream.read())
    return _of(as_shown(decoded, picture.orientation), picture)


def not_exact(picture: Picture) -> InputError:
    """Why a picture is not read, in words."""
    if re.search(r";\d*I|;8$", picture.raw):
        return InputError("the image is stored with 0 for white and has a declared range; store 0 as black")
    if is_deep(picture):
        return InputError("the image has colours of more than 8 bits a channel; expected 8 bits a channel, or a TIFF")
    return InputError(f"the image has pixels of mode {picture.image.mode!r}; expected 8 bits a channel, grey or RGB")
