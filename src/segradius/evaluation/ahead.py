"""The images of the next unit are read and decoded in a thread while those of one are worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from segradius.core.border import is_out_of_memory
from segradius.data.sample import Sample

T = TypeVar("T")
#: From the place of an image to its sample, or why it cannot be used.
Read = Callable[[int], Sample | str]


class Samples:
    """The samples of a unit, each read once: in a thread, from now on, or when it is asked for.

    At most one unit is worked on and the next one read, so that what waits is at most one unit's images and labels:
    4·B + 8 bytes a pixel.

    Args:
        read: Reads one; whatever it raises is raised where the sample is asked for. Where memory lacked in the thread,
            it is read again then, when there may be more of it.
        begun: Of the thread, by place.

    Attributes:
        ahead: Whether there is a thread.

    Example:
        >>> samples = Samples(lambda place: f"no {place}")
        >>> samples(3)
        'no 3'
    """

    def __init__(self, read: Read, begun: dict[int, Future[Sample | str]] | None = None) -> None:
        self.ahead = begun is not None
        self._read, self._begun, self._found = read, begun or {}, dict[int, Sample | str]()

    def __call__(self, place: int) -> Sample | str:
        """The sample at a place, or why it cannot be used; kept until it is dropped."""
        if place not in self._found:
            found = self._from_thread(place)
            self._found[place] = self._read(place) if found is None else found
        return self._found[place]

    def drop(self, places: Sequence[int]) -> None:
        """These are not needed any more."""
        for place in places:
            self._found.pop(place, None)

    def _from_thread(self, place: int) -> Sample | str | None:
        begun = self._begun.pop(place, None)
        try:
            return None if begun is None else begun.result()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return None


def read_aside(pool: ThreadPoolExecutor, places: Sequence[int], read: Read, device: torch.device) -> Samples:
    """Samples that are read from now on, in order, and moved to a CUDA device.

    Args:
        pool: The thread.
        places: Which; others are read when they are asked for.
        read: Reads one.
        device: Of the model.
    """
    stream = torch.cuda.current_stream(device) if device.type == "cuda" else None

    def aside(place: int) -> Sample | str:
        found = read(place)
        if stream is None or isinstance(found, str):
            return found
        with torch.cuda.stream(stream):
            return on(Sample(found.id, found.image.pin_memory(), found.label.pin_memory()), device)

    return Samples(read, {place: pool.submit(aside, place) for place in places})


def on(sample: Sample, device: torch.device) -> Sample:
    """A sample on a device; it may still be on its way there, which the device's own work waits for."""
    goes_on = device.type == "cuda"
    moved = (part.to(device, non_blocking=goes_on) for part in (sample.image, sample.label))
    return Sample(sample.id, *moved)


@contextmanager
def one_thread() -> Iterator[ThreadPoolExecutor]:
    """A thread, begun when it has something to do; at the end, however it comes, it finishes one image and is gone."""
    pool = ThreadPoolExecutor(1, "segradius reads ahead")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def closing(rows: Iterable[T]) -> Iterator[Iterable[T]]:
    """A context at the end of which a generator is closed, whatever is thrown; anything else that is iterated stays.

    Example:
        >>> with closing(place for place in range(9)) as rows:
        ...     first = next(iter(rows))
        >>> first, list(rows)
        (0, [])
    """
    try:
        yield rows
    finally:
        if (close := getattr(rows, "close", None)) is not None:
            close()


def in_turn(units: Iterable[T], begin: Callable[[T], Samples]) -> Iterator[tuple[T, Samples]]:
    """Units with their samples; where these are read ahead, the next unit is begun before one is given.

    What is raised when the next is asked for is raised in its turn, when the one before is done.

    Args:
        units: In order.
        begin: Begins to read a unit.

    Example:
        >>> [(unit, samples(0)) for unit, samples in in_turn("ab", lambda unit: Samples(lambda place: unit))]
        [('a', 'a'), ('b', 'b')]
    """
    left = iter(units)
    now = _asked(left, begin)
    while (found := now()) is not None:
        after = _asked(left, begin) if found[1].ahead else None
        yield found
        now = after or _asked(left, begin)


def _asked(left: Iterator[T], begin: Callable[[T], Samples]) -> Callable[[], tuple[T, Samples] | None]:
    """What gives the next unit with its samples, None at the end, or raises what was raised for it."""
    try:
        found = next(((unit, begin(unit)) for unit in left), None)
    except Exception as error:
        return partial(_raised, error)
    return lambda: found


def _raised(error: Exception) -> None:
    raise error
