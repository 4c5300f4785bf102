"""What a run needs to go on after it was killed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from segradius.core.errors import InputError
from segradius.core.storage import replacing

CHECKPOINT = "last.pt"


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: Steps done.
        best: Highest score of an evaluation so far.
        best_epoch: Its epoch, counted from 1; 0 for none.
    """

    step: int = 0
    best: float = float("-inf")
    best_epoch: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A run at one step: weights, optimiser, averaged weights and position. Random numbers are keyed by the step.

    Attributes:
        identity: Text that two runs share only if one may go on from the other.
        position: Where it stands.
        network: State dict.
        optimiser: State dict.
        average: Averaged weights by name; empty for none.
        scaler: State of the loss scale of precision ``"16"``; empty for none.
    """

    identity: str
    position: Position
    network: Mapping[str, Any]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it to ``last.pt`` of a folder, whole or not at all."""
        with replacing(folder / CHECKPOINT) as path:
            torch.save({**vars(self), "position": asdict(self.position)}, path)

    @classmethod
    def load(cls, folder: Path, identity: str) -> Snapshot | None:
        """The snapshot in a folder, on the CPU; None if there is none.

        Raises:
            InputError: If it is unreadable, or of a run with another recipe, network or data.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            found = cls(**content | {"position": Position(**content["position"])})
        except Exception as error:
            raise InputError(f"{path} is not a readable training checkpoint: {error}") from error
        if found.identity != identity:
            raise InputError(
                f"{folder} holds another run: {_difference(found.identity, identity)}. Choose another folder, or "
                "remove it to start anew"
            )
        return found


def sweep(folder: Path, names: Sequence[str]) -> None:
    """Remove what a process that was killed in the middle of writing files of these names has left in a folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".last.pt.x1.pt").touch(), (folder / "last.pt").touch()
        (None, None)
        >>> sweep(folder, [CHECKPOINT])
        >>> [path.name for path in folder.iterdir()]
        ['last.pt']
    """
    for name in names:
        for path in folder.glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def _difference(theirs: str, ours: str) -> str:
    old, new = (dict(line.partition(": ")[::2] for line in text.splitlines()) for text in (theirs, ours))
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    told = "; ".join(f"{key} is {new.get(key, 'absent')}, and was {old.get(key, 'absent')}" for key in keys)
    seed = ". Seed the network before it is built" if keys == ["first weights"] else ""
    return told + seed
