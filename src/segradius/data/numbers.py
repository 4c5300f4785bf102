"""Numbers of an image file, of whatever type and however many bands, and the image in [0, 1] that they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import InputError
from segradius.data.pixels import MAX_PIXELS_VARIABLE, Pixels, max_pixels, refuse_size
from segradius.data.reading import Reading

EXACT = 2**53
"""Up to here a float64 holds every whole number."""


@dataclass(frozen=True)
class Numbers:
    """What a file holds, before it is read: one or more slices of numbers.

    Args:
        read: From the number of a slice to its numbers, shape (H, W, B), as they are stored.
        slices: How many there are; None where the file is one picture and no stack.
        scale: Slope and intercept that the file asks for, a function of the slice; None where it asks for none.
        largest: What the file says is its largest number, where that is not its type's.
        white_low: Whether the file says that low numbers are shown bright.
        orientation: The EXIF orientation, 1 to 8, by which the numbers are turned already.
        axes: Where the first three axes lead in the body, as 'RAS'; "" where the file does not say.
    """

    read: Callable[[int], Pixels]
    slices: int | None = None
    scale: Callable[[int], tuple[float, float]] | None = None
    largest: int | None = None
    white_low: bool = False
    orientation: int = 1
    axes: str = ""

    def at(self, place: int) -> Pixels:
        """Numbers (H, W, B) of a slice, with slope and intercept where the file asks for them (float64 then)."""
        stored = self.read(place)
        refuse_kind(stored.dtype)
        slope, intercept = self.scale(place) if self.scale else (1.0, 0.0)
        if (slope, intercept) == (1.0, 0.0):
            return stored
        with np.errstate(all="ignore"):  # what is no number afterwards is refused
            return stored.astype(np.float64) * slope + intercept


def refuse_kind(dtype: np.dtype[Any]) -> None:
    """Raise `InputError` for a type whose numbers do not fit into a float64."""
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        told = dtype.name if dtype.kind in "cf" else dtype
        raise InputError(f"the file holds {told} values; expected whole or floating-point numbers of up to 64 bits")


def refuse_shape(height: int, width: int, bands: int) -> None:
    """Raise `InputError` where a slice has more pixels than are read, or more than four numbers for each of them."""
    refuse_size(height, width)
    if bands < 1 or height * width * bands > 4 * max_pixels():
        raise InputError(
            f"it has {height}×{width} pixels of {bands} bands; at most {4 * max_pixels()} numbers are read (a quarter "
            f"of them is in the environment variable {MAX_PIXELS_VARIABLE})"
        )


def banded(numbers: NDArray[Any], bands: int | None, *, eight: bool = False) -> NDArray[Any]:
    """An image with as many bands as are asked for.

    Args:
        numbers: Shape (H, W, B).
        bands: Asked for; None for the three of RGB.
        eight: Whether they had 8 bits a band, so that grey becomes RGB without being asked.

    Raises:
        InputError: The file has another number; the message says which to ask for.

    Example:
        >>> banded(np.zeros((2, 3, 1)), 3).shape
        (2, 3, 3)
    """
    found = numbers.shape[2]
    if found == (bands or 3):
        return numbers
    if found == 1 and (bands == 3 or (bands is None and eight)):
        return np.repeat(numbers, 3, axis=2)
    if found == 3 and bands == 1 and _equal(numbers):
        return numbers[..., :1]
    if bands is None:
        raise InputError(f"the image has {_counted(found)}; write into segradius.yaml {_bands(found)}")
    raise InputError(f"the image has {_counted(found)}; expected {bands} (bands: {bands})")


def scaled(numbers: Pixels, reading: Reading, source: Numbers) -> NDArray[np.float32]:
    """Numbers as an image in [0, 1]: (v − low)/(high − low), in float64, rounded to float32 at the end.

    Args:
        numbers: Shape (H, W, B).
        reading: What says the range.
        source: The file, which may have a word on its largest number, and on what is bright.

    Raises:
        InputError: No range is declared and the numbers have not 8 bits, or one lies outside it.
    """
    low, high = _ends(numbers, reading, source)
    if numbers.dtype == np.uint8 and (low, high, source.white_low) == (0, 255, False):
        return numbers.astype(np.float32) / np.float32(255)  # which is the same, and much quicker
    _refuse_inexact(numbers)
    with np.errstate(all="ignore"):
        values = numbers.astype(np.float64)  # which a NaN that signals warns of
    outside = ~((values >= low) & (values <= high))  # NaN is
    if outside.any():
        _refuse_outside(numbers, outside, (low, high), reading.clip)
        values = np.clip(values, low, high)
    return np.asarray((high - values if source.white_low else values - low) / (high - low), dtype=np.float32)


def _ends(numbers: Pixels, reading: Reading, source: Numbers) -> tuple[float, float]:
    """The numbers that become 0 and 1."""
    dtype, full = numbers.dtype, source.largest
    if isinstance(reading.range, tuple):
        return reading.range
    if dtype == np.uint8 and full is None:
        return 0.0, 255.0
    if reading.range is None:
        raise InputError(_undeclared(numbers, reading, source))
    if dtype.kind not in "ui":
        raise InputError(f"range: dtype means nothing for {dtype.name} numbers; write range: [low, high]")
    if full is not None:
        raise InputError(
            f"range: dtype is not clear for {dtype.name} numbers that the file says reach {full}; write range: "
            f"[0, {full}]"
        )
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _undeclared(numbers: Pixels, reading: Reading, source: Numbers) -> str:
    finite = numbers[np.isfinite(numbers)]
    lowest, highest = (f"{finite.min()}", f"{finite.max()}") if finite.size else ("NaN", "NaN")
    whole = numbers.dtype.kind in "ui" and source.largest is None
    also = f" (range: dtype for {np.iinfo(numbers.dtype).min} to {np.iinfo(numbers.dtype).max})" if whole else ""
    bands = "" if reading.bands or numbers.shape[2] == 3 else f", and {_bands(numbers.shape[2])}"
    return (
        f"the image has {numbers.dtype.name} numbers from {lowest} to {highest}; expected 8 bits a channel, or in "
        f"segradius.yaml range: [low, high], the numbers that become 0 and 1{also}{bands}"
    )


def _refuse_inexact(numbers: Pixels) -> None:
    if numbers.dtype.kind in "iu" and numbers.dtype.itemsize == 8:
        great = (numbers > EXACT) | (numbers < -EXACT)
        if great.any():
            raise InputError(f"value {numbers[great][0]} {_at(great)} is too large to be read exactly")


def _refuse_outside(numbers: Pixels, outside: Pixels, ends: tuple[float, float], clip: bool) -> None:
    nan = np.isnan(numbers) if numbers.dtype.kind == "f" else np.zeros(numbers.shape, bool)
    told = f"range: [{ends[0]:.17g}, {ends[1]:.17g}]"
    if nan.any():
        raise InputError(f"value nan {_at(nan)} is no number, and clip: true does not make it one; expected {told}")
    if not clip:
        raise InputError(
            f"value {numbers[outside][0]} {_at(outside)} lies outside {told}; the image has {numbers.min()} to "
            f"{numbers.max()}: write clip: true to cut such values to the range, or another range"
        )


def _at(where: Pixels) -> str:
    row, column, band = np.argwhere(where)[0]
    return f"at pixel (row {row}, column {column})" + (f", band {band}," if where.shape[2] > 1 else "")


def _equal(numbers: Pixels) -> bool:
    return bool((numbers == numbers[..., :1]).all())


def _counted(bands: int) -> str:
    return f"{bands} band{'' if bands == 1 else 's'}"


def _bands(found: int) -> str:
    return f"bands: {found}" + (" (or bands: 3 for three equal ones)" if found == 1 else "")
