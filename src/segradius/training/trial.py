"""A step's passes tried before the first step: what layout and compiler a network takes, and whether bfloat16 pays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn

from segradius.core.border import in_a_line, is_out_of_memory
from segradius.data.sample import SegmentationData
from segradius.models.holding import kept
from segradius.speed.trial import clock_of
from segradius.training.adversaries import Lesson, asks
from segradius.training.job import Job
from segradius.training.learner import Learner
from segradius.training.mirror import Mirror
from segradius.training.recipe import Pace, Recipe
from segradius.training.records import Snapshot, lines

Lower: TypeAlias = Callable[[], AbstractContextManager[Any]]

#: bfloat16 must save as much of the time of a pass to be chosen.
SAVES = 0.05
ROUNDS = 3


def paced(learner: Learner, recipe: Recipe, lesson: Lesson, lower: Lower) -> tuple[list[str], Mirror | None]:
    """Let a network run at the recipe's pace, without what it refuses; the names in its ``state_dict`` stay.

    Args:
        learner: In training, on its device.
        recipe: How.
        lesson: A batch like those to come, for a trial; it leaves no trace.
        lower: The context of the precision.

    Returns:
        What there is to tell: what is refused, and how long compiling took; and what the adversary is to attack, None
        for the network itself.
    """
    network, pace, told = learner.network, recipe.pace, list[str]()
    mirror: Mirror | None = None
    if pace.channels_last:
        network.to(memory_format=torch.channels_last)
        if why := _refused(network, partial(passes, learner, recipe, lesson, lower)):
            network.to(memory_format=torch.contiguous_format)
            told.append(f"without channels_last memory, which {type(network).__name__} refuses: {why}")
    if pace.twin and asks(recipe.adversary):
        found = _mirrored(learner, lesson, compiled=pace.compile)
        work = partial(passes, learner, recipe, lesson, lower)
        if why := found if isinstance(found, str) else _refused(network, partial(work, found)):
            told.append(f"attacked is {type(network).__name__} itself: {why}")
        elif isinstance(found, Mirror):
            mirror = found
    if pace.compile:
        both = [network] if mirror is None else [network, mirror.twin]
        begun = time.perf_counter()
        for each in both:
            each.compile()
        if why := _refused(network, partial(passes, learner, recipe, lesson, lower, mirror)):
            for each in both:
                each._compiled_call_impl = None
            told.append(f"without torch.compile, which {type(network).__name__} refuses: {why}")
        else:
            told.append(f"compiled in {time.perf_counter() - begun:.0f} s")
    return told, mirror


def _mirrored(learner: Learner, lesson: Lesson, *, compiled: bool) -> Mirror | str:
    try:
        return Mirror.of(learner.model, lesson.images[:1], compiled=compiled)
    except Exception as error:  # whatever the code of the user's modules raises
        if is_out_of_memory(error):
            raise
        return in_a_line(error)


def unpaced(network: nn.Module, pace: Pace) -> None:
    """Take back what `paced` did."""
    network._compiled_call_impl = None
    if pace.channels_last:
        network.to(memory_format=torch.contiguous_format)


@contextmanager
def plain(network: nn.Module) -> Iterator[None]:
    """A context in which a network is not compiled.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> network.compile()
        >>> with plain(network):
        ...     print(network._compiled_call_impl)
        None
    """
    compiled, network._compiled_call_impl = network._compiled_call_impl, None
    try:
        yield
    finally:
        network._compiled_call_impl = compiled


def _refused(network: nn.Module, work: Callable[[], None]) -> str:
    """Why a network does not do the work; empty where it does."""
    try:
        without_trace(network, work)
    except Exception as error:  # a network may refuse a layout or a compiler in any way it likes
        if is_out_of_memory(error):
            raise
        return in_a_line(error)
    return ""


def without_trace(network: nn.Module, work: Callable[[], None]) -> None:
    """Do what leaves buffers, modes, gradients and the global generators as they were."""
    devices = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), kept(network):
        try:
            work()
        finally:
            network.zero_grad(set_to_none=True)


def passes(learner: Learner, recipe: Recipe, lesson: Lesson, lower: Lower, mirror: Mirror | None = None) -> None:
    """The passes of a step: those of the adversary, and one to the parameters.

    Args:
        learner: What learns.
        recipe: How.
        lesson: A batch, on the learner's device.
        lower: The context of the precision.
        mirror: What is attacked; None for the network.
    """
    with lower():
        images = recipe.adversary(learner.model if mirror is None else mirror.model, lesson)
        learner.train()
        outputs = learner(images)
    loss = recipe.loss({name: logits.float() for name, logits in outputs.items()}, lesson.labels)
    loss.backward()  # type: ignore[no-untyped-call]


def sample_lesson(data: SegmentationData, recipe: Recipe, images: int, device: torch.device) -> Lesson:
    """A lesson of the size of those to come: noise, all of it of the first class."""
    image = data[0].image
    height, width = recipe.augmentation.crop or image.shape[-2:]
    noise = torch.rand(images, len(image), height, width, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(images, height, width, dtype=torch.int64)
    ids = [str(i) for i in range(images)]
    return Lesson(noise, labels, ids, recipe.seed, data.classes.ignore_index).to(device)


def settled(job: Job) -> tuple[Job, str]:
    """A job with a precision, where a trial is to find it, and what to tell of that; empty for nothing.

    A run that goes on has the precision with which it began.

    Args:
        job: Of images that can be used.
    """
    if job.recipe.precision != "auto":
        return job, ""
    found: Any
    before, told = Snapshot.read(job.folder), ""
    if before is None:
        ratio = bf16_ratio(job)
        found = "bf16" if ratio < 1 - SAVES else "32"
        told = f"passes in bfloat16 take {ratio:.2f} of the time of those in float32: precision {found}"
    else:
        found = lines(before.identity).get("precision", "32").strip("'")
    return replace(job, recipe=replace(job.recipe, precision=found)), told


def bf16_ratio(job: Job) -> float:
    """Time of a step's passes in bfloat16 over that in float32, at the job's pace, uncompiled; on a CPU of two images.

    Args:
        job: Its network goes to the device where it will be trained.
    """
    device, recipe = job.engine.fabric("32-true").device, job.recipe
    recipe = replace(recipe, pace=replace(recipe.pace, compile=False))
    learner = Learner(job.model, auxiliary=recipe.loss.aux_weight > 0)
    learner.to(device)
    images = recipe.batch_size // job.engine.devices
    lesson = sample_lesson(job.train, recipe, min(2, images) if device.type == "cpu" else images, device)
    _, mirror = paced(learner, recipe, lesson, nullcontext)

    def work(reduced: bool) -> None:
        lower = partial(torch.autocast, device.type, torch.bfloat16, enabled=reduced)
        without_trace(learner.network, partial(passes, learner, recipe, lesson, lower, mirror))

    try:
        return _ratio(work, device)
    finally:
        unpaced(learner.network, recipe.pace)


def _ratio(work: Callable[[bool], None], device: torch.device) -> float:
    """Time of work with over that without: the least of three interleaved rounds each, after one not counted."""
    least, clock = {False: math.inf, True: math.inf}, clock_of(device.type)
    for turn in range(ROUNDS + 1):
        for which in least:
            begun = clock()
            work(which)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                least[which] = min(least[which], clock() - begun)
    return least[True] / least[False]
