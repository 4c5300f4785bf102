"""Work on images as many at a time as fit into memory; one with which a model fails is set aside, the others are not.

What counts is what the model's own code raises (`segradius.core.border`) and a lack of memory, wherever it is met. An
error of ours, and what ends a process, goes its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from segradius.core.border import in_a_line, is_out_of_memory, release
from segradius.core.errors import SegradiusError, TargetError
from segradius.core.escapes import listed
from segradius.radius.smoothing import copies_together

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Room:
    """How much fits into memory, as a run finds out.

    Attributes:
        device: Type of the device.
        most: Images at a time; None for as many as there are.
        together: Noisy copies of an image in a pass; None for a number that suits the device.
        warn: Told when one of them is made less.
    """

    device: str = "cpu"
    most: int | None = None
    together: int | None = None
    warn: Callable[[str], None] = field(default=print, compare=False)

    def fewer(self, images: int) -> None:
        """So many images did not fit: half of them from now on."""
        self.most = -(-images // 2)
        self.warn(
            f"not enough memory for {images} images at a time: going on with {self.most}, which changes no result "
            f"(--batch-size {self.most})"
        )

    def smaller(self) -> bool:
        """One image did not fit: half of the noisy copies from now on; whether there is less than before."""
        before = self.together or copies_together(self.device)
        if before == 1:
            return False
        self.together = before // 2
        self.warn(f"not enough memory for {before} noisy copies at a time: going on with {self.together}")
        return True


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """What came of some items: a result, or in one line why one of them has none.

    Attributes:
        items: Which.
        result: The result; None where it failed.
        failure: Empty where it did not.
    """

    items: Sequence[T]
    result: R | None
    failure: str = ""


def attempts(
    items: Sequence[T],
    work: Callable[[Sequence[T]], R],
    room: Room,
    names: Callable[[Sequence[T]], Sequence[str]],
    *,
    answers: bool = False,
) -> Iterator[Done[T, R]]:
    """Results over all items, in parts that are halved until each is worked on or is a single one that cannot be.

    Args:
        items: As many as one would like to work on at a time, at least one.
        work: What is done with some of them.
        room: How many fit, found out as it goes.
        names: Of items.
        answers: Whether a served model's failure to answer is an item's as well.

    Yields:
        What came of each part, in order.
    """
    trial, told = _Trial(work, room, names, answers), False
    for done in trial.of(items):
        if trial.again and not done.failure and not told:
            room.warn(trial.again[0])  # where all fail, there is nothing to tell but that
            told = True
        yield done


@dataclass(frozen=True)
class _Trial(Generic[T, R]):
    """As `attempts`, with what is to be told of tries in halves put into ``again``."""

    work: Callable[[Sequence[T]], R]
    room: Room
    names: Callable[[Sequence[T]], Sequence[str]]
    answers: bool
    again: list[str] = field(default_factory=list)

    def of(self, items: Sequence[T]) -> Iterator[Done[T, R]]:
        """What came of each part."""
        if self.room.most is not None and len(items) > self.room.most:
            yield from self.halves(items)
            return
        failure, memory = "", False
        try:
            result = self.work(items)
        except Exception as error:
            memory = is_out_of_memory(error)
            told = isinstance(error, SegradiusError) and error.by_image
            if not memory and not (told and (self.answers or not isinstance(error, TargetError))):
                raise
            failure = f"not enough memory for one image: {in_a_line(error)}" if memory else str(error)
        # From here on nothing holds what the attempt had in memory.
        if not failure:
            yield Done(items, result)
            return
        if memory:
            release()
        if len(items) > 1:
            if memory:
                self.room.fewer(len(items))
            else:
                self.again.append(f"{failure}. The images {listed(self.names(items))} are tried again in halves")
            yield from self.halves(items)
        elif memory and self.room.smaller():
            yield from self.of(items)
        else:
            yield Done(items, None, failure)

    def halves(self, items: Sequence[T]) -> Iterator[Done[T, R]]:
        """Always the same halves, so that a run that goes on finds the journals of its parts."""
        middle = -(-len(items) // 2)
        for half in (items[:middle], items[middle:]):
            yield from self.of(half)
