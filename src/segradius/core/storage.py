"""What goes into files: tables and reports as text; and files that are written whole or not at all."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from segradius.core.errors import SegradiusError, StorageError
from segradius.core.escapes import cell
from segradius.core.names import safe_name

#: How names of temporary files begin.
PREFIX = ".segradius-"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context that gives a temporary path beside ``path``, which takes its place on the way out.

    A reader sees the old file or the new one, never a part, also after a crash of the machine. After an exception the
    old file stays and the temporary one is gone.

    Args:
        path: The file to replace; its folder exists.

    Raises:
        StorageError: It cannot be written, as when a disk is full; also of whatever else goes wrong in the context, as
            libraries have errors of their own for that.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as new:
        ...     _ = new.write_text("whole")
        >>> [file.name for file in folder.iterdir()], (folder / "a.txt").read_text()
        (['a.txt'], 'whole')
    """
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 20 else ""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{PREFIX}{safe_name(path.name)}-", suffix=suffix)
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, SegradiusError) or not isinstance(error, Exception):
            raise
        raise unwritable(path, error) from error


def unwritable(path: Path, error: Exception) -> StorageError:
    """An error for a file that could not be written, be it that the disk or that a library said so.

    Example:
        >>> import errno
        >>> str(unwritable(Path("last.pt"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")))
        'last.pt cannot be written, and is as it was before: No space left on device'
    """
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return StorageError(f"{path} cannot be written, and is as it was before: {told.splitlines()[0]}")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put ``content`` into ``path`` so that a reader sees the old file or the new one, never a part."""
    with replacing(path) as new:
        new.write_bytes(content.encode() if isinstance(content, str) else content)


def leftovers(folder: Path, below: Iterable[str] = ()) -> list[Path]:
    """Temporary files that killed processes left in a folder and in those of its sub-folders that are named by a glob.

    While one process writes there they are also those that it is writing.
    """
    return [file for part in ("", *below) for file in folder.glob(f"{part}/{PREFIX}*".lstrip("/"))]


def leftovers_of(path: Path) -> tuple[Path, list[Path]]:
    """Of a single file: where its lock is, and the temporary files that killed processes left."""
    name = safe_name(path.name)
    return path.parent / f".segradius.{name}.lock", list(path.parent.glob(f"{PREFIX}{glob.escape(name)}-*"))


def as_csv(header: Iterable[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV, text as `segradius.core.escapes.cell` has it.

    Example:
        >>> as_csv(("attack", "pixacc"), [("pgd", 0.5), ("sea", None)]).splitlines()
        ['attack,pixacc', 'pgd,0.5', 'sea,']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return text.getvalue()


def as_json(report: Mapping[str, Any]) -> str:
    """A report as JSON, with null for what JSON has no number for."""
    whole = json.dumps(null(report), indent=2, ensure_ascii=False, allow_nan=False)
    return whole.encode("utf-8", "backslashreplace").decode() + "\n"  # of a name that is not UTF-8


def null(value: Any) -> Any:
    """``value`` with None in place of every NaN and infinity, also inside dicts, lists and tuples."""
    if isinstance(value, Mapping):
        return {name: null(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
