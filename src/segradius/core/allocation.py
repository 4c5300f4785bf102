"""How a process on a CPU handles the memory that a pass frees and the next one asks for again."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory, so that the system need not clear the same pages anew in every pass.

    For a process that runs nothing else, as it then holds what it once needed until it ends.

    Returns:
        Whether that was done: under glibc. Other allocators see to it themselves.

    Example:
        >>> isinstance(keep_freed_memory(), bool)
        True
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, _MOST) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
