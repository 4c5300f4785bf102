"""TIFF files that Pillow does not read exactly, and stacks: by tifffile, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from segradius.core.errors import InputError, missing_extra
from segradius.data.complaints import complaints
from segradius.data.numbers import Numbers, refuse_kind, refuse_shape
from segradius.data.pixels import Pixels, as_shown
from segradius.data.reading import Reading

_WHITE_LOW, _BLACK_LOW, _RGB = 0, 1, 2
_BANDS = "SC"
_KINDS = ("generic", "uniform", "shaped", "imagej", "ome", "lsm", "stk")


@dataclass(frozen=True)
class _Axes:
    """What the axes of a TIFF are, Y and X apart: numbers among the leading and trailing axes of its shape.

    Args:
        names: One letter an axis, as tifffile has them.
        slices: Along which slices lie; None where there are none.
        bands: That are bands.
    """

    names: str
    slices: int | None
    bands: int | None


def open_tiff(path: Path, reading: Reading) -> Numbers:
    """A TIFF of one page or a stack; with ``layout: chw``, its pages are bands.

    Raises:
        InputError: It cannot be read, holds several pictures and no slices are asked for, or has axes, a photometric
            interpretation or numbers that are not read.
        MissingExtraError: tifffile is not installed.
    """
    with _opened(path) as tiff:
        series = _only(tiff)
        page = series.keyframe
        if page.photometric not in (_WHITE_LOW, _BLACK_LOW, _RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise InputError(f"the TIFF has the photometric interpretation {kind}; expected grey or RGB")
        refuse_kind(np.dtype(series.dtype))
        shape, axes = tuple(map(int, series.shape)), _axes(series.axes, tuple(series.shape), reading)
        sides = shape[series.axes.index("Y")], shape[series.axes.index("X")]
        refuse_shape(*sides, 1 if axes.bands is None else shape[axes.bands])
        refuse_shape(page.tilelength or 1, page.tilewidth or 1, 1)
        turned = page.tags.valueof(274, 1)
        bits = page.bitspersample
        fewer = isinstance(bits, int) and bits < np.dtype(series.dtype).itemsize * 8 and page.dtype.kind == "u"

    def read(place: int) -> Pixels:
        with _opened(path) as tiff:
            return as_shown(_slice(_only(tiff), shape, axes, place), turned)

    return Numbers(
        read,
        None if reading.slices is None else 1 if axes.slices is None else shape[axes.slices],
        largest=2**bits - 1 if fewer else None,
        white_low=page.photometric == _WHITE_LOW,
        orientation=turned if turned in range(2, 9) else 1,
    )


def _only(tiff: Any) -> Any:
    """The one series of pages of a file."""
    if len(tiff.series) != 1:
        raise InputError(f"the TIFF holds {len(tiff.series)} series of pictures of different kinds; expected one")
    series = tiff.series[0]
    if series.kind.lower() not in _KINDS:
        raise InputError(f"the TIFF is of the kind {series.kind}; expected a plain one, or one of ImageJ or OME")
    if any(page is None or page.parent is not tiff for page in series.pages[:1]):
        raise InputError("the TIFF's first page is in another file")
    return series


def _axes(names: str, shape: tuple[int, ...], reading: Reading) -> _Axes:
    """Which axis has the slices and which the bands."""
    told = f"the TIFF has axes {names} of lengths {'×'.join(map(str, shape))}"
    if names.count("Y") != 1 or names.count("X") != 1:
        raise InputError(f"{told}; expected rows and columns")
    bands = [at for at, name in enumerate(names) if name in _BANDS and shape[at] > 1]
    others = [at for at, name in enumerate(names) if name not in _BANDS + "YX" and shape[at] > 1]
    if reading.layout == "chw" and reading.slices is None and not bands and len(others) == 1:
        bands, others = others, []
    if len(bands) > 1 or len(others) > 1:
        raise InputError(f"{told}; expected one axis of slices and one of bands at most")
    if others and reading.slices is None:
        raise InputError(
            f"{told}: it holds {shape[others[0]]} pictures (pages or frames); write slices: {{}} into segradius.yaml "
            "to use each as an image, or layout: chw if they are the bands of one"
        )
    if reading.slices is not None and reading.slices.axis not in (None, 0):
        raise InputError(f"axis in slices is {reading.slices.axis}; expected 0 for TIFF, the pages")
    return _Axes(names, others[0] if others else None, bands[0] if bands else None)


def _slice(series: Any, shape: tuple[int, ...], axes: _Axes, place: int) -> Pixels:
    """Numbers (H, W, B) of a slice."""
    inner = series.keyframe.axes
    inner_shape = tuple(map(int, series.keyframe.shape))
    leading = [at for at in range(len(shape)) if at < len(shape) - len(inner_shape)]
    if series.dataoffset is not None:
        array = _contiguous(series, shape)
        chosen = array if axes.slices is None else array.take(place, axis=axes.slices)
        names = "".join(name for at, name in enumerate(axes.names) if at != axes.slices)
        bands = None if axes.bands is None else axes.bands - (axes.slices is not None and axes.slices < axes.bands)
        return _last(np.asarray(chosen), names, bands)
    if shape[len(leading) :] != inner_shape:
        raise InputError(f"the TIFF has pages of shape {inner_shape} and says {shape}")
    grid: Pixels = np.arange(prod(shape[: len(leading)])).reshape(shape[: len(leading)])
    if axes.slices is not None:
        grid = grid.take(place, axis=axes.slices)
    pages = [_page(series.pages[int(number)], inner_shape) for number in grid.ravel()]
    if axes.bands is not None and axes.bands in leading:
        return np.stack([_last(page, inner, None)[..., 0] for page in pages], axis=-1)
    band = None if axes.bands is None else axes.bands - len(leading)
    return _last(pages[0], inner, band)


def _page(page: Any, shape: tuple[int, ...]) -> Pixels:
    if page is None or tuple(page.shape) != shape:
        raise InputError("the TIFF lacks a page, or its pages differ")
    return np.asarray(page.asarray(maxworkers=1))


def _contiguous(series: Any, shape: tuple[int, ...]) -> Pixels:
    """All pages of an uncompressed file whose numbers follow each other, mapped into memory."""
    file = series.keyframe.parent
    dtype = np.dtype(f"{file.byteorder}{series.dtype.char}")
    found: Pixels = np.memmap(file.filehandle.path, dtype, "r", int(series.dataoffset), shape)
    return found


def _last(array: Pixels, names: str, bands: int | None) -> Pixels:
    """Rows, columns and bands of an array, whose other axes have one number."""
    order = [names.index("Y"), names.index("X"), *([] if bands is None else [bands])]
    rest = [at for at in range(array.ndim) if at not in order]
    moved = np.transpose(array, [*rest, *order])
    return moved.reshape((*moved.shape[len(rest) : len(rest) + 2], -1))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, whose library tells what it mends in a log, where a refusal is wanted."""
    try:
        import tifffile
    except ImportError:
        raise missing_extra("tifffile", "tiff") from None
    with complaints("tifffile") as told, tifffile.TiffFile(path, _multifile=False) as file:
        yield file
        for each in told:
            if "TiffTag" not in each:  # of tags that are not as they should be, none that counts is among them
                raise InputError(f"the file cannot be read: {each}")
