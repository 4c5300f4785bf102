"""Polygons and run-length codes of COCO, as the pixels that they cover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import InputError, is_whole, missing_extra, shown
from segradius.data.pixels import refuse_size

Map = NDArray[np.bool_]
#: How far beyond the edge of an image a corner may lie, in pixels, as programs round.
MARGIN = 1


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
    runs = unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(is_whole(run) for run in runs):
        raise InputError(f"its run lengths are {shown(counts)}; expected whole numbers")
    if sum(runs) != height * width:
        raise InputError(f"its run lengths make {sum(runs)} pixels; the image has {height}×{width} = {height * width}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, dtype=np.int64))
    return np.ascontiguousarray(inside.reshape(width, height).T)


def unpacked(text: str) -> list[int]:
    """Run lengths from COCO's text: five bits a character, lowest first; from the fourth on, differences by two.

    Raises:
        InputError: A character is none of it, it ends within a number, or a run is negative.

    Example:
        >>> unpacked("13:0")
        [1, 3, 10, 3]
    """
    runs: list[int] = []
    value = shift = 0
    for place, character in enumerate(text):
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise InputError(f"its run lengths have {character!r} at {place}, which is none of COCO's characters")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            raise InputError("its run lengths are damaged: one of them is negative")
        value = shift = 0
    if shift:
        raise InputError("its run lengths are cut off")
    return runs


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
