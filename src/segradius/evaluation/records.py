"""The record of each certified image: one compressed NumPy file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.core.storage import replacing
from segradius.evaluation.scoring import Score
from segradius.evaluation.store import Pixels


@dataclass(frozen=True, eq=False)
class Kind:
    """What is kept of a certificate: class or −1 (H, W), radius (H, W), level (H, W) or None, score."""

    classes: Tensor
    radius: Tensor
    level: Tensor | None
    promise: str
    score: Score


@dataclass(frozen=True, eq=False)
class Record:
    """All that is kept of an image.

    Attributes:
        image: Its id.
        base: (H, W) the model's own prediction.
        base_score: What that is worth.
        done: Whether the image was certified; before, all below but ``passes`` is empty.
        guess: (H, W) the class that was tested.
        votes: (H, W) how many of the n copies voted for it.
        majority: (H, W) the class with most votes, the smoothed model's prediction.
        majority_score: What that is worth.
        kinds: The certificates by name.
        n0: Copies that named classes.
        n: Copies that tested them.
        finite: Whether all answers were; if not, the image is in no figure.
        passes: Forward and backward passes by purpose.
        studies: What further studies of the image found, plain numbers by the study's name.
    """

    image: str
    base: Tensor
    base_score: Score
    done: bool = False
    guess: Tensor | None = None
    votes: Tensor | None = None
    majority: Tensor | None = None
    majority_score: Score | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    n0: int = 0
    n: int = 0
    finite: bool = True
    passes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    studies: Mapping[str, Any] = field(default_factory=dict)


class Records:
    """The records in a folder.

    Args:
        folder: Of the files; made where absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, record: Record) -> None:
        """Keep a record, in place of an earlier one of the image."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.path(record.image)) as new, new.open("wb") as file:
            np.savez_compressed(file, **_arrays(record))

    def get(self, image: str) -> Record | None:
        """The record of an image; None where there is none."""
        path = self.path(image)
        if not path.exists():
            return None
        with np.load(path) as found:
            return _record({name: found[name] for name in found.files})

    def path(self, image: str) -> Path:
        """The file of an image, whose name is the id with / and the like as %2F."""
        return self.folder / f"{file_name(image)}.npz"


def file_name(image: str) -> str:
    """An id as the name of a file.

    Example:
        >>> file_name("frankfurt/frankfurt_000000_000294")
        'frankfurt%2Ffrankfurt_000000_000294'
    """
    return quote(image, safe=" ")


def _arrays(record: Record) -> dict[str, Any]:
    """Everything as arrays; numbers as one JSON text."""
    arrays = {"base": _small(record.base)}
    numbers: dict[str, Any] = {"image": record.image, "base": asdict(record.base_score), "done": record.done}
    numbers["passes"] = record.passes
    if record.done:
        assert record.guess is not None
        assert record.votes is not None
        assert record.majority is not None
        assert record.majority_score is not None
        arrays |= {"guess": _small(record.guess), "majority": _small(record.majority)}
        arrays["votes"] = record.votes.cpu().numpy().astype(np.int32)
        for name, kind in record.kinds.items():
            arrays |= {f"{name}.class": _small(kind.classes), f"{name}.radius": kind.radius.cpu().float().numpy()}
            if kind.level is not None:
                arrays[f"{name}.level"] = _small(kind.level)
        numbers["majority"] = asdict(record.majority_score)
        numbers["kinds"] = {name: [kind.promise, asdict(kind.score)] for name, kind in record.kinds.items()}
        numbers |= {name: getattr(record, name) for name in ("n0", "n", "finite", "studies")}
    return arrays | {"numbers": np.array(json.dumps(numbers))}


def _record(arrays: Mapping[str, NDArray[Any]]) -> Record:
    numbers = json.loads(str(arrays["numbers"]))
    base, score = _classes(arrays["base"]), _score(numbers["base"])
    if not numbers["done"]:
        return Record(numbers["image"], base, score, passes=numbers["passes"])
    kinds = {
        name: Kind(
            _classes(arrays[f"{name}.class"]),
            torch.from_numpy(arrays[f"{name}.radius"]),
            _classes(arrays[f"{name}.level"]) if f"{name}.level" in arrays else None,
            told,
            _score(found),
        )
        for name, (told, found) in numbers["kinds"].items()
    }
    return Record(
        numbers["image"],
        base,
        score,
        True,
        _classes(arrays["guess"]),
        torch.from_numpy(arrays["votes"].astype(np.int64)),
        _classes(arrays["majority"]),
        _score(numbers["majority"]),
        kinds,
        *(numbers[name] for name in ("n0", "n", "finite", "passes", "studies")),
    )


def _score(found: Mapping[str, Any]) -> Score:
    """From what JSON made of a `Score`: lists for tuples."""
    parts: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    parts["pixels"] = Pixels(*found["pixels"])
    return Score(**parts)


def _small(classes: Tensor) -> NDArray[np.int16]:
    return classes.cpu().numpy().astype(np.int16)


def _classes(values: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
