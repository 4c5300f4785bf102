"""Universal perturbations: one δ for all images, fitted to some and judged on others (Moosavi-Dezfooli et al. 2017).

The fit is the loop's own step on the mean of its gradients over a batch of images, which change from step to step; for
segmentation by Hendrik Metzen et al. 2017. The pixel box is each image's own: x + δ is clamped to it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from segradius.attacks.base import Method, Result, Task
from segradius.attacks.incumbent import Incumbent
from segradius.attacks.loop import Iterative, Observation, Room, judge
from segradius.attacks.make import white_box
from segradius.attacks.patch import inside
from segradius.attacks.pgd import Momentum
from segradius.attacks.settings import Settings
from segradius.core.contracts import LOGITS, Model
from segradius.core.declared import LossName, See, Weight, WeightingName
from segradius.core.errors import InputError, shown
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.core.storage import write_atomically
from segradius.objectives.objective import objective
from segradius.threats.projections import Box
from segradius.threats.threat import Norm, Threat

#: A file that `Perturbation.save` wrote, or "signs".
Delta = Annotated[str, See("segradius universal")]

#: What lies under a universal patch before it is fitted.
GREY = 0.5
#: Steps of a fit where none are given, and their length in units of ε/T.
STEPS, PER_EPS = 200, 20.0


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One change for all images of a size.

    Attributes:
        delta: (B, H, W) float32; where ``square`` is, the values that are put there less ½, and zero elsewhere.
        square: Row, column and side of a patch; None where δ is added to the whole image.
        made: How it came to be, plain values for people; the norm and ε in it too.
    """

    delta: Tensor
    square: tuple[int, int, int] | None
    made: dict[str, Any]

    @property
    def where(self) -> Tensor:
        """Pixels under the patch, (1, H, W) bool; none without."""
        found = torch.zeros(1, *self.delta.shape[-2:], dtype=torch.bool, device=self.delta.device)
        if self.square is not None:
            row, column, side = self.square
            found[:, row : row + side, column : column + side] = True
        return found

    def save(self, path: str | Path) -> None:
        """Write it as a safetensors file."""
        told = {"segradius": json.dumps({"square": self.square, "made": self.made})}
        write_atomically(Path(path), as_bytes({"delta": self.delta.float().cpu().contiguous()}, told))

    @staticmethod
    def load(path: str | Path) -> Perturbation:
        """Read what `save` wrote; `InputError` where it is no such file."""
        try:
            with safe_open(str(path), "pt") as file:
                told = json.loads((file.metadata() or {})["segradius"])
                delta, square = file.get_tensor("delta"), told["square"]
                fine = delta.ndim == 3 and delta.is_floating_point() and bool(delta.isfinite().all())
                if not fine or not (square is None or len(square) == 3):
                    raise KeyError
                return Perturbation(delta.float(), square and tuple(square), told["made"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            raise InputError(f"delta is {shown(str(path))}; expected a file that segradius universal wrote") from None


class _Free(NamedTuple):
    """The ball of a threat without the box of an image, for a δ that goes with many; what a step asks of a threat."""

    norm: Norm
    half: float

    def onto(self, images: Tensor, eps: Tensor) -> Callable[[Tensor], Tensor]:
        """`segradius.threats.threat.Threat.onto`, inside [−half, half] rather than the box."""
        far = torch.full_like(images, self.half)
        return self.norm.onto(Box(-far, far), eps)


@dataclass(frozen=True)
class Universal:
    """One δ for all images: as a file has it, or random signs.

    Attributes:
        fitting: How it is fitted: objective, threat, step, T and start.
        delta: A file from `Perturbation.save`, or "signs": a random point of the sphere of radius ε, in l∞ random
            signs, the same for every image of a run.
    """

    fitting: Iterative
    delta: Delta = "signs"

    def __post_init__(self) -> None:
        found = self._file
        if found is not None and found.square is not None and not _is_box(self.fitting.threat):
            raise InputError(f"delta is {shown(self.delta)}, a patch of any values; expected norm linf and eps inf")

    @property
    def needs(self) -> frozenset[str]:
        """Logits."""
        return frozenset({LOGITS})

    @property
    def total_steps(self) -> int:
        """One look at each image."""
        return 1

    @property
    def _file(self) -> Perturbation | None:
        return None if self.delta == "signs" else _read(self.delta, _stamp(self.delta))

    def run(self, task: Task[Model]) -> Result:
        """Judge x + δ, projected onto ball and box; δ is not changed otherwise."""
        threat, found = self.fitting.threat, self._file
        ledger, task = Ledger(len(task.images)), task.entered(threat)
        if found is None:
            same = Randomness(task.randomness.seed, ("universal",))
            drawn = threat.norm.sample_sphere(task.images[:1], same)
            drawn = drawn.sign() if threat.norm.name == "linf" else drawn
            delta = drawn * threat.budgets(len(task.images), task.images).view(-1, 1, 1, 1)
        else:
            _check_shape(found, task.images)
            delta = found.delta.to(task.images).expand_as(task.images)
        covered = None
        if found is not None and found.square is not None:
            covered = found.where.to(task.images.device).expand(len(task.images), -1, -1)
            task = inside(task, covered)
            delta = delta + GREY - task.images
        delta = threat.project(task.confine(task.coordinates(delta) if found is not None else delta), task.images)
        eps = threat.budgets(len(task.images), task.images)
        last = judge(Incumbent.none(task), Room(threat, task, eps, 1), delta, ledger, best=False)
        ledger.enter("attack")  # no pass, and so told
        task.done(1)
        return replace(last.result(task, ledger), covered=covered)

    def fit(
        self,
        lots: Iterable[Task[Model]],
        square: tuple[int, int, int] | None = None,
        progress: Callable[[int], None] = lambda step: None,
    ) -> tuple[Perturbation, Ledger]:
        """One δ that raises the mean objective over many images: T steps, each on the next batch.

        Args:
            lots: Batches of images of one size, at least T of them, with their goals and in their model's frozen
                state; one that has no finite logits adds nothing.
            square: Row, column and side of a patch, under which the same values are put into every image.
            progress: Called with the number of steps done, after each.

        Returns:
            δ after the last step, and the passes over one image of each batch.

        Raises:
            InputError: The images differ in size, or there are fewer batches than steps.
        """
        threat, step, ledger = replace(self.fitting.threat, lattice=None), self.fitting.step, Ledger(1)  # of no image
        free: Any = _Free(threat.norm, 1.0 if square is None else GREY)
        delta, whole, state, done = torch.empty(0), None, None, 0
        for task in lots:
            task = task.entered(threat)
            if whole is None:
                whole = self._whole(task, free)
                delta = torch.zeros_like(whole.task.images)
                if self.fitting.start == "uniform":
                    drawn = threat.norm.sample_ball(delta, Randomness(task.randomness.seed, ("universal",)))
                    delta = whole.project(drawn * whole.eps.view(-1, 1, 1, 1))
            if task.images.shape[1:] != delta.shape[1:]:
                raise InputError(f"images of {tuple(task.images.shape[1:])} and {tuple(delta.shape[1:])}: give --size")
            task = task if square is None else _painted(task, square)
            eps = threat.budgets(len(task.images), task.images)
            room = Room(threat, task, eps, self.fitting.steps, getattr(step, "compares", True))
            many = delta.expand_as(task.images).contiguous()
            seen, _, finite, _ = self.fitting.look.observe(
                self.fitting.objective, room, many, done, None, own := Ledger(1)
            )
            ledger.add(own)
            delta, state = step.advance(_mean(seen, task, finite), whole, state)
            done += 1
            progress(done)
            if done == self.fitting.steps:
                break
        if whole is None or done < self.fitting.steps:
            raise InputError(f"{done} batches for {self.fitting.steps} steps; expected one for each")
        made = {"norm": threat.norm.name, "eps": threat.eps, "steps": done}
        return Perturbation(whole.task.change(delta)[0].float().cpu(), square, made), ledger

    def _whole(self, task: Task[Model], free: Any) -> Room:
        """Where the one δ moves: the ball, and no image's box."""
        one = replace(task, images=torch.zeros_like(task.images[:1]), changeable=None, warm=None)
        return Room(free, one, self.fitting.threat.budgets(1, task.images), self.fitting.steps, compares=False)


def _mean(seen: Observation, task: Task[Model], finite: Tensor) -> Observation:
    """The batch's observation of its one δ: a value beyond the box of an image does nothing there."""
    within = task.images + task.change(seen.delta)
    counts = ((within >= 0) & (within <= 1) & finite.view(-1, 1, 1, 1)).to(seen.gradient.dtype)
    gradient = torch.nan_to_num(seen.gradient).mul_(counts).mean(0, keepdim=True)
    return Observation(seen.delta[:1], gradient, seen.value[:1], seen.step)


def _painted(task: Task[Model], square: tuple[int, int, int]) -> Task[Model]:
    """The images with grey under a square, where alone they may change and nothing counts."""
    row, column, side = square
    where = torch.zeros_like(task.goal.counted)
    where[:, row : row + side, column : column + side] = True
    return inside(replace(task, images=torch.where(where.unsqueeze(1), GREY, task.images)), where)


def _is_box(threat: Threat) -> bool:
    return threat.norm.name == "linf" and isinstance(threat.eps, float) and threat.eps >= 1


def _check_shape(found: Perturbation, images: Tensor) -> None:
    if found.delta.shape != images.shape[1:]:
        raise InputError(
            f"delta is for images of {tuple(found.delta.shape)} (bands, height, width), and these are of "
            f"{tuple(images.shape[1:])}"
        )


def _stamp(path: str) -> tuple[int, int]:
    """What changes with a file; `_read` says what is wrong with one that is not there."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(maxsize=8)
def _read(path: str, stamp: tuple[int, int]) -> Perturbation:
    return Perturbation.load(path)


@white_box("universal", fixed=("restarts", "keep", "sparse", "patch", "place"))
def universal(
    threat: Threat,
    settings: Settings,
    *,
    delta: Delta = "signs",
    decay: Weight = 0.9,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """One perturbation for all images (Moosavi-Dezfooli et al. 2017), from a file of ``segradius universal``.

    How it was fitted, T = 200 steps of 20ε/T with momentum, is set by the same options there; here it is judged.

    Args:
        threat: Ball and box.
        settings: Shared settings, of the fit.
        delta: The file; ``signs`` for random signs, the same for every image, to compare with.
        decay: Momentum μ of the fit.
        loss: Of the fit.
        weighting: Of the fit.
    """
    if threat.norm.name == "linf" and threat.eps == math.inf:
        threat = replace(threat, eps=1.0)  # the same set, in which steps have a length
    step = Momentum(settings.size(threat.norm.name, PER_EPS), decay)
    return Universal(settings.iterate(objective(loss, weighting), threat, step, steps=STEPS), delta)
