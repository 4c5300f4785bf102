"""What is trained how: everything that changes the weights that come out, from optimiser and schedule to the seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, Protocol

import torch
from torch import nn

from segradius.core.declared import (
    LATER,
    Count,
    Decay,
    Part,
    Positive,
    Range,
    Rate,
    Seed,
    Weight,
    check_fields,
    only_with,
)
from segradius.core.errors import InputError
from segradius.core.registry import Registry
from segradius.models.backbones import TRUNK
from segradius.training.adversaries import Adversary, Clean
from segradius.training.augment import Augmentation
from segradius.training.averaging import WeightAverage
from segradius.training.loss import SegmentationLoss

#: Steps of a warm-up; and a rate over another.
Steps = Annotated[int, Range("[0, 1e9]")]
Ratio = Annotated[float, Range("[1, 1e9]")]

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Schedule(Protocol):
    """A multiplier of the base learning rate over a run."""

    def factor(self, step: int, total: int) -> float:
        """The multiplier, at least 0, of step ``step`` (from 0) of a run of ``total`` steps."""


SCHEDULES: Registry[Callable[..., Schedule]] = Registry("schedule")
"""Schedules by name; each depends on the step alone, so that a resumed run has the same rates."""


@SCHEDULES.register("poly")
@dataclass(frozen=True)
class Poly:
    """(1 − step/total)^power, as DeepLab and PSPNet train; with a warm-up, times min(1, (step + 1)/warmup).

    Args:
        power: The exponent, above 0.
        warmup: Steps of the warm-up, at least 0.

    Raises:
        InputError: If a value is outside its range.

    Example:
        >>> [Poly(power=2.0).factor(step, 4) for step in range(5)]
        [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    power: Positive = 0.9
    warmup: Steps = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def factor(self, step: int, total: int) -> float:
        """The multiplier, in [0, 1]; see `Schedule`. Raises `InputError` unless 0 <= step <= total and total >= 1."""
        _check_step(step, total)
        return float((1 - step / total) ** self.power) * _ramp(step, self.warmup)


@SCHEDULES.register("one_cycle")
@dataclass(frozen=True)
class OneCycle:
    """Half a cosine from 1/start up to 1, then another down to 1/(start·end); PyTorch's ``OneCycleLR``, stateless.

    After Smith and Topin, "Super-Convergence" (2019), in the form with two phases. The base rate is the ``max_lr``.

    Args:
        warmup_share: Part of the run in which the rate rises, in [0, 1].
        start: Peak over first rate, at least 1.
        end: First over last rate, at least 1.

    Raises:
        InputError: If a value is outside its range.

    Example:
        >>> schedule = OneCycle()
        >>> [schedule.factor(step, 100) * 25 for step in (0, 29, 99)]
        [1.0, 25.0, 0.0001]
    """

    warmup_share: Part = 0.3
    start: Ratio = 25.0
    end: Ratio = 1e4

    def __post_init__(self) -> None:
        check_fields(self)

    def factor(self, step: int, total: int) -> float:
        """The multiplier, in (0, 1]; see `Schedule`. Raises `InputError` unless 0 <= step <= total and total >= 1."""
        _check_step(step, total)
        first, last = 1 / self.start, 1 / self.start / self.end
        peak = self.warmup_share * total - 1
        if step <= peak:
            return _cosine(first, 1.0, step / peak if peak > 0 else 1.0)
        return _cosine(1.0, last, min(1.0, (step - peak) / (total - 1 - peak)) if peak < total - 1 else 1.0)


@SCHEDULES.register("constant")
@dataclass(frozen=True)
class Constant:
    """1 throughout; with a warm-up, min(1, (step + 1)/warmup).

    Args:
        warmup: Steps of the warm-up, at least 0.

    Raises:
        InputError: If a value is outside its range.

    Example:
        >>> [Constant(warmup=4).factor(step, 10) for step in range(6)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    warmup: Steps = 0

    def __post_init__(self) -> None:
        check_fields(self)

    def factor(self, step: int, total: int) -> float:
        """The multiplier, in (0, 1]; see `Schedule`. Raises `InputError` unless 0 <= step <= total and total >= 1."""
        _check_step(step, total)
        return _ramp(step, self.warmup)


def _ramp(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))


def _check_step(step: int, total: int) -> None:
    if total < 1 or not 0 <= step <= total:
        raise InputError(f"step {step} of {total}; expected 0 <= step <= total and total >= 1")


@dataclass(frozen=True)
class Pace:
    """How passes are made; weights differ by rounding.

    Args:
        channels_last: Weights have ``channels_last`` memory, and so has what convolutions make of images. Dropout draws
            along memory, so other values are dropped.
        twin: The adversary attacks a twin that shares the weights, with batch norm folded into the convolutions before
            it and, on a CPU, cheaper backward passes.
        compile: By `torch.compile`; evaluations are by the network as it is.

    Raises:
        InputError: If a value is no truth value.
    """

    channels_last: bool = False
    twin: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Optimiser:
    """A gradient method and its constants; the public recipes' SGD by default.

    Args:
        name: ``sgd`` (with momentum) or ``adamw``.
        lr: Base learning rate, multiplied by the schedule's factor at every step.
        momentum: Of SGD; AdamW takes its own (0.9, 0.999).
        weight_decay: Of every parameter.
        clip: Largest norm of the gradient of all parameters; None for no limit.
        heads: Factor of the learning rate outside the trunk (see `split`): 10 in the public recipes that start from
            ImageNet weights.
        fused: All parameters are moved by one kernel; weights differ by rounding.

    Example:
        >>> Optimiser("adamw", lr=2e-3).make(nn.Conv2d(3, 2, 1).parameters()).__class__.__name__
        'AdamW'
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Rate = 0.01
    momentum: Annotated[Decay, only_with(optimiser=["sgd"])] = 0.9
    weight_decay: Weight = 1e-4
    clip: Positive | None = None
    heads: Weight = 1.0
    fused: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self, name="optimiser")

    def make(self, parameters: Iterable[nn.Parameter], heads: Iterable[nn.Parameter] = ()) -> torch.optim.Optimizer:
        """The optimiser over some parameters, and others whose rate has the factor of heads.

        Each group has its factor under ``rate``.
        """
        parts = ((1.0, list(parameters)), (self.heads, list(heads)))
        groups: list[dict[str, Any]] = [{"params": part, "rate": rate} for rate, part in parts if part]
        common: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": self.fused or None}
        if self.name == "sgd":
            return torch.optim.SGD(groups, momentum=self.momentum, **common)
        return torch.optim.AdamW(groups, **common)


