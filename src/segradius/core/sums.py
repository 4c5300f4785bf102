"""Checksums of the files in a folder, in a file of its own that ``sha256sum --check`` reads as well."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segradius.core.errors import DamagedError
from segradius.core.storage import write_atomically

SUMS = "SHA256SUMS"
LINE = re.compile(r"(\\?)([0-9a-f]{64})  (.+)")


def write_files(folder: Path, files: Iterable[tuple[str, str | bytes]], instead: Sequence[str] = ()) -> None:
    """Write files into a folder, each whole unless it is there already as it should be, and then their checksums.

    Args:
        folder: That exists; folders in it are made.
        files: Path in the folder, and content.
        instead: Globs of earlier files, of which those are removed that are not among these.
    """
    sums = {}
    for name, content in files:
        path, wanted = folder / name, content.encode() if isinstance(content, str) else content
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != wanted:
            write_atomically(path, wanted)
        sums[name] = sum_of(wanted)
    write_sums(folder, sums)
    for file in {file for pattern in instead for file in folder.glob(pattern)}:
        if file.relative_to(folder).as_posix() not in sums:
            file.unlink()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the checksums of files by their paths in a folder, once all of them are written."""
    lines = "".join(_line(name, found) for name, found in sorted(sums.items()))
    write_atomically(folder / SUMS, lines.encode("utf-8", "surrogateescape"))


def read_sums(folder: Path) -> dict[str, str]:
    """Checksums by path; empty where there are none, as in a folder of an earlier version.

    Raises:
        DamagedError: The file of them holds something else.
    """
    file = folder / SUMS
    if not file.exists():
        return {}
    lines = file.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    found = {}
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise DamagedError(f"{file} is damaged: line {number} is no checksum with a name")
        name = match[3]
        found[re.sub(r"\\(.)", _meant, name) if match[1] else name] = match[2]
    return found


def sum_of(content: str | bytes) -> str:
    """The checksum of content, of a text in UTF-8.

    Example:
        >>> sum_of(b"")[:16]
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def checked(folder: Path, name: str) -> bytes:
    """The content of a file, which must be what was written where the folder has its checksum.

    Raises:
        DamagedError: It is something else.
        OSError: It cannot be read.
    """
    content, known = (folder / name).read_bytes(), read_sums(folder).get(name)
    if known is not None and known != sum_of(content):
        again = "the command that wrote it writes it anew"
        raise DamagedError(f"{folder / name} is damaged or was changed: {SUMS} has another checksum; {again}")
    return content


def _meant(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]


def _line(name: str, found: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{chr(92) if escaped != name else ''}{found}  {escaped}\n"
