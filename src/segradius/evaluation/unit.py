"""A unit of work: images of one batch and what is to be done with them; and doing it, in as many parts as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from segradius.core.bands import bands_of
from segradius.core.border import in_a_line, is_out_of_memory
from segradius.core.contracts import Seen
from segradius.data.sample import Sample, SegmentationData, collate
from segradius.evaluation.ahead import Read, Samples, on
from segradius.evaluation.attempts import Room, attempts
from segradius.evaluation.batch import Batch, Bench, answer, check_model, is_priced, judged_classes, usable
from segradius.evaluation.job import Job
from segradius.evaluation.journal import Checkpoints, digest
from segradius.evaluation.rows import CLEAN, Rows
from segradius.radius.smoothing import at_most

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
        gallery: How many more are, of those hurt most and of those hurt least.
        seconds: That an image may take, where there is a budget of minutes.
        region: (h, w) bool, where noise falls; None for the whole image.
        together: Noisy copies in a pass.
        measurement: Its name in a study, whose rows come back with it; empty where there is one alone.
    """

    clean: Job
    parts: tuple[Part, ...]
    places: tuple[int, ...]
    known: dict[str, Tensor]
    certificates: dict[str, bytes]
    shown: tuple[str, ...] = ()
    region: Tensor | None = None
    together: int | None = None
    measurement: str = ""
    gallery: int = 0
    seconds: float | None = None


def perform(
    unit: Unit,
    model: Seen,
    data: SegmentationData,
    checkpoints: Checkpoints | None = None,
    progress: Progress = lambda job, steps: None,
    look: Callable[[Seen, Tensor], None] = check_model,
    room: Room | None = None,
    samples: Samples | None = None,
) -> Iterator[Rows]:
    """Work on a unit.

    Args:
        unit: What is to be done.
        model: That it names, frozen.
        data: The same.
        checkpoints: Where unfinished work is kept; None for nowhere.
        progress: Told of the work done.
        look: Given the model and an image before anything is asked.
        room: What fits into memory, as far as it is known; changed where that is less.
        samples: Of the unit, if they are being read; read here otherwise.

    Yields:
        Rows of what is clean, of those that had to be set aside, and of every part.
    """
    room, samples = (
        room or Room(model.device.type, together=unit.together),
        samples or Samples(reader(unit, model, data)),
    )
    classes = judged_classes(data.classes, model.num_classes, predicted=unit.clean.data.predicted)
    bench = Bench(model, classes, CLEAN, unit.clean.seed, checkpoints, shown=unit.shown, gallery=unit.gallery,
                  region=unit.region, seconds=unit.seconds, certificates=dict(unit.certificates))  # fmt: skip
    ids = {place: data.ids[place] for place in unit.places}
    # One stage for all halves, so that what was answered before one of them failed is not asked again.
    judge = partial(_judge, unit, data, samples, bench, f"clean {digest(list(ids.values()))}", look)
    for done in attempts(unit.places, judge, room, lambda places: [ids[place] for place in places], answers=True):
        samples.drop(done.items)
        if done.result is None:
            yield Rows(CLEAN, failed={ids[done.items[0]]: done.failure})
            continue
        bad, judged = done.result
        if bad:
            yield Rows(CLEAN, set_aside=bad)
        for batch, rows in judged:
            yield rows
            yield from _worked(unit.parts, batch, bench, room, progress)


def _judge(
    unit: Unit,
    data: SegmentationData,
    samples: Samples,
    bench: Bench,
    stage: str,
    look: Callable[[Seen, Tensor], None],
    places: Sequence[int],
) -> tuple[dict[str, str], list[tuple[Batch, Rows]]]:
    """Why images cannot be used; batches of the others, of one size each, with the rows of what is clean."""
    found = [(data.ids[place], _read(samples, place)) for place in places]
    bad = {image: reason for image, reason in found if isinstance(reason, str)}
    good = sorted((sample for _, sample in found if isinstance(sample, Sample)), key=_shape)
    judged = []
    for _, group in groupby(good, key=_shape):
        alike = list(group)
        look(bench.model, alike[0].image)
        batch, infinite, notes = _judged(unit, alike, bench, stage)
        rows = unit.clean.task.run(batch, bench)
        judged.append((batch, replace(rows, set_aside=infinite, kept=replace(rows.kept, records=notes))))
    return bad, judged


def reader(unit: Unit, model: Seen, data: SegmentationData) -> Read:
    """From the place of an image to its sample, or why a model cannot be used with it."""
    labels, bands = not unit.clean.data.predicted, bands_of(model)
    return lambda place: usable(data, place, model.num_classes, labels=labels, bands=bands)