def split(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that take gradients: those of the trunk, and those of the heads.

    The trunk is what ImageNet weights are for: ``backbone`` or ``encoder``, as torchvision and smp call it, or the
    layers, stages and transitions of the ResNets and HRNets here.

    Raises:
        InputError: If no parameter has such a name.

    Example:
        >>> from segradius.models.networks import PSPNet
        >>> trunk, heads = split(PSPNet(3, layers=18, width=4))
        >>> len(trunk) > len(heads) > 0
        True
    """
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    trunk = {name for name, _ in named if name.startswith(("backbone.", "encoder.")) or TRUNK.match(name)}
    if not trunk:
        raise InputError(f"heads have a rate of their own, but no parameter of {type(network).__name__} is of a trunk")
    parts = ([p for name, p in named if (name in trunk) is wanted] for wanted in (True, False))
    return next(parts), next(parts)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which weights come out, with the data, the network and its first weights.

    Args:
        epochs: Passes over the training set.
        batch_size: Images in a step, over all processes together.
        optimiser: Gradient method.
        schedule: Learning rate over the run.
        augmentation: Random change of every image and label.
        loss: What is minimised.
        adversary: What is done to the images first: the defence.
        average: Exponential average of the weights, which is evaluated and exported; None for the last weights.
        precision: ``"32"``, ``"bf16"`` or ``"16"`` (mixed: weights stay float32); ``"auto"`` for bf16 where a trial
            before the first step finds that it pays, else 32.
        seed: Of the order of images, augmentation, dropout and adversary. The first weights are the caller's.
        every: Epochs between evaluations; the last epoch is always evaluated.
        pace: How passes are made.

    Raises:
        InputError: If a value is outside its range, or a fused optimiser is to scale losses of ``"16"`` that are
            clipped, which torch has not.

    Example:
        >>> Recipe(epochs=3, optimiser=Optimiser("adamw", lr=1e-3)).steps(images=100)
        18
    """

    epochs: Count = 50
    batch_size: Count = 16
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Poly)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: SegmentationLoss = field(default_factory=SegmentationLoss)
    adversary: Adversary = field(default_factory=Clean)
    average: WeightAverage | None = None
    precision: Literal["32", "bf16", "16", "auto"] = "32"
    seed: Seed = 0
    every: Count = 5
    pace: Pace = field(default_factory=Pace, metadata=LATER)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.optimiser.fused and self.precision == "16" and self.optimiser.clip is not None:
            raise InputError("a fused optimiser cannot clip gradients in precision 16: give precision bf16, or no clip")

    def steps_an_epoch(self, images: int) -> int:
        """Steps in one epoch: whole batches only, as public recipes have it; the images left over differ by epoch."""
        if images < self.batch_size:
            raise InputError(
                f"batch_size is {self.batch_size} and the training set has {images} images: give at most that many"
            )
        return images // self.batch_size

    def steps(self, images: int) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_an_epoch(images)


def _default(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def flat(recipe: Any, prefix: str = "") -> dict[str, str]:
    """Every value of a recipe, those of its parts included, by name; of what came `LATER`, no default.

    Example:
        >>> flat(Recipe(epochs=3))["epochs"], flat(Recipe())["optimiser.lr"]
        ('3', '0.01')
    """
    found: dict[str, str] = {}
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if item.metadata == LATER and value == _default(item):
            continue
        if is_dataclass(value):
            found |= {f"{prefix}{item.name}": type(value).__name__} | flat(value, f"{prefix}{item.name}.")
        else:
            found[f"{prefix}{item.name}"] = repr(value)
    return found
