"""Lower confidence bounds for the mean of a stream of confidences, by name: how a soft certificate is bounded.

A bound is a frozen dataclass of α and n. ``start`` makes a state for a shape, ``add`` streams draws into it and
``lower`` reads the bound off, so that n draws of an image never lie in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from segradius.certification.betting import Betting
from segradius.certification.bounds import bernstein_lower, check, hoeffding_lower
from segradius.errors import InputError
from segradius.registry import Registry


class SoftBound(Protocol):
    """A lower bound for the mean of each pixel's draws in [0, 1], with P(mean < bound) ≤ α."""

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Any:
        """The state before any draw."""
        ...

    def add(self, state: Any, values: Tensor) -> Any:
        """The state after draws ``values`` (k, …) in [0, 1]; the state given is used up."""
        ...

    def lower(self, state: Any) -> Tensor:
        """The bound, (…) float64 in [0, 1]."""
        ...


#: From α of one pixel and n to a bound.
SOFT_BOUNDS: Registry[Callable[[float, int], SoftBound]] = Registry("soft bound")
SOFT_BOUNDS.register("betting")(Betting)

#: The tightest for confidences, which vary little.
DEFAULT = "betting"


@dataclass(frozen=True)
class Moments:
    """Number of draws, their sum and the sum of their squares, the sums (…) float64."""

    count: int
    total: Tensor
    squares: Tensor


@dataclass(frozen=True)
class FromSums:
    """A bound in closed form of the sum of n draws and that of their squares.

    Args:
        alpha: Error rate of one pixel in (0, 1).
        trials: Number of draws n ≥ 1.
        formula: From the sums, n and α to the bound.
    """

    alpha: float
    trials: int
    formula: Callable[[Tensor, Tensor, int, float], Tensor]

    def __post_init__(self) -> None:
        check(self.trials, self.alpha)

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Moments:
        """No draws."""
        zeros = torch.zeros(tuple(shape), dtype=torch.float64, device=device)
        return Moments(0, zeros, zeros)

    def add(self, state: Moments, values: Tensor) -> Moments:
        """Sums with ``values`` (k, …) added."""
        total, squares = state.total, state.squares
        for x in values.detach().double():
            total, squares = total + x, squares + x.square()
        return Moments(state.count + len(values), total, squares)

    def lower(self, state: Moments) -> Tensor:
        """The bound, (…); raises `InputError` unless exactly n draws were added."""
        if state.count != self.trials:
            raise InputError(f"the bound holds for the {self.trials} draws it was made for, got {state.count}")
        return self.formula(state.total, state.squares, self.trials, self.alpha)


@SOFT_BOUNDS.register("hoeffding")
def hoeffding(alpha: float, trials: int) -> FromSums:
    """Hoeffding's bound, the classic: its width depends on n and α alone.

    Example:
        >>> bound = hoeffding(alpha=0.001, trials=100)
        >>> bound.lower(bound.add(bound.start((2,)), torch.full((100, 2), 0.9)))
        tensor([0.7142, 0.7142], dtype=torch.float64)
    """
    return FromSums(alpha, trials, lambda total, _, n, error: hoeffding_lower(total, n, error))


@SOFT_BOUNDS.register("bernstein")
def bernstein(alpha: float, trials: int) -> FromSums:
    """Maurer and Pontil's empirical Bernstein bound: its width follows the sample variance once n ≫ ln(1/α)."""
    return FromSums(alpha, trials, bernstein_lower)
