"""Any image file as numbers in [0, 1]: pictures, arrays, stacks, volumes, by what a `Reading` says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import InputError, MissingExtraError
from segradius.data.arrays import open_npy, open_npz
from segradius.data.dicom import open_dicom
from segradius.data.listing import ending, kind
from segradius.data.nifti import open_nifti
from segradius.data.numbers import Numbers, banded, scaled
from segradius.data.pictures import deep_png, not_exact, picture_numbers
from segradius.data.pixels import Pixels, Readable, open_picture, unreadable
from segradius.data.reading import MOST_SLICES, PLAIN, Reading
from segradius.data.tiff import open_tiff

OPENERS: Mapping[str, Callable[[Path, Reading], Numbers]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".nii": open_nifti,
    ".nii.gz": open_nifti,
    ".dcm": open_dicom,
}
"""What opens files that are no pictures, by their endings."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


_Seen = list[tuple[Pixels, Numbers]]
_WATCHING: ContextVar[_Seen | None] = ContextVar("watching", default=None)


@contextmanager
def watched() -> Iterator[_Seen]:
    """What `read_pixels` finds in image files meanwhile, so that one who wants both need not decode them again.

    Yields:
        The numbers of each, as they are stored, and what its file says of them.
    """
    seen: _Seen = []
    token = _WATCHING.set(seen)
    try:
        yield seen
    finally:
        _WATCHING.reset(token)


@dataclass(frozen=True)
class Place:
    """A slice of a stack or a volume.

    Args:
        number: Of it, from 0.
        of: How many the file has.
    """

    number: int
    of: int


def places_of(path: Readable, reading: Reading) -> tuple[Place, ...] | None:
    """The slices of a file that are samples; None where it is one picture. Reads no more than a header.

    Args:
        path: An image file, or what is read as a picture file.
        reading: What is said of it.

    Raises:
        InputError: The file cannot be opened.
        MissingExtraError: The library that opens such files is not installed.
    """
    if reading.slices is None:
        return None
    with unreadable():
        count = open_numbers(path, reading).slices if holds_numbers(path) else None
    _refuse_many(count)
    return None if count is None else tuple(Place(number, count) for number in range(0, count, reading.slices.every))


def read_pixels(
    path: Readable, reading: Reading | None = None, place: Place | None = None
) -> tuple[NDArray[np.float32], int]:
    """An image file, or a slice of one, as an image in [0, 1].

    Args:
        path: An image file; its ending says .npy, .npz, .nii, .nii.gz or .dcm, its content which picture it is.
        reading: What is said of it: bands, range, slices; nothing by default, so that it has 8 bits and becomes RGB.
        place: The slice; None of a picture.

    Returns:
        Shape (H, W, B), float32 in [0, 1], turned upright by its EXIF orientation; and the orientation.

    Raises:
        InputError: The file cannot be read, holds several slices and none is asked for, its numbers have more than 8
            bits and no range is declared or lie outside it, or its bands are not those declared.
        MissingExtraError: The library that opens such files is not installed.
    """
    told = reading or PLAIN
    numbers, source = read_numbers(path, told, place)
    if (seen := _WATCHING.get()) is not None:
        seen.append((numbers, source))
    eight = numbers.dtype == np.uint8
    return banded(scaled(numbers, told, source), told.bands, eight=eight), source.orientation


def read_numbers(path: Readable, reading: Reading, place: Place | None = None) -> tuple[Pixels, Numbers]:
    """The numbers (H, W, B) of an image file, or of a slice of one, and what the file says of them.

    Raises:
        InputError: As `read_pixels` has it, save for range and bands.
        MissingExtraError: The library that opens such files is not installed.
    """
    with unreadable():
        source = open_numbers(path, reading)
        _refuse_many(source.slices)
        if source.slices is not None and place is None:
            raise InputError(f"the file has {source.slices} slices; expected a picture")
        if place is not None and source.slices != place.of:
            raise InputError(f"the file has {source.slices or 'no'} slices; expected {place.of}")
        return source.at(0 if place is None else place.number), source


def open_numbers(path: Readable, reading: Reading) -> Numbers:
    """What a file holds, before it is read.

    Raises:
        InputError: As `read_pixels` has it, save for range and bands.
        MissingExtraError: The library that opens such files is not installed.
    """
    if isinstance(path, Path) and kind(path) in OPENERS:
        return OPENERS[kind(path)](path, reading)
    tiff = path if isinstance(path, Path) and _is_tiff(path) else None
    if tiff and reading.slices is not None:
        return open_tiff(tiff, reading)
    try:
        picture = open_picture(path)
    except InputError as error:
        if not tiff:
            raise
        return _by_tifffile(tiff, reading, error)
    found = picture_numbers(picture, reading)
    if found is None and tiff:
        return _by_tifffile(tiff, reading, not_exact(picture))
    if found is None and picture.kind == "PNG":
        return deep_png(path, picture)
    if found is None:
        raise not_exact(picture)
    return found


def _refuse_many(slices: int | None) -> None:
    if slices is not None and not 0 < slices <= MOST_SLICES:
        raise InputError(f"the file says that it has {slices} slices; expected 1 to {MOST_SLICES}")


def axes_of(path: object, reading: Reading) -> str:
    """Where the axes of a volume lead in the body, as 'RAS'; "" of other files, and where the volume does not say."""
    if not isinstance(path, Path) or OPENERS.get(ending(path)) is not open_nifti:
        return ""
    with unreadable():
        return open_nifti(path, reading).axes


def holds_numbers(path: Readable) -> bool:
    """Whether a file is an array, a volume or a TIFF, which may hold several slices."""
    return isinstance(path, Path) and (kind(path) in OPENERS or _is_tiff(path))


def _by_tifffile(path: Path, reading: Reading, why: InputError) -> Numbers:
    """A TIFF that Pillow does not read, and where tifffile is not installed, why not."""
    try:
        return open_tiff(path, reading)
    except MissingExtraError as missing:
        raise InputError(f"{why}; tifffile may read it ({missing})") from None


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in _TIFF
