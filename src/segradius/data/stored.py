"""What numbers an image file holds before anything is made of them: their type, the least and the largest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import SegradiusError
from segradius.data.pixels import unreadable
from segradius.data.readers import Place, open_numbers, watched
from segradius.data.reading import PLAIN, Reading, Slices
from segradius.data.sample import Sample, SegmentationData
from segradius.data.usable import usable

#: Numbers along an axis up to which they are bands rather than slices.
FEW = 16


@dataclass(frozen=True)
class Held:
    """The numbers of an image file, or of a slice of one.

    Attributes:
        dtype: Their type, as NumPy names it.
        low: The least that is finite; NaN where none is.
        high: The largest.
        height: Rows.
        width: Columns.
        bands: Numbers a pixel.
        slices: How many pictures the file has; None where it is one and no stack.
    """

    dtype: str
    low: float
    high: float
    height: int
    width: int
    bands: int
    slices: int | None = None


def held(path: Path, reading: Reading = PLAIN, place: Place | None = None) -> Held:
    """The numbers of a file, or of a slice.

    Args:
        path: An image file.
        reading: What is said of it; its range and bands do not matter.
        place: The slice; None is the picture, or the first of a stack.

    Raises:
        InputError: It cannot be read so.
    """
    with unreadable():
        source = open_numbers(path, reading)
        return _of(source.at(0 if place is None else place.number), source.slices)


def held_somehow(path: Path) -> tuple[Held, Reading]:
    """The numbers of a file of which nothing is said, and what has to be said to read them.

    A few numbers along one axis are taken for bands, and many for slices.

    Raises:
        InputError: It can be read in no way.
    """
    try:
        return held(path), PLAIN
    except SegradiusError as error:
        first = error
    ways = [Reading(layout="hwc"), Reading(layout="chw"), Reading(slices=Slices())]
    found = []
    for way in ways:
        try:
            found.append((held(path, way), way))
        except SegradiusError:
            continue
    if not found:
        raise first
    few = [each for each in found if each[1].layout and 1 < each[0].bands <= FEW]
    return min(few, key=lambda each: each[0].bands) if few else found[-1]


def _of(numbers: NDArray[Any], slices: int | None) -> Held:
    height, width, bands = numbers.shape
    finite = numbers[np.isfinite(numbers)] if numbers.dtype.kind == "f" else numbers
    low, high = (float(np.min(finite)), float(np.max(finite))) if finite.size else (np.nan, np.nan)
    return Held(str(numbers.dtype), low, high, height, width, bands, slices)


def sample_and_file(data: SegmentationData, place: int, num_classes: int) -> tuple[Sample | str, Held | None]:
    """A sample, or why it cannot be used, as `usable` has it, and what its image file holds, which is decoded once.

    None for that where the data set has no files, or it cannot be read.

    Args:
        data: The data set.
        place: Of the sample.
        num_classes: Of the model; 0 where labels do not count.
    """
    with watched() as seen:
        sample = usable(data, place, num_classes, labels=num_classes > 0)
    return sample, _of(seen[0][0], seen[0][1].slices) if len(seen) == 1 else None
