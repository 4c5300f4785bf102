"""What a run is, the units that it is cut into, and where these are worked on: in this process, here.

Another `Executor` needs no more than `perform`, what a unit says of itself, and what a run says of its measurement.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from segradius.core.bands import bands_of
from segradius.core.contracts import Seen, surrogate_of
from segradius.data.opening import open_data
from segradius.data.sample import Classes, Sample, SegmentationData, is_thread_safe
from segradius.data.usable import usable_samples
from segradius.evaluation.ahead import Samples, in_turn, one_thread, read_aside
from segradius.evaluation.attempts import Room
from segradius.evaluation.batch import (
    check_model,
    class_names,
    is_priced,
    judged_classes,
    structure_names,
)
from segradius.evaluation.facts import Facts, Finding
from segradius.evaluation.foreground import Named
from segradius.evaluation.job import DataChoice, Job, Measurement, ModelChoice
from segradius.evaluation.journal import Checkpoints
from segradius.evaluation.preflight import look_at
from segradius.evaluation.rows import CLEAN, Rows
from segradius.evaluation.store import Store
from segradius.evaluation.unit import Part, Progress, Unit, perform, reader
from segradius.models.loading import load_model
from segradius.models.tiling import fingerprint
from segradius.speed.forms import Choice
from segradius.targets.transfer import transferred

S = TypeVar("S", bound=Measurement)

#: Of a choice of a model, what opens it as it is.
OPENED = ("weights", "num_classes", "outputs", "threshold", "channels", "output")


class Executor(Protocol):
    """Where units are worked on. It takes the next when it has room, and gives rows as they come, in any order."""

    def begin(self, name: str, run: Run[Any]) -> None:
        """Units of a measurement of this name may come from now on; what they are worked on with is in ``run``."""

    def end(self, name: str) -> None:
        """All rows of a measurement are stored: nothing of it is needed any more."""

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
        gallery: Of how many images of each job, of those hurt most and of those hurt least, they are kept too.
        progress: Called as steps are done.
        checkpoints: Where unfinished work is kept; None for nowhere.
        region: (h, w) bool mask that noise is confined to, resized to each image; None for the whole image.
        together: Noisy copies in a pass; changes no result but by rounding. None for a number that suits the device.
        warn: Told of what is probably a mistake, once each, as soon as it is known.
        choice: Of the cheaper forms that the model carries, so that others can open it with the same; None for none.
        hands: Units worked on at once, among whom a budget of minutes is shared out; changes nothing else.
        shard: (i, n) for the i-th of n parts of the images, 1 ≤ i ≤ n, which are cut by batches: batch k, by its place
            in the data set, is in part k mod n + 1, whatever was done before.
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
    gallery: int = 3
    choice: Choice | None = None
    shard: tuple[int, int] = (1, 1)
    hands: int = 1

    @property
    def seconds(self) -> float | None:
        """That each image may take: its share of the minutes asked for; None where none are.

        All images have the same share, whatever was done before, so that a run that goes on ends when it is over.
        """
        minutes = getattr(getattr(self.experiment, "way", None), "minutes", None)
        return None if minutes is None else 60 * minutes * self.hands / max(1, len(self.ids))

    @property
    def batches(self) -> Iterator[range]:
        """Places of the images of each batch that is this part's."""
        mine, of = self.shard
        for first in range((mine - 1) * self.batch_size, len(self.data), of * self.batch_size):
            yield range(first, min(first + self.batch_size, len(self.data)))

    @property
    def ids(self) -> Sequence[str]:
        """Of the images of this part."""
        whole = self.shard == (1, 1)
        return self.data.ids if whole else [self.data.ids[place] for batch in self.batches for place in batch]

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
        return [image for image in self.ids if image not in done or (image in whole and image not in kept)]


def work(run: Run[S], store: Store) -> int:
    """Steps times images that are still to be done; where images are only judged, those that are not yet."""
    if not run.experiment.jobs:
        return len(set(run.ids) - store.done(CLEAN))
    return sum(job.task.total_steps * len(run.missing(job, store)) for job in run.experiment.jobs)


def first_usable(run: Run[S]) -> Sample | None:
    """The first image that can be used, of which trials are made."""
    labels, bands = not run.experiment.data.predicted, bands_of(run.model)
    return next(usable_samples(run.data, run.model.num_classes, labels=labels, bands=bands), None)


def clean_job(run: Run[S]) -> Job:
    """What comes first: that the images are judged as they are."""
    it = run.experiment
    return Job(it.model, it.data, it.clean, it.seed)


