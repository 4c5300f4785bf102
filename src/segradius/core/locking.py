"""One owner for a folder or file that is written: the second is told who has it, and nobody waits for the dead."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from segradius.core.errors import InputError
from segradius.core.storage import leftovers, leftovers_of

try:
    import fcntl
except ImportError:
    HAVE_LOCKS = False  # Windows: there nobody is kept out
else:
    HAVE_LOCKS = True

LOCK = ".segradius.lock"
#: Descriptors of the locks of this process.
_HELD: set[int] = set()
#: The kernel releases such a lock with its process, by whatever that ends, on NFS too unless the other host is cut off.
_ABSENT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def owned(place: Path, below: Sequence[str] = (), warn: Callable[[str], None] = print) -> Iterator[None]:
    """A context in which nobody else owns a folder, or a file; what a killed owner left half written is removed first.

    Args:
        place: A folder that exists; or a file, there or not, in one.
        below: Sub-folders in which the owner writes, as glob patterns.
        warn: Told where the file system has no locks.

    Raises:
        InputError: Somebody owns it: the message says who, where and since when.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with owned(folder):
        ...     with owned(folder):
        ...         pass
        Traceback (most recent call last):
        segradius.core.errors.InputError: ... is in use: process ... on ... has written in it since ...
        >>> list(folder.iterdir())
        []
    """
    file = place / LOCK if place.is_dir() else leftovers_of(place)[0]
    handle = _locked(file, place)
    if handle is None:
        if HAVE_LOCKS:
            warn(f"the file system of {place} has no locks: see to it that no other process writes there")
        yield
        return
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_me()).encode())
        for left in leftovers(place, below) if place.is_dir() else leftovers_of(place)[1]:
            left.unlink(missing_ok=True)
        yield
    finally:
        if handle in _HELD:  # not in a child
            file.unlink(missing_ok=True)
            _HELD.discard(handle)
            os.close(handle)


def refuse_owned(place: Path) -> None:
    """Raise `InputError` if somebody owns a folder; nothing is written in it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> refuse_owned(folder)
        >>> with owned(folder):
        ...     refuse_owned(folder)
        Traceback (most recent call last):
        segradius.core.errors.InputError: ... is in use: process ... on ... has written in it since ...
    """
    if not HAVE_LOCKS:
        return
    with suppress(FileNotFoundError), (place / LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise InputError(f"{place} is in use: {_owner(file.read(4096))}. Wait until it ends") from None


def _locked(file: Path, place: Path) -> int | None:
    """A descriptor that holds the lock; None where there are no locks."""
    if not HAVE_LOCKS:
        return None
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            told = os.pread(handle, 4096, 0)
            os.close(handle)
            if error.errno in _ABSENT:
                file.unlink(missing_ok=True)
                return None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            kind = "folder" if place.is_dir() else "file"
            raise InputError(
                f"{place} is in use: {_owner(told)}. Wait until it ends, or choose another {kind}"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(file.stat(), os.fstat(handle)):
                _HELD.add(handle)
                return handle
        os.close(handle)  # its owner removed it when we had opened it


def _me() -> dict[str, object]:
    command = " ".join([Path(sys.argv[0] or "python").name, *sys.argv[1:2]])  # more could tell a secret
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def _owner(told: bytes) -> str:
    """Who that is, in words."""
    try:
        who = json.loads(told)
        return f"process {who['pid']} on {who['host']} has written in it since {who['since']} ({who['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process has just begun to write in it"


def _forget() -> None:
    """A forked child lets go: the lock must end with its owner, not with the last of its children."""
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
