"""The one driver: usable → clean → task → row, whatever the tasks, of however many measurements, wherever worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from segradius.core.bands import bands_of
from segradius.core.errors import InputError, ModelError, SegradiusError
from segradius.core.escapes import listed
from segradius.data.usable import refuse_other_bands
from segradius.evaluation.ahead import closing
from segradius.evaluation.batch import check_classes
from segradius.evaluation.gallery import Gallery
from segradius.evaluation.journal import LOST
from segradius.evaluation.preflight import findings
from segradius.evaluation.rows import CLEAN, Rows
from segradius.evaluation.run import Executor, Run, S, clean_job, units
from segradius.evaluation.sources import Watch
from segradius.evaluation.store import Store
from segradius.evaluation.unit import Progress, Unit

#: With so many images the model may fail before any result; then it is the model, and no image is set aside for it.
FEW = 8


@dataclass(frozen=True)
class Begun(Generic[S]):
    """A run with its store.

    Args:
        run: What is to be done.
        store: Of the results.
        name: Of the measurement in its study; empty where there is one alone.
        looked: As `segradius.evaluation.sources.Watch` takes it.
    """

    run: Run[S]
    store: Store
    name: str = ""
    looked: bool = False


def execute(run: Run[S], store: Store, executor: Executor, *, looked: bool = False) -> None:
    """Do what is missing in ``store``: `execute_all` of one measurement.

    Args:
        run: What is to be done.
        store: Of the results.
        executor: Where it is done.
        looked: As `segradius.evaluation.sources.Watch` takes it.
    """
    for _ in execute_all([Begun(run, store, looked=looked)], executor, run.progress):
        pass


def execute_all(
    begun: Iterable[Begun[Any]], executor: Executor, progress: Progress = lambda job, steps: None
) -> Iterator[Begun[Any]]:
    """Do what is missing in the stores of some measurements, whose units one executor works on, one after the other.

    Images that cannot be used are set aside in the store with the reason. What is probably a mistake is told before any
    attack: by a few images first, and by the first that were judged.

    Args:
        begun: The measurements, each with a name of its own. The next is asked for when the units of the one before are
            handed out, so that it may be opened no earlier.
        executor: Where it is done.
        progress: Called as steps are done.

    Yields:
        Each measurement once all that was missing is in its store, in any order.

    Raises:
        InputError: A model has too few classes for the data, does not give logits, or does not give what a task needs;
            or an image changed since other results of it were stored, or while it was worked on.
        ModelError: It fails on each of the first images.
    """
    going: dict[str, _Going] = {}

    def units_of_all() -> Iterator[Unit]:
        for each in begun:
            one = going[each.name] = _Going(each)
            one.begin()
            executor.begin(each.name, each.run)
            yield from one.units()

    def finished() -> Iterator[Begun[Any]]:
        for name, one in list(going.items()):
            if one.is_done:
                del going[name]
                executor.end(name)
                yield one.begun

    with closing(executor.run(units_of_all(), progress)) as found:
        for unit, rows in found:
            going[unit.measurement].take(unit, rows, progress)
            yield from finished()
    yield from finished()
    for one in going.values():
        raise SegradiusError(f"{one.told}of {len(one.out)} batches no results came back; run the same command again")


@dataclass
class _Going:
    """A measurement that is worked on: what was handed out and has not come back, and what was told of it."""

    begun: Begun[Any]
    #: By the place of a unit's first image: results that are still to come, as key of the job and id.
    out: dict[int, set[tuple[str, str]]] = field(default_factory=dict)
    _all_out: bool = False
    _judged: bool = False
    _told: frozenset[str] = frozenset()
    _failing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether all units were handed out, and all of their rows are stored."""
        return self._all_out and not self.out

    @property
    def told(self) -> str:
        """Its name, for the beginning of a message."""
        return f"{self.begun.name}: " if self.begun.name else ""

    def begin(self) -> None:
        """Check that model, data and tasks suit each other, and tell what is probably a mistake."""
        check_fit(self.begun.run)
        self.begun.store.retry_set_aside()
        self._warn()
        run, store = self.begun.run, self.begun.store
        self._watch = Watch(run.data, store, self.begun.looked)
        self._gallery = Gallery(run.gallery, store, run.whole)

    def units(self) -> Iterator[Unit]:
        """What is missing; what an image is, is seen before it is read."""
        ids = self.begun.run.data.ids
        for unit in self._watch.over(units(self.begun.run, self.begun.store)):
            parts = [(part.job.key, part.images) for part in unit.parts]
            awaited = [(CLEAN, [ids[place] for place in unit.places]), *parts]
            self.out[unit.places[0]] = {(key, image) for key, images in awaited for image in images}
            yield replace(unit, measurement=self.begun.name)
        self._all_out = True

    def take(self, unit: Unit, rows: Rows, progress: Progress) -> None:
        """Store rows of a unit; a second time they change nothing."""
        run, store, lost = self.begun.run, self.begun.store, {**rows.set_aside, **rows.failed}
        self._watch.check(result.image for result in rows.results)
        rows, fallen = self._gallery.sieved(rows)
        store.add(rows.key, rows.results, rows.kept, fallen)
        if rows.lost:
            store.note(LOST, (store.noted(LOST) or 0) + rows.lost)
        if not run.experiment.jobs:
            progress(clean_job(run), len(rows.results) + len(lost))
        for image, reason in lost.items():
            store.set_aside(image, reason)
        if run.checkpoints is not None:
            for journal in (*rows.abandoned, *([rows.journal] if rows.journal is not None else [])):
                run.checkpoints.remove(journal)
        self._refuse_failing(rows)
        if rows.key == CLEAN and rows.results and not self._judged:
            self._judged = True
            self._warn()
        self._arrived(unit, {(rows.key, result.image) for result in rows.results}, lost)

    def _arrived(self, unit: Unit, came: set[tuple[str, str]], lost: dict[str, str]) -> None:
        awaited = self.out.get(unit.places[0], set())
        awaited -= came | {pair for pair in awaited if pair[1] in lost}
        if not awaited:
            self.out.pop(unit.places[0], None)

    def _refuse_failing(self, rows: Rows) -> None:
        failing = self._failing[rows.key] = [*self._failing.get(rows.key, []), *rows.failed]
        if len(failing) >= FEW and not self.begun.store.done(rows.key):
            named, why = listed(failing), next(iter(rows.failed.values()))
            raise ModelError(f"{self.told}the model fails on every image so far ({named}): {why}", by_image=False)

    def _warn(self) -> None:
        """Tell what was found and not told yet."""
        for each in findings(self.begun.run.facts(self.begun.store)):
            if each.name not in self._told:
                self.begun.run.warn(each)
                self._told |= {each.name}


def check_fit(run: Run[Any]) -> None:
    """Raise `InputError` where the model does not suit the data or a task."""
    check_classes(run.model, run.data.classes)
    refuse_other_bands(run.data, bands_of(run.model), run.model.name)
    if not len(run.data.classes) and not run.experiment.data.predicted:
        raise InputError(
            f"{run.data.name} has no masks: with --labels predicted (labels='predicted') the model's own predictions "
            "stand for them, and every accuracy is a stability"
        )
    for job in run.experiment.jobs:
        job.task.check(run.model)
