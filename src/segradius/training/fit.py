"""The training loop: lessons, an adversary, a loss, an optimiser, snapshots."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from segradius.core.border import is_out_of_memory, out_of_memory
from segradius.core.errors import InputError, ModelError
from segradius.core.locking import owned
from segradius.core.randomness import Randomness
from segradius.core.screen import note, progress, warn
from segradius.data.sample import SegmentationData
from segradius.data.usable import refuse_other_bands, usable_part
from segradius.metrics.agreement import one_class
from segradius.metrics.counts import Counts
from segradius.metrics.statistics import dice, miou, miou_image, pooled_accuracy
from segradius.models.cards import entries_of, write_card
from segradius.models.denoising import DENOISED
from segradius.training.adversaries import Lesson
from segradius.training.content import Content, content_of
from segradius.training.engine import launched, synchronise
from segradius.training.job import Job
from segradius.training.labels import Tally, refuse_unlabelled
from segradius.training.learner import Learner, export, judge
from segradius.training.lessons import lessons
from segradius.training.loss import combine
from segradius.training.memory import Kept, room
from segradius.training.process import Process, check_weights, flush, tell_labels
from segradius.training.recipe import PRECISIONS, Pace, split
from segradius.training.records import (
    CHECKPOINT,
    EVALUATION_LOG,
    TRAIN_LOG,
    Evaluation,
    Log,
    Position,
    Snapshot,
    restore,
    sweep,
)
from segradius.training.trial import paced, plain, sample_lesson, settled, unpaced

BEST, LAST = "best.safetensors", "last.safetensors"


def fit(job: Job) -> Evaluation:
    """Train, or go on with a training that was stopped; writes weights and logs into the job's folder.

    ``best.safetensors`` and ``last.safetensors`` hold the weights (averaged, if the recipe asks for that) of the best
    and of the last evaluation; ``train.csv``, ``evaluations.csv`` and ``tensorboard/`` the curves; ``last.pt`` what is
    needed to go on. All are written whole or not at all. A run that was killed and started again ends with the same
    weights as one that was not. The global random state of PyTorch is set anew at every step.

    Args:
        job: What is trained on what, how and where.

    Returns:
        The last evaluation.

    Raises:
        InputError: If the folder holds another run or is another process's, model and data do not fit, no pixel is
            labelled, or the loss or the weights are not finite any more.
        MissingExtraError: If the extra ``train`` is not installed.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    with owned(job.folder, warn=warn):
        job = _usable(job)
        for what, data in (("training", job.train), ("held-out", job.held_out)):
            refuse_unlabelled(what, data)
        if said := job.recipe.augmentation.left_out(job.model.bands):
            warn(said)
        with _within_memory(job, step=0):
            job, told = settled(job)
        if told and not job.quiet:
            note(told)
        return _fitted(job)


def _usable(job: Job) -> Job:
    """The job without the images that cannot be used, which are named on the screen."""
    total = len(job.train) + len(job.held_out)
    parts = []
    with progress("images", total, first="reading every image once", quiet=job.quiet) as advance:

        def read(name: str, images: int) -> None:
            advance(images, f"reading the {name} set once")

        for name, data in (("training", job.train), ("held-out", job.held_out)):
            refuse_other_bands(data, job.model.bands, job.model.name)
            part, bad = usable_part(
                data,
                job.model.num_classes,
                workers=job.engine.workers,
                done=partial(read, name),
                bands=job.model.bands,
            )
            parts.append(part)
            if bad:
                named = "; ".join(f"{image}: {reason}" for image, reason in list(bad.items())[:5])
                more = ", …" if len(bad) > 5 else ""
                warn(f"{len(bad)} of {len(data)} images of the {name} set are set aside: {named}{more}")
    return replace(job, train=parts[0], held_out=parts[1])


def _fitted(job: Job) -> Evaluation:
    fabric = job.engine.fabric(PRECISIONS[job.recipe.precision], unused=not job.recipe.loss.aux_weight)
    identity = job.identity
    found: Evaluation = launched(fabric, _run, (job, _content(job)))
    if job.engine.devices > 1:  # the processes had copies of the network
        trained = Snapshot.load(job.folder, identity)
        if trained is not None and isinstance(job.model.network, nn.Module):
            job.model.network.load_state_dict(trained.network)
    return found


def _content(job: Job) -> Content:
    """What is learnt from; raises `InputError` where the folder's snapshot learnt from other content."""
    before = Snapshot.read(job.folder)
    sets = {"training": job.train, "held-out": job.held_out}
    content, changed = content_of(sets, (job.card or {}).get("model"), {} if before is None else before.content)
    if before is not None and changed:
        raise InputError(
            f"{changed} since {job.folder} was begun: what was learnt before and after would mix. Choose another "
            "folder, or remove it to start anew"
        )
    if before is not None and not before.content:
        warn(f"{job.folder} is of a version that did not note what it learnt from: that is taken to be as it was")
        replace(before, content=content).save(job.folder)
    return content


