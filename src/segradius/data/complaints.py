"""What the library of a format logs or warns of in a file that it mends, where a refusal is wanted and no print."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_UNHEARD: ContextVar[bool] = ContextVar("_UNHEARD", default=False)  # of this thread alone


class _WhereAsked(type):
    """Of a kind of warning that every other is one of where `unheard` asks for it, and none elsewhere."""

    def __subclasscheck__(cls, kind: type) -> bool:
        return _UNHEARD.get()


class _Unheard(Warning, metaclass=_WhereAsked):
    """What the one filter of `unheard` is for."""


@contextmanager
def unheard() -> Iterator[None]:
    """A context in which this thread is warned of nothing; ``warnings.catch_warnings`` would be of all threads.

    That one keeps the filters of the process and puts them back: of two threads that do so at once, one may put back
    what the other had set. Here the one filter stays, and asks in which thread it is.

    Example:
        >>> with unheard():
        ...     warnings.warn("a file is odd")
    """
    if not any(kind is _Unheard for _, _, kind, *_ in warnings.filters[:1]):
        warnings.simplefilter("ignore", _Unheard)
    token = _UNHEARD.set(True)
    try:
        yield
    finally:
        _UNHEARD.reset(token)


_TOLD: ContextVar[Mapping[str, list[str]]] = ContextVar("_TOLD", default=MappingProxyType({}))  # by logger


@contextmanager
def complaints(library: str) -> Iterator[Sequence[str]]:
    """What a library logs in this thread, each in a line; it is not printed.

    The filter stays: where one is taken away while another thread goes through them, that thread passes one over.

    Args:
        library: The name of its logger.

    Example:
        >>> with complaints("some.library") as told:
        ...     logging.getLogger("some.library").warning("mended")
        >>> told
        ['mended']
    """
    told: list[str] = []
    logging.getLogger(library).addFilter(_kept)
    token = _TOLD.set({**_TOLD.get(), library: told})
    try:
        yield told
    finally:
        _TOLD.reset(token)


def _kept(record: logging.LogRecord) -> bool:
    """Whether a record goes on to be printed."""
    told = _TOLD.get().get(record.name)
    if told is None:
        return True
    told.append(" ".join(record.getMessage().split())[:200])
    return False
