"""A list of images and masks: CSV, or JSON with an entry a pair."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from segradius.core.errors import InputError, is_whole, must, shown, unknown_name
from segradius.core.safe_json import from_json, read_text
from segradius.data.files import Drawn, Pair, PairedFiles, decodable
from segradius.data.folder import described, spec_of
from segradius.data.listing import composed, located
from segradius.data.sample import DATA
from segradius.data.spelled import ids_of, spelled, unlisted
from segradius.data.structures import MaskBands, MaskFiles

SEPARATORS = (",", ";", "\t")
Kind = Literal["csv", "json", "jsonl"]
KINDS: Mapping[str, Kind] = {
    **{".csv": "csv", ".tsv": "csv", ".txt": "csv"},
    **{".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"},
}
COLUMNS = ("image", "mask", "id", "split")
SHOWN = 10


@dataclass(frozen=True)
class Row:
    """An entry of a list.

    Args:
        told: Where it stands, in words.
        cells: Texts by column; "" where nothing is said.
    """

    told: str
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")


def parse(text: str, kind: Kind) -> list[Row]:
    """The entries of a list.

    Args:
        text: With any ends of lines.
        kind: ``csv``, with its columns in the first line and commas, semicolons or tabs; ``json``, a list of mappings;
            ``jsonl``, a mapping a line.

    Raises:
        InputError: It is none, a column is missing or stands twice, or an entry has others than the first line.

    Example:
        >>> [row["mask"] for row in parse("image;mask" + chr(10) + "a.png;b.png", "csv")]
        ['b.png']
    """
    if kind == "csv":
        return list(_of_csv(text))
    if kind == "json":
        entries = from_json(text)
        must(isinstance(entries, list), "the JSON", entries, "a list of mappings with image and mask")
        numbered = ((f"entry {place}", entry) for place, entry in enumerate(entries))
    else:
        lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        numbered = ((f"line {number}", from_json(line, f"line {number}")) for number, line in lines)
    return [_of_mapping(told, entry) for told, entry in numbered]


@DATA.register("list")
def listed(path: str, split: str | None = None) -> PairedFiles:
    """Pairs that a CSV or JSON lists, list:FILE.csv,classes=[…]: image, mask, and if you like id and split.

    Args:
        path: The list, to which paths in it are relative; after commas ``about=FILE.yaml`` and keys of a
            segradius.yaml.
        split: Of the column ``split``, or what ``{split}`` in the name of the file stands for.

    Raises:
        InputError: The list is none, a file is missing, a pair or id stands twice, or a key is not as expected.
    """
    asked = spelled("list", path, split, (), ("images", "masks"))
    file = asked.path
    kind = KINDS.get(file.suffix.lower())
    must(kind is not None, "list", file.name, f"a file that ends on {', '.join(KINDS)}")
    assert kind is not None
    if not {"classes", "structures"} & set(asked.keys):
        raise InputError(f"list:{path} needs the names of the classes: write ,classes=[…] or ,about=FILE.yaml")
    spec = spec_of(asked.keys, str(asked.told_by or f"list:{path}"))
    text = read_text(file)
    try:
        rows = parse(text, kind)
        columns = {column for row in rows for column in row.cells}
        if not rows:
            raise InputError("it has no entry")
        used = [row for row in rows if row["image"]]
        chosen = _of_split(rows, asked.split, columns)
        bands = "mask" in columns or not spec.structures
        masks = ("mask",) if bands else spec.structures
        for column in ("image", *masks):
            if column not in columns:
                raise InputError(f"it has no {column!r}; found: {', '.join(map(shown, sorted(columns)))}")
        _check(chosen, masks, named="id" in columns, empty=spec.missing == "empty")
        found = _found(file.parent, chosen, masks)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    names = [row["id"] for row in chosen] if "id" in columns else ids_of([row["image"] for row in chosen])
    _refuse_twice(chosen, names, found, file)
    pairs = []
    for name, (image, *parts) in zip(names, found, strict=True):
        assert image is not None
        mask: Path | Drawn = MaskFiles(masks, tuple(parts))
        if bands:
            assert parts[0] is not None
            mask = MaskBands(spec.structures, parts[0]) if spec.structures else parts[0]
        pairs.append(Pair(decodable(name), image, mask))
    others = (located(file.parent, row[column]) for row in used for column in ("image", *masks) if row[column])
    spec = replace(spec, images=None, masks=None)
    title = f"{file.stem}/{asked.split}" if asked.split else file.stem
    left_out = unlisted((other for other in others if other is not None), f"not in {file.name}")
    return described(f"list {title}", spec, tuple(pairs), asked.told_by, left_out)


def _of_csv(text: str) -> Iterable[Row]:
    if "\0" in text:
        raise InputError("it holds a NUL, which is no text")
    try:
        heads = {each: next(csv.reader(io.StringIO(text, newline=""), delimiter=each), []) for each in SEPARATORS}
        fitting = [each for each, head in heads.items() if "image" in map(_column, head)]
        if not fitting:
            raise InputError(
                f"its first line is {shown(','.join(heads[',']))}; expected the names of the columns, as in image,mask"
            )
        columns = [_column(cell) for cell in heads[fitting[0]]]
        for column in columns:
            if columns.count(column) > 1:
                raise InputError(f"the column {column!r} stands twice in its first line")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=fitting[0], strict=True)
        next(reader)
        start = reader.line_num + 1
        for cells in reader:
            told, start = f"line {start}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise InputError(f"{told} has {len(cells)} cells, the first line {len(columns)}")
            yield Row(told, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise InputError(f"it is no valid CSV: {error}") from error


def _column(cell: str) -> str:
    """A column's name: those that are known in any case of letters."""
    name = cell.strip()
    return name.casefold() if name.casefold() in COLUMNS else name


