"""The one driver: usable → clean → task → row, unit by unit, whatever the tasks and wherever units are worked on.

That is in this process so far; another `Executor` needs no more than `perform` and what a unit says of itself.
"""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from segradius.core.contracts import Seen
from segradius.data.opening import open_data
from segradius.data.sample import Sample, SegmentationData, collate
from segradius.evaluation.batch import Batch, Bench, answer, check_classes, check_model, class_names, is_priced, usable
from segradius.evaluation.job import DataChoice, Job, ModelChoice, Study
from segradius.evaluation.journal import Checkpoints, digest
from segradius.evaluation.preflight import Facts, Finding, findings, look_at
from segradius.evaluation.sources import Watch
from segradius.evaluation.store import CLEAN, Rows, Store
from segradius.models.loading import load_model

S = TypeVar("S", bound=Study)

#: Told of the work just done for a job, in steps times images.
Progress = Callable[[Job, int], None]


@dataclass(frozen=True)
class Part:
    """A job, and the images that lack its result."""

    job: Job
    images: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """Images of one batch and what is to be done with them, in plain data that can be sent anywhere.

    Model and data are named by their description in ``clean``, which is judged first and once for all parts.

    Attributes:
        clean: The job `Clean`.
        parts: What follows, in order.
        places: Of the images in the data set. Batches are cut by place, so that a stopped run forms them again.
        known: Clean predictions that were kept, by id: those are not asked for again.
        certificates: Packed, of images that were certified before.
        shown: Ids of images whose adversarial images are kept whole.
        region: (h, w) bool, where noise falls; None for the whole image.
        together: Noisy copies in a pass.
    """

    clean: Job
    parts: tuple[Part, ...]
    places: tuple[int, ...]
    known: dict[str, Tensor]
    certificates: dict[str, bytes]
    shown: tuple[str, ...] = ()
    region: Tensor | None = None
    together: int | None = None


class Executor(Protocol):
    """Where units are worked on. It takes the next when it has room, and gives rows as they come, in any order."""

    def run(self, units: Iterable[Unit], progress: Progress) -> Iterator[Rows]:
        """The rows of all units; they were stored when the next are asked for."""


@dataclass(frozen=True)
class Run(Generic[S]):
    """All that a run needs beside its store and its executor.

    Args:
        experiment: What to run.
        model: The network, or a target. Of a target, which counts every query, all that was paid for is kept: every
            adversarial image, and what was seen in it; nothing is judged a second time.
        data: The images.
        batch_size: Images at a time, ≥ 1; changes no result.
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
    def names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return class_names(self.data.classes, self.model.num_classes)

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
    """
    check_classes(run.model.num_classes, len(run.data.classes))
    for job in run.experiment.jobs:
        job.task.check(run.model)
    store.retry_set_aside()
    told = _warn(run, store, frozenset())
    judged = False
    watch = Watch(run.data, store, looked)
    for rows in executor.run(watch.over(units(run, store)), run.progress):
        watch.check(result.image for result in rows.results)
        store.add(rows.key, rows.results, rows.kept)
        if not run.experiment.jobs:
            run.progress(_clean_job(run), len(rows.results) + len(rows.set_aside))
        for image, reason in rows.set_aside.items():
            store.set_aside(image, reason)
        if rows.journal is not None and run.checkpoints is not None:
            run.checkpoints.remove(rows.journal)
        if rows.key == CLEAN and rows.results and not judged:
            told, judged = _warn(run, store, told), True


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


def perform(
    unit: Unit,
    model: Seen,
    data: SegmentationData,
    checkpoints: Checkpoints | None = None,
    progress: Progress = lambda job, steps: None,
    look: Callable[[Seen, Tensor], None] = check_model,
) -> Iterator[Rows]:
    """Work on a unit.

    Args:
        unit: What is to be done.
        model: That it names, frozen.
        data: The same.
        checkpoints: Where unfinished work is kept; None for nowhere.
        progress: Told of the work done.
        look: Given the model and an image before anything is asked.

    Yields:
        Rows of what is clean, of those that had to be set aside, and of every part.
    """
    found = [usable(data, place, model.num_classes) for place in unit.places]
    pairs = list(zip(unit.places, found, strict=True))
    if bad := {data.ids[place]: reason for place, reason in pairs if isinstance(reason, str)}:
        yield Rows(CLEAN, set_aside=bad)
    good = sorted((sample for sample in found if isinstance(sample, Sample)), key=_shape)
    for _, group in groupby(good, key=_shape):
        samples = list(group)
        look(model, samples[0].image)
        bench = Bench(model, data.classes, CLEAN, unit.clean.seed, checkpoints, shown=unit.shown, region=unit.region,
                      together=unit.together, certificates=dict(unit.certificates))  # fmt: skip
        batch, bad, notes = _judged(unit, samples, bench)
        rows = unit.clean.task.run(batch, bench)
        yield replace(rows, set_aside=bad, kept=replace(rows.kept, records=notes))
        for part in unit.parts:
            mine = batch.only(part.images)
            for some in mine.one_by_one() if part.job.task.one_by_one else [mine] if mine.ids else []:
                rows = yield from _worked(part.job, some, bench, progress)
                bench = replace(bench, certificates={**rows.kept.records, **bench.certificates})


