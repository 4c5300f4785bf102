"""Checksums of the rows of a store, in a table of their own: an inventory of what was stored, checked on reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from segradius.core.seal import seal


@dataclass(frozen=True)
class Table:
    """A table of a store: the columns that name a row, and those that say what is in it, with their types."""

    keys: tuple[str, ...]
    columns: tuple[str, ...]
    more: str = ""

    def schema(self, name: str) -> str:
        """How it is made."""
        named = [f"{key} TEXT" for key in self.keys]
        return f"CREATE TABLE IF NOT EXISTS {name} ({', '.join([*named, *self.columns, self._key])}){self.more}"

    def seal(self, name: str) -> str:
        """An expression for the checksum of a row; a text counts by its bytes, which may be no text any more."""
        kinds = [(key, "TEXT") for key in self.keys] + [tuple(column.split()[:2]) for column in self.columns]
        values = (f"CAST({name}.{column} AS BLOB)" if kind == "TEXT" else f"{name}.{column}" for column, kind in kinds)
        return f"seal_of('{name}', {', '.join(values)})"

    def names(self, name: str) -> tuple[str, str]:
        """Expressions for the two names by which the checksum is kept."""
        one, two = (*(f"{name}.{key}" for key in self.keys), "''")[:2]
        return one, two

    @property
    def _key(self) -> str:
        return f"PRIMARY KEY ({', '.join(self.keys)})"


_PAIR = ("attack", "image")
_COUNTS = (
    "pixels TEXT", "members TEXT", "hit INTEGER", "eligible INTEGER", "l1 REAL", "l2 REAL", "linf REAL", "outside REAL",
    "disagreement INTEGER", "passes TEXT", "valid INTEGER", "seconds REAL",
)  # fmt: skip
TABLES = {
    "meta": Table(("name",), ("value TEXT NOT NULL",), " WITHOUT ROWID"),
    "results": Table(_PAIR, _COUNTS, " WITHOUT ROWID"),
    "sources": Table(("image",), ("marks TEXT NOT NULL",), " WITHOUT ROWID"),
    "set_aside": Table(("image",), ("reason TEXT NOT NULL",), " WITHOUT ROWID"),
    "examples": Table(_PAIR, ("shape TEXT", "adversarial BLOB")),
    "predictions": Table(_PAIR, ("shape TEXT", "classes BLOB")),
    "traces": Table(_PAIR, ("trace BLOB",)),
    "records": Table(_PAIR, ("record BLOB",)),
    "confusions": Table(_PAIR, ("shape TEXT", "cells BLOB")),
    "rounded": Table(
        _PAIR,
        (
            "pixels TEXT",
            "hit INTEGER",
            "l1 REAL",
            "l2 REAL",
            "linf REAL",
            "passes INTEGER",
            "valid INTEGER",
        ),
    ),
    "gallery": Table(_PAIR, ("remaining REAL", "shape TEXT", "before BLOB")),
}
SEALS = "CREATE TABLE seals (part TEXT, one TEXT, two TEXT, seal TEXT, PRIMARY KEY (part, one, two)) WITHOUT ROWID"

#: The tables of what a job found of an image.
PAIRED = tuple(name for name, table in TABLES.items() if table.keys == _PAIR)
#: The tables whose rows are few bytes, and are all checked when a store is opened; those of others when they are read.
SMALL = ("meta", "results", "sources", "set_aside")


@dataclass(frozen=True)
class Damage:
    """A row that is not as it was stored.

    Attributes:
        table: Of the store.
        key: Of the row: of an image's result the key of its job and the id.
        found: ``"changed"``, ``"missing"``, or ``"unknown"`` where a row was never stored so.
    """

    table: str
    key: tuple[str, ...]
    found: str

    def __str__(self) -> str:
        named = f"image {self.key[-1]!r}" if self.table != "meta" else repr(self.key[0])
        job = f" of job {self.key[0]}" if len(self.key) > 1 else ""
        return f"the row of {named}{job} in {self.table} is {self.found}"


class Sealed:
    """A SQLite file whose rows are sealed when they are stored and checked when they are read.

    Args:
        path: The file; made where absent.
        uri: Whether ``path`` is an address, as of a file that must stay as it is.

    Attributes:
        adopted: Whether rows were there that an earlier version had stored without checksums, which they have now.

    Raises:
        sqlite3.Error: The file cannot be used.
    """

    def __init__(self, path: str, *, uri: bool = False) -> None:
        self.base = sqlite3.connect(path, timeout=60, uri=uri)
        self.base.text_factory = lambda content: content.decode("utf-8", "replace")
        self.base.create_function("seal_of", -1, lambda *values: seal(*values), deterministic=True)
        self.adopted = False
        if uri:
            self.base.execute("SELECT 1 FROM sqlite_master").fetchall()
        else:
            self.base.execute("PRAGMA journal_mode=WAL")
            self.base.executescript(";".join(table.schema(name) for name, table in TABLES.items()))
            self._adopt()

    def put(self, table: str, row: Sequence[Any], *, replace: bool = False) -> None:
        """Store a row, within a transaction; what is there already stays, unless it is to be replaced."""
        verb, marks, keys = "REPLACE" if replace else "IGNORE", ", ".join("?" * len(row)), TABLES[table].keys
        self.base.execute(f"INSERT OR {verb} INTO {table} VALUES ({marks})", row)
        where = " AND ".join(f"{key} = ?" for key in keys)
        self.base.execute(f"INSERT OR {verb} INTO seals {_sealing(table)} WHERE {where}", row[: len(keys)])

    def rows(self, table: str, columns: str, where: str = "1", *values: str) -> list[tuple[Any, ...]]:
        """Columns of rows, each checked.

        Raises:
            UnsealedError: One of them is damaged; the exception holds the `Damage`.
        """
        it = TABLES[table]
        fine = f"(SELECT seal FROM seals WHERE {_mine(table)}) IS {it.seal(table)}"
        query = f"SELECT {fine}, {', '.join(it.keys)}, {columns} FROM {table} WHERE {where}"
        with closing(self.base.execute(query, values)) as cursor:
            found = cursor.fetchall()
        for fine, *row in found:
            if not fine:
                raise UnsealedError(Damage(table, tuple(map(str, row[: len(it.keys)])), "changed"))
        return [row[1 + len(it.keys) :] for row in found]

    def damages(self, tables: Iterable[str]) -> Iterator[Damage]:
        """All rows of some tables that are not as they were stored."""
        for table in tables:
            it = TABLES[table]
            query = (
                f"SELECT seals.seal IS NULL, {', '.join(f'{table}.{key}' for key in it.keys)} FROM {table} "
                f"LEFT JOIN seals ON {_mine(table)} WHERE seals.seal IS NOT {it.seal(table)}"
            )
            for unknown, *key in self.base.execute(query).fetchall():
                yield Damage(table, tuple(map(str, key)), "unknown" if unknown else "changed")
            there = f"SELECT 1 FROM {table} WHERE {_mine(table)}"
            query = f"SELECT one, two FROM seals WHERE part = '{table}' AND NOT EXISTS ({there})"
            for key in self.base.execute(query).fetchall():
                yield Damage(table, tuple(map(str, key[: len(it.keys)])), "missing")

    def counted(self) -> int:
        """Rows, without their checksums."""
        return sum(self.base.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in self.tables())

    def tables(self) -> list[str]:
        """Those of `TABLES` that are there: an earlier version had fewer."""
        there = {name for (name,) in self.base.execute("SELECT name FROM sqlite_master").fetchall()}
        return [table for table in TABLES if table in there]

    def is_sealed(self) -> bool:
        """Whether rows have checksums, as an earlier version's do not."""
        return bool(self.base.execute("SELECT 1 FROM sqlite_master WHERE name = 'seals'").fetchall())

    def structure(self) -> str:
        """What is wrong with the file as a database; empty where nothing is."""
        told = [line for (line,) in self.base.execute("PRAGMA quick_check").fetchall() if line != "ok"]
        return "; ".join(told[:3])

    def sweep(self, table: str) -> None:
        """Forget all damaged rows of a table, within a transaction, also where a name is no text any more."""
        fine = f"(SELECT seal FROM seals WHERE {_mine(table)}) IS {TABLES[table].seal(table)}"
        self.base.execute(f"DELETE FROM {table} WHERE NOT {fine}")
        there = f"SELECT 1 FROM {table} WHERE {_mine(table)}"
        self.base.execute(f"DELETE FROM seals WHERE part = '{table}' AND NOT EXISTS ({there})")

    def drop(self, table: str, *key: str) -> None:
        """Forget a row and its checksum, within a transaction; without a key all rows of the table."""
        where = " AND ".join(f"{name} = ?" for name in TABLES[table].keys[: len(key)])
        self.base.execute(f"DELETE FROM {table} WHERE {where or 1}", key)
        where = "".join(f" AND {name} = ?" for name in ("one", "two")[: len(key)])
        self.base.execute(f"DELETE FROM seals WHERE part = ?{where}", (table, *key))

    def _adopt(self) -> None:
        """Give the rows of an earlier version their checksums, all or none."""
        if self.is_sealed():
            return
        with self.base:
            self.base.execute("BEGIN IMMEDIATE")
            if self.is_sealed():  # by somebody who opened it at the same moment
                return
            self.base.execute(SEALS)
            for table in TABLES:
                self.base.execute(f"INSERT INTO seals {_sealing(table)}")
            self.adopted = bool(self.base.execute("SELECT 1 FROM seals LIMIT 1").fetchall())


def _sealing(table: str) -> str:
    """A query of what the table of seals holds for the rows of another."""
    one, two = TABLES[table].names(table)
    return f"SELECT '{table}', {one}, {two}, {TABLES[table].seal(table)} FROM {table}"


def _mine(table: str) -> str:
    """The condition that a seal is that of a row."""
    one, two = TABLES[table].names(table)
    return f"seals.part = '{table}' AND seals.one = {one} AND seals.two = {two}"


class UnsealedError(Exception):
    """A row that was read is damaged."""

    def __init__(self, damage: Damage) -> None:
        super().__init__(str(damage))
        self.damage = damage
