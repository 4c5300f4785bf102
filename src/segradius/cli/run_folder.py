"""Runs in their folders: what is there already, a progress bar, the report, how to go on; of one run or of many."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

from segradius.cli.options import RunOptions
from segradius.cli.run_store import CHECKPOINTS, DATABASE, GALLERY, WRITTEN, opened
from segradius.core.allocation import keep_freed_memory
from segradius.core.errors import BudgetError, TargetError
from segradius.core.escapes import listed
from segradius.core.locking import owned
from segradius.core.screen import console, note, progress, say, warn
from segradius.core.sums import write_files
from segradius.evaluation.driver import Begun, execute_all
from segradius.evaluation.job import Job
from segradius.evaluation.journal import Checkpoints, resumable
from segradius.evaluation.quicken import NOTE as QUICK
from segradius.evaluation.quicken import quickened
from segradius.evaluation.run import Executor, InProcess, Run, S, work
from segradius.evaluation.sizing import AUTO, sized
from segradius.evaluation.sizing import NOTE as TRIAL
from segradius.evaluation.store import Store
from segradius.report.cells import Report
from segradius.report.provenance import begun_at, runtime

#: The exit status of a run that set images aside where it is asked to tell.
SET_ASIDE = 3


@dataclass(frozen=True)
class Planned(Generic[S]):
    """A measurement that is opened, and what is done with it in its folder.

    Args:
        run: What to run, without checkpoints.
        at: Where.
        report: Given the run, its store, and what changes no result.
        doubt: Asked before anything is run.
        files: By the part of an experiment that they describe, for the message where that differs.
        name: Of the measurement in its study.
    """

    run: Run[S]
    at: RunOptions
    report: Callable[[Run[S], Store, Mapping[str, Any]], Report]
    doubt: Callable[[Run[S], Store], None] = lambda run, store: None
    files: Mapping[str, str | None] = field(default_factory=dict)
    name: str = ""

    @property
    def counted(self) -> list[Job]:
        """Jobs whose results of an earlier run are counted, for people."""
        return [job for job in self.run.experiment.jobs if job.task.unit]


@dataclass(frozen=True)
class Going(Generic[S]):
    """A measurement whose store is open.

    Args:
        planned: As it was opened.
        run: As it is run.
        store: Of the results.
        begun: When the first run in this folder began.
        reused: Results that were there.
        trial: What was found about the size of batches.
    """

    planned: Planned[S]
    run: Run[S]
    store: Store
    begun: str
    reused: int
    trial: str = ""


def carry_out(
    run: Run[S],
    at: RunOptions,
    report: Callable[[Run[S], Store, Mapping[str, Any]], Report],
    doubt: Callable[[Run[S], Store], None] = lambda run, store: None,
    files: Mapping[str, str | None] = MappingProxyType({}),
    executor: Executor | None = None,
) -> Report:
    """Run what is missing, write every file of the report, and print it: a study of one measurement.

    Args:
        run: As `Planned` has it, like ``report``, ``doubt`` and ``files``.
        at: Where.
        report: Of the run.
        doubt: Asked before anything is run.
        files: By the part of an experiment that they describe.
        executor: Where it is done; None for this process.

    Raises:
        InputError: Another experiment or another process is in the folder, or no image could be used.
        KeyboardInterrupt: With a message on how to go on.
    """
    with begun(Planned(run, at, report, doubt, files)) as going:
        unit, total = units_of([going.run]), work(going.run, going.store)
        for _ in executed([going], executor or InProcess(warn=warn), unit, total, at.folder):
            pass
        found = reported(going)
    _print(found, going)
    return found


@contextmanager
def begun(planned: Planned[S]) -> Iterator[Going[S]]:
    """A context in which the folder of a measurement is this process's, and its store is open.

    Raises:
        InputError: Another experiment or another process is in the folder.
    """
    at, run = planned.at, planned.run
    at.folder.mkdir(parents=True, exist_ok=True)
    with owned(at.folder, WRITTEN, warn), opened(run, at, planned.files) as store:
        began = begun_at(store)
        if at.speed != "plain":
            keep_freed_memory()
        keys, places = [job.key for job in run.experiment.jobs], at.folder / CHECKPOINTS
        model, checkpoints = resumable(run.model, keys, store, places, at.checkpoint_seconds, warn)
        run = replace(run, model=model, checkpoints=checkpoints, warn=lambda found: warn(told(planned, found.line)))
        reused = sum(len(run.ids) - len(run.missing(job, store)) for job in planned.counted)
        planned.doubt(run, store)
        run = quickened(run, store, at.speed, compiled=at.compile, told=lambda choice: note(told(planned, str(choice))))
        run, trial = _sized(run, at, store, waiting=checkpoints.waiting())
        yield Going(planned, run, store, began, reused, trial)


def told(planned: Planned[Any], words: str) -> str:
    """What is said of a measurement, with its name where it has one."""
    return f"{planned.name}: {words}" if planned.name else words


def reported(going: Going[S]) -> Report:
    """The report of a measurement that is finished, all of its files written; raises `InputError` without an image."""
    run, store, at = going.run, going.store, going.planned.at
    facts = runtime(run.model, run.together or run.batch_size, going.begun, store.noted(QUICK), going.trial)
    found = going.planned.report(run, store, facts)
    write_files(at.folder, found.files, GALLERY)
    if isinstance(run.checkpoints, Checkpoints):
        run.checkpoints.tidy()
    return found


def status(found: Report, at: RunOptions) -> int:
    """The exit status of a finished run: 0, or `SET_ASIDE` where an image was set aside and that is to be told so."""
    aside = list(found.summary.set_aside)
    if not (aside and at.fail_on_set_aside):
        return 0
    warn(f"{len(aside)} image(s) set aside, {listed(aside)}: exit status {SET_ASIDE}, as --fail-on-set-aside asks")
    return SET_ASIDE


def _sized(run: Run[S], at: RunOptions, store: Store, *, waiting: bool) -> tuple[Run[S], str]:
    """With as many images at a time as asked, save that a batch which was begun is finished as it is; what was tried.

    Where it is found by trial, a run that goes on takes what was found before.
    """
    before, trial = store.noted("batch_size") if waiting else None, ""
    if at.batch_size == AUTO and not (before and store.noted(TRIAL) is None):
        run, found = sized(run, store, waiting=waiting)
        if found is not None:
            trial = found.told
            note(trial)
    if before and before != run.batch_size:
        warn(f"a batch of {before} images was begun here: going on with --batch-size {before}")
        run = replace(run, batch_size=int(before))
    store.note("batch_size", run.batch_size)
    return run, trial


def executed(
    going: Iterable[Going[Any]], executor: Executor, unit: str, total: int, folder: Path
) -> Generator[Going[Any], None, None]:
    """Execute measurements under one progress bar with the time left, counted in the tasks' steps times images.

    Args:
        going: The measurements; the next is asked for, and so opened, when it is its turn.
        executor: Where they are worked on.
        unit: What the steps are.
        total: Of them all.
        folder: Where the results are, for the message where they are cut short.

    Yields:
        Each when all that was missing is in its store.
    """
    mine: dict[str, Going[Any]] = {}

    def beginning() -> Iterator[Begun[Any]]:
        for each in going:
            mine[each.planned.name] = each
            yield Begun(each.run, each.store, each.planned.name, looked=True)

    with progress(unit, total, first="reading") as advance, _keeping(folder):

        def advanced(job: Job, steps: int) -> None:
            advance(steps, job.task.title)

        for done in execute_all(beginning(), executor, advanced):
            yield mine.pop(done.name)


def units_of(runs: Iterable[Run[Any]]) -> str:
    """What the steps of runs are, for people."""
    return (
        " and ".join(sorted({job.task.unit for run in runs for job in run.experiment.jobs} - {""}, reverse=True))
        or "images"
    )


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Where a run is cut short, say where its results are and how to go on."""
    again = "run the same command again to go on"
    try:
        yield
    except KeyboardInterrupt:
        kept = folder / DATABASE if (folder / DATABASE).exists() else folder  # of many measurements
        raise KeyboardInterrupt(f"stopped. What was finished is kept in {kept}; {again}") from None
    except TargetError as error:
        raise TargetError(f"{error}. What was answered is kept in {folder}; {again}") from error
    except BudgetError as error:
        told = f"{error}. What was answered is kept in {folder}; {again}, with a larger --budget"
        raise TargetError(told) from error


def _print(report: Report, going: Going[Any]) -> None:
    folder, total = going.planned.at.folder, len(going.planned.counted) * len(going.run.ids)
    if report.heading:
        say(report.heading)
    for cells in report.tables:
        console().print(cells.rich())
    if going.reused:
        say(f"{going.reused} of {total} {report.unit} were there from an earlier run.")
    for words in report.notes:
        say(words, report.style)
    say(f"Digest of the results: {report.summary.digest}")
    say(f"Report: {folder}")
