"""The one driver: usable → clean → task → row, unit by unit, whatever the tasks and wherever units are worked on.

That is in this process so far; another `Executor` needs no more than `perform` and what a unit says of itself.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from segradius.core.bands import bands_of
from segradius.core.contracts import Seen
from segradius.core.errors import InputError, ModelError
from segradius.core.escapes import listed
from segradius.data.opening import open_data
from segradius.data.sample import Classes, Sample, SegmentationData, is_thread_safe
from segradius.data.usable import refuse_other_bands, usable
from segradius.evaluation.ahead import Samples, closing, in_turn, one_thread, read_aside
from segradius.evaluation.attempts import Room
from segradius.evaluation.batch import (
    check_classes,
    check_model,
    class_names,
    is_priced,
    judged_classes,
    structure_names,
)
from segradius.evaluation.facts import Facts, Finding
from segradius.evaluation.foreground import Named
from segradius.evaluation.job import DataChoice, Job, Measurement, ModelChoice
from segradius.evaluation.journal import LOST, Checkpoints
from segradius.evaluation.preflight import findings, look_at
from segradius.evaluation.sources import Watch
from segradius.evaluation.store import CLEAN, Rows, Store
from segradius.evaluation.unit import Part, Progress, Unit, perform, reader
from segradius.models.loading import load_model

S = TypeVar("S", bound=Measurement)

#: With so many images the model may fail before any result; then it is the model, and no image is set aside for it.
FEW = 8
#: Of a choice of a model, what opens it as it is.
OPENED = ("weights", "num_classes", "outputs", "threshold", "channels", "output")


class Executor(Protocol):
    """Where units are worked on. It takes the next when it has room, and gives rows as they come, in any order."""

    def run(self, units: Iterable[Unit], progress: Progress) -> Iterator[tuple[Unit, Rows]]:
        """The rows of all units, each with the unit they are of; they were stored when the next are asked for."""


@dataclass(frozen=True)
class Run(Generic[S]):
    """All that a run needs beside its store and its executor.

    Args:
        experiment: What to run.
        model: The network, or a target. Of a target, which counts every query, all that was paid for is kept: every
            adversarial image, and what was seen in it; nothing is judged a second time.
        data: The images.
        batch_size: Images at a time, ≥ 1; changes no result but by rounding.
        shown: Ids of images that pictures are made of, whose adversarial images are kept whole.
        save: Whether those of all others are kept too.
        progress: Called as steps are done.
        checkpoints: Where unfinished work is kept; None for nowhere.
        region: (h, w) bool mask that noise is confined to, resized to each image; None for the whole image.
        together: Noisy copies in a pass; changes no result but by rounding. None for a number that suits the device.
        warn: Told of what is probably a mistake, once each, as soon as it is known.
    """

    experiment: S
    model: Seen
    data: SegmentationData
    batch_size: int = 8
    shown: Sequence[str] = ()
    save: bool = False
    progress: Progress = lambda job, steps: None
    checkpoints: Checkpoints | None = None
    region: Tensor | None = None
    together: int | None = None
    warn: Callable[[Finding], None] = lambda found: None

    @property
    def classes(self) -> Classes:
        """Those that labels are of."""
        return judged_classes(self.data.classes, self.model.num_classes, predicted=self.experiment.data.predicted)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return class_names(self.data.classes, self.model.num_classes)

    @property
    def named(self) -> Named:
        """Names of those and of the structures whose sets they are."""
        return Named(self.names, structure_names(self.data.classes, self.model))

    def facts(self, store: Store) -> Facts:
        """What the checks of `segradius.evaluation.preflight` look at, by the results so far."""
        return look_at(self.experiment, self.model, self.data, store)

    @property
    def whole(self) -> Sequence[str]:
        """Ids of the images whose adversarial images are kept."""
        return self.data.ids if self.save else self.shown

    def missing(self, job: Job, store: Store) -> list[str]:
        """Ids of the images that lack a result of a job, or are to be kept whole and were not.

        An image whose attack was paid for is not attacked again for a picture.
        """
        done, kept = store.done(job.key), store.kept(job.key)
        whole = set() if is_priced(self.model) else set(self.whole)
        return [image for image in self.data.ids if image not in done or (image in whole and image not in kept)]


def work(run: Run[S], store: Store) -> int:
    """Steps times images that are still to be done; where images are only judged, those that are not yet."""
    if not run.experiment.jobs:
        return len(set(run.data.ids) - store.done(CLEAN))
    return sum(job.task.total_steps * len(run.missing(job, store)) for job in run.experiment.jobs)


def execute(run: Run[S], store: Store, executor: Executor, *, looked: bool = False) -> None:
    """Do what is missing in ``store``. Images that cannot be used are set aside there with the reason.

    What is probably a mistake is told before any attack: by a few images first, and by the first that were judged.

    Args:
        run: What is to be done.
        store: Of the results.
        executor: Where it is done.
        looked: As `segradius.evaluation.sources.Watch` takes it.

    Raises:
        InputError: The model has too few classes for the data, does not give logits, or does not give what a task
            needs; or an image changed since other results of it were stored, or while it was worked on.
        ModelError: It fails on each of the first images.
    """
    _check(run)
    store.retry_set_aside()
    told = _warn(run, store, frozenset())
    judged, failing = False, dict[str, list[str]]()
    watch = Watch(run.data, store, looked)
    with closing(executor.run(watch.over(units(run, store)), run.progress)) as found:
        for _, rows in found:
            watch.check(result.image for result in rows.results)
            store.add(rows.key, rows.results, rows.kept)
            if rows.lost:
                store.note(LOST, (store.noted(LOST) or 0) + rows.lost)
            if not run.experiment.jobs:
                run.progress(_clean_job(run), len(rows.results) + len(rows.set_aside) + len(rows.failed))
            for image, reason in {**rows.set_aside, **rows.failed}.items():
                store.set_aside(image, reason)
            if run.checkpoints is not None:
                for journal in (*rows.abandoned, *([rows.journal] if rows.journal is not None else [])):
                    run.checkpoints.remove(journal)
            failing[rows.key] = [*failing.get(rows.key, []), *rows.failed]
            if len(failing[rows.key]) >= FEW and not store.done(rows.key):
                named, why = listed(failing[rows.key]), next(iter(rows.failed.values()))
                raise ModelError(f"the model fails on every image so far ({named}): {why}", by_image=False)
            if rows.key == CLEAN and rows.results and not judged:
                told, judged = _warn(run, store, told), True


def first_usable(run: Run[S]) -> Sample | None:
    """The first image that can be used, of which trials are made."""
    labels, bands = not run.experiment.data.predicted, bands_of(run.model)
    found = (usable(run.data, at, run.model.num_classes, labels=labels, bands=bands) for at in range(len(run.data)))
    return next((each for each in found if isinstance(each, Sample)), None)


def _check(run: Run[S]) -> None:
    """Raise `InputError` where the model does not suit the data or a task."""
    check_classes(run.model, run.data.classes)
    refuse_other_bands(run.data, bands_of(run.model), run.model.name)
    if not len(run.data.classes) and not run.experiment.data.predicted:
        raise InputError(
            f"{run.data.name} has no masks: with --labels predicted (labels='predicted') the model's own predictions "
            "stand for them, and every accuracy is a stability"
        )
    for job in run.experiment.jobs:
        job.task.check(run.model)


def _warn(run: Run[S], store: Store, told: frozenset[str]) -> frozenset[str]:
    """Tell what was found and not told yet; the names of all that was told."""
    found = [each for each in findings(run.facts(store)) if each.name not in told]
    for each in found:
        run.warn(each)
    return told | {each.name for each in found}


def _clean_job(run: Run[S]) -> Job:
    it = run.experiment
    return Job(it.model, it.data, it.clean, it.seed)


def units(run: Run[S], store: Store) -> Iterator[Unit]:
    """What is missing, batch by batch of the data set."""
    clean = _clean_job(run)
    lacking = [(job, set(run.missing(job, store))) for job in run.experiment.jobs]
    judged = store.done(CLEAN)
    for first in range(0, len(run.data), run.batch_size):
        places = range(first, min(first + run.batch_size, len(run.data)))
        ids = [run.data.ids[place] for place in places]
        parts = [Part(job, tuple(image for image in ids if image in missing)) for job, missing in lacking]
        if not judged.issuperset(ids) or any(part.images for part in parts):
            known = {image: seen for image in ids if (seen := store.prediction(CLEAN, image)) is not None}
            # Of the first job that has a record of it: what is found of certificates comes after them.
            before = [(job.key, image) for job, _ in reversed(lacking) for image in ids]
            made = {image: kept for key, image in before if (kept := store.record(key, image))}
            todo = tuple(part for part in parts if part.images)
            yield Unit(clean, todo, tuple(places), known, made, tuple(run.whole), run.region, run.together)


def open_choice(
    choice: ModelChoice,
    *,
    device: str | torch.device = "cpu",
    seed: int = 0,
    budget: int | None = None,
    allow_download: bool = False,
) -> Seen:
    """The model that a choice describes.

    Args:
        choice: Its description.
        device: Where it runs.
        seed: Of the weights of a network that is given none.
        budget: Images that a target may answer.
        allow_download: Whether libraries may download what is not here.

    Raises:
        InputError: See `segradius.models.load_model` and `segradius.targets.open_target`.

    Example:
        >>> open_choice(ModelChoice("demo")).name
        'demo'
    """
    torch.manual_seed(seed)  # a network without weights is at least the same one each time
    named = choice.normalisation
    colours = ast.literal_eval(named) if named is not None and named.startswith("{") else named
    options: dict[str, Any] = {name: getattr(choice, name) for name in OPENED}
    options |= {"normalisation": colours, "device": device, "allow_download": allow_download}
    if not choice.scores_only:
        return load_model(choice.spec, **options, dtype=choice.dtype)
    from segradius.targets.opening import open_target  # brings every protocol, which a network can do without

    return open_target(choice.spec, **options, answers=choice.answers, input=choice.input, budget=budget)


def open_images(choice: DataChoice) -> SegmentationData:
    """The images that a choice describes.

    Example:
        >>> len(open_images(DataChoice("scenes:24x32", limit=3)))
        3
    """
    options = {name: value for name, value in vars(choice).items() if name not in ("spec", "labels")}
    return open_data(choice.spec, **options)


@dataclass
class InProcess:
    """Works on one unit after the other, here; a thread reads the images of the next where that is safe.

    Args:
        model: What the units name, if it is open already; opened otherwise, once.
        data: The same.
        checkpoints: Where unfinished work is kept; None for nowhere.
        device: Where a model is opened.
        warn: Told when something does not fit into memory.
    """

    model: Seen | None = None
    data: SegmentationData | None = None
    checkpoints: Checkpoints | None = None
    device: str = "cpu"
    warn: Callable[[str], None] = print

    def run(self, units: Iterable[Unit], progress: Progress = lambda job, steps: None) -> Iterator[tuple[Unit, Rows]]:
        """The rows of all units, in order, each with its unit."""
        checked, room = False, cast(Room | None, None)

        def look(model: Seen, image: Tensor) -> None:
            nonlocal checked
            if not checked:
                check_model(model, image)
            checked = True

        def begin(unit: Unit) -> Samples:
            nonlocal room
            model, data = self._opened(unit)
            room = room or Room(model.device.type, together=unit.together, warn=self.warn)
            read = reader(unit, model, data)
            return (
                read_aside(pool, unit.places[: room.most], read, model.device)
                if is_thread_safe(data)
                else Samples(read)
            )

        with one_thread() as pool:
            for unit, samples in in_turn(units, begin):
                model, data = self._opened(unit)
                with model.frozen():
                    for rows in perform(unit, model, data, self.checkpoints, progress, look, room, samples):
                        yield unit, rows

    def _opened(self, unit: Unit) -> tuple[Seen, SegmentationData]:
        clean = unit.clean
        if self.model is None:
            self.model = open_choice(clean.model, device=self.device, seed=clean.seed)
        if self.data is None:
            self.data = open_images(clean.data)
        return self.model, self.data
