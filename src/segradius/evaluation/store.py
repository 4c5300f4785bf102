"""The one store: rows and arrays of images by job, in SQLite, written as they come, through a kill, never twice."""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.evaluation.trace import ImageTrace, pack, unpack
from segradius.metrics.counts import Pixels

CLEAN = "clean"
"""The key under which the judgement of the unattacked images is stored."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS results (
    attack TEXT, image TEXT, pixels TEXT, members TEXT, hit INTEGER, eligible INTEGER, l1 REAL, l2 REAL, linf REAL,
    outside REAL, disagreement INTEGER, passes TEXT, valid INTEGER, seconds REAL, PRIMARY KEY (attack, image)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS set_aside (image TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (
    attack TEXT, image TEXT, shape TEXT, adversarial BLOB, PRIMARY KEY (attack, image));
CREATE TABLE IF NOT EXISTS predictions (
    attack TEXT, image TEXT, shape TEXT, classes BLOB, PRIMARY KEY (attack, image));
CREATE TABLE IF NOT EXISTS traces (attack TEXT, image TEXT, trace BLOB, PRIMARY KEY (attack, image));
CREATE TABLE IF NOT EXISTS records (attack TEXT, image TEXT, record BLOB, PRIMARY KEY (attack, image));
"""


@dataclass(frozen=True)
class ImageResult:
    """What one job found of one image; all counts are over labelled pixels.

    Args:
        image: Id of the image.
        pixels: Counts by class after the attack, or of what is certified.
        members: For an ensemble, those of each member that stayed valid.
        hit: Eligible pixels that reached the goal.
        eligible: Pixels that could: right before the attack, or for a targeted attack all that have a target.
        l1: ‖δ‖₁ over all 3·H·W values.
        l2: ‖δ‖₂.
        linf: ‖δ‖∞.
        outside: How far any adversarial value lies outside [0, 1]; 0 is right.
        disagreement: Pixels whose prediction differs when the adversarial image is judged again by itself; None where
            it was not, as each judging has its price.
        passes: ``{purpose: [forward, backward]}`` over this image.
        valid: False where NaN or infinite logits were met.
        seconds: Wall time of its batch, shared equally.
    """

    image: str
    pixels: Pixels
    members: Mapping[str, Pixels] = field(default_factory=dict)
    hit: int = 0
    eligible: int = 0
    l1: float = 0.0
    l2: float = 0.0
    linf: float = 0.0
    outside: float = 0.0
    disagreement: int | None = 0
    passes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    valid: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class Kept:
    """What is kept of a batch beside the numbers, each by image id.

    Args:
        adversarial: Adversarial images (3, H, W), float32.
        predictions: What the model saw in them, (H, W) int64.
        traces: How a black-box attack went.
        records: What else there is to say of an image, packed by the job's task: certificates, verdicts on them.
    """

    adversarial: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: Mapping[str, Tensor] = field(default_factory=dict)
    traces: Mapping[str, ImageTrace] = field(default_factory=dict)
    records: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """What came out of a job for a batch, by value.

    Args:
        key: `Job.key`.
        results: One for each image.
        kept: What to keep beside them.
        set_aside: By id, why an image could not be used.
        journal: Name of the journal that is no longer needed once this is stored.
    """

    key: str
    results: Sequence[ImageResult] = ()
    kept: Kept = Kept()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    journal: str | None = None


def ledger(passes: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, dict[str, int]]:
    """``{purpose: {"forward": …, "backward": …}}`` summed over images, from the ``passes`` of each.

    Example:
        >>> ledger([{"judging": (1, 0)}, {"judging": (1, 0), "attack": (3, 2)}])
        {'judging': {'forward': 2, 'backward': 0}, 'attack': {'forward': 3, 'backward': 2}}
    """
    book: dict[str, dict[str, int]] = {}
    for each in passes:
        for purpose, (forward, backward) in each.items():
            entry = book.setdefault(purpose, {"forward": 0, "backward": 0})
            entry["forward"] += forward
            entry["backward"] += backward
    return book


