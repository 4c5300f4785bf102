"""Workers that are actors of a Ray cluster, on all of its machines; each with an accelerator, whole, or with cores."""

from __future__ import annotations

import os
import queue
import secrets
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

import segradius
from segradius.core.border import in_a_line
from segradius.core.errors import InputError, at_least, missing_extra, positive
from segradius.evaluation.crew import PATIENCE, Crew, Inbox
from segradius.evaluation.messages import Gone, Here, Order, Raised, Said, packed, unpacked
from segradius.evaluation.processes import cores
from segradius.evaluation.worker import Setup, Worker

#: What a worker says beside a file that it does not find.
ELSEWHERE = (
    "On a cluster, what is named by a path (data, models, modules) must be there under the same path on every node"
)
#: Of a cluster that is started here for one run: it is ours alone (a token that no file has), listens on the loopback
#: device only, reports to nobody, and its workers are no nicer to other programs than those of other executors.
PRIVATE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
#: How much of a node's end is laid to what was worked on there: it may have been too large for the machine.
NODE = 0.5
#: Bytes of the memory through which rows come, in a cluster of our own; rows that wait take little of it.
MEMORY = 256 * 2**20
#: Characters of a folder in which sockets of Ray can still have names.
SHORT = 30
#: Seconds after which it is told that a worker waits for room.
WAIT = 30.0


