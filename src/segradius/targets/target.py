"""What a black-box attack may ask of a model, scores alone; and its wrappers: counted, budgeted, kept on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from segradius.core.bands import bands_of
from segradius.core.border import in_a_line
from segradius.core.contracts import ANSWERS, ScoreModel, Seen
from segradius.core.declared import Budget, read
from segradius.core.errors import AnswerError, BudgetError, at_least, unknown_name
from segradius.core.registry import Registry
from segradius.core.seal import readable
from segradius.core.storage import replacing
from segradius.models import Segmenter
from segradius.targets.answers import check_scores


class Target(ScoreModel, Seen, Protocol):
    """A model that answers queries: a `segradius.models.Segmenter`, a file, a server, or a wrapper around one of these.

    A query is an image; its answer, class probabilities at its size and on its device. A wrapper has what it wraps in
    ``target``; `layers` walks down. Any of them may have an ``identity``, a text that changes with whatever changes the
    answers (see `segradius.targets.fingerprint`), and one behind a wire the ``traffic`` that went over it.
    """


def layers(target: Target) -> Iterator[Target]:
    """The target, what it wraps, what that wraps, and so on."""
    layer: Target | None = target
    while layer is not None:
        yield layer
        layer = getattr(layer, "target", None)


#: Served models by the word before the colon: a function of the address, the device and keyword options. Facts:
#: ``example`` of what a user writes, the ``extra`` that brings its library, and the options that say how it is asked,
#: not what it answers (``asking``); a dataclass whose fields are ``options`` beside its own; a function of the address
#: that gives the ``files`` which decide what it answers, by name, beside those of which it has an ``identity``.
TARGETS: Registry[Callable[..., Target]] = Registry("target", "segradius.targets")


class Wrapper:
    """What lies around a target and is that target in all but its answers."""

    target: Target

    @property
    def name(self) -> str:
        """That of the target."""
        return self.target.name

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.target.num_classes

    @property
    def bands(self) -> int | None:
        """As of the target; None where it is not known."""
        return bands_of(self.target)

    @property
    def structures(self) -> int:
        """As of the target."""
        return int(getattr(self.target, "structures", 0))

    @property
    def surrogate(self) -> Segmenter | None:
        """As of the target: the network on which adversarial images for it are made; None for none."""
        return getattr(self.target, "surrogate", None)

    @property
    def offers(self) -> frozenset[str]:
        """As the target, save that the answers bring no gradients and no features."""
        return self.target.offers & ANSWERS

    @property
    def device(self) -> torch.device:
        """As of the target."""
        return self.target.device

    def frozen(self) -> AbstractContextManager[object]:
        """As that of the target."""
        return self.target.frozen()


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Local(Wrapper):
    """A `Segmenter` whose network runs in ``precision``. In full precision a `Segmenter` is a target as it is.

    Args:
        target: The network.
        precision: ``"bfloat16"``, ``"float16"`` or ``"float32"``.

    Raises:
        InputError: For another precision.

    Example:
        >>> from segradius.models import load_model
        >>> Local(load_model("demo"), "bfloat16").scores(torch.rand(1, 3, 24, 32)).dtype
        torch.float32
    """

    target: Segmenter
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)

    @property
    def identity(self) -> str:
        """The precision."""
        return self.precision

    def scores(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W), float32, of images (N, B, H, W) in [0, 1]."""
        return self.target.scores(images, PRECISIONS[self.precision])


class Metered(Wrapper):
    """Counts the images that a target answered; safe to ask from several threads.

    A query of N images counts N when its answer is there, once, however often a server had to be asked. A query that
    fails counts nothing.

    Args:
        target: What answers.
        budget: Images that may be answered in all; None for any number.
        used: Images answered before, as of a run that goes on.

    Raises:
        InputError: For a budget below 1 or a negative ``used``.

    Example:
        >>> import torch
        >>> from segradius.models import load_model
        >>> target = Metered(load_model("demo"), budget=3)
        >>> _ = target.scores(torch.rand(2, 3, 24, 32))
        >>> target.answered, target.left
        (2, 1)
        >>> target.scores(torch.rand(2, 3, 24, 32))
        Traceback (most recent call last):
        segradius.core.errors.BudgetError: a query of 2 images would exceed the budget: 2 of 3 are used
    """

    def __init__(self, target: Target, budget: int | None = None, *, used: int = 0) -> None:
        at_least(0, used=used)
        budget = read("budget", Budget | None, budget)
        self.target, self.budget = target, budget
        self._answered, self._pending, self._lock = used, 0, threading.Lock()

    def __repr__(self) -> str:
        return f"Metered({self.target}, budget={self.budget}, used={self._answered})"

    @property
    def answered(self) -> int:
        """Images answered so far."""
        return self._answered

    @property
    def left(self) -> int | None:
        """Images that may still be asked for; None where there is no budget."""
        with self._lock:
            return None if self.budget is None else self.budget - self._answered - self._pending

    @property
    def _answers_are_checked(self) -> bool:
        """Whether somebody below looks at every answer, or makes it of logits here."""
        return any(isinstance(layer, Segmenter) or getattr(layer, "checks", False) for layer in layers(self.target))

    def scores(self, images: Tensor) -> Tensor:
        """The target's scores (N, C, H, W) of images (N, B, H, W).

        Raises:
            BudgetError: If they would exceed the budget; nothing was sent then.
            AnswerError: If they cannot be scores.
        """
        asked = len(images)
        with self._lock:
            used = self._answered + self._pending
            if self.budget is not None and used + asked > self.budget:
                raise BudgetError(used, self.budget, asked)
            self._pending += asked
        done = 0
        try:
            scores = self.target.scores(images)
            if not self._answers_are_checked:
                check_scores(scores, images, self.num_classes)
            done = asked
        finally:
            with self._lock:
                self._pending -= asked
                self._answered += done
        return scores


