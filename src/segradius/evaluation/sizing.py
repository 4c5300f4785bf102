"""How many images go together, found by trial: the most that fit into memory and still pay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor

from segradius.core import memory
from segradius.core.border import is_out_of_memory, release
from segradius.core.contracts import Model, Seen, for_answers, for_guidance
from segradius.core.errors import ModelError
from segradius.evaluation.batch import answering, is_priced
from segradius.evaluation.run import Run, S, first_usable, work
from segradius.evaluation.store import Store
from segradius.radius.smoothing import copies_together

#: What stands for a trial in place of a number.
AUTO: Literal["auto"] = "auto"
#: Under which a store notes what a trial found.
NOTE = "batch_trial"
#: Images at a time where there is no trial.
USUAL = 8
#: What an image must take less of in a batch of twice as many, as a share of its time.
PAYS = 0.03
#: Of the memory that there is, what a trial may take: an attack keeps more beside its passes than a trial does.
SPARE = 0.6
#: Timed passes over as many images: at least so many and at most, for so long; no more once they took the last.
LEAST, MOST, ENOUGH, LONG = 3, 20, 0.1, 0.5


@dataclass(frozen=True)
class Found:
    """How many images go together.

    Attributes:
        size: How many.
        told: That, and why, in a line.
    """

    size: int
    told: str


def sized(run: Run[S], store: Store, *, waiting: bool = False) -> tuple[Run[S], Found | None]:
    """A run with as many images at a time, or noisy copies in a pass, as pay; found by trial once in a store.

    The trial is of the first image that can be used: an image of another size may take fewer, which the run finds out.
    A target, every question to which has its price, is not tried.

    Args:
        run: What is to be done.
        store: Of its results, in which what was found is noted, so that a run that goes on forms the same batches; it
            is tried anew on another type of device, or where there are more images than were there.
        waiting: Whether a batch was begun, which is finished as it is.

    Returns:
        The run, and what was found; None, and the run as it is, where nothing is left to do and nothing was tried.
    """
    copies = bool(run.experiment.jobs) and all(job.task.one_by_one for job in run.experiment.jobs)
    most = max(job.task.total_steps for job in run.experiment.jobs) if copies else len(run.data)
    noted, of = store.noted(NOTE), [run.model.device.type, most]
    left = bool(work(run, store))
    if noted is None and not left:
        return run, None
    if noted is not None and (waiting or not left or noted["of"] == of):
        found = Found(noted["size"], noted["told"])
    else:
        found = _tried(run, copies, max(1, most))
        store.note(NOTE, vars(found) | {"of": of})
    return (replace(run, together=found.size) if copies else replace(run, batch_size=found.size)), found


def _tried(run: Run[S], copies: bool, most: int) -> Found:
    usual = copies_together(run.model.device.type) if copies else USUAL
    if is_priced(run.model):
        return Found(usual, f"batch size {usual}: a target is not tried, as its every answer counts")
    sample = first_usable(run)
    if sample is None:
        return Found(usual, f"batch size {usual}: there is no image to try")
    try:
        with run.model.frozen():
            return largest_that_pays(_trial(run, sample.image.to(run.model.device), copies), most)
    except ModelError as error:
        if not error.by_image:
            raise
        return Found(usual, f"batch size {usual}: the model fails on the first image")


@dataclass
class Trial:
    """Passes over copies of an image, their time, and whether more of them fit.

    Args:
        once: A pass over so many images.
        device: Where; on a CPU, memory is counted before it is taken, as a machine that swaps does not say so.
        clock: Seconds, growing.
        held: What this process holds.
        available: What more it may take.
    """

    once: Callable[[int], None]
    device: torch.device
    clock: Callable[[], float] = time.perf_counter
    held: Callable[[], memory.Held | None] = memory.held
    available: Callable[[], int | None] = memory.available
    _each: int | None = None

    def seconds(self, images: int) -> float:
        """Of a pass, the least of a few after one that is not counted."""
        before = self.held()
        self._timed(images)
        after = self.held()
        if before is not None and after is not None:
            self._each = -(-(after.most - before.now) // images)
        times = [self._timed(images)]
        while sum(times) < (LONG if len(times) < LEAST else ENOUGH) and len(times) < MOST:
            times.append(self._timed(images))
        return min(times)

    def fits(self, images: int) -> bool:
        """Whether so many may be tried; where a lack of memory is told in time, they may."""
        if self.device.type != "cpu":
            return True
        left = self.available()
        if left is None or self._each is None:
            return images <= USUAL
        return images * self._each <= SPARE * left

    def _timed(self, images: int) -> float:
        self._wait()
        begun = self.clock()
        self.once(images)
        self._wait()
        return self.clock() - begun

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _trial(run: Run[S], image: Tensor, copies: bool) -> Trial:
    """As the passes of the run: with gradients in the images if an attack takes them, in the votes' own precision."""
    tasks = [job.task for job in run.experiment.jobs]
    precision = tasks[0].precision if tasks else None
    pass_over = partial(answered, for_answers(run.model, precision) if tasks else run.model, precision)
    if not copies and any(task.differentiates for task in tasks):
        pass_over = partial(differentiated, for_guidance(cast(Model, run.model)), precision)
    return Trial(lambda images: pass_over(image.expand(images, *image.shape).contiguous()), image.device)


@torch.no_grad()
def answered(model: Seen, precision: torch.dtype | None, images: Tensor) -> None:
    """A forward pass."""
    answering(model, precision)(images)


def differentiated(model: Model, precision: torch.dtype | None, images: Tensor) -> None:
    """A forward and a backward pass, the latter to the images."""
    images.requires_grad_()
    torch.autograd.grad(model.logits(images, precision).logsumexp(1).sum(), images)


def largest_that_pays(trial: Trial, most: int) -> Found:
    """Of 1, 2, 4, 8, …, the last of which an image still takes less time than of the one before.

    Args:
        trial: Times so many.
        most: No more.

    Example:
        >>> ticks = iter([0, 9, 10, 14, 20, 29, 30, 36, 40, 59, 60, 72])  # 4 s of one, 6 s of two, 12 s of four
        >>> trial = Trial(lambda images: None, torch.device("meta"), clock=lambda: next(ticks))
        >>> largest_that_pays(trial, 64).told
        'batch size 2: 3 s an image; 4 would be 3'
    """
    size, more, seconds, why = 0, 1, 0.0, "which are all"
    try:
        while more > size:
            if size and not trial.fits(more):
                why = f"{more} might not fit into memory"
                break
            each = trial.seconds(more) / more
            if size and each > (1 - PAYS) * seconds:
                why = f"{more} would be {each:.3g}"
                break
            size, more, seconds = more, min(2 * more, most), each
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        why = f"{more} do not fit into memory"
    release()
    if not size:
        return Found(1, "batch size 1: there is hardly memory for one image")
    return Found(size, f"batch size {size}: {seconds:.3g} s an image; {why}")
