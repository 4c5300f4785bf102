"""Runs the attacks of an experiment over its images, batch by batch, and stores each result as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from segradius.attacks import Attack, make_attack
from segradius.data import BadSampleError, Sample, SegmentationData, collate
from segradius.evaluation.check import check_classes, fault
from segradius.evaluation.experiment import AttackPlan, Experiment
from segradius.evaluation.judging import Batch, attack_results, clean_results, judge
from segradius.evaluation.store import CLEAN, Store
from segradius.evaluation.targets import make_target
from segradius.models import Segmenter
from segradius.randomness import Randomness

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

    def missing(self, image: str, shown: Sequence[str]) -> bool:
        """Whether there is work to do for ``image``: no result, or one of the ``shown`` ones and not kept whole."""
        return image not in self.done or (image in shown and image not in self.kept)


@dataclass(frozen=True)
class Run:
    """All that a run needs beside its store.

    Args:
        experiment: What to run.
        model: The network, on its device.
        data: The images.
        batch_size: Images at a time, ≥ 1; changes no result.
        shown: Ids of images whose adversarial images are kept whole, for pictures.
        progress: Called as steps are done.
    """

    experiment: Experiment
    model: Segmenter
    data: SegmentationData
    batch_size: int = 8
    shown: Sequence[str] = ()
    progress: Progress = lambda plan, steps: None


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
    return sum(job.attack.total_steps * sum(job.missing(image, run.shown) for image in run.data.ids) for job in jobs)


def execute(run: Run, jobs: Sequence[Job], store: Store) -> None:
    """Do what is missing in ``store``. Images that cannot be used are set aside there with the reason.

    Batches are cut by position in the data set, so that a run that was stopped forms the same batches again.

    Raises:
        InputError: The model has too few classes for the data, or does not give logits.
    """
    check_classes(run.model.num_classes, len(run.data.classes))
    store.retry_set_aside()
    checked = False
    with run.model.frozen():
        for samples in _batches(run, jobs, store):
            if not checked:
                _check_model(run.model, samples[0])
                checked = True
            batch = _judged(run, samples, store)
            for job in jobs:
                _attack(run, job, batch, store)


def _check_model(model: Segmenter, sample: Sample) -> None:
    """One pass over a grey image of the same size: a single bad image must not condemn the model."""
    model.check(torch.full_like(sample.image[None], 0.5).to(model.device))


def _batches(run: Run, jobs: Sequence[Job], store: Store) -> Iterator[list[Sample]]:
    """Usable samples of one size, wherever something is missing."""
    judged = store.done(CLEAN)
    for first in range(0, len(run.data), run.batch_size):
        places = range(first, min(first + run.batch_size, len(run.data)))
        ids = [run.data.ids[place] for place in places]
        if any(image not in judged or any(job.missing(image, run.shown) for job in jobs) for image in ids):
            good = [sample for place in places if (sample := _usable(run, place, store))]
            for _, group in groupby(sorted(good, key=_shape), key=_shape):
                yield list(group)


def _usable(run: Run, place: int, store: Store) -> Sample | None:
    """The sample at ``place``, or None when it had to be set aside."""
    try:
        sample = run.data[place]
    except BadSampleError as error:
        store.set_aside(run.data.ids[place], str(error))
        return None
    reason = fault(sample, run.model.num_classes, run.data.classes.ignore_index)
    if reason:
        store.set_aside(sample.id, reason)
    return None if reason else sample


def _shape(sample: Sample) -> tuple[int, ...]:
    return tuple(sample.image.shape)


def _judged(run: Run, samples: list[Sample], store: Store) -> Batch:
    """A batch with its clean prediction, which is stored; images with NaN logits are set aside."""
    images, labels, ids = collate(samples)
    images, labels = images.to(run.model.device), labels.to(run.model.device)
    started = time.perf_counter()
    prediction, finite = judge(run.model, images)
    fine: list[bool] = finite.tolist()
    batch = Batch(tuple(ids), images, labels, prediction, run.data.classes.ignore_index)
    batch = replace(batch, seconds=(time.perf_counter() - started) / len(ids))
    for row, image in enumerate(ids):
        if not fine[row]:
            store.set_aside(image, "the model's logits are NaN or infinite on the clean image")
    batch = batch.select([row for row in range(len(ids)) if fine[row]])
    store.add(CLEAN, clean_results(batch, run.model.num_classes, _target(run, batch)))
    return batch


def _attack(run: Run, job: Job, batch: Batch, store: Store) -> None:
    """Attack the images of ``batch`` that lack a result, and store what comes out."""
    batch = batch.select([row for row, image in enumerate(batch.ids) if job.missing(image, run.shown)])
    if not batch.ids:
        return
    told = 0

    def tell(steps: int) -> None:
        nonlocal told
        told += steps
        run.progress(job.plan, steps * len(batch.ids))

    target = _target(run, batch)
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
    )
    seconds = (time.perf_counter() - started) / len(batch.ids)
    found = attack_results(result, batch, run.model, target, seconds)
    shown = {i: x for i, x in zip(batch.ids, result.adversarial.float(), strict=True) if i in run.shown}
    store.add(job.key, found, shown)
    run.progress(job.plan, (job.attack.total_steps - told) * len(batch.ids))  # an attack may finish early


def _target(run: Run, batch: Batch) -> Tensor | None:
    if run.experiment.target is None:
        return None
    randomness = Randomness(run.experiment.seed, batch.ids)
    classes, num_classes = run.data.classes, run.model.num_classes
    return make_target(run.experiment.target, batch.labels, classes, num_classes, randomness)
