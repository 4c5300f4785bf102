"""One scheduler over workers that come and go: who gets which unit, and what is done when one of them dies."""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from segradius.core.errors import SegradiusError
from segradius.core.escapes import listed
from segradius.evaluation.job import ModelChoice
from segradius.evaluation.messages import (
    Began,
    Done,
    Event,
    Found,
    Gone,
    Here,
    Opening,
    Order,
    Raised,
    Said,
    Stepped,
)
from segradius.evaluation.pieces import Account, Piece, smaller
from segradius.evaluation.rows import Rows
from segradius.evaluation.run import Run
from segradius.evaluation.unit import Progress, Unit
from segradius.evaluation.worker import refuse_target

#: Workers that may die over a unit, without a row in between, before it is cut into single images; and over an image
#: that is alone, before it is left out.
TOGETHER, ALONE = 2, 3
#: Workers that may end one after the other before any has begun to work.
STARTS = 3
#: Seconds between two looks at who is silent.
TICK = 0.5
#: Seconds without a word after which a worker is taken to hang, unless said otherwise.
PATIENCE = 1800.0
#: Units that a worker has at a time: one that it works on, and one whose images it reads meanwhile.
IN_HAND = 2
#: Units in stock for each worker. When there are fewer, what is left is cut smaller.
STOCK = 2


class Hired(Protocol):
    """A worker, from outside. Its events come into the inbox that it was hired with; the last of them is `Gone`."""

    @property
    def name(self) -> str:
        """For people."""

    def give(self, order: Order | None) -> None:
        """An order, without waiting; None for the last. One that is no more takes none, and says so by an event."""

    def kill(self) -> None:
        """End it now."""


#: Events, each with the worker that it is of.
Inbox: TypeAlias = "queue.SimpleQueue[tuple[Hired, Event]]"
#: Hires a worker in a place, from 0, whose events come into an inbox.
Hire: TypeAlias = Callable[[int, Inbox], Hired]


class WorkersError(SegradiusError):
    """Workers end before they have begun; the message says how, and what may be the cause."""


@dataclass
class _Member:
    """A worker with what it has in hand, and how long it has not said a word."""

    worker: Hired
    hand: deque[Piece] = field(default_factory=deque)
    here: bool = False
    begun: bool = False
    silent: float = 0.0
    model: ModelChoice | None = None

    def first(self, number: int) -> None:
        """The piece with this number is worked on."""
        piece = next(piece for piece in self.hand if piece.number == number)
        self.hand.remove(piece)
        self.hand.appendleft(piece)
        self.begun = True