def _worked(job: Job, batch: Batch, bench: Bench, progress: Progress) -> Generator[Rows, None, Rows]:
    """The rows of a job, once yielded and once returned."""
    told = 0

    def tell(steps: int) -> None:
        nonlocal told
        told += steps
        progress(job, steps * len(batch.ids))

    rows = job.task.run(batch, replace(bench, key=job.key, seed=job.seed, progress=tell))
    yield rows
    progress(job, (job.task.total_steps - told) * len(batch.ids))  # it may finish early
    return rows


def _shape(sample: Sample) -> tuple[int, ...]:
    return tuple(sample.image.shape)


def _judged(unit: Unit, samples: Sequence[Sample], bench: Bench) -> tuple[Batch, dict[str, str], dict[str, bytes]]:
    """A batch with its clean prediction; why images are not in it, not being finite; how sure a target is."""
    images, labels, ids = collate(samples)
    images, labels = images.to(bench.model.device), labels.to(bench.model.device)
    started = time.perf_counter()
    prediction, fine, sure = _clean(unit, ids, images, bench)
    seconds = (time.perf_counter() - started) / len(ids)
    batch = Batch(ids, images, labels, prediction, bench.classes.ignore_index, seconds)
    values = "scores" if is_priced(bench.model) else "logits"
    told = f"the model's {values} are NaN or infinite on the clean image"
    bad = {image: told for image, good in zip(ids, fine, strict=True) if not good}
    notes = {image: share for image, share in sure.items() if image not in bad}
    return batch.select([row for row in range(len(ids)) if fine[row]]), bad, notes


def _clean(
    unit: Unit, ids: tuple[str, ...], images: Tensor, bench: Bench
) -> tuple[Tensor, list[bool], dict[str, bytes]]:
    """Prediction (N, H, W) for unattacked images, and whether it is finite; what was kept is not asked again.

    And for each image that was asked of a target, the share of its pixels whose score is exactly 1, as a text: what the
    preflight learns of a target, of which every question has its price.
    """
    rows = {row: unit.known[image] for row, image in enumerate(ids) if image in unit.known}
    asked = [row for row in range(len(ids)) if row not in rows]
    fine, sure = [True] * len(ids), dict[str, bytes]()
    if asked:
        if bench.checkpoints is not None:
            bench.checkpoints.begin(f"clean {digest(ids, images)}")
        top, prediction = answer(bench.model, images[asked])
        for row, seen, best in zip(asked, prediction, top, strict=True):
            rows[row], fine[row] = seen, bool(best.isfinite().all())
            if is_priced(bench.model):
                sure[ids[row]] = f"{(best >= 1).double().mean().item():.9g}".encode()
    return torch.stack([rows[row].to(images.device) for row in range(len(ids))]), fine, sure


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
    options: dict[str, Any] = {name: getattr(choice, name) for name in ("weights", "num_classes", "outputs")}
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
    options = {name: value for name, value in vars(choice).items() if name != "spec"}
    return open_data(choice.spec, **options)


@dataclass
class InProcess:
    """Works on one unit after the other, here.

    Args:
        model: What the units name, if it is open already; opened otherwise, once.
        data: The same.
        checkpoints: Where unfinished work is kept; None for nowhere.
        device: Where a model is opened.
    """

    model: Seen | None = None
    data: SegmentationData | None = None
    checkpoints: Checkpoints | None = None
    device: str = "cpu"

    def run(self, units: Iterable[Unit], progress: Progress = lambda job, steps: None) -> Iterator[Rows]:
        """The rows of all units, in order."""
        checked = False

        def look(model: Seen, image: Tensor) -> None:
            nonlocal checked
            if not checked:
                check_model(model, image)
            checked = True

        for unit in units:
            model, data = self._opened(unit)
            with model.frozen():
                yield from perform(unit, model, data, self.checkpoints, progress, look)

    def _opened(self, unit: Unit) -> tuple[Seen, SegmentationData]:
        clean = unit.clean
        if self.model is None:
            self.model = open_choice(clean.model, device=self.device, seed=clean.seed)
        if self.data is None:
            self.data = open_images(clean.data)
        return self.model, self.data
