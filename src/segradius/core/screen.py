"""What a command was asked, and what it says on the screen: lines, warnings, progress, on a terminal or in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from segradius.core.escapes import visible
from segradius.core.secrets import redacted

if TYPE_CHECKING:
    from rich.console import Console

#: The command line, for the record, without secrets; empty where there is none.
COMMAND: ContextVar[str] = ContextVar("COMMAND", default="")
#: Width of tables in a log, which has no right edge.
LOG_WIDTH = 160
#: Seconds until the first line of progress in a log, and then between two.
FIRST, EVERY = 10.0, 30.0


def say(words: str, style: str = "") -> None:
    """A line, or several, on stdout; names in it are shown, never obeyed."""
    console().print(visible(words, keep="\n"), style=style, markup=False, highlight=False, soft_wrap=not style)


#: Notes of a command that is made of many, each of which is told once; None where all are told.
_TOLD: ContextVar[set[str] | None] = ContextVar("TOLD", default=None)


@contextmanager
def noting_once() -> Iterator[None]:
    """A context in which a note that was told is not told again."""
    before = _TOLD.set(set())
    try:
        yield
    finally:
        _TOLD.reset(before)


def note(words: str) -> None:
    """A line on stderr, beside what the command was asked for."""
    told = _TOLD.get()
    if told is not None and words in told:
        return
    if told is not None:
        told.add(words)
    print(f"segradius: {visible(words)}", file=sys.stderr)


def warn(words: str) -> None:
    """A warning on stderr."""
    print(f"segradius: warning: {visible(redacted(words))}", file=sys.stderr)


def console() -> Console:
    """Of stdout, wide enough for a table where it is no terminal."""
    from rich.console import Console

    found = Console()
    if not found.is_terminal:
        found.width = LOG_WIDTH
    return found


@contextmanager
def progress(
    unit: str,
    total: int,
    *,
    done: int = 0,
    first: str = "",
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int, str], None]]:
    """A bar on stderr with the time left, or a line now and then where that is no terminal.

    Args:
        unit: What is counted, in the plural.
        total: How many there are.
        done: How many were done before.
        first: What is done at first.
        quiet: Whether nothing is shown.
        clock: Seconds, growing.

    Yields:
        To be called with how many more are done, and what is done now.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    screen = Console(stderr=True, quiet=quiet)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    lines = not screen.is_terminal and not quiet
    bar = Progress(*columns, *times, console=screen, transient=True, disable=quiet or lines, get_time=clock)
    task = bar.add_task(visible(first), total=total, completed=done)
    begun = clock()
    due = begun + FIRST
    since: tuple[float, float] | None = None  # when something was done first: models are opened before

    def advance(steps: int, what: str) -> None:
        nonlocal due, since
        bar.update(task, advance=steps, description=visible(what))
        if since is None and bar.tasks[0].completed > done:
            since = clock(), bar.tasks[0].completed
        if lines and clock() >= due:
            due = clock() + EVERY
            now = bar.tasks[0]
            start, first_done = since or (begun, done)
            gone = now.completed - first_done
            left = (clock() - start) / gone * (total - now.completed) if gone else None
            print(_line(visible(what), now.completed, total, unit, clock() - begun, left), file=sys.stderr, flush=True)

    with bar:
        yield advance


def _line(what: str, done: float, total: int, unit: str, gone: float, left: float | None) -> str:
    """One line of progress.

    Example:
        >>> _line("pgd", 30, 100, "steps", 60, 140)
        'segradius: pgd: 30 of 100 steps, 0:01:00 gone, 0:02:20 left'
    """
    rest = "" if left is None else f", {_clock(left)} left"
    return f"segradius: {what}: {done:.0f} of {total} {unit}, {_clock(gone)} gone{rest}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
