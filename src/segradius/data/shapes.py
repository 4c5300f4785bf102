"""Polygons and run-length codes of COCO, as the pixels that they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import InputError, missing_extra, shown
from segradius.data.pixels import refuse_size

Map = NDArray[np.bool_]
#: How far beyond the edge of an image a corner may lie, in pixels, as programs round.
MARGIN = 1
#: Characters of a number, of five bits each, and a number that none reaches.
DIGITS, LONGEST = 7, 1 << 40


def require() -> None:
    """Raise `MissingExtraError` unless polygons can be filled."""
    try:
        import pycocotools.mask  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra("pycocotools", "coco") from error


def pixels_of(given: object, height: int, width: int) -> Map:
    """The pixels (H, W) that a segmentation covers.

    Args:
        given: A list of polygons [x, y, x, y, …], or a mapping of ``size`` and ``counts``, as numbers or compressed.
        height: Of the image.
        width: Of the image.

    Raises:
        InputError: It is nothing of the kind, is empty, lies outside the image, or is for one of another size.

    Example:
        >>> pixels_of({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3).astype(int).tolist()
        [[0, 1, 0], [1, 1, 0]]
    """
    refuse_size(height, width)
    if isinstance(given, list):
        return _filled(given, height, width)
    if isinstance(given, dict) and {"size", "counts"} <= set(given):
        if given["size"] != [height, width]:
            raise InputError(f"its run lengths are for size {shown(given['size'])}; the image has [{height}, {width}]")
        return runs_of(given["counts"], height, width)
    raise InputError(f"its segmentation is {shown(given)}; expected a list of polygons, or size and counts")


def runs_of(counts: object, height: int, width: int) -> Map:
    """The pixels (H, W) of run lengths: outside and inside in turn, column by column.

    Args:
        counts: Whole numbers, or COCO's text of them.
        height: Of the image.
        width: Of the image.

    Raises:
        InputError: They are no run lengths, or not as many pixels as the image has.
    """
    if isinstance(counts, str):
        runs = unpacked(counts)
    else:
        if not isinstance(counts, list) or not all(type(run) is int and 0 <= run < LONGEST for run in counts):
            raise InputError(f"its run lengths are {shown(counts)}; expected whole numbers")
        runs = np.array(counts, dtype=np.int64)
    total = int(runs.sum())
    if total != height * width:
        raise InputError(f"its run lengths make {total} pixels; the image has {height}×{width} = {height * width}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(inside.reshape(width, height).T)


def unpacked(text: str) -> NDArray[np.int64]:
    """Run lengths from COCO's text: five bits a character, lowest first; from the fourth on, differences by two.

    Raises:
        InputError: A character is none of it, it ends within a number, or a run is negative.

    Example:
        >>> unpacked("13:0").tolist()
        [1, 3, 10, 3]
    """
    bits = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64) - 48
    odd = (bits < 0) | (bits > 63)
    if odd.any():
        place = int(odd.argmax())
        raise InputError(f"its run lengths have {text[place]!r} at {place}, which is none of COCO's characters")
    last = bits & 32 == 0
    if not len(bits) or not last[-1]:
        raise InputError("its run lengths are cut off")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > DIGITS:
        raise InputError("its run lengths are damaged: one of them is too long")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, digits))
    values = np.add.reduceat((bits & 31) << shifts, starts)
    values -= np.where(bits[ends] & 16, np.int64(1) << (5 * digits), 0)
    for first in (1, 2):
        values[first::2] = values[first::2].cumsum()
    if values.min() < 0 or values.max() >= LONGEST:
        raise InputError("its run lengths are damaged: one of them is negative or too long")
    return np.asarray(values)


def _filled(polygons: list[Any], height: int, width: int) -> Map:
    if not polygons:
        raise InputError("its segmentation is empty")
    for polygon in polygons:
        _check(polygon, height, width)
    require()
    from pycocotools import mask as coco

    codes = coco.frPyObjects([[float(value) for value in polygon] for polygon in polygons], height, width)
    return runs_of(coco.merge(codes)["counts"].decode("ascii"), height, width)


def _check(polygon: Any, height: int, width: int) -> None:
    """Refuse what is no polygon: pycocotools takes four numbers for a box, and writes beyond the image."""
    numbers = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
    if not numbers or len(polygon) % 2 or len(polygon) < 6:
        raise InputError(f"a polygon of it is {shown(polygon)}; expected [x, y, x, y, x, y, …]")
    corners: Sequence[tuple[float, float]] = list(zip(polygon[::2], polygon[1::2], strict=True))
    for x, y in corners:
        # False as well for a number that is none.
        if not (-MARGIN <= x <= width + MARGIN and -MARGIN <= y <= height + MARGIN):
            raise InputError(
                f"a corner of it, x {shown(x)} and y {shown(y)}, lies outside the image of {height}×{width}"
            )
