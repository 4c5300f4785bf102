"""What went over the wire: counters, and the pace at which it goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Counters of one target, safe to add to from several threads.

    Attributes:
        answered: Images whose scores arrived, each counted once however often it was sent.
        sent: Infer requests sent, each sending counted.
        retried: Those among them that repeat an earlier one.
        timed_out: Those without a connection or an answer in time.
        rejected: Those answered with an error status.
        dropped: Those whose connection was refused or broke.

    Example:
        >>> traffic = Traffic()
        >>> traffic.add(sent=1, rejected=1)
        >>> traffic.add(sent=1, retried=1)
        >>> traffic.add(answered=8)
        >>> traffic
        Traffic(answered=8, sent=2, retried=1, timed_out=0, rejected=1, dropped=0)
    """

    answered: int = 0
    sent: int = 0
    retried: int = 0
    timed_out: int = 0
    rejected: int = 0
    dropped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **more: int) -> None:
        """Add to the counters named."""
        with self._lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and how to wait; tests give their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Pace:
    """Lets at most ``rate`` images a second pass, evenly spaced over any number of threads.

    Args:
        rate: Images a second; None for no limit.
        clock: The time.

    Example:
        >>> waits = []
        >>> pace = Pace(4.0, Clock(now=lambda: 0.0, sleep=waits.append))
        >>> for _ in range(3):
        ...     pace.wait(2)
        >>> waits
        [0.5, 1.0]
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self.rate, self.clock = rate, clock
        self._free, self._lock = float("-inf"), threading.Lock()

    def wait(self, images: int) -> None:
        """Wait until a request with so many images may go."""
        if self.rate is None:
            return
        with self._lock:
            now = self.clock.now()
            start = max(now, self._free)
            self._free = start + images / self.rate
        if start > now:
            self.clock.sleep(start - now)
