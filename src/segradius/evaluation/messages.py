"""What a driver and its workers say to one another: orders one way, events the other, as bytes of their own."""

from __future__ import annotations

import io
import pickle
import traceback
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.core.errors import SegradiusError
from segradius.evaluation.rows import Rows
from segradius.evaluation.run import Run
from segradius.evaluation.unit import Unit
from segradius.speed.forms import Choice


@dataclass(frozen=True)
class Opening:
    """How the model of a measurement is opened, beyond what its description says, and where its journals are.

    Args:
        checkpoints: Folder where unfinished work is kept; None for nowhere.
        seconds: Between two writings of it, at least.
        choice: Of forms, which the driver's trial made, so that every worker looks through the same; None for the model
            as it is.
    """

    checkpoints: str | None = None
    seconds: float = 30.0
    choice: Choice | None = None

    @staticmethod
    def of(run: Run[Any]) -> Opening:
        """That of a run."""
        kept = run.checkpoints
        if kept is None:
            return Opening(choice=run.choice)
        return Opening(str(kept.folder.absolute()), kept.seconds, run.choice)


@dataclass(frozen=True)
class Order:
    """A unit for a worker, how what it names is opened, and a number by which it is spoken of."""

    unit: Unit
    opening: Opening = Opening()
    number: int = 0


@dataclass(frozen=True)
class Here:
    """A worker is there; ``at`` says where, if that is not this machine."""

    at: str = ""


@dataclass(frozen=True)
class Began:
    """Model and data of the order of a number are open, and it is worked on: images of these ids, by place."""

    number: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Stepped:
    """Steps times images that were done for the job of a key."""

    key: str
    steps: int


@dataclass(frozen=True)
class Found:
    """Rows of the order that was begun last."""

    rows: Rows


@dataclass(frozen=True)
class Done:
    """The order that was begun last is finished."""


@dataclass(frozen=True)
class Said:
    """A warning."""

    words: str


@dataclass(frozen=True)
class Raised:
    """What ended the worker's work, to be raised by the driver; the worker goes."""

    error: BaseException


@dataclass(frozen=True)
class Gone:
    """The worker is no more, which its source of workers says for it.

    Attributes:
        why: In words, as ``signal 9``.
        share: How much of that is laid to what it worked on: 1 where its process ended by itself, less where its
            machine went with it.
    """

    why: str
    share: float = 1.0


Event: TypeAlias = Here | Began | Stepped | Found | Done | Said | Raised | Gone


class _Pickler(pickle.Pickler):
    """Tensors go by value, as their own numbers alone: a view of a batch does not bring the batch along."""

    def reducer_override(self, thing: object) -> Any:
        if type(thing) is not Tensor or thing.layout is not torch.strided or thing.dtype in (torch.bfloat16,):
            return NotImplemented
        return _tensor, (np.ascontiguousarray(thing.detach().cpu().numpy()),)


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values)


def packed(message: object) -> bytes:
    """A message as bytes.

    Example:
        >>> from segradius.evaluation.rows import Kept
        >>> batch = torch.rand(100, 3, 8, 8)
        >>> rows = Rows("key", kept=Kept(adversarial={"a": batch[4]}))
        >>> text = packed(Found(rows))
        >>> len(text) < 2000, torch.equal(unpacked(text).rows.kept.adversarial["a"], batch[4])
        (True, True)
    """
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(message)
    return stream.getvalue()


def unpacked(text: bytes) -> Any:
    """The message in bytes."""
    return pickle.loads(text)


def as_raised(error: BaseException) -> Raised:
    """An error as it can be sent: itself where that survives, else the nearest kind that does, with the same words.

    Example:
        >>> from segradius.core.errors import ModelError
        >>> found = unpacked(packed(as_raised(ModelError("it fails", by_image=False)))).error
        >>> type(found).__name__, str(found), found.by_image
        ('ModelError', 'it fails', False)
    """
    if not isinstance(error, SegradiusError):
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    for kind in type(error).__mro__:
        made = error if kind is type(error) else _as(kind, error)
        try:
            back = pickle.loads(pickle.dumps(made))
        except Exception:
            continue
        if isinstance(back, BaseException) and str(back) == str(error):
            return Raised(back)
    return Raised(RuntimeError(f"{type(error).__name__}: {error}"))


def _as(kind: type, error: BaseException) -> BaseException | None:
    """Another kind of error with the same words."""
    try:
        made: BaseException = kind(str(error))
        vars(made).update({name: value for name, value in vars(error).items() if name in ("by_image", "__notes__")})
    except Exception:
        return None
    return made