@dataclass
class Crew:
    """Workers as an executor: `run` gives them units until all are done.

    A unit whose worker dies goes, without the rows that have arrived, to another one; when two died over it, its images
    are tried one by one; an image over which three died is left out, with the reason. What a worker raises is raised.

    Args:
        size: How many workers, at most.
        hire: Makes one.
        patience: Seconds without a word from a worker that works, after which it is killed.
        warn: Told of deaths, and what workers warn of, with the worker's name.
        where: The context in which workers can be hired.
    """

    size: int
    hire: Hire
    patience: float = PATIENCE
    warn: Callable[[str], None] = print
    where: Callable[[], AbstractContextManager[object]] = nullcontext
    _openings: dict[str, Opening] = field(default_factory=dict)
    _members: dict[int, _Member] = field(default_factory=dict)
    _backlog: deque[Piece] = field(default_factory=deque)
    _inbox: Inbox = field(default_factory=queue.SimpleQueue)
    _given: int = 0
    _starts: list[str] = field(default_factory=list)

    def begin(self, name: str, run: Run[Any]) -> None:
        """Units of this measurement may come; raises `InputError` where its model is a target."""
        refuse_target(run.experiment.model)
        self._openings[name] = Opening.of(run)

    def end(self, name: str) -> None:
        """None of its units will come any more."""
        self._openings.pop(name, None)

    def run(self, units: Iterable[Unit], progress: Progress = lambda job, steps: None) -> Iterator[tuple[Unit, Rows]]:
        """The rows of all units as they come, each with its unit.

        Raises:
            InputError: A unit is of a target; or what a worker raised.
            WorkersError: Several ended at once, one after the other.
        """
        with self.where():
            calm = False
            try:
                left = iter(units)
                while self._pull(left):
                    self._hand_out()
                    for member, event in self._events():
                        for piece, rows in self._met(member, event, progress):
                            if rows.results or rows.set_aside or rows.failed:
                                yield piece.account.unit, rows
                calm = True
            finally:
                self._dismiss(calm)

    def _pull(self, left: Iterator[Unit]) -> bool:
        """Have enough in stock for everyone; whether there is anything to do."""
        stock = STOCK * self.size
        while len(self._backlog) < stock and (unit := next(left, None)) is not None:
            refuse_target(unit.clean.model)
            self._backlog.append(Piece(Account(unit), unit))
        if len(self._backlog) < stock and self.size > 1:  # the end is near: nobody is to stand idle
            pieces = [
                Piece(piece.account, unit, piece.deaths) for piece in self._backlog for unit in smaller(piece.unit)
            ]
            self._backlog = deque(pieces)
        return bool(self._backlog) or any(member.hand for member in self._members.values())

    def _hand_out(self) -> None:
        """First something for everyone, then something in reserve while there is enough."""
        for place in range(self.size):
            if self._backlog and (place not in self._members or not self._members[place].hand):
                self._give(place)
        for place, member in self._members.items():
            if len(self._backlog) >= STOCK * self.size and 0 < len(member.hand) < IN_HAND:
                self._give(place)

    def _give(self, place: int) -> None:
        piece = self._next(None if place not in self._members else self._members[place].model)
        if piece is None:
            return
        if place not in self._members:
            self._members[place] = _Member(self.hire(place, self._inbox))
        member = self._members[place]
        if not member.hand:
            member.silent = 0.0
        self._given += 1
        piece.number = self._given
        member.hand.append(piece)
        member.model = piece.unit.clean.model
        opening = self._openings.get(piece.unit.measurement, Opening())
        member.worker.give(Order(piece.unit, opening, piece.number))

    def _next(self, model: ModelChoice | None) -> Piece | None:
        """From the stock, rather of the model that is open already; None where nothing is left to do."""
        while self._backlog:
            alike = (piece for piece in self._backlog if piece.unit.clean.model == model)
            piece = next(alike, self._backlog[0])
            self._backlog.remove(piece)
            if (rest := piece.rest()) is not None:
                return rest
        return None

    def _events(self) -> Iterator[tuple[_Member, Event]]:
        """What was said, if anything was; who was silent too long is killed, and gone."""
        before = time.monotonic()
        try:
            worker, event = self._inbox.get(timeout=TICK)
        except queue.Empty:
            event = None
        waited = min(time.monotonic() - before, 2 * TICK)  # of a machine that slept, nobody is to blame
        for member in list(self._members.values()):
            if event is not None and member.worker is worker:
                member.silent = 0.0
                yield member, event
            elif member.hand and member.here:
                member.silent += waited
                if member.silent > self.patience:
                    member.worker.kill()
                    yield member, Gone(f"killed after {self.patience:g} s without a sign of life")

    def _met(self, member: _Member, event: Event, progress: Progress) -> Iterator[tuple[Piece, Rows]]:
        """What comes of an event."""
        if isinstance(event, Gone):
            yield from self._bury(member, event, progress)
        elif isinstance(event, Raised):
            raise event.error
        elif isinstance(event, Said):
            self.warn(f"{member.worker.name}: {event.words}")
        elif isinstance(event, Here):
            member.here = True
        else:
            yield from self._worked(member, event, progress)

    def _worked(self, member: _Member, event: Event, progress: Progress) -> Iterator[tuple[Piece, Rows]]:
        if isinstance(event, Began):
            member.first(event.number)
        piece = member.hand[0]
        if isinstance(event, Began):
            piece.account.ids |= zip(piece.unit.places, event.ids, strict=True)
            piece.account.starts = 0
            self._starts.clear()
        elif isinstance(event, Stepped):
            piece.told[event.key] += event.steps
            _progress(piece, event.key, event.steps, progress)
        elif isinstance(event, Found):
            rows = piece.take(event.rows)
            piece.deaths = 0 if rows.results else piece.deaths
            yield piece, rows
        elif isinstance(event, Done):
            member.hand.popleft()
            member.begun = False

    def _bury(self, member: _Member, gone: Gone, progress: Progress) -> Iterator[tuple[Piece, Rows]]:
        """See to what a worker had in hand when it ended."""
        del self._members[next(place for place, each in self._members.items() if each is member)]
        name = member.worker.name
        if not member.begun:
            self._backlog.extendleft(reversed(member.hand))
            if member.hand:
                self.warn(f"{name} ended ({gone.why}) before it began what it was given: another one does that")
            if member.hand and gone.share == 1:
                self._failed_start(name, gone.why, member.hand[0])
            return
        first, *reserve = member.hand
        for key, steps in first.told.items():
            _progress(first, key, -steps, progress)
        self._backlog.extendleft(reversed(reserve))
        rest = first.rest()
        if rest is not None:
            rest.deaths += gone.share
            yield from self._again(rest, f"{name} ended ({gone.why})")

    def _again(self, rest: Piece, told: str) -> Iterator[tuple[Piece, Rows]]:
        """What is left of a piece over which workers died goes to another one, in single images where it must be."""
        on = f"{told} while it worked on {listed(rest.ids)}"
        if len(rest.ids) == 1 and rest.deaths >= ALONE:
            why = f"the worker process ended over it {ALONE} times, the last time so: {told}"
            self.warn(f"{on}, as others before: it is left out")
            yield rest, rest.account.take(rest.failed(why))
        elif len(rest.ids) > 1 and rest.deaths >= TOGETHER:
            self.warn(f"{on}, as others before: they are tried one by one")
            self._backlog.extendleft(reversed(rest.one_by_one()))
        else:
            self.warn(f"{on}: another one goes on with that")
            self._backlog.appendleft(rest)

    def _failed_start(self, name: str, why: str, piece: Piece) -> None:
        """Raise `WorkersError` where it has no use to hire another one."""
        self._starts.append(why)
        piece.account.starts += 1
        if max(len(self._starts), piece.account.starts) >= STARTS:
            how, clean = ", ".join(dict.fromkeys(self._starts)), piece.unit.clean
            raise WorkersError(
                f"{STARTS} workers, the last of them {name}, ended before they had opened {clean.model.spec} and "
                f"{clean.data.spec} ({how}). Signal 9 is mostly the system's, for want of memory: fewer workers need "
                'less. A script that starts workers does so below if __name__ == "__main__":'
            )

    def _dismiss(self, calm: bool) -> None:
        """End all workers, at their leisure or now."""
        for member in self._members.values():
            if calm:
                member.worker.give(None)
            else:
                member.worker.kill()
        end = time.monotonic() + 5
        waiting = [member.worker for member in self._members.values()]
        while waiting and calm and time.monotonic() < end:
            try:
                worker, event = self._inbox.get(timeout=TICK)
            except queue.Empty:
                continue
            if isinstance(event, Gone):
                waiting = [each for each in waiting if each is not worker]
        for worker in waiting:
            worker.kill()
        self._members.clear()
        self._backlog.clear()


def _progress(piece: Piece, key: str, steps: int, progress: Progress) -> None:
    """Tell of steps of the job with a key."""
    job = next((part.job for part in piece.account.unit.parts if part.job.key == key), None)
    if job is not None and steps:
        progress(job, steps)