def _run(fabric: Any, given: tuple[Job, Content]) -> Evaluation:
    job, content = given
    process = _prepare(fabric, job, content)
    recipe, steps = job.recipe, job.recipe.steps_an_epoch(len(job.train))
    left = process.position.step < recipe.steps(len(job.train))
    train = _kept(job) if left else job.train
    found = None
    with ExitStack() as stack:
        stack.callback(unpaced, process.network, recipe.pace)
        if fabric.is_global_zero and left:
            sweep(job.folder, (CHECKPOINT, BEST, LAST, TRAIN_LOG, EVALUATION_LOG))
            total = recipe.steps(len(job.train))
            log = Log(job.folder, process.position.step, total, process.logs, quiet=job.quiet)
            process.log = stack.enter_context(log)
            for line in (_opening(process), *process.told):
                log.say(line)
            if isinstance(train, Kept):
                log.say(str(train))
        elif fabric.is_global_zero:
            restore(job.folder, process.position.step, process.logs)
        begun, skip = divmod(process.position.step, steps)
        batches = _lessons(process, train, begun, skip)
        stack.callback(batches.close)
        for epoch in range(begun, recipe.epochs):
            _learn(process, batches, epoch)
            if (epoch + 1) % recipe.every == 0 or epoch + 1 == recipe.epochs:
                found = _evaluate(process, epoch + 1)
            _save(process)
    return found or _judged(process, recipe.epochs)


def _kept(job: Job) -> SegmentationData:
    """The training set, kept in memory if the engine is told so."""
    if not job.engine.in_memory:
        return job.train
    return Kept.read(job.train, room(job.engine.memory, job.engine.devices), workers=job.engine.workers)


def _lessons(process: Process, train: SegmentationData, epoch: int, skip: int) -> Generator[Lesson]:
    """All that is learnt from an epoch on."""
    recipe, workers = process.job.recipe, process.job.engine.workers
    given = (train, recipe.augmentation, recipe.seed, epoch, recipe.batch_size)
    return lessons(*given, until=recipe.epochs, share=process.share, skip=skip, workers=workers)


def _learn(process: Process, batches: Iterator[Lesson], epoch: int) -> None:
    """The steps of an epoch that are left."""
    job = process.job
    steps = job.recipe.steps_an_epoch(len(job.train))
    skip = process.position.step - epoch * steps
    first = epoch == 0 and skip == 0
    process.tally = Tally(job.train.classes.names if first else (), job.train.classes.ignore_index)
    for lesson in islice(batches, steps - skip):
        with _within_memory(job, process.position.step):
            _step(process, lesson, epoch)
        if process.position.step % job.engine.save_every == 0 and process.position.step % steps:
            _save(process)
    flush(process)
    tell_labels(process, epoch + 1)
    if process.log is not None:
        process.log.epoch(epoch + 1)


def _opening(process: Process) -> str:
    """What begins, or goes on, in a line."""
    job, step = process.job, process.position.step
    total = job.recipe.steps(len(job.train))
    begun = f"going on at step {step} of {total}" if step else f"{total} steps"
    name = type(job.recipe.adversary).__name__
    return f"{job.model.name} on {len(job.train)} images of {job.train.name}, {name}: {begun}, {process.device}"


