"""Units in pieces: what is left of one that was begun, and smaller ones that give the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from segradius.evaluation.rows import CLEAN, Kept, Rows
from segradius.evaluation.unit import Part, Unit

T = TypeVar("T")


@dataclass(eq=False)
class Account:
    """What has arrived of a unit, however many workers it took.

    Attributes:
        unit: As the driver gave it.
        found: Images with a result, by key of the job.
        out: Images that were set aside.
        ids: Of all images of the unit by place, once a worker began it.
        starts: Workers that ended when they were about to begin it.
        records: What later parts of an image need of earlier ones, packed.
    """

    unit: Unit
    found: dict[str, set[str]] = field(default_factory=dict)
    out: set[str] = field(default_factory=set)
    ids: dict[int, str] = field(default_factory=dict)
    starts: int = 0
    records: dict[str, bytes] = field(default_factory=dict)

    def take(self, rows: Rows) -> Rows:
        """Rows without what arrived before, which is entered as arrived."""
        known = self.found.setdefault(rows.key, set())
        new = {result.image for result in rows.results} - known - self.out
        results = [result for result in rows.results if result.image in new]
        aside, failed = (self._without_out(told) for told in (rows.set_aside, rows.failed))
        known |= new
        self.out |= aside.keys() | failed.keys()
        if rows.key != CLEAN:
            self.records |= _only(rows.kept.records, new)
        kept = Kept(*(_only(each, new) for each in vars(rows.kept).values()))
        return replace(rows, results=results, kept=kept, set_aside=aside, failed=failed)

    def left(self, unit: Unit) -> Unit | None:
        """What is still to be done of a part of the unit; None where that is nothing.

        The batch stays what it was, and so does every number that depends on it by rounding.
        """
        if not self.ids:
            return unit
        ids = {self.ids[place] for place in unit.places}
        cut = [(part.job, self._missing(part)) for part in unit.parts]
        parts = tuple(Part(job, images) for job, images in cut if images)
        if not parts and self.found.get(CLEAN, set()) | self.out >= ids:
            return None
        return replace(unit, parts=parts, certificates={**self.records, **unit.certificates})

    def _missing(self, part: Part) -> tuple[str, ...]:
        done = self.found.get(part.job.key, set()) | self.out
        return tuple(image for image in part.images if image not in done)

    def _without_out(self, told: Mapping[str, str]) -> dict[str, str]:
        return {image: reason for image, reason in told.items() if image not in self.out}


@dataclass(eq=False)
class Piece:
    """A unit, or a part of one, that a worker is given.

    Attributes:
        account: Of the unit that it is of.
        unit: What is to be done.
        deaths: Workers that died over it, those whose machine went with them counting less.
        told: Steps that were told of images without a result, by key.
        number: Of the order that it was given with.
    """

    account: Account
    unit: Unit
    deaths: float = 0
    told: Counter[str] = field(default_factory=Counter)
    number: int = 0

    def take(self, rows: Rows) -> Rows:
        """As `Account.take`; the steps of what has arrived are not to be told again."""
        steps = {part.job.key: part.job.task.total_steps for part in self.unit.parts}
        self.told[rows.key] -= steps.get(rows.key, 0) * (len(rows.results) + len(rows.failed))
        return self.account.take(rows)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of its images, by place, once a worker began it."""
        return tuple(self.account.ids[place] for place in self.unit.places)

    def rest(self) -> Piece | None:
        """What is left of it; None where that is nothing."""
        unit = self.account.left(self.unit)
        return None if unit is None else Piece(self.account, unit, self.deaths)

    def one_by_one(self) -> list[Piece]:
        """What is left of each of its images, begun: which of them ends a process shows where it is alone."""
        each = (Piece(self.account, unit).rest() for unit in _singles(self.unit, self.ids))
        return [piece for piece in each if piece is not None]

    def failed(self, why: str) -> Rows:
        """That its one image cannot be worked on: a row of the first job that has none of it."""
        (image,) = self.ids
        judged = image in self.account.found.get(CLEAN, set())
        key = self.unit.parts[0].job.key if judged and self.unit.parts else CLEAN
        return Rows(key, failed={image: why})


def smaller(unit: Unit) -> list[Unit]:
    """A unit cut so that several workers have something of it; each judges the whole batch, so that no number changes.

    By job, where jobs work on batches; by image, where all of them take one at a time and so a later one may need what
    an earlier one found of it.
    """
    alone = {part.job.task.one_by_one for part in unit.parts}
    if alone == {True}:
        images = dict.fromkeys(image for part in unit.parts for image in part.images)
        return [replace(unit, parts=_of(unit.parts, image)) for image in images]
    if alone == {False}:
        return [replace(unit, parts=(part,)) for part in unit.parts]
    return [unit]


def _singles(unit: Unit, ids: Sequence[str]) -> list[Unit]:
    found = zip(unit.places, ids, strict=True)
    return [replace(unit, places=(place,), parts=_of(unit.parts, image)) for place, image in found]


def _of(parts: Iterable[Part], image: str) -> tuple[Part, ...]:
    return tuple(Part(part.job, (image,)) for part in parts if image in part.images)


def _only(kept: Mapping[str, T], images: set[str]) -> dict[str, T]:
    return {image: each for image, each in kept.items() if image in images}