#: Bytes of answers beyond which `Spooled.full` asks for a snapshot to be saved.
LIMIT = 256 * 2**20
#: Bytes of a file of answers before the first of them, at most.
HEADER = 2**12


class Spooled(Wrapper):
    """A target whose answers are files until the stage in which they were given is over.

    Whoever asks the same questions in the same order in a stage of the same name, also in another process, gets the
    answers that are there without asking. The second asking of an image in a stage is a question of its own, and is
    counted as one. An answer that cannot be used is not kept, and one in the folder that cannot be is asked again.

    Args:
        target: What answers.
        folder: Of the answers; made where absent.
        limit: Bytes of answers from which on the stage should end.
        warn: Told of a file that cannot be used.

    Example:
        >>> import tempfile
        >>> from segradius.models import load_model
        >>> from segradius.targets import Metered
        >>> image, folder = torch.rand(1, 3, 24, 32), Path(tempfile.mkdtemp())
        >>> first, second = (Metered(load_model("demo")) for _ in range(2))
        >>> answer = Spooled(first, folder).scores(image)
        >>> again = Spooled(second, folder)  # after a kill
        >>> bool((again.scores(image) == answer).all()), second.answered
        (True, 0)
        >>> _ = again.scores(image)
        >>> second.answered
        1
    """

    checks = True

    def __init__(self, target: Target, folder: Path, limit: int = LIMIT, warn: Callable[[str], None] = print) -> None:
        self.target, self.folder, self.limit, self.warn = target, folder, limit, warn
        self._asked: Counter[str] = Counter()
        self._stage, self._bytes = "", 0

    @property
    def full(self) -> bool:
        """Whether the answers of the stage exceed the limit, so that it is time for the next."""
        return self._bytes > self.limit

    def begin(self, stage: str) -> None:
        """What is asked from now on belongs to this stage; the answers of others are forgotten, its own are used."""
        self._asked.clear()
        self._stage, self._bytes = _digest(stage.encode()), 0
        for other in self.folder.glob("*"):
            if other.name != self._stage:
                shutil.rmtree(other, ignore_errors=True)

    def scores(self, images: Tensor) -> Tensor:
        """The target's scores (N, C, H, W) of images (N, B, H, W), asked in requests of the target's size."""
        # A request whose answer is lost by a kill has the id of its repetition if both are cut alike.
        sizes = (size for layer in layers(self.target) if isinstance(size := getattr(layer, "batch", None), int))
        parts = torch.split(images, next(sizes, len(images)))
        return torch.cat([self._part(part) for part in parts])

    def _part(self, images: Tensor) -> Tensor:
        files = [self._file(image) for image in images]
        asked = zip(files, images, strict=True)
        found = {row: kept for row, (file, image) in enumerate(asked) if (kept := self._kept(file, image)) is not None}
        missing = [row for row in range(len(images)) if row not in found]
        if missing:
            question = images[missing] if found else images
            answers = self.target.scores(question)
            check_scores(answers, question, self.num_classes)
            for row, answer in zip(missing, answers, strict=True):
                _write(files[row], answer)
                found[row] = answer
                self._bytes += answer.nbytes
        return torch.stack([found[row].to(images.device) for row in range(len(images))])

    def _kept(self, file: Path, image: Tensor) -> Tensor | None:
        """An answer; None where there is none, or none that can be used, which is told and removed."""
        for path in (file, file.with_suffix(".npy")):  # the latter of an earlier version
            try:
                answer = _read(path, self.num_classes * image[0].numel() * 8 + HEADER)
                check_scores(answer[None], image[None], self.num_classes)
                return answer
            except FileNotFoundError:
                continue
            except (*UNREADABLE, AnswerError) as error:
                why = in_a_line(error)
                self.warn(f"{path} is no answer that can be used ({why}): it is removed, and the question asked again")
                path.unlink()
        return None

    def _file(self, image: Tensor) -> Path:
        """Where the answer of the next asking of an image belongs."""
        plain = image.detach().cpu().contiguous()
        content = _digest(f"{plain.dtype} {tuple(plain.shape)}\n".encode() + plain.numpy().tobytes())
        self._asked[content] += 1
        return self.folder / (self._stage or "first") / f"{content}-{self._asked[content]}.npz"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


#: What reading a damaged file raises; the archive holds a checksum.
UNREADABLE = (
    *(OSError, ValueError, TypeError, EOFError, KeyError, AttributeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def _read(path: Path, most: int) -> Tensor:
    """The answer in a file of at most so many bytes, compressed or not."""
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size > most:
            raise ValueError(f"it has more than {most} bytes")
        found = np.load(stream, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return torch.from_numpy(found)
        if sum(member.file_size for member in found.zip.infolist()) > most:
            raise ValueError(f"it holds more than {most} bytes")
        return torch.from_numpy(found["answer"])


def unspooled(path: Path) -> Tensor:
    """The answer in a file of a `Spooled`.

    Raises:
        DamagedError: It holds none.
    """
    return readable(lambda: _read(path, 2 * path.stat().st_size + HEADER), path, "an answer")


def _write(file: Path, answer: Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as new, new.open("wb") as stream:
        np.savez(stream, answer=answer.detach().cpu().numpy())
