"""Disks that are full, read only, over quota or broken: one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faults.frame import Case, Ran, Tried, fault, judge, limited, test_fault
from faults.harm import DATABASE
from segradius.evaluation import seals

__all__ = ["test_fault"]

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
WRITERS: tuple[tuple[Any, str], ...] = (
    (tempfile, "mkstemp"),
    (os, "fsync"),
    (Path, "replace"),
    (Path, "write_bytes"),
    (Path, "mkdir"),
)


@contextmanager
def failing(case: Case, last: int = 6) -> Iterator[None]:
    """One call of a function that writes fails, and all later ones do; those outside the folder do not."""
    place, name = case.random.choice(WRITERS)
    number, left, function = case.random.choice(ERRORS), [case.random.randrange(last)], getattr(place, name)

    def call(*given: Any, **named: Any) -> Any:
        where = str(named.get("dir", given[0] if given else ""))
        if not where.startswith(tempfile.gettempdir()) or "out" in where:
            left[0] -= 1
        if left[0] < 0:
            raise OSError(number, os.strerror(number), where)
        return function(*given, **named)

    setattr(place, name, call)
    try:
        yield
    finally:
        setattr(place, name, function)


def gone_on(case: Case, first: Ran, *names: str) -> Tried:
    """What came of the same command afterwards, if the first was refused in a line, or done."""
    outcome, told = judge(Tried(first, names), case.wanted, case.wanted)
    problem = "" if outcome in ("refused", "right") else f"{outcome}: {told}"
    return Tried(case.run(), problem=problem)


for _command in ("attack", "black", "certify", "evaluate", "train"):

    @fault("disk", "right", _command, few=2, name=f"failing_writes_{_command}")
    def _failing(case: Case) -> Tried:
        with failing(case):
            first = case.run()
        return gone_on(case, first)

    @fault("disk", "right", _command, few=4 if _command == "train" else 1, name=f"disk_full_{_command}")
    def _full(case: Case) -> Tried:
        """Files beyond some size are refused by the system itself: SQLite's, torch's, ours."""
        size = int(2 ** case.random.uniform(6, 17))
        return gone_on(case, limited(case.command, size))


for _command in ("attack", "certify"):

    @fault("disk", "right", _command, few=2, name=f"database_full_{_command}")
    def _database_full(case: Case) -> Tried:
        connect, pages = sqlite3.connect, case.random.randrange(14, 40)

        def small(*given: Any, **named: Any) -> sqlite3.Connection:
            base = connect(*given, **named)
            base.execute(f"PRAGMA max_page_count={pages}")
            return base

        with replaced(seals.sqlite3, "connect", small):
            first = case.run()
        return gone_on(case, first, DATABASE)


@contextmanager
def replaced(place: Any, name: str, new: Callable[..., Any]) -> Iterator[None]:
    """Another function in place of one."""
    old = getattr(place, name)
    setattr(place, name, new)
    try:
        yield
    finally:
        setattr(place, name, old)


@fault("disk", "right", "attack", finished=True)
def database_locked(case: Case) -> Tried:
    """Another program has the results file open for writing."""
    connect = sqlite3.connect
    other = connect(case.out / DATABASE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with replaced(seals.sqlite3, "connect", lambda *given, **named: connect(*given, **{**named, "timeout": 0.1})):
        first = case.run()
    other.execute("ROLLBACK")
    other.close()
    return gone_on(case, first, DATABASE)


@fault("disk", "right", "attack", finished=True, few=3)
def in_the_way(case: Case) -> Tried:
    """A folder where a file belongs, or a file where a folder does."""
    name = ("per_image.csv", "results.json", "checkpoints")[case.number % 3]
    with suppress(FileNotFoundError):
        (case.out / name).unlink()
    if name == "checkpoints":
        (case.out / name).write_text("")
    else:
        (case.out / name).mkdir()
    first = case.run()
    if (case.out / name).is_dir():
        (case.out / name).rmdir()
    else:
        (case.out / name).unlink()
    return gone_on(case, first, name)
