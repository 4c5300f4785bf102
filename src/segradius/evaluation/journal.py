"""The one journal: where unfinished work and paid answers are kept, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import pickle
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segradius.core.contracts import Seen
from segradius.core.errors import at_least
from segradius.core.ledger import SURROGATE
from segradius.core.seal import check_archive
from segradius.core.storage import replacing
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.store import Store
from segradius.targets.target import Metered, Spooled

#: Under what a store notes the queries that were answered in vain.
LOST = "lost"
#: Of the passes in a row, those of another model than the run's, as of the second of two that are compared.
OTHER = "other"
#: Of what a file holds; one of another format is set aside.
FORMAT = 1


@dataclass(frozen=True)
class Checkpoints:
    """Where a run keeps the snapshots of its black-box attacks.

    Args:
        folder: Of the files; made where absent.
        seconds: Between two writings, at least; 0 writes after every round.
        spool: Keeps the answers that no snapshot holds yet.
        warn: Told when a file cannot be used.

    Raises:
        InputError: For a negative number of seconds.
    """

    folder: Path
    seconds: float = 30.0
    spool: Spooled | None = None
    warn: Callable[[str], None] = print

    def __post_init__(self) -> None:
        at_least(0, checkpoint_seconds=self.seconds)

    def begin(self, stage: str) -> None:
        """Name what is asked from now on, for the spool."""
        if self.spool is not None:
            self.spool.begin(stage)

    def remove(self, journal: str) -> None:
        """Remove a journal, by name: the results are elsewhere now."""
        FileJournal(self, self.folder / journal).remove()

    def journal(self, key: str, ids: Sequence[str], *tensors: Tensor) -> FileJournal:
        """Of the attack with this key on a batch of images, with these ids and contents."""
        return FileJournal(self, self.folder / f"{key}-{digest(ids, *tensors)}.pt", tuple(ids))

    def drop_finished(self, done: Callable[[str], set[str]]) -> None:
        """Remove the files of batches that a kill left behind although their results are stored.

        Args:
            done: From the key of an attack to the ids of the images that have a result.
        """
        for file in self._files():
            kept = FileJournal(self, file).read()
            if kept and done(file.name.partition("-")[0]).issuperset(kept["images"]):
                file.unlink()

    def waiting(self) -> bool:
        """Whether a batch was begun and not finished."""
        return any(self._files())

    def paid(self) -> int:
        """Queries that the unfinished batches have paid for, summed over their images."""
        kept = (FileJournal(self, file).read() for file in self._files())
        return sum(_paid(each["standing"]) for each in kept if each)

    def begun(self, key: str, ids: Sequence[str]) -> tuple[list[str], int]:
        """Names of the journals of an attack on a batch, and the queries that these have paid for."""
        kept = [(file.name, FileJournal(self, file).read()) for file in sorted(self.folder.glob(f"{key}-*.pt"))]
        mine = [(name, each) for name, each in kept if each and tuple(each["images"]) == tuple(ids)]
        return [name for name, _ in mine], sum(_paid(each["standing"]) for _, each in mine)

    def tidy(self) -> None:
        """Remove what is left of a run that is finished."""
        self.begin("finished")
        for cut_short in self.folder.glob(".*"):
            cut_short.unlink()
        for folder in (self.folder / "spool", self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _files(self) -> list[Path]:
        """Without those that a kill left half written."""
        return sorted(self.folder.glob("[!.]*.pt"))


class FileJournal:
    """A `segradius.attacks.base.Journal` in one file, written atomically, tensors on the CPU.

    Args:
        place: The run's.
        path: The file.
        ids: Of the images of the batch.
    """

    def __init__(self, place: Checkpoints, path: Path, ids: tuple[str, ...] = ()) -> None:
        self.place, self.path, self.ids = place, path, ids
        self._saves, self._written = 0, time.monotonic()

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    def load(self) -> Mapping[str, Any] | None:
        """The snapshot kept last; None where there is none, or none that can be read."""
        kept = self.read()
        self._saves = kept["saves"] if kept else 0
        self.place.begin(f"{self.path.name} {self._saves}")
        return kept["standing"] if kept else None

    def save(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        """Keep a snapshot if the last one is old enough, or the answers since then are too many."""
        full = self.place.spool is not None and self.place.spool.full
        if not full and time.monotonic() - self._written < self.place.seconds:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"format": FORMAT, "saves": self._saves + 1, "images": self.ids, "standing": _plain(snapshot())}
        with replacing(self.path) as new:
            torch.save(kept, new)
        self._saves, self._written = self._saves + 1, time.monotonic()
        self.place.begin(f"{self.path.name} {self._saves}")

    def remove(self) -> None:
        """The result is elsewhere now."""
        self.path.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """What the file holds; one that is damaged or of another version is renamed, with a warning."""
        try:
            check_archive(self.path, self.path)
            kept: dict[str, Any] = torch.load(self.path, weights_only=True)
            if kept["format"] == FORMAT and isinstance(kept["saves"], int) and {"images", "standing"} <= kept.keys():
                return kept
            reason = f"it has format {kept['format']}, and this version reads {FORMAT}"
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
        except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = type(error).__name__
        aside = self.path.with_suffix(".damaged")
        self.path.replace(aside)
        self.place.warn(f"{self.path} cannot be read ({reason}): it is {aside.name} now, and its batch begins anew")
        return None


def resumable(
    model: Seen,
    keys: Sequence[str],
    store: Store,
    folder: Path,
    seconds: float = 30.0,
    warn: Callable[[str], None] = print,
    *,
    other: bool = False,
) -> tuple[Seen, Checkpoints]:
    """A model as a run needs it that may be killed at any time, and where it keeps its checkpoints.

    A counted target goes on counting where the earlier run stopped. One behind a wire gets a spool, so that no answer
    is asked for twice; a network or file in this process is asked again what came after the last checkpoint.

    Args:
        model: A network or a target.
        keys: Of the jobs to be run.
        store: Of the results so far.
        folder: Of the checkpoints.
        seconds: Between checkpoints.
        warn: Told when a checkpoint cannot be used.
        other: Whether it is not the run's own model, but one that it is compared with, whose passes rows tell apart.
    """
    Checkpoints(folder, warn=warn).drop_finished(store.done)
    if not isinstance(model, Metered):
        return model, Checkpoints(folder, seconds, warn=warn)
    from segradius.targets.opening import traffic_of  # brings every protocol, which a network can do without

    spool = Spooled(model.target, folder / "spool", warn=warn) if traffic_of(model) is not None else None
    checkpoints = Checkpoints(folder, seconds, spool, warn)
    stored = (result.passes.items() for key in (CLEAN, *keys) for result in store.results(key).values())
    paid = sum(_paid_for(dict(books), other=other) for books in stored)
    paid += 0 if other else store.noted(LOST) or 0
    return Metered(spool or model.target, model.budget, used=paid + checkpoints.paid()), checkpoints


def _paid_for(books: Mapping[str, Sequence[int]], *, other: bool) -> int:
    """Of the passes in a row, those of the model itself: where images were made on a surrogate, the verdict alone."""
    if "transfer" in books:
        return 0 if other else books["transfer"][0]
    asked = {purpose: forward for purpose, (forward, _) in books.items() if purpose != SURROGATE}
    return sum(forward for purpose, forward in asked.items() if (purpose == OTHER) == other)


def digest(ids: Sequence[str], *tensors: Tensor) -> str:
    """A short text that changes with the images of a batch, by id and content."""
    found = hashlib.sha256("\0".join(ids).encode())
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _paid(snapshot: Mapping[str, Any]) -> int:
    """Queries behind a snapshot: of votes the copies, of an attack what its ledger says."""
    if "ledger" not in snapshot:
        return int(snapshot["done"])
    return sum(int(book[0].sum()) for book in snapshot["ledger"].values())


def _plain(value: Any) -> Any:
    """With tensors on the CPU that hold nothing but their own values, and tuples in the place of named ones."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return tuple(_plain(inner) for inner in value) if isinstance(value, tuple) else value
