"""A run in a folder: what is there already, refuse or go on, a progress bar, the report, how to go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segradius.cli.options import RunOptions
from segradius.core.allocation import keep_freed_memory
from segradius.core.errors import BudgetError, InputError, TargetError
from segradius.core.escapes import listed
from segradius.core.locking import owned
from segradius.core.screen import console, note, progress, say, warn
from segradius.core.seal import read_json, readable
from segradius.core.sums import SUMS, write_files
from segradius.evaluation.driver import execute
from segradius.evaluation.job import Job
from segradius.evaluation.journal import resumable
from segradius.evaluation.quicken import NOTE as QUICK
from segradius.evaluation.quicken import quickened
from segradius.evaluation.run import InProcess, Run, S, work
from segradius.evaluation.sizing import AUTO, sized
from segradius.evaluation.sizing import NOTE as TRIAL
from segradius.evaluation.sources import look
from segradius.evaluation.store import Store
from segradius.report.cells import Report
from segradius.report.provenance import begun_at, runtime

DATABASE = "results.sqlite"
CHECKPOINTS = "checkpoints"
#: What is kept of a second model that the run's is compared with.
OTHERS = "second"
#: What a certification of an earlier version has in place of a store.
OLD = "experiment.json"

#: The exit status of a run that set images aside where it is asked to tell.
SET_ASIDE = 3

TABLES = (
    "results.json",
    "per_image.csv",
    "trace.csv",
    "classes.csv",
    "structures.csv",
    "confusion.csv",
    "table.md",
    SUMS,
)
#: What of a gallery is no part of it any more is removed.
GALLERY = ("gallery/*.npz", "gallery/index.json", "gallery/classes.json")
SAVED = ("adversarial/manifest.csv", "adversarial/*/*.npz", "adversarial/*/*.png")
#: What `attack` and `evaluate` write into a folder, and what `certify` does beside it.
ATTACKED = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *TABLES, "figure*.png", "curve*.png", *SAVED, *GALLERY)
CERTIFIED = (OLD, "radius.png", "certificates/*.npz", "maps/*.png")
#: Sub-folders that a run writes in.
WRITTEN = (
    CHECKPOINTS,
    "adversarial",
    "adversarial/*",
    "gallery",
    f"{CHECKPOINTS}/spool/*",
    f"{OTHERS}/spool/*",
    "certificates",
    "maps",
)


def carry_out(
    run: Run[S],
    at: RunOptions,
    report: Callable[[Run[S], Store, Mapping[str, Any]], Report],
    doubt: Callable[[Run[S], Store], None] = lambda run, store: None,
    files: Mapping[str, str | None] = MappingProxyType({}),
) -> Report:
    """Run what is missing, write every file of the report, and print it.

    Args:
        run: What to run, without checkpoints.
        at: Where.
        report: Given the run, its store, and what changes no result.
        doubt: Asked before anything is run.
        files: By the part of an experiment that they describe, for the message where that differs.

    Raises:
        InputError: Another experiment or another process is in the folder, or no image could be used.
        KeyboardInterrupt: With a message on how to go on.
    """
    at.folder.mkdir(parents=True, exist_ok=True)
    with owned(at.folder, WRITTEN, warn), _opened(run, at, files) as store:
        return _carried_out(run, at, report, doubt, store)


def _carried_out(
    run: Run[S],
    at: RunOptions,
    report: Callable[[Run[S], Store, Mapping[str, Any]], Report],
    doubt: Callable[[Run[S], Store], None],
    store: Store,
) -> Report:
    begun = begun_at(store)
    if at.speed != "plain":
        keep_freed_memory()
    jobs, keys, places = run.experiment.jobs, [job.key for job in run.experiment.jobs], at.folder / CHECKPOINTS
    model, checkpoints = resumable(run.model, keys, store, places, at.checkpoint_seconds, warn)
    run = replace(run, model=model, checkpoints=checkpoints, warn=lambda found: warn(found.line))
    counted = [job for job in jobs if job.task.unit]
    reused = sum(len(run.data) - len(run.missing(job, store)) for job in counted)
    doubt(run, store)
    run = quickened(run, store, at.speed, compiled=at.compile, told=lambda choice: note(str(choice)))
    run, trial = _sized(run, at, store, waiting=checkpoints.waiting())
    _execute(run, store, at.folder)
    found = report(run, store, runtime(model, run.together or run.batch_size, begun, store.noted(QUICK), trial))
    write_files(at.folder, found.files, GALLERY)
    checkpoints.tidy()
    total = len(counted) * len(run.data)
    _print(found, f"{reused} of {total} {found.unit} were there from an earlier run." if reused else "", at.folder)
    return found


def status(found: Report, at: RunOptions) -> int:
    """The exit status of a finished run: 0, or `SET_ASIDE` where an image was set aside and that is to be told so."""
    aside = list(found.summary.set_aside)
    if not (aside and at.fail_on_set_aside):
        return 0
    warn(f"{len(aside)} image(s) set aside, {listed(aside)}: exit status {SET_ASIDE}, as --fail-on-set-aside asks")
    return SET_ASIDE


def _opened(run: Run[S], at: RunOptions, files: Mapping[str, str | None]) -> Store:
    """The folder's store, for this experiment; one in which nothing was finished yet is begun anew."""
    old, experiment = at.folder / OLD, run.experiment
    if at.overwrite:
        _clear(at.folder, CERTIFIED if (at.folder / "certificates").is_dir() else ())
    store = Store(at.folder / DATABASE)
    try:
        store.check()
        earlier = store.noted("experiment")
        if earlier is None and old.exists():
            earlier = read_json(old)
        conflict = earlier and readable(partial(experiment.extends, earlier), old, "an experiment")
        waiting = any((at.folder / CHECKPOINTS).glob("*"))
        sources = look(experiment, run.data, store, earlier, begun=waiting)
        differs = conflict if store.is_begun() or old.exists() or waiting else None
        _refuse(at.folder, sources.changed, differs, files)
        if conflict:
            store.close()
            _clear(at.folder, CERTIFIED if "smoothing" in (earlier or {}) else ())
            store = Store(at.folder / DATABASE)
        if store.adopted:
            warn(f"{store.path} is of an earlier version, without checksums: its rows were taken as they are")
        store.note("experiment", experiment.as_dict())
        if old.exists():
            from segradius.evaluation.record import take_over

            take_over(at.folder / "certificates", store, [job.key for job in experiment.jobs])
        if conflict or old.exists():
            sources = look(experiment, run.data, store)
        if sources.unknown:
            warn(
                f"{at.folder} is of a version that did not note what images and models it was made from: those of "
                f"{sources.unknown} images are taken to be as they were"
            )
        sources.keep(store)
        old.unlink(missing_ok=True)
    except BaseException:
        store.close()
        raise
    return store


