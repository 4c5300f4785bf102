"""Where a model's own code is called: what it raises is told from our own mistakes, and a lack of memory from both."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from segradius.core.errors import BudgetError, ModelError, SegradiusError, TargetError
from segradius.core.escapes import visible

#: What allocators, libraries and runtimes say that have no exception of their own for it.
_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "could not allocate memory",
    "failed to allocate memory",
    "unable to allocate",
    "bad_alloc",
    "bad allocation",
    "alloc_failed",
    "could not create a memory object",
)
#: What leaves a device unusable for whatever comes next.
_STUCK = ("cuda error", "hip error", "cuda kernel errors")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is a lack of memory, on whatever device and in whatever library.

    Example:
        >>> is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("size mismatch")), is_out_of_memory(MemoryError())
        (False, True)
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, Exception) and not isinstance(error, SegradiusError):
            said = str(error).casefold()
            if any(words in said for words in _SAID):
                return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def out_of_memory(error: BaseException, advice: str = "") -> str:
    """What to tell of a lack of memory, in a line.

    Example:
        >>> out_of_memory(MemoryError())
        'not enough memory: MemoryError. Give smaller images (--size) or fewer at a time (--batch-size)'
    """
    told = advice or "Give smaller images (--size) or fewer at a time (--batch-size)"
    return f"not enough memory: {in_a_line(error)}. {told}"


def release() -> None:
    """Give back what a computation that failed for lack of memory left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def in_a_line(error: BaseException) -> str:
    r"""Kind and first line of what was raised.

    Example:
        >>> in_a_line(ValueError("not\nfor me")), in_a_line(KeyError())
        ('ValueError: not', 'KeyError')
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return f"{kind}: {visible(lines[0].strip()[:300])}" if lines else kind


@contextmanager
def at_border(what: str, shape: Sequence[int]) -> Iterator[None]:
    """A context in which a model's own code runs: whatever it raises becomes a `ModelError` in one line.

    A lack of memory stays what it is; what ends a process (SystemExit, KeyboardInterrupt) is no exception of the model.

    Args:
        what: What runs: "model 'net'".
        shape: Of the images.

    Raises:
        ModelError: For whatever else is raised.

    Example:
        >>> with at_border("model 'net'", (1, 3, 8, 8)):
        ...     raise ValueError("not for me")
        Traceback (most recent call last):
        segradius.core.errors.ModelError: model 'net' failed on images (1, 3, 8, 8): ValueError: not for me
    """
    try:
        yield
    except (ModelError, TargetError, BudgetError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        told = f"{what} failed on images {tuple(shape)}"
        if isinstance(error, SegradiusError):
            raise ModelError(str(error)) from error
        stuck = any(words in str(error).casefold() for words in _STUCK)
        raise ModelError(f"{told}: {in_a_line(error)}", by_image=not stuck) from error
