"""The inside of a worker: it opens a model and its data once, works on units as they come, and tells what came of it.

Where it runs is no business of it: `segradius.evaluation.processes` and `segradius.evaluation.on_ray` give it orders.
"""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from segradius.core.allocation import keep_freed_memory
from segradius.core.bands import bands_of
from segradius.core.border import release
from segradius.core.contracts import Seen
from segradius.core.errors import InputError
from segradius.core.escapes import listed
from segradius.data.sample import SegmentationData, is_thread_safe
from segradius.data.usable import usable_samples
from segradius.evaluation.ahead import Samples, one_thread, read_aside
from segradius.evaluation.attempts import Room
from segradius.evaluation.batch import check_model
from segradius.evaluation.job import DataChoice, Job, ModelChoice
from segradius.evaluation.journal import Checkpoints
from segradius.evaluation.messages import Began, Done, Event, Found, Here, Opening, Order, Said, Stepped, as_raised
from segradius.evaluation.quicken import quick
from segradius.evaluation.run import open_choice, open_images, surrogate_marks
from segradius.evaluation.unit import Unit, perform, reader
from segradius.models import fingerprint
from segradius.models.segmenter import Segmenter

#: Seconds between two words on steps, at least.
EVERY = 0.2


@dataclass(frozen=True)
class Setup:
    """What a worker needs beside its orders, in plain data.

    Args:
        device: Where it opens models: ``cpu``, or an accelerator that is its own, whole.
        threads: Of its passes on a CPU.
        allow_download: Whether libraries may fetch what is not there.
        folder: The driver's working folder, which paths are relative to.
        modules: Where the driver finds modules.
        elsewhere: What to say of a file that is not found, where workers are on other machines; empty otherwise.
    """

    device: str = "cpu"
    threads: int = 1
    allow_download: bool = False
    folder: str = ""
    modules: tuple[str, ...] = ()
    elsewhere: str = ""

    @staticmethod
    def of_driver(device: str = "cpu", threads: int = 1, *, allow_download: bool = False, elsewhere: str = "") -> Setup:
        """With the working folder and the modules of this process.

        Example:
            >>> Setup.of_driver(threads=2).folder == os.getcwd()
            True
        """
        return Setup(device, threads, allow_download, str(Path.cwd()), tuple(sys.path), elsewhere)

    def settle(self) -> None:
        """Make this process's surroundings those of the driver; raises `InputError` where its folder is not there."""
        if self.folder and self.folder != str(Path.cwd()):
            try:
                os.chdir(self.folder)
            except OSError as error:
                raise InputError(
                    f"the working folder {self.folder} is not there: {error.strerror}. {self.elsewhere}"
                ) from error
        sys.path += [each for each in self.modules if each not in sys.path]
        torch.set_num_threads(self.threads)


@dataclass
class _Opened:
    """A model and data as units of one measurement name them."""

    model: Seen
    data: SegmentationData
    room: Room
    checkpoints: Checkpoints | None
    looked: bool = False

    def look(self, model: Seen, image: Tensor) -> None:
        """Check the model by the first image."""
        if not self.looked:
            check_model(model, image)
        self.looked = True

    def begin(self, unit: Unit, pool: ThreadPoolExecutor) -> Samples:
        """The samples of a unit, read from now on where that is safe."""
        read = reader(unit, self.model, self.data)
        if not is_thread_safe(self.data):
            return Samples(read)
        return read_aside(pool, unit.places[: self.room.most], read, self.model.device)


