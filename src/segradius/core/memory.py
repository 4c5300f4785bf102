"""How much memory this process holds, and how much more there is for it: by what Linux tells, unknown elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

#: By the controllers of a line of /proc/self/cgroup, where its folder is, and in it a limit, what is used, and the line
#: of memory.stat on what of that is a cache, which can go.
_GROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@dataclass(frozen=True)
class Held:
    """Memory of this process, in bytes.

    Attributes:
        now: What it holds.
        most: The most that it has held.
    """

    now: int
    most: int


def held(root: Path = Path("/")) -> Held | None:
    """What this process holds; None where the system does not say.

    Args:
        root: Where ``proc`` is.

    Example:
        >>> found = held()
        >>> found is None or found.most >= found.now > 0
        True
    """
    told = _lines(root / "proc/self/status")
    return Held(told["VmRSS"], told["VmHWM"]) if {"VmRSS", "VmHWM"} <= told.keys() else None


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may take without swapping; None where the system does not say.

    That is what the machine has left, or a control group, as that of a container, if it allows less.

    Args:
        root: Where ``proc`` and ``sys`` are.

    Example:
        >>> found = available()
        >>> found is None or found > 0
        True
    """
    free = _lines(root / "proc/meminfo").get("MemAvailable")
    return None if free is None else max(0, min([free, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group that this process is in has left, and those that they are in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers in _GROUPS:
            top, limit, used, cache = _GROUPS[controllers]
            place = PurePosixPath(path.strip("/"))
            for group in (place, *place.parents):
                folder = root / "sys/fs/cgroup" / top / group
                most, now = _number(folder / limit), _number(folder / used)
                if most is not None and now is not None:
                    yield most - now + _lines(folder / "memory.stat").get(cache, 0)


def _lines(file: Path) -> dict[str, int]:
    """Names and numbers, in bytes, of lines as ``VmRSS:  12 kB`` or ``inactive_file 12``; of others nothing."""
    found = {}
    for line in _text(file).splitlines():
        name, *rest = line.split()[:3] or [""]
        if rest and rest[0].isdecimal():
            found[name.rstrip(":")] = int(rest[0]) * (1024 if rest[1:] == ["kB"] else 1)
    return found


def _number(file: Path) -> int | None:
    told = _text(file).strip()
    return int(told) if told.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