def _of_mapping(told: str, entry: object) -> Row:
    if not isinstance(entry, dict):
        raise InputError(f"{told} is {shown(entry)}; expected a mapping with image and mask")
    cells = {}
    for key, value in entry.items():
        name = _column(key)
        if name in cells:
            raise InputError(f"{told} has {name!r} twice")
        if value is None:
            value = ""
        if name == "id" and is_whole(value, -(10**18)):
            value = str(value)
        if name in COLUMNS and not isinstance(value, str):
            raise InputError(f"{told}: {name} is {shown(value)}; expected a text")
        cells[name] = value
    return Row(told, cells)


def _of_split(rows: list[Row], split: str | None, columns: set[str]) -> list[Row]:
    """The entries of a split."""
    if "split" not in columns:
        if split is not None:
            raise InputError(f"it has no column 'split', so the split {split!r} means nothing")
        return rows
    for row in rows:
        if not row["split"].strip():
            raise InputError(f"{row.told} has no split, as others have")
    known = sorted({row["split"].strip() for row in rows})
    if split is None and len(known) > 1:
        raise InputError(f"it needs a split; found: {', '.join(known)}")
    if split is not None and split not in known:
        raise unknown_name("split", split, known)
    return [row for row in rows if split is None or row["split"].strip() == split]


def _check(rows: Sequence[Row], masks: tuple[str, ...], *, named: bool, empty: bool) -> None:
    """Refuse an entry that does not say where its files are."""
    for row in rows:
        for column in ("image", *masks):
            value = row[column]
            if not isinstance(value, str):
                raise InputError(f"{row.told}: {column} is {shown(value)}; expected a file")
            if not value.strip() and (column in ("image", "mask") or not empty):
                advice = "" if column in COLUMNS else "; write missing: empty if the structure is nowhere in it"
                raise InputError(f"{row.told} has no {column}{advice}")
        if named and not row["id"].strip():
            raise InputError(f"{row.told} has no id")


def _found(base: Path, rows: Sequence[Row], masks: tuple[str, ...]) -> list[list[Path | None]]:
    """The files of each entry.

    Raises:
        InputError: Some are missing; the message names the first, and how many there are.
    """
    texts = [[row[column] for column in ("image", *masks)] for row in rows]
    found = [[located(base, text) if text.strip() else None for text in each] for each in texts]
    lacking = [
        text
        for each, files in zip(texts, found, strict=True)
        for text, file in zip(each, files, strict=True)
        if file is None and text.strip()
    ]
    if lacking:
        names = ", ".join(map(shown, lacking[:SHOWN])) + (", …" if len(lacking) > SHOWN else "")
        raise InputError(f"{len(lacking)} of its files are missing: {names}")
    for column, place in [(column, place) for place, column in enumerate(masks, 1)]:
        if all(files[place] is None for files in found):
            raise InputError(f"no entry has a mask of {column!r}")
    return found


def _refuse_twice(rows: Sequence[Row], names: Sequence[str], found: Sequence[list[Path | None]], file: Path) -> None:
    """Refuse a pair, or an id, that two entries have."""
    pairs: dict[Any, str] = {}
    ids: dict[str, str] = {}
    for row, name, files in zip(rows, names, found, strict=True):
        pair = tuple(None if path is None else path.resolve() for path in files)
        if pair in pairs:
            raise InputError(
                f"{file}: {pairs[pair]} and {row.told} have the same image and mask, {shown(row['image'])}"
            )
        if composed(name) in ids:
            advice = "" if "id" in row.cells else ": give each an id"
            raise InputError(f"{file}: {ids[composed(name)]} and {row.told} would both be {shown(name)}{advice}")
        pairs[pair], ids[composed(name)] = row.told, row.told