def _read(samples: Samples, place: int) -> Sample | str:
    """A sample, or why it cannot be used."""
    try:
        return samples(place)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return f"not enough memory to read it: {in_a_line(error)}"


def _worked(parts: Sequence[Part], batch: Batch, bench: Bench, room: Room, progress: Progress) -> Iterator[Rows]:
    """The rows of what is to be done with a batch, without the images with which the model failed meanwhile."""
    failed: set[str] = set()
    for part in parts:
        job, mine = part.job, batch.only([image for image in part.images if image not in failed])
        groups = [[row] for row in range(len(mine.ids))] if job.task.one_by_one else [range(len(mine.ids))]
        for group in groups if mine.ids else ():
            one = _Attempt(job, mine, bench, room, progress)
            for done in attempts(group, one, room, one.names):
                if done.result is None:
                    image = mine.ids[done.items[0]]
                    failed.add(image)
                    rows = Rows(job.key, failed={image: done.failure})
                    progress(job, job.task.total_steps)
                else:
                    rows = done.result
                    kept = {**rows.kept.records, **bench.certificates}
                    bench = one.bench = replace(bench, certificates=kept)
                yield replace(rows, lost=one.lost, abandoned=tuple(one.abandoned))
                one.lost, one.abandoned = 0, []


@dataclass
class _Attempt:
    """A job on some images of a batch, and what attempts at it that failed have cost.

    Attributes:
        lost: Queries that a target answered in vain.
        abandoned: Names of journals that nobody goes on from.
    """

    job: Job
    batch: Batch
    bench: Bench
    room: Room
    progress: Progress
    lost: int = 0
    abandoned: list[str] = field(default_factory=list)

    def names(self, rows: Sequence[int]) -> list[str]:
        """Ids of images."""
        return [self.batch.ids[row] for row in rows]

    def __call__(self, rows: Sequence[int]) -> Rows:
        """The rows of these images."""
        job, some, bench, told = self.job, self.batch.select(rows), self.bench, 0

        def tell(steps: int) -> None:
            nonlocal told
            told += steps
            self.progress(job, steps * len(some.ids))

        places, model = bench.checkpoints, bench.model
        paid = places.begun(job.key, some.ids)[1] if places and is_priced(model) else 0
        before = getattr(model, "answered", 0)
        together = self.room.together
        try:
            with at_most(together):
                own = replace(bench, key=job.key, seed=job.seed, progress=tell, together=together)
                found = job.task.run(some, own)
        except Exception:
            self.progress(job, -told * len(some.ids))
            self.lost += paid + getattr(model, "answered", 0) - before
            self.abandoned += places.begun(job.key, some.ids)[0] if places else []
            raise
        self.progress(job, (job.task.total_steps - told) * len(some.ids))  # it may finish early
        return found


def _shape(sample: Sample) -> tuple[int, ...]:
    return tuple(sample.image.shape)


def _judged(
    unit: Unit, samples: Sequence[Sample], bench: Bench, stage: str
) -> tuple[Batch, dict[str, str], dict[str, bytes]]:
    """A batch with its clean prediction; why images are not in it, not being finite; how sure a target is."""
    images, labels, ids = collate([on(sample, bench.model.device) for sample in samples])
    started = time.perf_counter()
    prediction, fine, sure = _clean(unit, ids, images, bench, stage)
    seconds = (time.perf_counter() - started) / len(ids)
    if unit.clean.data.predicted:
        labels = prediction
    void, structures = bench.classes.ignore_index, bench.structures
    batch = Batch(ids, images, labels, prediction, void, seconds, structures)
    values = "scores" if is_priced(bench.model) else "logits"
    told = f"the model's {values} are NaN or infinite on the clean image"
    bad = {image: told for image, good in zip(ids, fine, strict=True) if not good}
    notes = {image: share for image, share in sure.items() if image not in bad}
    return batch.select([row for row in range(len(ids)) if fine[row]]), bad, notes


def _clean(
    unit: Unit, ids: tuple[str, ...], images: Tensor, bench: Bench, stage: str
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
            bench.checkpoints.begin(stage)
        top, prediction = answer(bench.model, images[asked])
        for row, seen, best in zip(asked, prediction, top, strict=True):
            rows[row], fine[row] = seen, bool(best.isfinite().all())
            if is_priced(bench.model):
                sure[ids[row]] = f"{(best >= 1).double().mean().item():.9g}".encode()
    return torch.stack([rows[row].to(images.device) for row in range(len(ids))]), fine, sure
