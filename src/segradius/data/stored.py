"""What numbers an image file holds before anything is made of them: their type, the least and the largest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import SegradiusError
from segradius.data.files import PairedFiles
from segradius.data.pixels import unreadable
from segradius.data.prepared import Prepared
from segradius.data.readers import Place, open_numbers
from segradius.data.reading import PLAIN, Reading, Slices
from segradius.data.sample import SegmentationData

#: Numbers along an axis up to which they are bands rather than slices.
FEW = 16


@dataclass(frozen=True)
class Held:
    """The numbers of an image file, or of a slice of one.

    Attributes:
        dtype: Their type, as NumPy names it.
        low: The least; NaN where one is.
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
    return Held(str(numbers.dtype), float(np.min(numbers)), float(np.max(numbers)), height, width, bands, slices)


def held_by(data: SegmentationData, place: int) -> Held | None:
    """The numbers of the image file of a sample; None where its data set has no files, or it cannot be read."""
    source: Any = data
    while isinstance(source, Prepared):
        source, place = source.source, source.places[place]
    if not isinstance(source, PairedFiles) or not isinstance(source.pairs[place].image, Path):
        return None
    pair = source.pairs[place]
    try:
        return held(cast(Path, pair.image), source.reading, pair.place)
    except SegradiusError:
        return None
