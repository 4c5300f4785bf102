"""The one store: rows and arrays of images by job, in SQLite, written as they come, through a kill, never twice."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from segradius.core.errors import DamagedError, InputError, StorageError
from segradius.evaluation.packing import column, tables, unpacked
from segradius.evaluation.rows import CLEAN, ImageResult, Kept, Rounded
from segradius.evaluation.seals import SMALL, Sealed, UnsealedError
from segradius.evaluation.trace import ImageTrace, unpack
from segradius.metrics.counts import Pixels

T = TypeVar("T")

ADVICE = "what else is, and what mends it, is told by: segradius verify"
KEPT = "What was stored before is kept; run the same command again to go on"


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
