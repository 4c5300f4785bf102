"""The one store: rows and arrays of images by job, in SQLite, written as they come, through a kill, never twice."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from segradius.core.errors import DamagedError, InputError, StorageError
from segradius.evaluation.packing import column, tables, unpacked
from segradius.evaluation.seals import SMALL, Sealed, UnsealedError
from segradius.evaluation.trace import ImageTrace, unpack
from segradius.metrics.counts import Pixels

T = TypeVar("T")

CLEAN = "clean"
"""The key under which the judgement of the unattacked images is stored."""

ADVICE = "what else is, and what mends it, is told by: segradius verify"
KEPT = "What was stored before is kept; run the same command again to go on"


@dataclass(frozen=True)
class ImageResult:
    """What one job found of one image; all counts are over labelled pixels.

    Args:
        image: Id of the image.
        pixels: Counts by class after the attack, or of what is certified.
        members: For an ensemble, those of each member that stayed valid.
        hit: Eligible pixels that reached the goal.
        eligible: Pixels that could: right before the attack, or for a targeted attack all that have a target.
        l1: ‖δ‖₁ over all B·H·W values; of w ⊙ δ where bands have weights, like the next two.
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
class Rounded:
    """What a model saw in an adversarial image of which 8 bits a value were kept; all counts over labelled pixels.

    Args:
        pixels: Counts by class.
        hit: Eligible pixels that reached the goal.
        l1: ‖δ‖₁ of the rounded image, of w ⊙ δ where bands have weights, like the next two.
        l2: ‖δ‖₂.
        linf: ‖δ‖∞.
        passes: Forward passes that it took.
        valid: False where NaN or infinite logits were met.
    """

    pixels: Pixels
    hit: int = 0
    l1: float = 0.0
    l2: float = 0.0
    linf: float = 0.0
    passes: int = 1
    valid: bool = True


@dataclass(frozen=True)
class Exhibit:
    """What the gallery has of an image beside its adversarial image and what was seen in that.

    Args:
        remaining: What the attack left of it, as `segradius.evaluation.share_left` has it.
        before: What the model saw in it unattacked, (H, W) int64.
    """

    remaining: float
    before: Tensor


