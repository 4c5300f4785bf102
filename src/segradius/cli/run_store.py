"""The store in the folder of a run: opened for one measurement, refused where another one is in it, begun anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from segradius.cli.options import RunOptions
from segradius.core.errors import InputError
from segradius.core.screen import warn
from segradius.core.seal import read_json, readable
from segradius.core.sums import SUMS
from segradius.evaluation.certified_by import certified_by
from segradius.evaluation.run import Run
from segradius.evaluation.sources import look
from segradius.evaluation.store import Store

DATABASE = "results.sqlite"
CHECKPOINTS = "checkpoints"
#: What is kept of a second model that the run's is compared with.
OTHERS = "second"
#: What a certification of an earlier version has in place of a store.
OLD = "experiment.json"

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
PICTURES = ("figure*.png", "curve*.png", "norms*.png")
#: What `attack` and `evaluate` write into a folder, and what `certify` does beside it.
ATTACKED = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *TABLES, *PICTURES, *SAVED, *GALLERY)
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


def opened(run: Run[Any], at: RunOptions, files: Mapping[str, str | None]) -> Store:
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
        refuse(at.folder, sources.changed, differs, files)
        if conflict:
            store.close()
            _clear(at.folder, CERTIFIED if certified_by(earlier or {}) else ())
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


def refuse(folder: Path, changed: str | None, differs: str | None, files: Mapping[str, str | None]) -> None:
    """Raise `InputError` where results would mix; content goes first, as what differs may come of it."""
    way = "Choose another --out, or add --overwrite to replace it"
    if changed:
        raise InputError(f"{changed} since {folder} was written: results of old and new content would mix. {way}")
    if differs:
        told = next((f" (from {file})" for part, file in files.items() if file and part in differs), "")
        raise InputError(f"{folder} holds another experiment: {differs}{told}. {way}")


def _clear(folder: Path, more: tuple[str, ...]) -> None:
    """Remove what an earlier experiment wrote into a folder, and nothing else; sub-folders if nothing is left there."""
    for file in {file for pattern in ATTACKED + more for file in folder.glob(pattern)}:
        file.unlink()
    for inner in ("gallery", "adversarial/*", "adversarial"):
        for place in folder.glob(inner):
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    for kept in (CHECKPOINTS, OTHERS):
        shutil.rmtree(folder / kept, ignore_errors=True)


def left(run: Run[Any], at: RunOptions, files: Mapping[str, str | None]) -> Store:
    """The store of a folder as it would be gone on with, of which nothing is changed; an empty one where there is none.

    Raises:
        InputError: As `opened` does.
    """
    if at.overwrite or not (at.folder / DATABASE).is_file():
        return Store(":memory:")
    store = Store(at.folder / DATABASE)
    try:
        earlier = store.noted("experiment")
        conflict = earlier and readable(partial(run.experiment.extends, earlier), at.folder / DATABASE, "an experiment")
        waiting = any((at.folder / CHECKPOINTS).glob("*"))
        refuse(at.folder, look(run.experiment, run.data, store, earlier, begun=waiting).changed, None, files)
        if not conflict:
            return store
        refuse(at.folder, None, conflict if store.is_begun() or waiting else None, files)
    except BaseException:
        store.close()
        raise
    store.close()
    return Store(":memory:")
