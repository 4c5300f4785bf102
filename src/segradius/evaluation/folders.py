"""Which run folders are meant by paths: each of a run, or of a study, which has many."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segradius.core.errors import DamagedError, InputError
from segradius.core.seal import read_json, readable
from segradius.evaluation.certified_by import certified_by

#: What a study is made of, in its folder; and what was asked, in the words of the user.
STUDY, ASKED = "study.json", "study.yaml"
#: Of the format of `STUDY`.
SCHEMA = 1
#: Where a study has its measurements.
RUNS = "runs"
#: What makes a folder that of a run: the store, the report, and what a certification of an earlier version has.
MARKS = ("results.json", "results.sqlite", "experiment.json")


@dataclass(frozen=True)
class RunFolder:
    """A folder with one measurement, as ``segradius attack``, ``certify`` or ``evaluate`` writes it.

    Attributes:
        name: Of the measurement in its study; of a folder by itself the folder's own.
        path: Of the folder. One that a study names need not be there yet.
        kind: ``attack``, ``certify`` or ``evaluate``.
        model: Label of the model in its study; empty of a folder by itself.
    """

    name: str
    path: Path
    kind: str
    model: str = ""

    @property
    def is_reported(self) -> bool:
        """Whether it has a report; a measurement that was not finished has none."""
        return (self.path / "results.json").is_file()


def run_folders(paths: Iterable[str | Path]) -> tuple[RunFolder, ...]:
    """The run folders at paths, each of a run or of a study, in order.

    Args:
        paths: Folders that ``segradius attack``, ``certify``, ``evaluate`` or ``run`` wrote.

    Raises:
        InputError: A folder is neither; or a study's parts are not merged yet.
        DamagedError: What says of which kind it is cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "first"
        >>> (folder / "runs").mkdir(parents=True)
        >>> one = {"name": "demo-scenes-s0", "folder": "runs/demo-scenes-s0", "kind": "attack"}
        >>> _ = (folder / "study.json").write_text(json.dumps({"schema": 1, "measurements": [one]}))
        >>> [(each.name, each.path.name, each.kind, each.is_reported) for each in run_folders([folder])]
        [('demo-scenes-s0', 'demo-scenes-s0', 'attack', False)]
    """
    return tuple(run for path in paths for run in _runs(Path(path)))


def _runs(folder: Path) -> list[RunFolder]:
    if (folder / STUDY).is_file():
        return [_named(folder, each) for each in measurements(folder)]
    if any((folder / mark).is_file() for mark in MARKS):
        return [RunFolder(folder.resolve().name, folder, _kind(folder))]
    if parts := sorted(folder.glob(f"shard-*-of-*/{STUDY}")):
        raise InputError(
            f"{folder} holds {len(parts)} part(s) of a study that are not merged; first: "
            f"segradius merge {folder}/shard-* --out {folder}"
        )
    told = "is no folder" if not folder.is_dir() else f"holds neither results of a run nor a {STUDY}"
    raise InputError(f"{folder} {told}; expected the --out folder of segradius attack, certify, evaluate or run")


def described(folder: Path) -> dict[str, Any]:
    """What a study's folder says of it; raises `InputError` for what another version wrote, or no version did."""
    file = folder / STUDY
    found = read_json(file)
    if found.get("schema") != SCHEMA:
        raise InputError(f"{file} has schema {found.get('schema')!r}; this version of segradius reads {SCHEMA}")
    return found


def measurements(folder: Path) -> list[Mapping[str, Any]]:
    """What a study's folder says of each of its measurements.

    Raises:
        DamagedError: It says nothing that can be used.
    """
    found, file = described(folder), folder / STUDY
    listed: list[Mapping[str, Any]] = readable(lambda: list(map(dict, found["measurements"])), file, "measurements")
    return listed


def _named(folder: Path, said: Mapping[str, Any]) -> RunFolder:
    file = folder / STUDY
    name, place, kind = readable(lambda: [str(said[key]) for key in ("name", "folder", "kind")], file, "a measurement")
    inside = PurePosixPath(place)
    if inside.is_absolute() or ".." in inside.parts:
        raise DamagedError(f"{file} is damaged; expected a folder below {folder}: {place!r} of {name!r}")
    return RunFolder(name, folder / inside, kind, str(said.get("model", "")))


def _kind(folder: Path) -> str:
    """By the report; where a run has none yet, by what its store is of."""
    file = next(
        folder / name for name in ("results.json", "results.sqlite", "experiment.json") if (folder / name).is_file()
    )
    if file.suffix == ".sqlite":
        asked = _noted(file)
    else:
        report = read_json(file)
        asked = report.get("experiment", report)
    if certified_by(asked):
        return "certify"
    if "attacks" not in asked:
        raise InputError(f"{file} is no report of segradius attack, certify or evaluate")
    return "attack" if asked["attacks"] else "evaluate"


def _noted(file: Path) -> Mapping[str, Any]:
    """The experiment of a store, without a change to it."""
    wal = file.with_name(f"{file.name}-wal")
    mode = "mode=ro" if wal.exists() and wal.stat().st_size else "immutable=1"  # which leaves no file beside it

    def read() -> Mapping[str, Any]:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?{mode}", uri=True, timeout=60)) as base:
            rows = base.execute("SELECT value FROM meta WHERE name = 'experiment'").fetchall()
        return dict(json.loads(rows[0][0])) if rows else {}

    return readable(read, file, "a store of results")
