"""Stores of parts of a measurement put together into one: every row checked, none changed, all or nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.digests import changed_part
from segradius.core.errors import DamagedError, InputError
from segradius.core.storage import replacing
from segradius.data.marks import marks
from segradius.evaluation.gallery import trim
from segradius.evaluation.inspection import addressed
from segradius.evaluation.job import Measurement
from segradius.evaluation.journal import LOST
from segradius.evaluation.run import Run
from segradius.evaluation.seals import TABLES, Damage, Sealed
from segradius.evaluation.sources import NOTE as SOURCES
from segradius.evaluation.store import Store

#: What one part may have otherwise than another without being of another run: when it was made, and how long it took.
TIMES = "seconds"
#: Tables whose rows must be equal wherever they are.
RESULTS = tuple(name for name, table in TABLES.items() if len(table.keys) == 2)
#: Under which a merged store notes the queries that its parts lost, so that merging again counts them once.
MERGED = "merged"


@dataclass(frozen=True)
class Part:
    """A store that is put together with others.

    Attributes:
        name: Of it, for messages.
        path: Of the file.
    """

    name: str
    path: Path


def merge(parts: Sequence[Part], into: Path, run: Run[Any]) -> None:
    """Put the rows of parts, and those that are there already, into one store, which takes the old one's place whole.

    Args:
        parts: In which nobody writes now.
        into: The store, of whose folder the caller is the owner.
        run: That all of them are parts of.

    Raises:
        DamagedError: A row is not as it was stored; the message names the part, the image and the job.
        InputError: A part is of another measurement, or was made of other images or files than another; or the same
            row has different content in two.
    """
    if into.exists():
        Store(into).close()  # which takes in what a killed run left beside it
        parts = (*parts, Part(str(into), into))
    with replacing(into) as new:
        Store(new).close()
        base = Sealed(f"{new.absolute().as_uri()}?mode=rw", uri=True)
        with closing(base.base):
            notes = _Notes(run.experiment)
            for place, part in enumerate(parts):
                with _attached(base, part):
                    _refuse_damaged(part)
                    notes.take(part, _notes(base.base))
                    _marks(base, parts[:place], part)
                    _rows(base, parts[:place], part)
            if into.exists():
                _drop_mended(base, into)
            with base.base:
                for name, value in notes.merged(into if into.exists() else None).items():
                    base.put("meta", (name, json.dumps(value)), replace=True)
        with Store(new) as store:
            trim(run.gallery, store, run.whole, [job.key for job in run.experiment.jobs])


class _Notes:
    """What parts say of themselves beside their rows."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.taken: dict[str, dict[str, Any]] = {}

    def take(self, part: Part, notes: dict[str, Any]) -> None:
        """Those of one more; raises `InputError` where they are of something else than those before."""
        earlier = notes.get("experiment")
        if earlier is None:
            raise InputError(f"{part.path} says of no experiment what it is of; expected a store of a run")
        differs = self.measurement.extends(earlier)
        if differs:
            first = next(iter(self.taken), "the study")
            raise InputError(f"{part.name} is of another study than {first}: {differs}")
        for other, before in self.taken.items():
            told = _changed(before.get(SOURCES) or {}, notes.get(SOURCES) or {})
            if told:
                raise InputError(f"{told} between {other} and {part.name}: results of old and new content would mix")
        self.taken[part.name] = notes

    def merged(self, before: Path | None) -> dict[str, Any]:
        """Of all together."""
        found: dict[str, Any] = {}
        for notes in self.taken.values():
            found = notes | found
        found |= {"experiment": self.measurement.as_dict()}
        begun = [str(notes["begun"]) for notes in self.taken.values() if "begun" in notes]
        lost = {name: notes.get(LOST) or 0 for name, notes in self.taken.items()}
        old = self.taken.get(str(before), {}) if before else {}
        own = lost.pop(str(before), 0) - (old.get(MERGED) or 0)
        if any(lost.values()) or own:
            found |= {LOST: own + sum(lost.values()), MERGED: sum(lost.values())}
        return found | ({"begun": min(begun)} if begun else {})


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What of classes and files differs, in words."""
    if before.get("meaning") != now.get("meaning"):
        return "what the masks' values mean changed"
    old, new = before.get("files") or {}, now.get("files") or {}
    return next((f"{name} changed" for name in old if name in new and old[name] != new[name]), None)


@contextmanager
def _attached(base: Sealed, part: Part) -> Iterator[None]:
    """A context in which the part's tables are beside the others, as ``other``."""
    with addressed(part.path) as address:
        try:
            base.base.execute("ATTACH ? AS other", (address,))
            try:
                yield
            finally:
                base.base.execute("DETACH other")
        except sqlite3.Error as error:
            raise DamagedError(f"{part.path}: {error}; {_advice(part)}") from error