@dataclass(frozen=True)
class Kept:
    """What is kept of a batch beside the numbers, each by image id.

    Args:
        adversarial: Adversarial images (B, H, W), float32.
        predictions: What the model saw in them, (H, W) int64.
        traces: How a black-box attack went.
        records: What else there is to say of an image, packed by the job's task: certificates, verdicts on them.
        confusions: Labels and what they were taken for, as `segradius.metrics.confusion.confusions` counts them.
        rounded: What was seen in the adversarial image after rounding to 8 bits.
        gallery: Of images that are kept because none, or all others, were hurt more; others that are, have no entry.
    """

    adversarial: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: Mapping[str, Tensor] = field(default_factory=dict)
    traces: Mapping[str, ImageTrace] = field(default_factory=dict)
    records: Mapping[str, bytes] = field(default_factory=dict)
    confusions: Mapping[str, Tensor] = field(default_factory=dict)
    rounded: Mapping[str, Rounded] = field(default_factory=dict)
    gallery: Mapping[str, Exhibit] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """What came out of a job for a batch, by value.

    Args:
        key: `Job.key`.
        results: One for each image.
        kept: What to keep beside them.
        set_aside: By id, why an image could not be used.
        journal: Name of the journal that is no longer needed once this is stored.
        failed: By id, why the model failed on an image, in a line.
        lost: Queries that a target answered in vain, as what they were asked for failed and begins anew.
        abandoned: Names of the journals of such attempts.
    """

    key: str
    results: Sequence[ImageResult] = ()
    kept: Kept = Kept()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    journal: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    lost: int = 0
    abandoned: Sequence[str] = ()


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
        base: The file, where it is open already, and closed by who opened it.

    Raises:
        InputError: The file is there and is no SQLite file.

    Every row has a checksum: whatever is read raises `DamagedError` where a row is not as it was stored, and
    `StorageError` where the file cannot be read or written.

    Attributes:
        adopted: Whether an earlier version made the file, whose rows had no checksums and were taken as they are.

    Example:
        >>> with Store(":memory:") as store:
        ...     store.add("pgd", [ImageResult("a", Pixels([3], [4], [5]))])
        ...     store.add("pgd", [ImageResult("a", Pixels([0], [0], [5]))])  # the first stays
        ...     store.done("pgd"), store.results("pgd")["a"].pixels.intersection
        ({'a'}, [3])
    """

    def __init__(self, path: Path | str, base: Sealed | None = None) -> None:
        self.path = path
        try:
            self._base = Sealed(str(path)) if base is None else base
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} cannot be used as a results file: {error}") from error
        self.adopted = self._base.adopted

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._base.base.close()

    def copy(self, path: Path) -> None:
        """Write the whole store, checksums included, into a file that is not there yet."""
        with self._told(), closing(sqlite3.connect(path)) as there:
            self._base.base.backup(there)

    def check(self) -> None:
        """Raise `DamagedError` unless all rows but those of arrays, which are checked when they are read, are whole."""
        with self._told():
            for damage in self._base.damages(SMALL):
                raise UnsealedError(damage)

    def is_begun(self) -> bool:
        """Whether there is any result beside the judgement of unattacked images."""
        with self._told():
            return bool(self._base.base.execute("SELECT 1 FROM results WHERE attack != ? LIMIT 1", (CLEAN,)).fetchall())

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON value under ``name``, in place of an earlier one."""
        with self._told(), self._base.base:
            self._base.put("meta", (name, json.dumps(value)), replace=True)

    def noted(self, name: str) -> Any:
        """The JSON value kept under ``name``; None where there is none."""
        rows = self._rows("meta", "value", "name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def add(
        self, attack: str, results: Iterable[ImageResult], kept: Kept | None = None, fallen: Iterable[str] = ()
    ) -> None:
        """Store results under the key of their attack, all or none; what is there already stays as it is.

        Args:
            attack: Key of the job, or `CLEAN`.
            results: One for each image of a batch.
            kept: What to keep beside them.
            fallen: Images that the gallery has no more, whose adversarial images go.
        """
        rows = [(attack, *(column(getattr(result, f.name)) for f in fields(ImageResult))) for result in results]
        every = {"results": rows} | tables(attack, kept or Kept())
        with self._told(), self._base.base:
            for table, found in every.items():
                for row in found:
                    self._base.put(table, row)
            for image in fallen:
                for table in ("examples", "predictions", "gallery"):
                    self._base.drop(table, attack, image)

    def done(self, attack: str) -> set[str]:
        """Ids of the images that have a result of ``attack``."""
        return self._images("results", attack)

    def results(self, attack: str) -> dict[str, ImageResult]:
        """Results of ``attack`` by image id."""
        columns = ", ".join(f.name for f in fields(ImageResult))
        return {row[0]: _result(row) for row in self._rows("results", columns, "attack = ?", attack)}

    def kept(self, attack: str) -> set[str]:
        """Ids of the images whose adversarial image of ``attack`` is kept whole."""
        return self._images("examples", attack)

    def example(self, attack: str, image: str) -> Tensor | None:
        """The adversarial image (B, H, W) of ``attack``; None where it was not kept."""
        rows = self._rows("examples", "shape, adversarial", "attack = ? AND image = ?", attack, image)
        return unpacked(rows[0], "<f4") if rows else None

    def prediction(self, attack: str, image: str) -> Tensor | None:
        """What the model saw after ``attack``, (H, W) int64; None where it was not kept."""
        rows = self._rows("predictions", "shape, classes", "attack = ? AND image = ?", attack, image)
        return unpacked(rows[0], "<i2").long() if rows else None

    def predicted(self, attack: str) -> set[str]:
        """Ids of the images of which is kept what the model saw after ``attack``."""
        return self._images("predictions", attack)

    def traces(self, attack: str) -> dict[str, ImageTrace]:
        """How ``attack`` went, by image id; of black-box attacks only."""
        return {image: unpack(trace) for image, trace in self._rows("traces", "image, trace", "attack = ?", attack)}

    def record(self, attack: str, image: str) -> bytes | None:
        """What else ``attack`` kept of an image, packed; None where there is nothing."""
        rows = self._rows("records", "record", "attack = ? AND image = ?", attack, image)
        return bytes(rows[0][0]) if rows else None

    def rounded(self, attack: str) -> dict[str, Rounded]:
        """What was seen in rounded images, by image id; an earlier version did not look."""
        columns = ", ".join(f.name for f in fields(Rounded))
        return {row[0]: _rounded(row[1:]) for row in self._rows("rounded", f"image, {columns}", "attack = ?", attack)}

    def confusions(self, attack: str) -> Iterator[tuple[str, Tensor]]:
        """Image ids, and labels with what they were taken for; an earlier version did not count them."""
        for image, *row in self._rows("confusions", "image, shape, cells", "attack = ?", attack):
            yield image, unpacked(row, "<i4").long()

    def gallery(self, attack: str) -> dict[str, float]:
        """What ``attack`` left of the images that are kept for the gallery, by image id."""
        return dict(self._rows("gallery", "image, remaining", "attack = ?", attack))

    def before(self, attack: str, image: str) -> Tensor | None:
        """What the model saw in an unattacked image, (H, W) int64; None where it was not kept with ``attack``."""
        rows = self._rows("gallery", "shape, before", "attack = ? AND image = ?", attack, image)
        return unpacked(rows[0], "<i2").long() if rows else None

    def recorded(self, attack: str) -> set[str]:
        """Ids of the images of which ``attack`` kept what `record` gives."""
        return self._images("records", attack)

    def images(self) -> set[str]:
        """Ids of the images that have any result."""
        with self._told():
            found = self._base.base.execute("SELECT DISTINCT image FROM results").fetchall()
        return {image for (image,) in found}

    def mark(self, marks: Mapping[str, Any]) -> None:
        """Keep a JSON value by image of what it was when it was worked on, in place of an earlier one."""
        with self._told(), self._base.base:
            for image, mark in marks.items():
                self._base.put("sources", (image, json.dumps(mark)), replace=True)

    def marks(self) -> dict[str, Any]:
        """What `mark` was given, by image."""
        return {image: json.loads(mark) for image, mark in self._rows("sources", "image, marks")}

    def set_aside(self, image: str, reason: str) -> None:
        """Record that an image could not be used, and why."""
        with self._told(), self._base.base:
            self._base.put("set_aside", (image, reason), replace=True)

    def all_set_aside(self) -> dict[str, str]:
        """Reasons by id of the images that could not be used."""
        return dict(self._rows("set_aside", "image, reason", "1 ORDER BY image"))

    def retry_set_aside(self) -> None:
        """Forget which images could not be used: a file may have been mended since."""
        with self._told(), self._base.base:
            self._base.drop("set_aside")

    def _images(self, table: str, attack: str) -> set[str]:
        with self._told():
            found = self._base.base.execute(f"SELECT image FROM {table} WHERE attack = ?", (attack,)).fetchall()
        return {image for (image,) in found}

    def _rows(self, table: str, columns: str, where: str = "1", *values: str) -> list[tuple[Any, ...]]:
        with self._told():
            return self._base.rows(table, columns, where, *values)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors that name the file."""
        try:
            yield
        except UnsealedError as error:
            raise DamagedError(f"{self.path}: {error}; {ADVICE} {Path(self.path).parent}") from error
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path} cannot be read or written: {error}. {KEPT}") from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(f"{self.path}: {error}; {ADVICE} {Path(self.path).parent}") from error


def _result(row: Sequence[Any]) -> ImageResult:
    image, pixels, members, hit, eligible, *measured, disagreement, passes, valid, seconds = row
    l1, l2, linf, outside = (math.nan if value is None else value for value in measured)
    return ImageResult(
        image,
        Pixels(*json.loads(pixels)),
        {name: Pixels(*parts) for name, parts in _shared(members).items()},
        hit,
        eligible,
        l1,
        l2,
        linf,
        outside,
        disagreement,
        _shared(passes),
        bool(valid),
        seconds,
    )


def _rounded(row: Sequence[Any]) -> Rounded:
    pixels, hit, *lengths, passes, valid = row
    l1, l2, linf = (math.nan if value is None else value for value in lengths)
    return Rounded(Pixels(*json.loads(pixels)), hit, l1, l2, linf, passes, bool(valid))


@lru_cache(maxsize=256)
def _shared(text: str) -> Any:
    """What a JSON text holds, one object for all rows that say the same, as most do of their passes."""
    return json.loads(text)
