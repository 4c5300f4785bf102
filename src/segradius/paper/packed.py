"""What was measured at a scale in a small form, for a repository: a CSV of each block's rows, and what was computed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from segradius import __version__
from segradius.core.errors import InputError
from segradius.core.names import safe_name
from segradius.core.seal import read_json, readable
from segradius.core.storage import as_csv, as_json
from segradius.core.sums import checked, write_files
from segradius.paper.measured import Certified, Measured, Of, Seen, Traced
from segradius.paper.plan import COMPUTED

R = TypeVar("R", bound=Of)

#: What says what is packed, and of which form that is.
ABOUT, SCHEMA = "about.json", 1
#: Of a network, told once.
NETWORK = ("family", "role", "seed")
#: By the ending of their files.
KINDS: Mapping[str, type[Of]] = {"images": Seen, "certified": Certified, "traces": Traced}
#: Arrays of a computed block that are larger than so many bytes are left out: its pictures cannot be drawn anew then.
LARGEST = 4_000_000


def write_packed(measured: Measured, scale: str, folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """Write what was measured into a folder; files of blocks that are no part of it any more go.

    Args:
        measured: What.
        scale: At which scale.
        folder: Made where it is not there.
        facts: What else is to be known of it: versions, the date.

    Returns:
        Names of arrays that are too large and were left out.
    """
    files: list[tuple[str, str | bytes]] = []
    rows: dict[str, Sequence[Of]] = {
        "images": measured.seen,
        "certified": measured.certified,
        "traces": measured.traced,
    }
    networks: dict[str, dict[str, Any]] = {}
    for kind, several in rows.items():
        blocks: dict[str, list[Of]] = {}
        for row in several:
            blocks.setdefault(row.block, []).append(row)
            networks[row.network] = {name: getattr(row, name) for name in NETWORK}
        files += [(f"{safe_name(block)}.{kind}.csv", _csv(own)) for block, own in blocks.items()]
    left = []
    for block, found in measured.computed.items():
        files.append((f"{safe_name(block)}/{COMPUTED}", as_json({"found": found})))
        for file in sorted(measured.folders[block, ""].glob("*.npz")):
            if file.stat().st_size <= LARGEST:
                files.append((f"{safe_name(block)}/{file.name}", file.read_bytes()))
            else:
                left.append(f"{block}/{file.name}")
    about = {"schema": SCHEMA, "scale": scale, "segradius": __version__, **facts, "networks": networks}
    folder.mkdir(parents=True, exist_ok=True)
    files.append((ABOUT, as_json(about)))
    write_files(folder, files, (*(f"*.{kind}.csv" for kind in KINDS), f"*/{COMPUTED}", "*/*.npz"))
    return left


def read_packed(folder: Path, scale: str) -> tuple[Measured, dict[str, Any]]:
    """What `write_packed` wrote.

    Args:
        folder: Where.
        scale: At which scale it has to be.

    Returns:
        What was measured, and what else is known of it.

    Raises:
        InputError: There is nothing packed, or of another scale or version.
        DamagedError: It is not as it was written.
    """
    if not (folder / ABOUT).is_file():
        raise InputError(f"{folder} has no {ABOUT}; expected the folder of segradius paper pack --to")
    about = read_json(folder / ABOUT, checked(folder, ABOUT))
    if about.get("schema") != SCHEMA:
        raise InputError(
            f"{folder / ABOUT} has schema {about.get('schema')!r}; this version of segradius reads {SCHEMA}"
        )
    if about.get("scale") != scale:
        raise InputError(f"{folder} is of scale {about.get('scale')}; expected {scale}, as --scale says")
    networks = about["networks"]
    computed, folders = dict[str, Any](), dict[tuple[str, str], Path]()
    for file in sorted(folder.glob(f"*/{COMPUTED}")):
        name = file.parent.name
        computed[name] = read_json(file, checked(folder, f"{name}/{COMPUTED}"))["found"]
        folders[name, ""] = file.parent
    rows = {kind: tuple(_rows(folder, kind, made, networks)) for kind, made in KINDS.items()}
    return Measured(rows["images"], computed, rows["certified"], rows["traces"], folders), about


def _csv(rows: Sequence[Of]) -> str:
    names = [each.name for each in fields(rows[0]) if each.name not in NETWORK]
    return as_csv(names, ([_told(getattr(row, name)) for name in names] for row in rows))


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return "" if value is None or value != value else value


def _rows(folder: Path, kind: str, made: type[R], networks: Mapping[str, Any]) -> Iterator[Any]:
    for file in sorted(folder.glob(f"*.{kind}.csv")):
        content = readable(lambda file=file: checked(folder, file.name).decode(), file, "a table")  # type: ignore[misc]
        lines = csv.DictReader(io.StringIO(content, newline=""), strict=True)
        yield from readable(lambda lines=lines: list(_read(lines, made, networks)), file, "a table")  # type: ignore[misc]


def _read(lines: Iterable[Mapping[str, str]], made: type[R], networks: Mapping[str, Any]) -> Iterator[R]:
    kinds = {each.name: str(each.type) for each in fields(made)}
    for line in lines:
        values = {name: _value(kinds[name], text) for name, text in line.items()}
        yield made(**values, **networks[values["network"]])


def _value(kind: str, text: str) -> Any:
    """A value of a row by its annotation."""
    if kind.startswith("Mapping"):
        return json.loads(text) if text else {}
    if not text and kind.endswith("| None"):
        return None
    if kind.startswith("int"):
        return int(text)
    if kind.startswith("float"):
        return float(text) if text else float("nan")
    return text
