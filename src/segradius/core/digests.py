"""Whether content is still what it was: digests of files and tensors, and when a file need not be read for that."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

#: A file changed so recently (in nanoseconds) may change again without another time of change: clocks are coarse.
FRESH = 2_000_000_000
#: What something is made of, by the role that each part plays in it.
Parts: TypeAlias = "Mapping[str, Path | Tensor]"


@dataclass(frozen=True)
class Mark:
    """What a part was when it was looked at.

    Attributes:
        digest: Of its content; empty where it could not be read.
        stamp: Size, times and place on the disk of a file, which is not read again while they are the same; empty where
            they say nothing.
    """

    digest: str
    stamp: str = ""


def file_digest(path: Path) -> str:
    """A short text that changes with the content of a file; empty where it cannot be read.

    Example:
        >>> file_digest(Path("nowhere"))
        ''
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:
        return ""


def tensor_digest(tensor: Tensor) -> str:
    """A short text that changes with the values, shape and type of a tensor.

    Example:
        >>> tensor_digest(torch.zeros(2, 3)) == tensor_digest(torch.zeros(3, 2))
        False
    """
    values = tensor.detach().cpu().contiguous()
    found = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}\n".encode())
    found.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return found.hexdigest()[:32]


def marks_of(parts: Parts, before: Mapping[str, Mark] | None = None) -> dict[str, Mark]:
    """What parts are now.

    Args:
        parts: Files and tensors.
        before: What they were: a file whose stamp is the same is not read.
    """
    known = before or {}
    return {role: _mark(part, known.get(role)) for role, part in parts.items()}


def changed_part(parts: Parts, now: Mapping[str, Mark], before: Mapping[str, Mark]) -> str | None:
    """The first part that is not what it was, in words; None where all are. One that is new is none of them.

    Example:
        >>> changed_part({"image": Path("a.png")}, {"image": Mark("1")}, {"image": Mark("2")})
        'a.png changed'
    """
    for role, old in before.items():
        found = now.get(role, Mark(""))
        if found.digest != old.digest:
            name = str(part) if isinstance(part := parts.get(role), Path) else f"the {role}"
            return f"{name} changed" if found.digest else f"{name} cannot be read any more"
    return None


def first_of(told: Sequence[str]) -> str | None:
    """The first of several changes, and how many others there are; None where there is none.

    Example:
        >>> first_of(["a.png changed", "b.png changed"]), first_of([])
        ('a.png changed (and 1 more did)', None)
    """
    more = f" (and {len(told) - 1} more did)" if len(told) > 1 else ""
    return f"{told[0]}{more}" if told else None


def _mark(part: Path | Tensor, before: Mark | None) -> Mark:
    if isinstance(part, Tensor):
        return Mark(tensor_digest(part))
    stamp = _stamp(part)
    if before is not None and stamp and stamp == before.stamp:
        return before
    return Mark(_digest(part, stamp) if stamp else file_digest(part), stamp)


@lru_cache(maxsize=1024)
def _digest(path: Path, stamp: str) -> str:
    """The digest of a file that is what ``stamp`` says: one that many slices are of is read once."""
    return file_digest(path)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return ""
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < FRESH:
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
