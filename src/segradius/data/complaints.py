"""What the library of a format logs of a file that it mends, where a refusal is wanted and no print."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def complaints(library: str) -> Iterator[Sequence[str]]:
    """What a library logs in this thread, each in a line; it is not printed.

    Args:
        library: The name of its logger.

    Example:
        >>> with complaints("some.library") as told:
        ...     logging.getLogger("some.library").warning("mended")
        >>> told
        ['mended']
    """
    told: list[str] = []
    thread, log = threading.get_ident(), logging.getLogger(library)

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        told.append(" ".join(record.getMessage().split())[:200])
        return False

    log.addFilter(keep)
    try:
        yield told
    finally:
        log.removeFilter(keep)
