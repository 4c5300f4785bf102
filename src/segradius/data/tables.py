"""Cells of Arrow and Parquet files, each read when it is asked for, and nothing from anywhere else."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor

from segradius.core.digests import Parts
from segradius.core.errors import InputError, missing_extra, must, shown
from segradius.data.masks import Ints, MaskKey, Stored, labels_of
from segradius.data.pixels import refuse_size, unreadable

SUFFIXES = (".parquet", ".arrow")
Kind = Literal["picture", "numbers", "other"]


@dataclass(frozen=True)
class Table:
    """What a file of a table says of itself.

    Args:
        path: The file.
        rows: How many it has.
        columns: What each holds: pictures, as bytes or with a path; nested lists of numbers; anything else.
        features: What the library ``datasets`` noted of its columns; empty where it noted nothing.
    """

    path: Path
    rows: int
    columns: Mapping[str, Kind]
    features: Mapping[str, Any]


def open_table(path: Path) -> Table:
    """A table, of which no row is read.

    Raises:
        InputError: It cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = _library()
    try:
        with unreadable():
            if path.suffix.lower() == ".parquet":
                with _parquet(path) as file:
                    rows, schema = file.metadata.num_rows, file.schema_arrow
            else:
                table = _stream(path, _stamp(path))
                rows, schema = table.num_rows, table.schema
            columns = {field.name: _kind(arrow, field.type) for field in schema}
            return Table(path, rows, columns, _features(schema.metadata or {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_column(path: Path, column: str) -> list[Any]:
    """All values of a column.

    Raises:
        InputError: It cannot be read.
    """
    with unreadable():
        if path.suffix.lower() == ".parquet":
            with _parquet(path) as file:
                return list(file.read(columns=[column])[column].to_pylist())
        return list(_stream(path, _stamp(path))[column].to_pylist())


def read_cell(path: Path, column: str, row: int) -> Any:
    """The value of a cell.

    Raises:
        InputError: It cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    _library()
    with unreadable():
        if path.suffix.lower() != ".parquet":
            return _stream(path, _stamp(path))[column][row].as_py()
        for group, (start, end) in enumerate(_groups(path, _stamp(path))):
            if start <= row < end:
                return _column(path, group, column)[row - start].as_py()
    raise InputError(f"the table has no row {row} any more")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        file: The table.
        column: Of it.
        row: Of it, from 0.
    """

    file: Path
    column: str
    row: int

    @property
    def path(self) -> Path:
        """The table, with the cell, for messages."""
        return self.file.with_name(f"{self.file.name}, row {self.row}, column {self.column}")

    @property
    def value(self) -> Any:
        """What it holds.

        Raises:
            InputError: It cannot be read.
        """
        return read_cell(self.file, self.column, self.row)


class PictureCell(Cell):
    """A picture in a cell, read as a file of its own."""

    @property
    def suffix(self) -> str:
        """None: what a cell holds shows when it is opened."""
        return ""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """A stream of the picture file in the cell, or of the file that the cell names.

        Raises:
            InputError: The cell is empty, or names a file that is not here.
        """
        return io.BytesIO(self._content())

    def part(self) -> Tensor:
        """The bytes of the picture; none where it cannot be had."""
        try:
            return _as_tensor(self._content())
        except InputError:
            return _as_tensor(b"")

    def _content(self) -> bytes:
        value = self.value
        content, name = value, None
        if isinstance(value, dict):
            content, name = value.get("bytes"), value.get("path")
        if isinstance(content, bytes):
            return content
        named = content if isinstance(content, str) else name
        if not isinstance(named, str) or not named:
            raise InputError("the cell is empty")
        if "://" in named:
            raise InputError(f"the cell names {shown(named)}, and nothing is downloaded; expected the picture itself")
        place = self.file.parent / named
        with unreadable():
            if not place.is_file():
                raise InputError(f"the cell names the file {shown(named)}, which is missing")
            return place.read_bytes()


class NumberCell(Cell):
    """A mask in a cell, as rows of numbers."""

    def parts(self) -> Parts:
        """The numbers; none where they cannot be had."""
        try:
            return {"mask": torch.from_numpy(self._numbers())}
        except InputError:
            return {"mask": _as_tensor(b"")}

    def labels(self, key: MaskKey) -> tuple[Ints, int]:
        """As `segradius.data.files.Drawn`.

        Raises:
            InputError: The cell holds no rows of whole numbers, or a number that means nothing.
        """
        return labels_of(Stored(self._numbers()), key), 1

    def _numbers(self) -> Ints:
        value = self.value
        with unreadable():
            try:
                found = np.array(value)
            except ValueError:
                raise InputError("the rows of the mask differ in length") from None
            good = found.ndim == 2 and found.dtype.kind in "bui"
            must(good, "the mask", f"{found.dtype} of shape {found.shape}", "whole numbers of shape (height, width)")
            refuse_size(*found.shape)
            return found.astype(np.int64)


def class_names(feature: Any) -> list[str] | None:
    """The names of a ``ClassLabel`` in what ``datasets`` noted of a column; None where it holds none.

    Example:
        >>> class_names({"_type": "List", "feature": {"_type": "ClassLabel", "names": ["background", "cell"]}})
        ['background', 'cell']
    """
    if isinstance(feature, list):
        return next((names for each in feature if (names := class_names(each))), None)
    if not isinstance(feature, dict):
        return None
    names = feature.get("names")
    if feature.get("_type") == "ClassLabel" and isinstance(names, list):
        return [str(name) for name in names]
    return class_names(feature.get("feature"))


def _library() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", "datasets") from error
    return pyarrow


def _parquet(path: Path) -> Any:
    return _library().parquet.ParquetFile(path, memory_map=False, page_checksum_verification=True)


def _stamp(path: Path) -> tuple[int, int]:
    """By which a file that was written anew is not taken for the one that is held."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=16)
def _stream(path: Path, stamp: tuple[int, int]) -> Any:
    """The table of an Arrow file, of which the disk is read where it is looked at."""
    arrow = _library()
    source = arrow.memory_map(str(path))
    head = source.read(6)
    source.seek(0)
    reader = arrow.ipc.open_file(source) if head == b"ARROW1" else arrow.ipc.open_stream(source)
    table = reader.read_all()
    table.validate(full=True)  # a damaged offset would lead out of the file
    return table


@lru_cache(maxsize=64)
def _groups(path: Path, stamp: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """First row, and the one behind the last, of each group of rows."""
    with _parquet(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    ends = np.cumsum([0, *sizes]).tolist()
    return tuple(itertools.pairwise(ends))


@lru_cache(maxsize=2)
def _columns(path: Path, stamp: tuple[int, int], group: int) -> dict[str, Any]:
    """Those columns of a group of rows that were read."""
    return {}


def _column(path: Path, group: int, column: str) -> Any:
    """A column of a group of rows, which is the least that can be read of a Parquet file."""
    columns = _columns(path, _stamp(path), group)
    if column not in columns:
        with _parquet(path) as file:
            columns[column] = file.read_row_group(group, columns=[column])[column]
    return columns[column]


def _kind(arrow: Any, given: Any) -> Kind:
    types = arrow.types
    if isinstance(given, arrow.BaseExtensionType):
        given = given.storage_type
    if types.is_struct(given):
        names = {given.field(place).name for place in range(given.num_fields)}
        return "picture" if "bytes" in names else "other"
    if types.is_binary(given) or types.is_large_binary(given):
        return "picture"
    return "numbers" if _is_list(types, given) and _is_list(types, given.value_type) else "other"


def _is_list(types: Any, given: Any) -> bool:
    return bool(types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given))


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _as_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
