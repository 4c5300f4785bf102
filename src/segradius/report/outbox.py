"""A folder for what is taken out of results: new, or of an earlier export, never one with anything else in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from segradius.core.errors import InputError
from segradius.core.locking import LOCK, owned
from segradius.core.screen import warn
from segradius.core.storage import replacing, write_atomically
from segradius.core.sums import SUMS, read_sums, sum_of, write_sums


class Outbox:
    """Files that are written into a folder, each whole or not at all.

    Args:
        folder: That is there.

    Attributes:
        sums: Checksums by path in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sums: dict[str, str] = {}

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file, by its path in the folder, and return its checksum."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        self.sums[name] = sum_of(content)
        return self.sums[name]

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A context that gives the path where a large file is to be written."""
        with replacing(self.folder / name) as new:
            yield new
        with (self.folder / name).open("rb") as file:
            self.sums[name] = hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def outbox(folder: Path, mark: str) -> Iterator[Outbox]:
    """A context in which a folder is filled: what an earlier export left in it goes, and checksums are written last.

    Args:
        folder: Made where it is not there.
        mark: Name of a file that every export of this kind has.

    Raises:
        InputError: It holds other files, or somebody else writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = [file.name for file in folder.iterdir() if file.name != LOCK]
    if others and not (folder / mark).is_file():
        raise InputError(f"{folder} holds other files, such as {min(others)}; expected a new folder, or an empty one")
    with owned(folder, ("*", "*/*"), warn):
        for name in [*read_sums(folder), SUMS]:
            inside = PurePosixPath(name)
            if not inside.is_absolute() and ".." not in inside.parts:
                (folder / name).unlink(missing_ok=True)
        found = Outbox(folder)
        yield found
        write_sums(folder, found.sums)
