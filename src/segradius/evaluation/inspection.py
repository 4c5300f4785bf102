"""A store looked at without a change to it, and mended: its damaged rows are dropped, so that they are made again."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from segradius.core.errors import DamagedError
from segradius.evaluation.seals import PAIRED, TABLES, Damage, Sealed


@contextmanager
def looked_into(path: Path) -> Iterator[Sealed]:
    """A store to be read without a change to it or to its folder.

    Args:
        path: The file; nobody writes in it now.

    Raises:
        DamagedError: It is no SQLite file, or not a whole one.
    """
    try:
        with addressed(path) as address:
            base = Sealed(address, uri=True)
            with closing(base.base):
                yield base
    except sqlite3.Error as error:
        raise DamagedError(f"it is no whole database: {error}") from error


@contextmanager
def addressed(path: Path) -> Iterator[str]:
    """The address by which SQLite reads a store without a change to it or to its folder.

    Args:
        path: The file; nobody writes in it now.
    """
    with tempfile.TemporaryDirectory() as folder:
        wal, place = path.with_name(f"{path.name}-wal"), path
        if wal.exists() and wal.stat().st_size:  # of a run that was killed: to read it is to write
            place = Path(folder) / path.name
            for file in (path, wal):
                shutil.copy(file, place.with_name(file.name))
        mode = "immutable=1" if place == path else "mode=rw"
        yield f"{place.absolute().as_uri()}?{mode}"


def inspected(path: Path) -> tuple[int, bool, list[Damage]]:
    """What a store holds, without a change to it or to its folder.

    Args:
        path: The file; nobody writes in it now.

    Returns:
        Rows; whether they have checksums; and those that are not as they were stored.

    Raises:
        DamagedError: It is no SQLite file, or not a whole one.
    """
    with looked_into(path) as base:
        if told := base.structure():
            raise DamagedError(f"it is no whole database: {told}")
        sealed = base.is_sealed()
        return base.counted(), sealed, list(base.damages(base.tables())) if sealed else []


def mended(path: Path) -> int:
    """Drop the damaged rows of a store, and all else that is known of an image by the same job.

    What is left of a result without its row, or of a row without what was kept with it, is of no use: the job finds
    all of it again. So do all jobs of an image of which is not known any more what it was.

    Args:
        path: The file, of whose folder the caller is the owner.

    Returns:
        Results that are to be made again.
    """
    base = Sealed(str(path))
    with closing(base.base), base.base:
        found = {damage.key for damage in base.damages(PAIRED)}
        images = {damage.key[0] for damage in base.damages(("sources",))}
        jobs = {tuple(map(str, row)) for row in base.base.execute("SELECT attack, image FROM results").fetchall()}
        dropped = found | {key for key in jobs if key[-1] in images}
        for key in dropped:
            for table in PAIRED:
                base.drop(table, *key)
        for table in set(TABLES) - {"meta"}:
            base.sweep(table)
    return len(dropped)
