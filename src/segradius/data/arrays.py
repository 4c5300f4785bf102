"""NumPy's .npy and .npz, and any array of numbers as slices of bands."""

from __future__ import annotations

import gzip
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from segradius.core.errors import InputError
from segradius.data.numbers import Numbers, refuse_kind, refuse_shape
from segradius.data.pixels import Pixels
from segradius.data.reading import Reading

KEPT = 1 << 28
"""The largest array, in bytes, of a compressed file that is kept in memory from one slice to the next."""
_MOST = 9
"""Arrays that are kept, an image and the masks of its structures, of no more bytes together than two of the largest."""
_LOT = 1 << 22
_BEHIND = 1 << 20


@dataclass(frozen=True)
class Streamed:
    """An array in a file that can only be read from its beginning to its end, as its checksum stands there.

    Args:
        file: A .gz file, or an archive.
        member: The name of the array in an archive; "" of a .gz file.
        offset: Bytes before the array.
        shape: Of the array.
        dtype: Of its numbers.
        columns: Whether the first axis is the one whose numbers lie together.
    """

    file: Path
    member: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    columns: bool = False

    def take(self, axis: int | None, number: int) -> Pixels:
        """All of the array, or what has one number on an axis.

        Of an array that is not too large, the whole is kept for the next slice of it; otherwise little more than the
        slice is in memory.
        """
        if axis is None or prod(self.shape) * self.dtype.itemsize > KEPT:
            return self.stream(axis, number)
        found = self.file.stat()
        whole = _whole(self, (found.st_size, found.st_mtime_ns, found.st_ino))
        return part_of(whole, axis, number)

    def stream(self, axis: int | None, number: int) -> Pixels:
        """As `take`, always from the file."""
        shape, at = (self.shape[::-1], len(self.shape) - 1) if self.columns else (self.shape, 0)
        at = at - axis if self.columns and axis is not None else axis or 0
        split = (*shape[:at], 1, *shape[at:]) if axis is None else shape
        outer, depth, inner = prod(split[:at]), split[at], prod(split[at + 1 :])
        with _opened(self.file, self.member) as stream:
            _pass(stream, self.offset)
            rows = list(self._rows(stream, outer, depth * inner, number * inner, inner))
            _pass_rest(stream)
        flat = np.concatenate(rows) if rows else np.empty(0, self.dtype)
        found = flat.reshape((*split[:at], *split[at + 1 :]))
        return found.T if self.columns else found

    def _rows(self, stream: IO[bytes], outer: int, length: int, start: int, inner: int) -> Iterator[Pixels]:
        """Of each of ``outer`` rows of ``length`` numbers the ``inner`` from ``start`` on."""
        size = self.dtype.itemsize
        if length * size > _LOT:
            for _ in range(outer):
                _pass(stream, start * size)
                yield np.frombuffer(_exactly(stream, inner * size), self.dtype)
                _pass(stream, (length - start - inner) * size)
            return
        lot = max(1, _LOT // max(1, length * size))
        for begun in range(0, outer, lot):
            count = min(lot, outer - begun)
            block = np.frombuffer(_exactly(stream, count * length * size), self.dtype)
            yield block.reshape(count, length)[:, start : start + inner].ravel()


def slice_axis(shape: Sequence[int], reading: Reading, default: int = 0) -> int | None:
    """The axis of an array along which its slices lie; None where no slices are asked for.

    Raises:
        InputError: It has no such axis.
    """
    if reading.slices is None:
        return None
    axis = default if reading.slices.axis is None else reading.slices.axis
    if axis >= len(shape) or len(shape) < 3:
        raise InputError(f"axis {axis} in slices: the array has shape {tuple(shape)}; expected three axes or more")
    return axis


def image_of(array: Pixels, reading: Reading, whole: Sequence[int]) -> Pixels:
    """An array of a slice as (H, W, B), its bands where ``layout`` says.

    Args:
        array: Two or three axes.
        reading: Its layout counts.
        whole: The shape of the array in the file, for the message.

    Raises:
        InputError: It has another number of axes, or three and no layout is declared.
    """
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3 and reading.layout is not None:
        return np.moveaxis(array, 0, -1) if reading.layout == "chw" else array
    told = f"the array has shape {tuple(whole)}"
    if array.ndim == 3:
        more = "" if reading.slices else "; or slices: {axis: …} if it is a stack"
        raise InputError(f"{told}; write layout: hwc or layout: chw into segradius.yaml if it has bands{more}")
    expected = "(height, width), three axes with layout or slices, or four with both"
    raise InputError(f"{told}; expected {expected}")


def array_numbers(shape: tuple[int, ...], take: Callable[[int | None, int], Pixels], reading: Reading) -> Numbers:
    """An array of a file as slices of (H, W, B), of which the size is looked at before one is read.

    Args:
        shape: Of the array.
        take: From an axis, or None for all, and a number on it to the array there.
        reading: Its slices and layout count.
    """
    axis = slice_axis(shape, reading)
    rest = shape if axis is None else (*shape[:axis], *shape[axis + 1 :])
    empty = image_of(np.lib.stride_tricks.as_strided(np.zeros(1, bool), rest, [0] * len(rest)), reading, shape)
    refuse_shape(*empty.shape)
    return Numbers(
        lambda place: image_of(take(axis, place), reading, shape), slices=None if axis is None else shape[axis]
    )


def open_npy(path: Path, reading: Reading) -> Numbers:
    """A .npy file, which is mapped into memory, so that no more is read than a slice.

    Raises:
        InputError: It is no array of numbers, or see `array_numbers`.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError("the file holds several arrays; expected one, or the ending .npz")
    refuse_kind(array.dtype)
    return array_numbers(array.shape, partial(part_of, array), reading)


def part_of(array: Pixels, axis: int | None, number: int) -> Pixels:
    """A copy of an array, or of what has one number on an axis."""
    return np.array(array if axis is None else array[(slice(None),) * axis + (number,)])


def open_npz(path: Path, reading: Reading) -> Numbers:
    """An array in a .npz file, which is read from its beginning, and compared with its checksum at its end.

    Raises:
        InputError: It holds several arrays and none is named, or not that one, or see `array_numbers`.
    """
    with zipfile.ZipFile(path) as archive:
        name = _member([item for item in archive.namelist() if item.endswith(".npy")], reading.array)
        with archive.open(name) as stream:
            shape, columns, dtype = _header(stream)
            offset = stream.tell()
    refuse_kind(dtype)
    streamed = Streamed(path, name, offset, shape, dtype, columns)
    return array_numbers(shape, streamed.take, reading)


_Key = tuple[Streamed, tuple[int, ...]]
_wholes: OrderedDict[_Key, Pixels] = OrderedDict()
_WHOLES = threading.Lock()


def _whole(array: Streamed, stamp: tuple[int, ...]) -> Pixels:
    """An array as a file of this size and time holds it; the last ones stay in memory, as many as there is room for."""
    key = array, stamp
    with _WHOLES:  # a dictionary in order breaks where another thread changes it meanwhile
        found = _wholes.pop(key, None)
        if found is None:
            found = array.stream(None, 0)
        _wholes[key] = found
        while len(_wholes) > _MOST or sum(each.nbytes for each in _wholes.values()) > 2 * KEPT:
            _wholes.popitem(last=False)
    return found


@contextmanager
def _opened(path: Path, member: str) -> Iterator[Any]:
    if member:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            yield stream
    else:
        with gzip.open(path) as stream:
            yield stream


def _member(names: Sequence[str], wanted: str | None) -> str:
    arrays = [name.removesuffix(".npy") for name in names]
    told = ", ".join(arrays[:20]) or "none"
    if wanted is None and len(arrays) != 1:
        raise InputError(f"the file holds {len(arrays)} arrays ({told}); write array: NAME into segradius.yaml")
    if wanted is not None and wanted not in arrays:
        raise InputError(f"the file has no array {wanted!r} (array in segradius.yaml); it holds {told}")
    return f"{arrays[0] if wanted is None else wanted}.npy"


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise InputError(f"the array has version {version} of the format; expected 1.0 or 2.0")
    shape, columns, dtype = readers[version](stream)
    return tuple(map(int, shape)), bool(columns), dtype


def _exactly(stream: IO[bytes], count: int) -> bytes:
    parts = []
    while count and (part := stream.read(min(count, _LOT))):
        parts.append(part)
        count -= len(part)
    if count:
        raise InputError("the file cannot be read: it ends before its array does")
    return b"".join(parts)


def _pass(stream: IO[bytes], count: int) -> None:
    while count and (part := stream.read(min(count, _LOT))):
        count -= len(part)
    if count:
        raise InputError("the file cannot be read: it ends before its array does")


def _pass_rest(stream: IO[bytes]) -> None:
    """Read to the end, at which the checksum is compared; there is little behind an array."""
    left = _BEHIND
    while part := stream.read(_LOT):
        left -= len(part)
        if left < 0:
            raise InputError("the file cannot be read: it goes on behind its array")
