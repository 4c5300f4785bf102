"""Schedules of the learning rate: its multiplier as a function of the step alone, so that a resumed run has the same.

``SCHEDULES`` has them by name; each is a small frozen dataclass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from segradius.core.errors import InputError, must, within
from segradius.core.registry import Registry


class Schedule(Protocol):
    """A multiplier of the base learning rate over a run."""

    def factor(self, step: int, total: int) -> float:
        """The multiplier, at least 0, of step ``step`` (from 0) of a run of ``total`` steps."""
        ...


SCHEDULES: Registry[Callable[..., Schedule]] = Registry("schedule")


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

    power: float = 0.9
    warmup: int = 0

    def __post_init__(self) -> None:
        within("(0, inf)", power=self.power)
        _check_warmup(self.warmup)

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

    warmup_share: float = 0.3
    start: float = 25.0
    end: float = 1e4

    def __post_init__(self) -> None:
        within("[0, 1]", warmup_share=self.warmup_share)
        within("[1, inf)", start=self.start, end=self.end)

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

    warmup: int = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def factor(self, step: int, total: int) -> float:
        """The multiplier, in (0, 1]; see `Schedule`. Raises `InputError` unless 0 <= step <= total and total >= 1."""
        _check_step(step, total)
        return _ramp(step, self.warmup)


def _ramp(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (1 + math.cos(math.pi * share))


def _check_warmup(warmup: int) -> None:
    whole = isinstance(warmup, int) and not isinstance(warmup, bool)
    must(whole and warmup >= 0, "warmup", warmup, "a whole number of steps, at least 0")


def _check_step(step: int, total: int) -> None:
    if total < 1 or not 0 <= step <= total:
        raise InputError(f"step {step} of {total}; expected 0 <= step <= total and total >= 1")
