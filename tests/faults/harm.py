"""What faults do to files."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from faults.frame import Case
from segradius.evaluation.seals import TABLES

DATABASE = "results.sqlite"


def bitten(path: Path, draw: random.Random) -> None:
    """Another value of one byte, and every other time of one digit."""
    content = bytearray(path.read_bytes())
    digits = [place for place, byte in enumerate(content) if 48 <= byte < 58] if draw.random() < 0.5 else []
    place = draw.choice(digits or range(len(content)))
    other = [byte for byte in (range(48, 58) if digits else range(256)) if byte != content[place]]
    content[place] = draw.choice(other)
    path.write_bytes(content)


def picked(case: Case, pattern: str) -> Path:
    """One of the files of a pattern."""
    return case.random.choice(sorted(case.out.glob(pattern)))


def change_a_row(case: Case) -> str:
    """Give a row another value, as a well-formed file has it, or remove the row; the name of its table."""
    with sqlite3.connect(case.out / DATABASE) as base:
        table = case.random.choice(("results", "results", "sources", "meta"))
        rows = base.execute(f"SELECT * FROM {table}").fetchall()
        keys, columns = TABLES[table].keys, [each.split()[0] for each in TABLES[table].columns]
        row, column = case.random.choice(rows), case.random.randrange(len(columns))
        where = " AND ".join(f"{key} = ?" for key in keys)
        if case.random.random() < 0.3:
            base.execute(f"DELETE FROM {table} WHERE {where}", row[: len(keys)])
        else:
            old = row[len(keys) + column]
            new = old[::-1] + "1" if isinstance(old, str) else (old or 0) + 1
            base.execute(f"UPDATE {table} SET {columns[column]} = ? WHERE {where}", (new, *row[: len(keys)]))
    base.close()
    return table
