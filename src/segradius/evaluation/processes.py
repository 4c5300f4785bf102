"""Workers that are processes of this machine, each with a group of threads or an accelerator of its own."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

from segradius.core.errors import InputError, at_least, positive
from segradius.evaluation.crew import PATIENCE, Crew, Inbox
from segradius.evaluation.messages import Event, Gone, Here, Order, packed, unpacked
from segradius.evaluation.worker import Setup, Worker

#: How processes are started: fresh, so that nothing of the driver's threads or accelerators is taken along.
METHOD: Literal["spawn", "forkserver"] = "spawn"
#: Of Linux's sys/prctl.h: the signal that a process gets when the one that started it ends.
_PR_SET_PDEATHSIG = 1


def cores() -> int:
    """Cores that this process may use.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices(device: str, workers: int) -> list[str]:
    """One device for each worker: a CPU is shared, an accelerator is one worker's alone.

    Args:
        device: As ``--device`` takes it.
        workers: How many.

    Raises:
        InputError: There are fewer accelerators.

    Example:
        >>> devices("cpu", 2)
        ['cpu', 'cpu']
    """
    at_least(1, workers=workers)
    kind, _, number = device.partition(":")
    if kind == "cpu" or (number and workers == 1):
        return [device] * workers
    there = torch.accelerator.device_count() if hasattr(torch, "accelerator") else torch.cuda.device_count()
    there = 1 if number or kind == "mps" else there
    if workers > there:
        raise InputError(
            f"{workers} workers on {device}: each has an accelerator of its own, whole, and there are {there}; "
            f"expected at most {there} workers, or device cpu"
        )
    return [device] if workers == 1 else [f"{kind}:{k}" for k in range(workers)]


def in_processes(
    workers: int,
    device: str = "cpu",
    *,
    threads: int | None = None,
    allow_download: bool = False,
    patience: float = PATIENCE,
    warn: Callable[[str], None] = print,
) -> Crew:
    """An `segradius.evaluation.run.Executor` of processes that are started fresh (spawn).

    Args:
        workers: How many.
        device: ``cpu``, or ``cuda`` of which worker k has number k.
        threads: Of each; by default the cores, divided among them.
        allow_download: As `segradius.evaluation.open_choice` takes it.
        patience: Seconds without a sign of life after which a worker is killed; what it did is done by another one.
        warn: Told of what is told of a worker.

    Raises:
        InputError: A number is out of range, or there are fewer accelerators.

    Example:
        >>> in_processes(2, threads=1).size
        2
    """
    positive(patience=patience)
    at_least(1, workers=workers, threads=1 if threads is None else threads)
    each = devices(device, workers)
    common = Setup.of_driver(threads=threads or max(1, cores() // workers), allow_download=allow_download)

    def hire(place: int, inbox: Inbox) -> _Process:
        return _Process(f"worker {place + 1}", replace(common, device=each[place]), inbox)

    return Crew(workers, hire, patience, warn)


class _Process:
    """A worker in a process, and two threads that carry its orders and events, so that no pipe keeps the driver."""

    def __init__(self, name: str, setup: Setup, inbox: Inbox) -> None:
        context: Any = multiprocessing.get_context(METHOD)
        self.name = name
        self._inbox, self._orders = inbox, queue.SimpleQueue[Order | None]()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_main,
            args=(theirs, setup, os.getpid() if METHOD == "spawn" else 0),
            name=f"segradius {name}",
            daemon=True,
        )
        try:
            self._process.start()
        except OSError as error:
            self._pipe.close()
            inbox.put((self, Gone(f"it could not be started: {error.strerror}")))
            return
        finally:
            theirs.close()
        inbox.put((self, Here()))  # its silence counts from now on
        for carry in (self._send, self._receive):
            threading.Thread(target=carry, daemon=True, name=f"segradius {name}").start()

    def give(self, order: Order | None) -> None:
        """Without waiting for anything."""
        self._orders.put(order)

    def kill(self) -> None:
        """By SIGKILL, which nothing holds up."""
        if self._process.pid is not None:
            self._process.kill()

    def _send(self) -> None:
        try:
            while True:
                order = self._orders.get()
                self._pipe.send_bytes(packed(order))
                if order is None:
                    return
        except (OSError, ValueError):
            return  # it is no more, as the other thread says

    def _receive(self) -> None:
        try:
            while True:
                self._inbox.put((self, unpacked(self._pipe.recv_bytes())))
        except (OSError, EOFError):
            pass
        self._process.join()
        self._orders.put(None)
        self._inbox.put((self, Gone(_ending(self._process.exitcode))))


def _ending(code: int | None) -> str:
    """How a process ended, in words.

    Example:
        >>> _ending(-9), _ending(3)
        ('signal 9, SIGKILL', 'exit status 3')
    """
    if code is None or code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _main(pipe: Connection, setup: Setup, driver: int) -> None:
    """What the process does: orders are read in a thread, which ends it when the driver is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver, which got it too, says what becomes of the workers
    _die_with(driver)

    def tell(event: Event) -> None:
        pipe.send_bytes(packed(event))

    worker = Worker(setup, tell)

    def read() -> None:
        order: Order | None = None
        while True:
            try:
                order = unpacked(pipe.recv_bytes())
            except (OSError, EOFError):
                os._exit(1)
            worker.take(order)
            if order is None:
                return

    threading.Thread(target=read, daemon=True).start()
    try:
        worker.work()
    except BrokenPipeError:
        os._exit(1)


def _die_with(driver: int) -> None:
    """Have the system kill this process when the one that started it ends, however busy it is; under Linux."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):
        return
    if driver and os.getppid() != driver:  # it ended before that
        os._exit(1)
