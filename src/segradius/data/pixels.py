"""Opening picture files: one picture of a size that can be held, turned as it is shown, with what its numbers were."""

from __future__ import annotations

import json
import os
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segradius.core.errors import InputError, MissingExtraError, is_whole, must
from segradius.data.complaints import unheard

Pixels = NDArray[Any]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
"""What is read, by Pillow's names; by the content of a file, not by its name."""

MAX_PIXELS = 8192 * 8192
"""The largest picture that is decoded, in pixels, unless the environment variable below says otherwise."""
MAX_PIXELS_VARIABLE = "SEGRADIUS_MAX_PIXELS"

_LFS = b"version https://git-lfs.github.com/spec"
_OPAQUE = 255
_WITH_PREDICTOR = (5, 8, 32946, 34925, 50000)  # LZW, Deflate twice, LZMA, Zstandard
_PILLOW = threading.Lock()


class Readable(Protocol):
    """A file, or what is read as one: a cell of a table that holds a file's content."""

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot; empty where it has none."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """A stream of its content."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Args:
        image: As Pillow holds it, turned as it is shown.
        kind: Its format, by Pillow's name.
        raw: Pillow's name of the layout that the pixels had in the file; "" where that is not known.
        levels: The largest number that a grey pixel can have in the file; None where Pillow gives it as stored.
        orientation: Its EXIF orientation, 1 to 8.
        lossy: Whether its compression changes numbers.
    """

    image: Image.Image
    kind: str
    raw: str = ""
    levels: int | None = None
    orientation: int = 1
    lossy: bool = False


def max_pixels() -> int:
    """The most pixels of a picture that is decoded.

    Raises:
        InputError: The environment variable is no whole number above 0.

    Example:
        >>> max_pixels()
        67108864
    """
    given = os.environ.get(MAX_PIXELS_VARIABLE)
    if given is None:
        return MAX_PIXELS
    limit = int(given) if given.strip().isdecimal() else 0
    must(is_whole(limit, 1), MAX_PIXELS_VARIABLE, given, "a whole number of pixels above 0")
    return limit


def refuse_size(height: int, width: int) -> None:
    """Raise `InputError` where a picture has more pixels than are decoded, or none."""
    must(height > 0 and width > 0, "the size", f"{height}×{width}", "at least one pixel")
    limit = max_pixels()
    if height * width > limit:
        raise InputError(
            f"it has {height}×{width} = {height * width} pixels; at most {limit} are decoded (set the environment "
            f"variable {MAX_PIXELS_VARIABLE} to decode more)"
        )


@contextmanager
def unreadable() -> Iterator[None]:
    """Turn whatever a decoder raises on a file into an `InputError` of one line; those of segradius pass."""
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except FileNotFoundError:
        raise InputError("the file is missing") from None
    except UnidentifiedImageError:
        raise InputError(f"the file cannot be read: it is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except MemoryError as error:
        raise InputError("the file cannot be read: there is not enough memory for it") from error
    # The decoders of Pillow, numpy and scipy raise more kinds than their documentation names.
    except Exception as error:
        told = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise InputError(f"the file cannot be read: {told or type(error).__name__}") from error


def open_picture(path: Readable) -> Picture:
    """Decode the one picture of a file.

    Raises:
        InputError: It is missing, empty, damaged, of no format in `FORMATS`, larger than `max_pixels`, or holds several
            pictures.
    """
    # By a path, Pillow maps an uncompressed TIFF into memory, and reads one that is to be turned wrongly.
    with unreadable(), path.open("rb") as opened:
        stream = cast(BinaryIO, opened)
        _refuse_stand_ins(stream)
        with _pillow_without_limit():
            file = Image.open(stream, formats=FORMATS)
        with file, unheard():
            width, height = file.size
            refuse_size(height, width)
            if file.format == "PNG":
                _refuse_damage(stream)
            _refuse_several(file, stream)
            raw, levels, lossy = _layout(file, stream)
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
            kind = file.format or ""
            file.load()
            # A TIFF was turned by Pillow as it was loaded.
            image = file.copy() if kind == "TIFF" else ImageOps.exif_transpose(file)
        turned = orientation if orientation in range(2, 9) else 1
        return Picture(image, kind, raw, levels, turned, lossy)


def as_rgb(picture: Picture) -> NDArray[np.uint8]:
    """A picture as RGB, shape (H, W, 3).

    Raises:
        InputError: It has not 8 bits or fewer a channel in black and white, grey, a palette or RGB, or is not opaque.
    """
    image = picture.image
    deep = is_deep(picture)
    if deep or image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA"):
        told = "more than 8 bits a channel" if deep else f"pixels of mode {image.mode!r}"
        raise InputError(f"the image has {told}; expected 8 bits a channel, grey or RGB")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        refuse_transparent(np.asarray(image.getchannel("A")), "the image")
    return np.asarray(image.convert("RGB"))


def is_deep(picture: Picture) -> bool:
    """Whether the file had more than 8 bits a channel, of which Pillow may have dropped some."""
    return ";16" in picture.raw and not picture.raw.startswith("BGR")


def refuse_transparent(alpha: Pixels, what: str) -> None:
    """Raise `InputError` at the first pixel of an alpha channel (H, W) that is not opaque."""
    clear = alpha != _OPAQUE
    if clear.any():
        row, column = np.argwhere(clear)[0]
        raise InputError(
            f"{what} is transparent: alpha is {alpha[row, column]} at pixel (row {row}, column {column}); expected "
            f"{_OPAQUE} everywhere, as what lies behind is not in the file"
        )


def as_stored(pixels: Pixels, orientation: int) -> Pixels:
    """Take back the turning that an EXIF orientation asks for.

    Args:
        pixels: As shown; shape (H, W) or (H, W, C).
        orientation: 1 to 8.

    Example:
        >>> as_stored(np.array([[1, 2, 3]]), 6).tolist(), as_stored(np.array([[1, 2, 3]]), 3).tolist()
        ([[3], [2], [1]], [[3, 2, 1]])
    """
    if orientation >= 5:  # rows and columns are exchanged
        pixels = np.swapaxes(pixels, 0, 1)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}.get(orientation, (1, 1))
    return pixels[::rows, ::columns]


def as_shown(pixels: Pixels, orientation: int) -> Pixels:
    """Turn pixels as an EXIF orientation asks for; the inverse of `as_stored`.

    Example:
        >>> as_shown(np.array([[1], [2], [3]]), 6).tolist()
        [[3, 2, 1]]
    """
    return as_stored(pixels, {6: 8, 8: 6}.get(orientation, orientation))


@contextmanager
def _pillow_without_limit() -> Iterator[None]:
    """Pillow warns of large pictures, and refuses larger ones, by a limit of its own; ours is asked right after it."""
    with _PILLOW, unheard():
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _refuse_stand_ins(stream: BinaryIO) -> None:
    head = stream.read(len(_LFS))
    stream.seek(0)
    if not head:
        raise InputError("the file cannot be read: it is empty")
    if head == _LFS:
        raise InputError("the file cannot be read: it is a Git LFS pointer, not the file itself (run git lfs pull)")


def _refuse_damage(stream: BinaryIO) -> None:
    """Compare the checksums of the parts of a PNG that its pixels come from, which Pillow does not all do."""
    with _kept(stream):
        stream.seek(8)
        kind = b""
        while kind != b"IEND":
            head = stream.read(8)
            left, kind = int.from_bytes(head[:4], "big"), head[4:]
            found = zlib.crc32(kind)
            while left and (block := stream.read(min(left, 1 << 20))):
                found, left = zlib.crc32(block, found), left - len(block)
            said = stream.read(4)
            if len(head) < 8 or len(said) < 4:
                raise InputError("the file cannot be read: the PNG is cut off")
            if kind[:1].isupper() and found != int.from_bytes(said, "big"):
                raise InputError(
                    f"the file cannot be read: the PNG is damaged (checksum of its {kind.decode('latin-1')})"
                )


def _refuse_several(file: Image.Image, stream: BinaryIO) -> None:
    if file.format == "MPO":
        return  # the first is the photograph, further ones are previews, depth or gain maps
    pages = int(getattr(file, "n_frames", 1))
    if file.format == "TIFF":
        pages = max(pages, _undeclared(file))
    if file.format == "PPM":
        pages += _further(file, stream)
    if pages > 1:
        raise InputError(f"the file holds {pages} pictures (pages or frames); expected one")


def _undeclared(file: Any) -> int:
    """Pictures behind the first of a TIFF that has one entry for all, as ImageJ and tifffile write them."""
    told = str(file.tag_v2.get(ExifTags.Base.ImageDescription, ""))
    if told.startswith("ImageJ="):
        found = re.search(r"^images=(\d+)", told, re.MULTILINE)
        return int(found[1]) if found else 1
    if told.startswith('{"shape":'):
        try:
            shape = json.loads(told)["shape"]
            values: int = file.size[0] * file.size[1] * len(file.getbands())
            return max(1, int(np.prod(shape)) // values)
        except (ValueError, TypeError, KeyError):
            return 1
    return 1


def _further(file: Any, stream: BinaryIO) -> int:
    """1 if something follows the picture of a binary PPM file, as several may be joined."""
    name, (_, _, width, height), offset, *_ = file.tile[0]
    if name == "ppm_plain" or file.mode == "F":
        return 0
    if file.mode == "1":
        size = -(-width // 8) * height
    else:
        args = file.tile[0][3]
        most = args[1] if isinstance(args, tuple) else 255
        deep = file.mode == "I" or args == "I;16B" or "16" in file.mode or most > 255
        size = width * height * len(file.getbands()) * (2 if deep else 1)
    with _kept(stream):
        stream.seek(offset + size)
        return int(bool(stream.read(64).strip()))


def _layout(file: Any, stream: BinaryIO) -> tuple[str, int | None, bool]:
    """Pillow's name of the layout in the file, the largest grey number of a scaled one, and whether it is lossy."""
    kind, args = file.format, file.tile[0][3] if file.tile else ""
    raw = str(args[0] if isinstance(args, tuple | list) and args else args)
    if kind in ("JPEG", "MPO"):
        return raw, None, True
    if kind == "WEBP":
        return "RGB", None, _is_lossy_webp(stream)
    if kind == "GIF":
        if file.tile and tuple(file.tile[0][1]) != (0, 0, *file.size):
            raise InputError("the picture of the GIF does not fill it")
        return "P", None, False
    if kind == "TIFF":
        return _tiff_layout(file, raw)
    if kind == "BMP":
        _refuse_packed(file)
    if kind == "PPM" and isinstance(args, tuple) and str(file.tile[0][0]).startswith("ppm"):
        return (f"{raw};16" if args[1] > 255 else raw), int(args[1]), False
    return raw, {"L;2": 3, "L;4": 15}.get(raw), False