def in_cluster(
    workers: int,
    device: str = "cpu",
    *,
    address: str | None = None,
    threads: int | None = None,
    allow_download: bool = False,
    patience: float = PATIENCE,
    warn: Callable[[str], None] = print,
) -> Crew:
    """An `segradius.evaluation.run.Executor` of actors of Ray.

    The driver alone holds the store, so that a cluster that is lost loses nothing that has arrived.

    Args:
        workers: How many.
        device: ``cpu``, of which each worker asks for as many as it has threads; or ``cuda``, of which each has one.
        address: Of a cluster, as ``ray start`` tells it, ``HOST:PORT``; ``auto`` for the one of this machine. By
            default one is started here for the run, that nothing else can reach, and removed at the end.
        threads: Of each; by default 1 in a cluster that is there, and in one that is started the cores, divided.
        allow_download: As `segradius.evaluation.open_choice` takes it.
        patience: Seconds without a sign of life after which a worker is killed; what it did is done by another one.
        warn: Told of what is told of a worker.

    Raises:
        InputError: A number is out of range, or the device is none that Ray hands out.
        MissingExtraError: Ray is not installed.

    Example:
        >>> in_cluster(2, threads=1).size  # doctest: +SKIP
        2
    """
    positive(patience=patience)
    at_least(1, workers=workers, threads=1 if threads is None else threads)
    if device not in ("cpu", "cuda"):
        raise InputError(
            f"device {device!r}: Ray hands out accelerators itself, a whole one each; expected cpu or cuda"
        )
    if address is not None and address.startswith("ray://"):
        raise InputError(
            f"address {address}: Ray's client does not pass on what workers tell; run this on a machine of the "
            "cluster, with address auto or HOST:PORT"
        )
    _ray()
    threads = threads or (1 if address else max(1, cores() // workers))
    elsewhere = "" if address is None else ELSEWHERE
    common = Setup.of_driver(threads=threads, allow_download=allow_download, elsewhere=elsewhere)
    setup = replace(common, device="cuda:0" if device == "cuda" else "cpu")  # of those that Ray shows it

    def hire(place: int, inbox: Inbox) -> _Actor:
        return _Actor(f"worker {place + 1}", setup, inbox, has_room=address is None)

    def where() -> AbstractContextManager[None]:
        return _connected(address) if address else _alone(workers * threads, workers if device == "cuda" else 0)

    return Crew(workers, hire, patience, warn, where)


def _ray() -> Any:
    """Ray, imported where it is used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise missing_extra("ray", "ray") from error
    return ray


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """The context of a cluster that is there; one that the caller is connected to is used as it is."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    try:
        _silence()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(f"no Ray cluster at address {address}: {in_a_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _alone(cpus: int, gpus: int) -> Iterator[None]:
    """The context of a cluster of this machine alone, in a folder that is removed; see `PRIVATE`."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    from ray._private import ray_constants

    before, loopback = dict(os.environ), ray_constants.ENABLE_RAY_CLUSTER
    folder = tempfile.mkdtemp(prefix="sr-", dir=_short_folder())
    try:
        os.environ.update(PRIVATE | {"RAY_AUTH_TOKEN": _token()})
        os.environ.pop("RAY_AUTH_MODE", None)  # by which Ray asks for tokens in a cluster that it starts
        ray_constants.ENABLE_RAY_CLUSTER = False  # the same as PRIVATE has it, if Ray was imported before
        _silence()
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
        ray.init("local", num_cpus=cpus, num_gpus=gpus, object_store_memory=MEMORY, _temp_dir=folder, **quiet)
        yield
    finally:
        ray.shutdown()
        ray_constants.ENABLE_RAY_CLUSTER = loopback
        for name in [name for name in os.environ if name.startswith("RAY_") or name == "PYTHONBREAKPOINT"]:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if name not in os.environ})
        shutil.rmtree(folder, ignore_errors=True)


def _silence() -> None:
    """Keep Ray from printing on stdout, where results go, that a worker ended: the crew warns of that in a line."""
    from ray._private import worker

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _nothing


def _nothing(*_given: Any, **_named: Any) -> None:
    """In place of what Ray prints."""


@cache
def _token() -> str:
    """Of the clusters that this process starts: Ray reads it once."""
    return secrets.token_hex(32)


def _short_folder() -> str:
    """The folder for temporary files, or /tmp where names of sockets in it would be longer than the system takes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= SHORT else "/tmp"


class _Actor:
    """A worker in an actor, and a thread that carries its events.

    Where there is room for it in any case, its silence counts at once; otherwise from its first word, as Ray does not
    tell a worker that hangs while it is made from one that waits for a node.
    """

    def __init__(self, name: str, setup: Setup, inbox: Inbox, *, has_room: bool) -> None:
        ray, self.name, self._inbox = _ray(), name, inbox
        gpus = int(setup.device != "cpu")
        whole: dict[str, Any] = {"num_gpus": gpus, "num_cpus": 1 if gpus else setup.threads}
        try:
            actor = ray.remote(_Inside).options(max_concurrency=2, scheduling_strategy="SPREAD", **whole)
            self._actor = actor.remote(packed(setup), _versions())
            self._events = self._actor.work.options(num_returns="streaming").remote()
        except ray.exceptions.RayError as error:
            self._actor = None
            inbox.put((self, Gone(f"the cluster does not answer: {in_a_line(error)}")))
            return
        if has_room:
            inbox.put((self, Here()))
        threading.Thread(target=self._receive, daemon=True, name=f"segradius {name}").start()

    def give(self, order: Order | None) -> None:
        """Without waiting for anything; what becomes of it is told by the events."""
        if self._actor is not None:
            self._actor.take.remote(packed(order))

    def kill(self) -> None:
        """At once."""
        if self._actor is not None:
            _ray().kill(self._actor)

    def _receive(self) -> None:
        ray = _ray()
        try:
            while not ray.wait([self._events], timeout=WAIT)[0]:
                self._inbox.put((self, Said("waits for a node of the cluster that has room for it")))
                ray.wait([self._events], timeout=None)
            for reference in self._events:
                self._inbox.put((self, unpacked(ray.get(reference))))
            gone = Gone("it was told to")
        except ray.exceptions.RayTaskError as error:
            self._inbox.put((self, Raised(InputError(in_a_line(error.cause or error)))))
            gone = Gone("its work could not be begun")
        except Exception as error:
            gone = self._ended(error)
        self._inbox.put((self, gone))

    def _ended(self, error: Exception) -> Gone:
        """How an actor ended, as Ray tells it."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if getattr(error, "_actor_init_failed", False) or getattr(error, "actor_init_failed", False):
            self._inbox.put((self, Raised(InputError(f"a worker cannot be made on a node: {lines[-1]}. {ELSEWHERE}"))))
        told = next(
            (line for line in lines if line.startswith("The actor") and ("dead" in line or "because" in line)), ""
        )
        return Gone(told or lines[0], NODE if "node" in told and "died" in told else 1.0)


class _Inside:
    """What an actor is: one of its threads takes orders, another one gives events, a third works."""

    def __init__(self, setup: bytes, versions: dict[str, str]) -> None:
        if (here := _versions()) != versions:
            told = ", ".join(
                f"{name} {here[name]}, and {versions[name]} where the run was begun"
                for name in versions
                if here[name] != versions[name]
            )
            raise InputError(f"a node has {told}; expected the same on all, as others may give other numbers")
        self._told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._worker = Worker(unpacked(setup), lambda event: self._told.put(packed(event)))

    def take(self, order: bytes) -> None:
        """An order, not always in the order in which they were given: an actor with threads has none."""
        self._worker.take(unpacked(order))

    def work(self) -> Iterator[bytes]:
        """Events, until there are no more orders."""
        threading.Thread(target=self._work, daemon=True).start()
        while (event := self._told.get()) is not None:
            yield event

    def _work(self) -> None:
        fine = False
        try:
            self._worker.work(_ray().util.get_node_ip_address())
            fine = True
        finally:
            if not fine:
                os._exit(1)  # what a network raises to end its process ends it, as it does elsewhere
            self._told.put(None)


def _versions() -> dict[str, str]:
    """Of what decides numbers."""
    return {"segradius": segradius.__version__, "torch": torch.__version__, "numpy": np.__version__}