@dataclass
class Worker:
    """Works on orders in the thread that calls `work`, until there are no more.

    Args:
        setup: Its surroundings.
        tell: Told of every event, from that thread.
    """

    setup: Setup
    tell: Callable[[Event], None]
    _orders: queue.SimpleQueue[tuple[Order, Samples | None] | None] = field(default_factory=queue.SimpleQueue)
    _model: tuple[object, Seen, Opening] | None = None
    _data: tuple[DataChoice, SegmentationData] | None = None
    _opened: tuple[object, _Opened] | None = None
    _pool: ThreadPoolExecutor = field(init=False)
    _steps: dict[str, int] = field(default_factory=dict)
    _told: float = 0.0

    def take(self, order: Order | None) -> None:
        """Another order, from any thread: its images are read from now on. None: that was the last."""
        if order is None:
            self._orders.put(None)
            return
        self._orders.put((order, self._ahead(order)))

    def _ahead(self, order: Order) -> Samples | None:
        """The samples of another unit of what is open, as they are being read; None where they are not yet."""
        now = self._opened
        if now is None or now[0] != _what(order):
            return None
        try:
            return now[1].begin(order.unit, self._pool)
        except RuntimeError:  # the work has ended, and with it the thread that reads
            return None

    def work(self, at: str = "") -> None:
        """Work until the last order is done; what is raised is told, and ends it.

        Args:
            at: Where that is, if not on the driver's machine.
        """
        try:
            self.setup.settle()
            self.tell(Here(at))
            with one_thread() as self._pool:
                while (found := self._orders.get()) is not None:
                    self._work(*found)
        except Exception as error:
            self.tell(as_raised(error))

    def _work(self, order: Order, samples: Samples | None) -> None:
        unit = order.unit
        here = self._open(order)
        samples = samples or here.begin(unit, self._pool)
        ids = tuple(here.data.ids[place] for place in unit.places)
        self.tell(Began(order.number, ids))
        with here.model.frozen():
            for rows in perform(
                unit, here.model, here.data, here.checkpoints, self._step, here.look, here.room, samples
            ):
                self._flush()
                self.tell(Found(rows))
        self._flush()
        self.tell(Done())

    def _step(self, job: Job, steps: int) -> None:
        self._steps[job.key] = self._steps.get(job.key, 0) + steps
        if time.monotonic() - self._told >= EVERY:
            self._flush()

    def _flush(self) -> None:
        for key, steps in self._steps.items():
            self.tell(Stepped(key, steps))
        self._steps, self._told = {}, time.monotonic()

    def _open(self, order: Order) -> _Opened:
        what = _what(order)
        if self._opened is None or self._opened[0] != what:
            self._opened = None  # what is read ahead is of no use, and the memory is
            try:
                self._opened = what, self._fresh(order)
            except InputError as error:
                if not self.setup.elsewhere:
                    raise
                raise InputError(f"{error}. {self.setup.elsewhere}") from error
        return self._opened[1]

    def _fresh(self, order: Order) -> _Opened:
        clean, opening = order.unit.clean, order.opening
        if self._data is None or self._data[0] != clean.data:
            self._data = None
            self._data = clean.data, open_images(clean.data)
        data = self._data[1]
        _same_images(order.unit, data)
        if self._model is None or (self._model[0], self._model[2]) != ((clean.model, clean.seed), opening):
            self._model = None
            release()
            made = opened(clean.model, clean.seed, self.setup)
            self._model = (clean.model, clean.seed), _quick(made, data, order), opening
        model = self._model[1]
        room = Room(model.device.type, together=order.unit.together, warn=self._warn)
        return _Opened(model, data, room, self._kept(opening))

    def _kept(self, opening: Opening) -> Checkpoints | None:
        """Where unfinished work is kept; nowhere where the driver's folder cannot be seen."""
        if opening.checkpoints is None:
            return None
        folder = Path(opening.checkpoints)
        if not folder.parent.is_dir():
            self._warn(f"{folder.parent} cannot be seen here: what is begun here and killed begins anew")
            return None
        return Checkpoints(folder, opening.seconds, warn=self._warn)

    def _warn(self, words: str) -> None:
        self.tell(Said(words))


def opened(choice: ModelChoice, seed: int, setup: Setup) -> Seen:
    """The network that a description means, which is the one that the driver has.

    Args:
        choice: Of a network; a target is not opened by a worker.
        seed: Of weights that are given by none.
        setup: Of the worker.

    Raises:
        InputError: It is a target, or another network than the driver opened.

    Example:
        >>> opened(ModelChoice("demo"), 0, Setup()).name
        'demo'
        >>> opened(ModelChoice("demo", fingerprint="0"), 0, Setup())
        Traceback (most recent call last):
        segradius.core.errors.InputError: model 'demo' is another network here than where the run was begun: ...
    """
    refuse_target(choice)
    model = open_choice(choice, device=setup.device, seed=seed, allow_download=setup.allow_download)
    found = fingerprint(cast(Segmenter, model))
    if choice.fingerprint and choice.fingerprint != found:
        raise InputError(
            f"model {choice.spec!r} is another network here than where the run was begun: its fingerprint is {found}, "
            f"expected {choice.fingerprint}. Weights that changed meanwhile, other versions of libraries, or weights "
            "that are drawn without a seed make it so"
        )
    marks = surrogate_marks(model)
    if choice.surrogate_fingerprints and choice.surrogate_fingerprints != marks:
        raise InputError(
            f"a surrogate of model {choice.spec!r} is another network here than where the run was begun: the "
            f"fingerprints are {', '.join(marks)}, expected {', '.join(choice.surrogate_fingerprints)}"
        )
    return model


def refuse_target(choice: ModelChoice) -> None:
    """Raise `InputError` for what is asked for scores only: its queries are counted in one place.

    A budget holds for the run, an answer that was paid for is kept before it is used, and a limit on how often a server
    is asked is one: several workers would each have their own.
    """
    if choice.scores_only:
        raise InputError(
            f"target {choice.spec!r} is asked in one process, which counts every query, keeps every answer that was "
            "paid for and holds to the budget: run it without --workers and --executor"
        )


def _what(order: Order) -> object:
    """What has to be open for an order."""
    clean = order.unit.clean
    return order.unit.measurement, clean.model, clean.data, clean.seed, order.unit.together, order.opening


def _same_images(unit: Unit, data: SegmentationData) -> None:
    """Raise `InputError` where the images at a unit's places are not those that it names."""
    ids = {data.ids[place] for place in unit.places if place < len(data)}
    named = [image for part in unit.parts for image in part.images if image not in ids]
    if named or len(ids) < len(unit.places):
        spec, missing = unit.clean.data.spec, listed(list(dict.fromkeys(named))) or "some"
        raise InputError(
            f"data {spec!r} has other images here than where the run was begun: {missing} not at their places"
        )


def _quick(model: Seen, data: SegmentationData, order: Order) -> Seen:
    """The model with the forms that the driver chose."""
    choice = order.opening.choice
    if choice is None:
        return model
    if choice.speed != "plain":
        keep_freed_memory()
    labels = not order.unit.clean.data.predicted
    first = next(usable_samples(data, model.num_classes, labels=labels, bands=bands_of(model)), None)
    if first is None:
        return model
    return quick(model, first.image[None], choice.speed, choice=choice)
