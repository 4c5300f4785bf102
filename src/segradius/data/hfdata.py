"""Data of the library ``datasets`` on this disk: what ``save_to_disk`` wrote, Parquet and Arrow files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, is_whole, must, shown, unknown_name
from segradius.core.safe_json import read_json
from segradius.data.files import Drawn, Held, Pair, PairedFiles, decodable
from segradius.data.folder import described, spec_of
from segradius.data.listing import LeftOut, below, composed, located
from segradius.data.sample import DATA
from segradius.data.spelled import spelled
from segradius.data.structures import MaskFiles
from segradius.data.tables import SUFFIXES, NumberCell, PictureCell, Table, class_names, open_table, read_column

#: Keys of a segradius.yaml about where files lie, and about stacks of slices.
WITHOUT = ("images", "masks", "missing", "slices", "array", "layout")
#: Names of columns of masks, if none is said.
MASKS = ("mask", "label", "annotation", "masks", "labels", "annotations", "segmentation_mask", "semantic_mask")
#: Names of files that are numbered and say nothing of a split.
_PART = re.compile(r"(part|shard|chunk)?[-_.]?\d+([-_.].*)?")
_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")


@DATA.register("hfdata")
def hfdata(path: str, split: str | None = None) -> PairedFiles:
    """A Hugging Face data set on this disk, hfdata:FOLDER,classes=[…]: save_to_disk, Parquet or Arrow; offline.

    Args:
        path: The folder, or one file; after commas ``image=``, ``mask=`` and ``id=``, names of columns,
            ``about=FILE.yaml`` and keys of a segradius.yaml.
        split: One of those that are there.

    Raises:
        InputError: There is no table, a column is not there or may be one of several, or the classes are not named.
        MissingExtraError: pyarrow is not installed.
    """
    asked = spelled("hfdata", path, split, ("image", "mask", "id"), WITHOUT)
    place = asked.path
    files, found, left_out = _files(place, asked.split)
    tables = [open_table(file) for file in files]
    try:
        return _opened(tables, asked.options, asked.keys, _title(place, found or split), asked.told_by, left_out)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _opened(
    tables: Sequence[Table],
    options: Mapping[str, Any],
    keys: Mapping[str, Any],
    name: str,
    told_by: Path | None,
    left_out: tuple[LeftOut, ...],
) -> PairedFiles:
    first = tables[0]
    image = _image_column(first, options.get("image"))
    known = None
    if "structures" not in keys:
        mask = _mask_column(first, options.get("mask"), image)
        columns: tuple[str, ...] = (mask,)
        known = class_names(first.features.get(mask))
        if "classes" not in keys and known is None:
            raise InputError(f"the column {mask!r} does not name its classes: write ,classes=[…] or ,about=FILE.yaml")
    spec = spec_of({**({} if known is None else {"classes": known}), **keys}, str(told_by or "the options"))
    if spec.structures:
        if "mask" in options:
            raise InputError("mask: it means nothing beside structures, each of which has a column of its name")
        columns = spec.structures
    for table in tables:
        for column in (image, *columns):
            kinds = ("picture",) if column == image or spec.structures else ("picture", "numbers")
            _check_column(table, column, kinds)
    if not sum(table.rows for table in tables):
        raise InputError("it has no rows")
    ids = _ids(tables, options.get("id"))
    cells = ((table, row) for table in tables for row in range(table.rows))
    pairs = tuple(
        Pair(name, PictureCell(table.path, image, row), _mask(table, columns, row, spec.structures))
        for name, (table, row) in zip(ids, cells, strict=True)
    )
    return described(name, spec, pairs, told_by, left_out)


def _mask(table: Table, columns: tuple[str, ...], row: int, structures: tuple[str, ...]) -> Held | Drawn:
    if structures:
        return MaskFiles(structures, tuple(PictureCell(table.path, column, row) for column in columns))
    cell = NumberCell if table.columns[columns[0]] == "numbers" else PictureCell
    return cell(table.path, columns[0], row)


def _image_column(table: Table, given: Any) -> str:
    if given is not None:
        return _given(table, "image", given)
    pictures = [name for name, kind in table.columns.items() if kind == "picture"]
    if "image" in pictures:
        return "image"
    others = [name for name in pictures if name not in MASKS]
    if len(others) != 1:
        raise InputError(f"which column holds the images? Write ,image=COLUMN; found: {_told(table)}")
    return others[0]


def _mask_column(table: Table, given: Any, image: str) -> str:
    if given is not None:
        return _given(table, "mask", given)
    named = [name for name in MASKS if table.columns.get(name, "other") != "other" and name != image]
    if len(named) != 1:
        raise InputError(f"which column holds the masks? Write ,mask=COLUMN; found: {_told(table)}")
    return named[0]


def _given(table: Table, option: str, given: Any) -> str:
    must(isinstance(given, str), option, given, "the name of a column")
    if given not in table.columns:
        raise unknown_name("column", given, table.columns)
    return str(given)


def _check_column(table: Table, column: str, kinds: tuple[str, ...]) -> None:
    if column not in table.columns:
        raise InputError(f"{table.path.name} has no column {column!r}; found: {_told(table)}")
    if table.columns[column] not in kinds:
        told = "pictures (bytes)" + (" or rows of numbers" if "numbers" in kinds else "")
        raise InputError(f"the column {column!r} of {table.path.name} does not hold {told}; found: {_told(table)}")


def _told(table: Table) -> str:
    words = {"picture": "pictures", "numbers": "rows of numbers", "other": "neither pictures nor rows of numbers"}
    return ", ".join(f"{shown(name)} ({words[kind]})" for name, kind in table.columns.items()) or "none"


def _ids(tables: Sequence[Table], given: Any) -> list[str]:
    if given is None:
        count = sum(table.rows for table in tables)
        width = max(5, len(str(count - 1)))
        return [f"{number:0{width}d}" for number in range(count)]
    column = _given(tables[0], "id", given)
    values = list(chain.from_iterable(read_column(table.path, column) for table in tables))
    seen: dict[str, int] = {}
    for row, value in enumerate(values):
        good = is_whole(value, -(10**18)) or (isinstance(value, str) and bool(value.strip()))
        must(good, f"the id of row {row}", value, "a text or a whole number")
        name = composed(str(value))
        if name in seen:
            raise InputError(f"rows {seen[name]} and {row} have the same {column}, {shown(str(value))}")
        seen[name] = row
    return [decodable(str(value)) for value in values]


def _files(place: Path, split: str | None) -> tuple[list[Path], str | None, tuple[LeftOut, ...]]:
    """The tables of a split in order, the split, and what is not used."""
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise InputError(f"hfdata: {place} is no folder, and does not end on {' or '.join(SUFFIXES)}")
        if split is not None:
            raise InputError(f"hfdata: the split {split!r} means nothing of one file")
        return [place], None, ()
    if (place / "dataset_dict.json").is_file():
        known = _entry(place / "dataset_dict.json", "splits", str)
        chosen = _chosen(known, split)
        return _saved(place / chosen), chosen, ()
    if (place / "state.json").is_file():
        if split is not None:
            raise InputError(f"hfdata: {place} is one data set without splits, so the split {split!r} means nothing")
        return _saved(place), None, ()
    return _by_split(place, split)


def _saved(place: Path) -> list[Path]:
    """The files of what ``save_to_disk`` wrote."""
    state = place / "state.json"
    content = read_json(state)
    entries = _entry(state, "_data_files", dict)
    if content.get("_indices_data_files") or content.get("_indices_files"):
        raise InputError(f"{state}: its rows are chosen by a table of their own: save it anew by save_to_disk")
    files = [place / str(entry.get("filename")) for entry in entries]
    for file in files:
        if file.parent != place or located(place, file.name) is None:
            raise InputError(f"{state}: it names {shown(file.name)}, which is missing in {place}")
    return files


def _entry(file: Path, key: str, kind: type) -> list[Any]:
    content = read_json(file)
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(each, kind) for each in found):
        raise InputError(f"{file}: {key} is {shown(found)}; expected a list, as save_to_disk writes it")
    return found


def _by_split(place: Path, split: str | None) -> tuple[list[Path], str | None, tuple[LeftOut, ...]]:
    """Tables below a folder by their splits, which their names or folders tell."""
    found: dict[str, list[Path]] = {}
    left_out = []
    for path, reason, _ in sorted(below(place)):
        if reason or path.suffix.lower() not in SUFFIXES:
            left_out.append(LeftOut(path, reason or "no table"))
        else:
            found.setdefault(split_of(path.relative_to(place)), []).append(path)
    if not found:
        raise InputError(f"hfdata: there is no {' or '.join(SUFFIXES)} file, and no state.json, below {place}")
    chosen = _chosen(list(found), split)
    files = found[chosen]
    folders = {path.parent for path in files}
    if len(folders) > 1:
        named = ", ".join(sorted(map(str, folders)))
        raise InputError(f"hfdata: the split {chosen!r} is in several folders: give one of {named}")
    _check_shards(files)
    return files, chosen, tuple(left_out)


def split_of(path: Path) -> str:
    """The split that a table belongs to, by the name of the file or of its folder.

    Example:
        >>> names = ("data/val-00000-of-00002.parquet", "test.parquet", "x/train/0.parquet", "0001.parquet")
        >>> [split_of(Path(name)) for name in names]
        ['val', 'test', 'train', 'data']
    """
    shard = _SHARD.fullmatch(path.stem)
    if shard:
        return shard["split"]
    folder = path.parent.name
    if folder not in ("", "data"):
        return folder
    return "data" if _PART.fullmatch(path.stem) else path.stem


def _chosen(known: list[Any], split: str | None) -> str:
    if split is None and len(known) == 1:
        return str(known[0])
    if split is None:
        raise InputError(f"hfdata needs a split; found: {', '.join(map(str, known))}")
    if split not in known:
        raise unknown_name("split", split, map(str, known))
    return split


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a split of which a part is missing."""
    shards = [shard for shard in (_SHARD.fullmatch(file.stem) for file in files) if shard]
    for count in {int(shard["count"]) for shard in shards}:
        there = sorted(int(shard["number"]) for shard in shards if int(shard["count"]) == count)
        if there != list(range(count)) or len(shards) != len(files):
            raise InputError(f"{files[0].parent}: of {count} parts of {shards[0]['split']} there are {len(there)}")


def _title(place: Path, split: str | None) -> str:
    name = place.stem if place.is_file() else place.resolve().name
    return f"hfdata {name}" + (f"/{split}" if split else "")
