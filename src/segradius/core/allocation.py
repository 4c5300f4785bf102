"""How a process on a CPU handles the memory that a pass frees and the next one asks for again."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
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
    # Older versions refuse a threshold above 32 MiB; that no block has a mapping of its own does the same.
    mapped = mallopt(_MMAP_THRESHOLD, _MOST) or mallopt(_MMAP_MAX, 0)
    return bool(mapped and mallopt(_TRIM_THRESHOLD, _MOST))
