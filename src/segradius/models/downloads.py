"""Nothing is downloaded unless it was asked for: what is loaded meanwhile is offline, whatever library loads it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from segradius.core.border import in_a_line
from segradius.core.errors import InputError

#: Hosts that were asked for and refused; None where downloads are allowed.
_REFUSED: ContextVar[list[str] | None] = ContextVar("segradius_refused", default=None)
#: What says that the library of the Hugging Face hub is offline, and copies of it: set, and put back as they were.
SWITCH = "HF_HUB_OFFLINE"
FLAGS = (("huggingface_hub.constants", SWITCH), ("transformers.utils.hub", "_is_offline_mode"))
#: Errors for what is not here: of that library's cache, and of what was refused.
ABSENT = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "NotAskedError"}


class NotAskedError(ConnectionRefusedError):
    """A host that was not asked; as of a machine without a network, so that libraries go on with their caches."""


class _Offline:
    """How many loads are going on without downloads, and what the switches were before the first."""

    depth = 0
    hooked = False
    lock = threading.Lock()
    before: tuple[str | None, dict[tuple[str, str], Any]] = (None, {})


def may_download() -> bool:
    """Whether what is being loaded may go out for it."""
    return _REFUSED.get() is None


@contextlib.contextmanager
def offline(what: str, *, allowed: bool) -> Iterator[None]:
    """A context in which nothing goes out of this machine from this thread, save to itself.

    Args:
        what: That is loaded, for the message.
        allowed: That it may go out; then the context does nothing.

    Raises:
        InputError: What is loaded is not here and would have to be downloaded; in place of the library's own error.

    Example:
        >>> import urllib.request
        >>> with offline("a page", allowed=False):
        ...     urllib.request.urlopen("https://host.example/")
        Traceback (most recent call last):
        segradius.core.errors.InputError: a page is not on this machine and nothing is downloaded (host.example was ...
    """
    if allowed:
        yield
        return
    refused: list[str] = []
    token = _REFUSED.set(refused)
    _enter()
    try:
        yield
    except Exception as error:
        if not refused and not is_absent(error):
            raise
        asked = f" ({refused[0]} was asked for)" if refused else ""
        absent = is_absent(error)
        told = f"{what} is not on this machine" if absent else f"{what} failed ({in_a_line(error)})"
        raise InputError(
            f"{told} and nothing is downloaded{asked} unless you say so: add --allow-download (from Python "
            "allow_download=True), or put its files here"
        ) from error
    finally:
        _leave()
        _REFUSED.reset(token)


def _enter() -> None:
    with _Offline.lock:
        if not _Offline.hooked:
            # The interpreter's own way to see, and to refuse, what goes out. It cannot be taken away again, and does
            # nothing outside the context.
            sys.addaudithook(_watch)
            _Offline.hooked = True
        if _Offline.depth == 0:
            flags = {flag: getattr(sys.modules[flag[0]], flag[1]) for flag in _present()}
            _Offline.before = (os.environ.get(SWITCH), flags)
            os.environ[SWITCH] = "1"
            for module, name in flags:
                setattr(sys.modules[module], name, True)
        _Offline.depth += 1


def _leave() -> None:
    with _Offline.lock:
        _Offline.depth -= 1
        if _Offline.depth:
            return
        said, flags = _Offline.before
        os.environ.pop(SWITCH, None)
        if said is not None:
            os.environ[SWITCH] = said
        usual = (said or "").upper() in ("1", "ON", "YES", "TRUE")
        for module, name in _present():  # also of a library that was imported meanwhile and has read the switch
            setattr(sys.modules[module], name, flags.get((module, name), usual))


def _present() -> list[tuple[str, str]]:
    return [(module, name) for module, name in FLAGS if hasattr(sys.modules.get(module), name)]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not event.startswith(("socket.", "urllib.Request")) or (refused := _REFUSED.get()) is None:
        return
    host = _host(event, arguments)
    if host is not None and not _is_here(host):
        refused.append(host)
        raise NotAskedError(f"{host} is not asked: downloads are not allowed")


def _host(event: str, arguments: tuple[Any, ...]) -> str | None:
    """The host that an event of the interpreter is about; None for one that sends nothing to a host."""
    place: Any = None
    if event == "urllib.Request":
        place = urlsplit(str(arguments[0])).hostname
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        place = arguments[1][0] if isinstance(arguments[1], tuple) else None  # else the path of a socket here
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0]
    return place.decode("utf-8", "replace") if isinstance(place, bytes) else None if place is None else str(place)


def _is_here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_absent(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that something is not here and was not asked for elsewhere."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        reason = getattr(error, "reason", None)  # of urllib, which keeps what it met beside the chain
        if ABSENT & {type(error).__name__, type(reason).__name__}:
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