def units(run: Run[S], store: Store) -> Iterator[Unit]:
    """What is missing, batch by batch of the data set."""
    clean = clean_job(run)
    lacking = [(job, set(run.missing(job, store))) for job in run.experiment.jobs]
    judged, seen = store.done(CLEAN), store.predicted(CLEAN)
    recorded = [(job.key, store.recorded(job.key)) for job, _ in lacking]
    whole = set(run.whole)
    for places in run.batches:
        ids = [run.data.ids[place] for place in places]
        parts = [Part(job, tuple(image for image in ids if image in missing)) for job, missing in lacking]
        if not judged.issuperset(ids) or any(part.images for part in parts):
            kept = {image: store.prediction(CLEAN, image) for image in ids if image in seen}
            known = {image: prediction for image, prediction in kept.items() if prediction is not None}
            # Of the first job that has a record of it: what is found of certificates comes after them.
            before = [(key, image) for key, images in reversed(recorded) for image in ids if image in images]
            made = {image: record for key, image in before if (record := store.record(key, image))}
            todo = tuple(part for part in parts if part.images)
            shown = tuple(image for image in ids if image in whole), run.region, run.together
            yield Unit(clean, todo, tuple(places), known, made, *shown, gallery=run.gallery, seconds=run.seconds)


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
    model: Seen
    if choice.scores_only:
        from segradius.targets.opening import open_target  # brings every protocol, which a network can do without

        model = open_target(choice.spec, **options, answers=choice.answers, input=choice.input, budget=budget)
    else:
        model = load_model(choice.spec, **options, dtype=choice.dtype, denoiser=choice.denoiser)
    return with_surrogates(model, choice, device=device, allow_download=allow_download)


def with_surrogates(
    model: Seen, choice: ModelChoice, *, device: str | torch.device = "cpu", allow_download: bool = False
) -> Seen:
    """A model with the networks on which adversarial images for it are made, as its description names them.

    Args:
        model: What is attacked; given back where the description names none.
        choice: Its description.
        device: Where they run.
        allow_download: Whether libraries may download what is not here.

    Raises:
        InputError: One cannot be opened, or is not of the model's classes or bands.
    """
    specs = choice.surrogates or ()
    files = choice.surrogate_weights or (None,) * len(specs)
    made_on = [
        load_model(spec, weights=file, device=device, allow_download=allow_download)
        for spec, file in zip(specs, files, strict=True)
    ]
    return transferred(model, made_on, choice.surrogate_mean or "logits") if made_on else model


def surrogate_marks(model: Seen) -> tuple[str, ...]:
    """Fingerprints of the networks on which adversarial images for a model are made; none of one without."""
    made_on = surrogate_of(model)
    inside = getattr(getattr(made_on, "network", None), "models", (made_on,))
    return () if made_on is None else tuple(fingerprint(each) for each in inside)


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
        model: What all units name, if it is open already; otherwise that of their measurement, or opened, once.
        data: The same.
        checkpoints: Where unfinished work is kept; None for where that of their measurement is.
        device: Where a model is opened.
        warn: Told when something does not fit into memory.
    """

    model: Seen | None = None
    data: SegmentationData | None = None
    checkpoints: Checkpoints | None = None
    device: str = "cpu"
    warn: Callable[[str], None] = print
    _desks: dict[str, _Desk] = field(default_factory=dict)

    def begin(self, name: str, run: Run[Any]) -> None:
        """Units of this measurement are worked on with what it has open."""
        self._desks[name] = _Desk(self.model or run.model, self.data or run.data, self.checkpoints or run.checkpoints)

    def end(self, name: str) -> None:
        """Its model and images are let go."""
        self._desks.pop(name, None)

    def run(self, units: Iterable[Unit], progress: Progress = lambda job, steps: None) -> Iterator[tuple[Unit, Rows]]:
        """The rows of all units, in order, each with its unit."""

        def begin(unit: Unit) -> Samples:
            desk = self._desk(unit)
            desk.room = desk.room or Room(desk.model.device.type, together=unit.together, warn=self.warn)
            read = reader(unit, desk.model, desk.data)
            return (
                read_aside(pool, unit.places[: desk.room.most], read, desk.model.device)
                if is_thread_safe(desk.data)
                else Samples(read)
            )

        with one_thread() as pool:
            for unit, samples in in_turn(units, begin):
                it = self._desk(unit)
                with it.model.frozen():
                    for rows in perform(unit, it.model, it.data, it.checkpoints, progress, it.look, it.room, samples):
                        yield unit, rows

    def _desk(self, unit: Unit) -> _Desk:
        if unit.measurement not in self._desks:
            model = self.model or open_choice(unit.clean.model, device=self.device, seed=unit.clean.seed)
            data = self.data or open_images(unit.clean.data)
            self._desks[unit.measurement] = _Desk(model, data, self.checkpoints)
        return self._desks[unit.measurement]


@dataclass
class _Desk:
    """What the units of a measurement are worked on with, and what fits into memory there, once that is known."""

    model: Seen
    data: SegmentationData
    checkpoints: Checkpoints | None
    room: Room | None = None
    checked: bool = False

    def look(self, model: Seen, image: Tensor) -> None:
        """Check the model by the first image."""
        if not self.checked:
            check_model(model, image)
        self.checked = True