def _refuse_damaged(part: Part) -> None:
    with addressed(part.path) as address:
        own = Sealed(address, uri=True)
        with closing(own.base):
            if told := own.structure():
                raise DamagedError(f"{part.path} is no whole database: {told}; {_advice(part)}")
            if not own.is_sealed():
                raise InputError(f"{part.path} is of an earlier version, without checksums of its rows: run it again")
            for damage in own.damages(own.tables()):
                raise DamagedError(f"{part.path}: {damage}; {_advice(part)}")


def _notes(base: sqlite3.Connection) -> dict[str, Any]:
    return {
        str(name): json.loads(value) for name, value in base.execute("SELECT name, value FROM other.meta").fetchall()
    }


def _marks(base: Sealed, before: Sequence[Part], part: Part) -> None:
    """Refuse images that are not the same in two parts."""
    query = (
        "SELECT image, other.sources.marks, main.sources.marks FROM other.sources JOIN main.sources USING (image) "
        "WHERE other.sources.marks != main.sources.marks"
    )
    for image, mine, other in base.base.execute(query).fetchall():
        now, old = marks(json.loads(mine)), marks(json.loads(other))
        if changed := changed_part({}, now, old):
            first = _holder(before, "sources", (image,))
            told = f"image {image}: {changed} between {first} and {part.name}"
            raise InputError(f"{told}: results of old and new content would mix")


def _rows(base: Sealed, before: Sequence[Part], part: Part) -> None:
    """Take the rows that are not there yet; refuse those that are there with other content."""
    for name in RESULTS:
        table = TABLES[name]
        columns = [column.split()[0] for column in table.columns]
        same = " AND ".join(f"other.{name}.{each} IS main.{name}.{each}" for each in columns if each != TIMES)
        keys = ", ".join(table.keys)
        query = f"SELECT {keys} FROM other.{name} JOIN main.{name} USING ({keys}) WHERE NOT ({same}) LIMIT 1"
        for key in base.base.execute(query).fetchall():
            job = Damage(name, tuple(map(str, key)), "another")
            raise InputError(
                f"{job} in {part.name} than in {_holder(before, name, key)}; of one of them remove the folder"
            )
    with base.base:
        for name in TABLES:
            if name != "meta":
                base.base.execute(f"INSERT OR IGNORE INTO main.{name} SELECT * FROM other.{name}")
                base.base.execute("INSERT OR IGNORE INTO main.seals SELECT * FROM other.seals WHERE part = ?", (name,))


def _drop_mended(base: Sealed, into: Path) -> None:
    """Forget that the store that was there set images aside of which parts have results now."""
    with _attached(base, Part(str(into), into)), base.base:
        mended = "image IN (SELECT image FROM main.results) AND image NOT IN (SELECT image FROM other.results)"
        base.base.execute(f"DELETE FROM main.set_aside WHERE {mended}")
        base.base.execute(
            "DELETE FROM main.seals WHERE part = 'set_aside' AND one NOT IN (SELECT image FROM main.set_aside)"
        )


def _holder(parts: Sequence[Part], table: str, key: Sequence[Any]) -> str:
    """The first part that has a row."""
    where = " AND ".join(f"{name} = ?" for name in TABLES[table].keys)
    for part in parts:
        with addressed(part.path) as address, closing(sqlite3.connect(address, uri=True)) as base:
            if base.execute(f"SELECT 1 FROM {table} WHERE {where}", tuple(key)).fetchall():
                return part.name
    return "another part"


def _advice(part: Part) -> str:
    return f"segradius verify {part.path.parent} tells what else is, and what mends it"