def _tiff_layout(file: Any, raw: str) -> tuple[str, int | None, bool]:
    tags = file.tag_v2
    bits, kinds = (tuple(np.atleast_1d(tags.get(tag, 1)).tolist()) for tag in (258, 339))
    channels = len(file.getbands())
    if len(bits) > channels:
        raise InputError(f"the TIFF has {len(bits)} channels of which {channels} would be read; expected 1 or 3")
    if set(kinds) == {2} and set(bits) == {8}:
        raise InputError("the TIFF has signed numbers of 8 bits; expected unsigned ones")
    if file.tile[0][0] == "libtiff" and re.fullmatch(r"I;(16|32)BS|F;32BF", raw):
        raise InputError("the TIFF is compressed, big-endian and signed or floating-point, which Pillow reads wrongly")
    if tags.get(317, 1) != 1 and tags.get(259, 1) not in _WITH_PREDICTOR:
        raise InputError(f"the TIFF has a predictor with compression {tags.get(259, 1)}, about which programs disagree")
    lossy = tags.get(259, 1) in (6, 7, 34712, 34892, 50001, 50002) or file.info.get("compression") in ("jpeg", "webp")
    if tags.get(262) == 0:
        raw = f"{raw.partition(';')[0]};I"
    if any(width > 8 for width in bits) and channels > 1:
        raw = f"{raw.partition(';')[0]};16"
    return raw, 2 ** bits[0] - 1 if bits[0] in (2, 4) and file.mode == "L" else None, lossy


def _refuse_packed(file: Any) -> None:
    """Pillow takes a palette of greys away, and then the bits of a pixel for those of a grey one."""
    name, _, _, args = file.tile[0]
    width = {"1": 1, "L": 8}.get(str(args[0]))
    if width is None:
        return
    if args[1] != (file.size[0] * width + 31) // 8 & ~3 if name == "raw" else width == 1:
        raise InputError("the BMP has a palette of greys with fewer or more bits a pixel than Pillow reads")


def _is_lossy_webp(stream: BinaryIO) -> bool:
    """Whether a WebP file holds a lossy picture: its chunk is 'VP8 ', where a lossless one is 'VP8L'."""
    with _kept(stream):
        stream.seek(12)
        while len(head := stream.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"ANMF"):
                return True
            if head[:4] == b"VP8L":
                return False
            size = int.from_bytes(head[4:], "little")
            stream.seek(size + size % 2, os.SEEK_CUR)
    return True


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[None]:
    """A context after which the place in a stream, which Pillow goes on reading, is what it was."""
    place = stream.tell()
    try:
        yield
    finally:
        stream.seek(place)