def _prepare(fabric: Any, job: Job, content: Content) -> Process:
    """Network, optimiser and averaged weights on the device, as the snapshot in the folder has them if there is one."""
    recipe = job.recipe
    learner = Learner(job.model, auxiliary=recipe.loss.aux_weight > 0)
    if fabric.world_size > 1:
        for tensor in chain(learner.parameters(), learner.buffers()):
            tensor.data = tensor.data.clone()  # spawned processes are given the same memory
        synchronise(learner, fabric.device)
    learner.to(fabric.device)
    identity = job.identity
    snapshot = Snapshot.load(job.folder, identity)
    if snapshot is not None:
        learner.network.load_state_dict(snapshot.network)
    free = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimiser = recipe.optimiser.make(*((free,) if recipe.optimiser.heads == 1 else split(learner.network)))
    if snapshot is not None:
        optimiser.load_state_dict(dict(snapshot.optimiser))
        fabric.strategy.precision.load_state_dict(dict(snapshot.scaler))
    position = Position(by=job.best) if snapshot is None else snapshot.position
    if position.by != job.best:
        raise InputError(f"{job.folder} chooses its best by {position.by}; expected --best {position.by} to go on")
    told, mirror = list[str](), None
    if recipe.pace != Pace() and position.step < recipe.steps(len(job.train)):
        with _within_memory(job, position.step):
            lesson = sample_lesson(job.train, recipe, recipe.batch_size // fabric.world_size, fabric.device)
            told, mirror = paced(learner, recipe, lesson, fabric.autocast)
    average = {} if recipe.average is None else recipe.average.init(learner.network)
    for name, value in ({} if snapshot is None else snapshot.average).items():
        average[name].copy_(value)
    wrapped, optimiser = fabric.setup(learner, optimiser)
    logs = {} if snapshot is None else snapshot.logs
    return Process(fabric, job, wrapped, optimiser, identity, content, position, average, logs, told, mirror)


@contextmanager
def _within_memory(job: Job, step: int) -> Iterator[None]:
    """A context in which a lack of memory is told with what takes it, and from where training goes on."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        it = job.recipe
        size = "" if it.augmentation.crop is None else f" of {it.augmentation.crop[0]}x{it.augmentation.crop[1]}"
        advice = (
            f"Step {step + 1} learns from {it.batch_size} images{size}: give a smaller --batch-size "
            f"or --crop; what was saved before is kept in {job.folder}"
        )
        raise ModelError(out_of_memory(error, advice), by_image=False) from error


def _step(process: Process, lesson: Lesson, epoch: int) -> None:
    recipe, fabric, position = process.job.recipe, process.fabric, process.position
    total = recipe.steps(len(process.job.train))
    rate = recipe.optimiser.lr * recipe.schedule.factor(position.step, total)
    for group in process.optimiser.param_groups:
        group["lr"] = rate * group["rate"]
    labelled = process.tally.add(lesson.labels)
    lesson = lesson.to(fabric.device)
    with fabric.autocast():
        images = recipe.adversary(process.attacked(), lesson)
    # Dropout, too, is keyed by the step, so that a resumed run needs no state of a generator.
    torch.manual_seed(int(Randomness(recipe.seed, (f"{position.step}/{fabric.global_rank}",)).integers(2**62, "step")))
    process.learner.train()
    loss = _loss(process, process.learner(images), lesson)
    fabric.backward(loss * fabric.world_size)  # gradients are averaged over processes, this loss is to be summed
    if recipe.optimiser.clip is not None:
        fabric.clip_gradients(process.learner, process.optimiser, max_norm=recipe.optimiser.clip)
    process.optimiser.step()
    process.optimiser.zero_grad()
    if recipe.average is not None:
        recipe.average.update(process.average, process.network, position.step)
    position.step += 1
    process.losses.append(loss.detach())
    process.labelled.append(labelled)
    process.rows.append({"step": position.step, "epoch": epoch + 1, "lr": rate})
    if position.step % process.job.engine.log_every == 0:
        flush(process)


def _loss(process: Process, outputs: dict[str, Tensor], lesson: Lesson) -> Tensor:
    """This process's part of the loss: its sums over what the whole batch is divided by."""
    terms = process.job.recipe.loss.terms(outputs, lesson.labels, lesson.images if DENOISED in outputs else None)
    weights = torch.stack([term.weight for term in terms]).detach()
    if process.fabric.world_size > 1:
        dist.all_reduce(weights)
    return combine(terms, list(weights))


def _save(process: Process) -> None:
    flush(process)
    steps = process.job.recipe.steps_an_epoch(len(process.job.train))
    check_weights(process, -(-process.position.step // steps))
    if process.fabric.is_global_zero:
        scaler = process.fabric.strategy.precision.state_dict()
        state = (process.network.state_dict(), process.optimiser.state_dict(), process.average, scaler)
        logs = process.logs if process.log is None else process.log.texts
        Snapshot(process.identity, process.position, *state, process.content, logs).save(process.job.folder)
    process.fabric.barrier()


def _evaluate(process: Process, epoch: int) -> Evaluation:
    """Evaluate, log, and write the weights."""
    flush(process)
    check_weights(process, epoch)
    _agree(process)
    job, found, position = process.job, _judged(process, epoch), process.position
    folder, figure = job.folder, found.chosen_by(job.best)
    better = found.one_class is None and figure > position.best
    if better:
        position.best, position.best_epoch = figure, epoch
    if process.log is not None:
        with process.averaged():
            for path in (LAST, BEST) if better else (LAST,):
                export(process.network, folder / path)
                if job.card is not None:
                    own = {"weights": path, "classes": list(job.train.classes.names), **entries_of(job.model)}
                    write_card((folder / path).with_suffix(".yaml"), {**job.card, **own})
        process.log.evaluation(found, best=better)
        if found.one_class is not None:
            name = job.held_out.classes.names[found.one_class]
            process.log.say(f"epoch {epoch}: nearly every pixel is predicted as {name}: never the best")
        if found.robustness is not None and found.robustness.overfitted:
            process.log.say(f"epoch {epoch}: {found.robustness.advice}")
    return found


def _agree(process: Process) -> None:
    """Give every process the buffers of the first: norms other than batch norm may keep their own in each."""
    if process.fabric.world_size > 1:
        for value in chain(process.network.buffers(), process.average.values()):
            dist.broadcast(value, 0)


def _judged(process: Process, epoch: int) -> Evaluation:
    job, share = process.job, process.share
    with plain(process.network), process.averaged():
        counts = judge(job.model, job.held_out, process.device, job.recipe.batch_size // share.world, share)
        if share.world > 1:
            parts: list[Counts | None] = [None] * share.world
            dist.all_gather_object(parts, counts)
            counts = Counts.joined(part for part in parts if part is not None)
        robustness = None if job.watch is None else job.watch(job.model, job.held_out, process.device)
    figures = (pooled_accuracy(counts), miou(counts), miou_image(counts))
    asked = counts.foreground
    own = math.nan if asked is None else dice(asked)
    return Evaluation(epoch, process.position.step, *figures, robustness, one_class(counts), own)