def _refuse(folder: Path, changed: str | None, differs: str | None, files: Mapping[str, str | None]) -> None:
    """Raise `InputError` where results would mix; content goes first, as what differs may come of it."""
    way = "Choose another --out, or add --overwrite to replace it"
    if changed:
        raise InputError(f"{changed} since {folder} was written: results of old and new content would mix. {way}")
    if differs:
        told = next((f" (from {file})" for part, file in files.items() if file and part in differs), "")
        raise InputError(f"{folder} holds another experiment: {differs}{told}. {way}")


def _clear(folder: Path, more: tuple[str, ...]) -> None:
    """Remove what an earlier experiment wrote into a folder, and nothing else."""
    for file in {file for pattern in ATTACKED + more for file in folder.glob(pattern)}:
        file.unlink()
    for kept in (CHECKPOINTS, OTHERS):
        shutil.rmtree(folder / kept, ignore_errors=True)


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


def _execute(run: Run[S], store: Store, folder: Path) -> None:
    """Execute under a progress bar with the time left, counted in the tasks' steps times images."""
    unit = " and ".join(sorted({job.task.unit for job in run.experiment.jobs} - {""}, reverse=True)) or "images"
    with progress(unit, work(run, store), first="reading") as advance, _keeping(folder):

        def advanced(job: Job, steps: int) -> None:
            advance(steps, job.task.title)

        executor = InProcess(run.model, run.data, run.checkpoints, warn=warn)
        execute(replace(run, progress=advanced), store, executor, looked=True)


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Where a run is cut short, say where its results are and how to go on."""
    again = "run the same command again to go on"
    try:
        yield
    except KeyboardInterrupt:
        kept = folder / DATABASE
        raise KeyboardInterrupt(f"stopped. What was finished is kept in {kept}; {again}") from None
    except TargetError as error:
        raise TargetError(f"{error}. What was answered is kept in {folder}; {again}") from error
    except BudgetError as error:
        told = f"{error}. What was answered is kept in {folder}; {again}, with a larger --budget"
        raise TargetError(told) from error


def _print(report: Report, reused: str, folder: Path) -> None:
    if report.heading:
        say(report.heading)
    for cells in report.tables:
        console().print(cells.rich())
    if reused:
        say(reused)
    for words in report.notes:
        say(words, report.style)
    say(f"Digest of the results: {report.summary.digest}")
    say(f"Report: {folder}")