class Store:
    """The results file of one output folder. A context manager; closing it folds the journal into the one file.

    Args:
        path: The SQLite file; made where absent. ``":memory:"`` keeps everything in memory.

    Raises:
        InputError: The file is there and is no SQLite file.

    Example:
        >>> with Store(":memory:") as store:
        ...     store.add("pgd", [ImageResult("a", Pixels([3], [4], [5]))])
        ...     store.add("pgd", [ImageResult("a", Pixels([0], [0], [5]))])  # the first stays
        ...     store.done("pgd"), store.results("pgd")["a"].pixels.intersection
        ({'a'}, [3])
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        try:
            self._base = sqlite3.connect(path, timeout=60)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} cannot be used as a results file: {error}") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def is_begun(self) -> bool:
        """Whether there is any result beside the judgement of unattacked images."""
        return bool(self._rows("SELECT 1 FROM results WHERE attack != ? LIMIT 1", CLEAN))

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under ``name``, in place of an earlier one."""
        with self._base:
            self._base.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def noted(self, name: str) -> Any:
        """The JSON value kept under ``name``; None where there is none."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def add(self, attack: str, results: Iterable[ImageResult], kept: Kept | None = None) -> None:
        """Store results under the key of their attack, all or none; what is there already stays as it is.

        Args:
            attack: Key of the job, or `CLEAN`.
            results: One for each image of a batch.
            kept: What to keep beside them.
        """
        kept = kept or Kept()
        rows = [(attack, *(_column(getattr(result, f.name)) for f in fields(ImageResult))) for result in results]
        images = [(attack, image, *_packed(x, "<f4")) for image, x in kept.adversarial.items()]
        maps = [(attack, image, *_packed(x, "<i2")) for image, x in kept.predictions.items()]
        traces = [(attack, image, pack(trace)) for image, trace in kept.traces.items()]
        records = [(attack, image, record) for image, record in kept.records.items()]
        tables = {"results": rows, "examples": images, "predictions": maps, "traces": traces, "records": records}
        with self._base:
            for table, found in tables.items():
                for row in found:
                    marks = ", ".join("?" * len(row))
                    self._base.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)

    def done(self, attack: str) -> set[str]:
        """Ids of the images that have a result of ``attack``."""
        return {image for (image,) in self._rows("SELECT image FROM results WHERE attack = ?", attack)}

    def results(self, attack: str) -> dict[str, ImageResult]:
        """Results of ``attack`` by image id."""
        rows = self._rows("SELECT * FROM results WHERE attack = ?", attack)
        return {row[1]: _result(row[1:]) for row in rows}

    def kept(self, attack: str) -> set[str]:
        """Ids of the images whose adversarial image of ``attack`` is kept whole."""
        return {image for (image,) in self._rows("SELECT image FROM examples WHERE attack = ?", attack)}

    def example(self, attack: str, image: str) -> Tensor | None:
        """The adversarial image (3, H, W) of ``attack``; None where it was not kept."""
        rows = self._rows("SELECT shape, adversarial FROM examples WHERE attack = ? AND image = ?", attack, image)
        return _unpacked(rows[0], "<f4") if rows else None

    def prediction(self, attack: str, image: str) -> Tensor | None:
        """What the model saw after ``attack``, (H, W) int64; None where it was not kept."""
        rows = self._rows("SELECT shape, classes FROM predictions WHERE attack = ? AND image = ?", attack, image)
        return _unpacked(rows[0], "<i2").long() if rows else None

    def traces(self, attack: str) -> dict[str, ImageTrace]:
        """How ``attack`` went, by image id; of black-box attacks only."""
        rows = self._rows("SELECT image, trace FROM traces WHERE attack = ?", attack)
        return {image: unpack(trace) for image, trace in rows}

    def record(self, attack: str, image: str) -> bytes | None:
        """What else ``attack`` kept of an image, packed; None where there is nothing."""
        rows = self._rows("SELECT record FROM records WHERE attack = ? AND image = ?", attack, image)
        return bytes(rows[0][0]) if rows else None

    def set_aside(self, image: str, reason: str) -> None:
        """Record that an image could not be used, and why."""
        with self._base:
            self._base.execute("INSERT OR REPLACE INTO set_aside VALUES (?, ?)", (image, reason))

    def all_set_aside(self) -> dict[str, str]:
        """Reasons by id of the images that could not be used."""
        return dict(self._rows("SELECT image, reason FROM set_aside ORDER BY image"))

    def retry_set_aside(self) -> None:
        """Forget which images could not be used: a file may have been mended since."""
        with self._base:
            self._base.execute("DELETE FROM set_aside")

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(self._base.execute(query, values)) as cursor:
            return cursor.fetchall()


def _column(value: Any) -> Any:
    """JSON for lists and dicts; SQLite has no NaN of its own, so it becomes NULL."""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _result(row: Sequence[Any]) -> ImageResult:
    image, pixels, members, hit, eligible, *measured, disagreement, passes, valid, seconds = row
    l1, l2, linf, outside = (math.nan if value is None else value for value in measured)
    return ImageResult(
        image,
        Pixels(*json.loads(pixels)),
        {name: Pixels(*parts) for name, parts in json.loads(members).items()},
        hit,
        eligible,
        l1,
        l2,
        linf,
        outside,
        disagreement,
        json.loads(passes),
        bool(valid),
        seconds,
    )


def _packed(tensor: Tensor, kind: str) -> tuple[str, bytes]:
    """Shape and compressed values."""
    values = tensor.detach().cpu().contiguous().numpy().astype(kind)
    return json.dumps(tensor.shape), zlib.compress(values.tobytes(), 1)


def _unpacked(row: tuple[Any, ...], kind: str) -> Tensor:
    shape, packed = row
    return torch.from_numpy(np.frombuffer(zlib.decompress(packed), dtype=kind).reshape(json.loads(shape)).copy())
