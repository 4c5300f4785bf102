"""A target whose answers are kept on disk until they are accounted for, so that a killed run asks nothing twice."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from segradius.core.storage import replacing
from segradius.targets.target import Target, Wrapper, layers

#: Bytes of answers beyond which `Spooled.full` asks for a snapshot to be saved.
LIMIT = 256 * 2**20


class Spooled(Wrapper):
    """A target whose answers are files until the stage in which they were given is over.

    Whoever asks the same questions in the same order in a stage of the same name, also in another process, gets the
    answers that are there without asking. The second asking of an image in a stage is a question of its own, and is
    counted as one.

    Args:
        target: What answers.
        folder: Of the answers; made where absent.
        limit: Bytes of answers from which on the stage should end.

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

    def __init__(self, target: Target, folder: Path, limit: int = LIMIT) -> None:
        self.target, self.folder, self.limit = target, folder, limit
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
        """The target's scores (N, C, H, W) of images (N, 3, H, W), asked in requests of the target's size."""
        # A request whose answer is lost by a kill has the id of its repetition if both are cut alike.
        sizes = (size for layer in layers(self.target) if isinstance(size := getattr(layer, "batch", None), int))
        parts = torch.split(images, next(sizes, len(images)))
        return torch.cat([self._part(part) for part in parts])

    def _part(self, images: Tensor) -> Tensor:
        files = [self._file(image) for image in images]
        found = {row: answer for row, file in enumerate(files) if (answer := _read(file)) is not None}
        missing = [row for row in range(len(images)) if row not in found]
        if missing:
            answers = self.target.scores(images[missing] if found else images)
            for row, answer in zip(missing, answers, strict=True):
                _write(files[row], answer)
                found[row] = answer
                self._bytes += answer.nbytes
        return torch.stack([found[row].to(images.device) for row in range(len(images))])

    def _file(self, image: Tensor) -> Path:
        """Where the answer of the next asking of an image belongs."""
        plain = image.detach().cpu().contiguous()
        content = _digest(f"{plain.dtype} {tuple(plain.shape)}\n".encode() + plain.numpy().tobytes())
        self._asked[content] += 1
        return self.folder / (self._stage or "first") / f"{content}-{self._asked[content]}.npy"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _read(file: Path) -> Tensor | None:
    """An answer; None where there is none, or none that can be read."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None


def _write(file: Path, answer: Tensor) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as new, new.open("wb") as stream:
        np.save(stream, answer.detach().cpu().numpy(), allow_pickle=False)
