"""Runs the attacks of an experiment over its images, batch by batch, and stores each result as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from segradius.attacks import Attack, Result, make_attack
from segradius.core.randomness import Randomness
from segradius.data import Sample, SegmentationData, collate
from segradius.evaluation.check import check_classes, usable
from segradius.evaluation.experiment import AttackPlan, Experiment
from segradius.evaluation.journal import Checkpoints, digest
from segradius.evaluation.judging import Batch, attack_results, clean_results
from segradius.evaluation.seeing import Seen, check_model, is_counted, judge
from segradius.evaluation.store import CLEAN, Kept, Store
from segradius.evaluation.targets import make_target
from segradius.evaluation.traces import image_traces

Progress = Callable[[AttackPlan, int], None]
"""Told of the work just done for a plan, in steps times images."""


@dataclass(frozen=True)
class Job:
    """An attack, ready to run, with the key of its results and what is stored of it already."""

    plan: AttackPlan
    attack: Attack
    key: str
    done: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()

    @property
    def asks(self) -> bool:
        """Whether it is a black-box attack, whose steps are queries."""
        return "scores" in self.attack.method.needs

    def missing(self, image: str, shown: Sequence[str]) -> bool:
        """Whether there is work to do for ``image``: no result, or one of the ``shown`` ones and not kept whole."""
        return image not in self.done or (image in shown and image not in self.kept)


@dataclass(frozen=True)
class Run:
    """All that a run needs beside its store.

    Args:
        experiment: What to run.
        model: The network, on its device, or a target. Of a target, which counts every query, all that was paid for is
            kept: every adversarial image, and what was seen in it; nothing is judged a second time.
        data: The images.
        batch_size: Images at a time, ≥ 1; changes no result.
        shown: Ids of images whose adversarial images are kept whole, for pictures.
        progress: Called as steps are done.
        checkpoints: Where black-box attacks keep their standing; None for nowhere.
    """

    experiment: Experiment
    model: Seen
    data: SegmentationData
    batch_size: int = 8
    shown: Sequence[str] = ()
    progress: Progress = lambda plan, steps: None
    checkpoints: Checkpoints | None = None

    @property
    def counted(self) -> bool:
        """Whether every look at the model is a query with its price."""
        return is_counted(self.model)

    def missing(self, job: Job, image: str) -> bool:
        """Whether there is work to do; an image whose attack was paid for is not attacked again for a picture."""
        return job.missing(image, () if self.counted else self.shown)


def prepare(experiment: Experiment, store: Store) -> list[Job]:
    """Build every attack, which checks its options, and look up what is stored.

    Raises:
        InputError: For an unknown attack, norm or option, or a value out of range.
    """
    jobs = []
    for plan in experiment.attacks:
        attack = make_attack(plan.name, norm=plan.norm, eps=plan.eps, **plan.options)
        key = experiment.key(plan)
        jobs.append(Job(plan, attack, key, frozenset(store.done(key)), frozenset(store.kept(key))))
    return jobs


def work(jobs: Sequence[Job], run: Run) -> int:
    """Steps times images that are still to be done."""
    return sum(job.attack.total_steps * sum(run.missing(job, image) for image in run.data.ids) for job in jobs)


def execute(run: Run, jobs: Sequence[Job], store: Store) -> None:
    """Do what is missing in ``store``. Images that cannot be used are set aside there with the reason.

    Batches are cut by position in the data set, so that a run that was stopped forms the same batches again.

    Raises:
        InputError: The model has too few classes for the data, does not give logits, or does not give what an attack
            needs.
    """
    check_classes(run.model.num_classes, len(run.data.classes))
    for job in jobs:
        job.attack.check_model(run.model)
    store.retry_set_aside()
    checked = False
    with run.model.frozen():
        for samples in _batches(run, jobs, store):
            if not checked:
                check_model(run.model, samples[0].image)
                checked = True
            batch = _judged(run, samples, store)
            for job in jobs:
                _attack(run, job, batch, store)


def _batches(run: Run, jobs: Sequence[Job], store: Store) -> Iterator[list[Sample]]:
    """Usable samples of one size, wherever something is missing."""
    judged = store.done(CLEAN)
    for first in range(0, len(run.data), run.batch_size):
        places = range(first, min(first + run.batch_size, len(run.data)))
        ids = [run.data.ids[place] for place in places]
        if any(image not in judged or any(run.missing(job, image) for job in jobs) for image in ids):
            good = [sample for place in places if (sample := _usable(run, place, store))]
            for _, group in groupby(sorted(good, key=_shape), key=_shape):
                yield list(group)


def _usable(run: Run, place: int, store: Store) -> Sample | None:
    """The sample at ``place``, or None when it had to be set aside."""
    found = usable(run.data, place, run.model.num_classes)
    if isinstance(found, str):
        store.set_aside(run.data.ids[place], found)
        return None
    return found


def _shape(sample: Sample) -> tuple[int, ...]:
    return tuple(sample.image.shape)


def _judged(run: Run, samples: list[Sample], store: Store) -> Batch:
    """A batch with its clean prediction, which is stored; images with NaN logits are set aside."""
    images, labels, ids = collate(samples)
    images, labels = images.to(run.model.device), labels.to(run.model.device)
    started = time.perf_counter()
    prediction, fine = _clean(run, tuple(ids), images, store)
    batch = Batch(tuple(ids), images, labels, prediction, run.data.classes.ignore_index)
    batch = replace(batch, seconds=(time.perf_counter() - started) / len(ids))
    for row, image in enumerate(ids):
        if not fine[row]:
            values = "scores" if run.counted else "logits"
            store.set_aside(image, f"the model's {values} are NaN or infinite on the clean image")
    batch = batch.select([row for row in range(len(ids)) if fine[row]])
    seen = dict(zip(batch.ids, batch.prediction, strict=True)) if run.counted else {}
    store.add(CLEAN, clean_results(batch, run.model.num_classes, _target(run, batch)), Kept(predictions=seen))
    return batch


def _clean(run: Run, ids: tuple[str, ...], images: Tensor, store: Store) -> tuple[Tensor, list[bool]]:
    """Prediction (N, H, W) for unattacked images, and whether it is finite; what was kept is not asked again."""
    known = {row: kept for row, image in enumerate(ids) if (kept := store.prediction(CLEAN, image)) is not None}
    asked = [row for row in range(len(ids)) if row not in known]
    fine, rows = [True] * len(ids), dict(known)
    if asked:
        if run.checkpoints is not None:
            run.checkpoints.begin(f"clean {digest(ids, images)}")
        prediction, finite = judge(run.model, images[asked])
        for row, seen, good in zip(asked, prediction, finite.tolist(), strict=True):
            rows[row], fine[row] = seen, good
    return torch.stack([rows[row].to(images.device) for row in range(len(ids))]), fine


def _attack(run: Run, job: Job, batch: Batch, store: Store) -> None:
    """Attack the images of ``batch`` that lack a result, and store what comes out."""
    batch = batch.select([row for row, image in enumerate(batch.ids) if run.missing(job, image)])
    if not batch.ids:
        return
    told = 0

    def tell(steps: int) -> None:
        nonlocal told
        told += steps
        run.progress(job.plan, steps * len(batch.ids))

    target = _target(run, batch)
    place = run.checkpoints if job.asks else None
    journal = place.journal(job.key, batch.ids, batch.images, batch.labels) if place else None
    started = time.perf_counter()
    result = job.attack(
        run.model,
        batch.images,
        batch.labels,
        ids=batch.ids,
        seed=run.experiment.seed,
        target=target,
        ignore_index=batch.ignore_index,
        progress=tell,
        journal=journal,
    )
    seconds = (time.perf_counter() - started) / len(batch.ids)
    again = None if run.counted else judge(run.model, result.adversarial)[0]
    found = attack_results(result, batch, run.model.num_classes, target, again, seconds)
    store.add(job.key, found, _kept(run, batch, result))
    if journal is not None:
        journal.remove()
    run.progress(job.plan, (job.attack.total_steps - told) * len(batch.ids))  # an attack may finish early


def _kept(run: Run, batch: Batch, result: Result) -> Kept:
    """What is shown; of a target everything, as it was paid for."""
    images = dict(zip(batch.ids, result.adversarial.float(), strict=True))
    traces = dict(zip(batch.ids, image_traces(result), strict=True)) if result.trace is not None else {}
    if run.counted:
        return Kept(images, dict(zip(batch.ids, result.prediction, strict=True)), traces)
    return Kept({image: x for image, x in images.items() if image in run.shown}, {}, traces)


def _target(run: Run, batch: Batch) -> Tensor | None:
    if run.experiment.target is None:
        return None
    randomness = Randomness(run.experiment.seed, batch.ids)
    classes, num_classes = run.data.classes, run.model.num_classes
    return make_target(run.experiment.target, batch.labels, classes, num_classes, randomness)
