"""Soft certificates: the smoothed model averages confidences instead of counting votes.

With F̄(x) = E F(x + β) for confidences F in [0, 1], Φ⁻¹(F̄) is 1/σ-Lipschitz (Salman et al., NeurIPS 2019), so the radii
of votes hold with lower bounds of mean confidences. They certify the class of the largest *mean confidence*, which is
another smoothed model than that of the majority vote. `SoftRadii` is the door; `vote_softly` counts votes on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from segradius.certification.betting import Betting, checked_mean
from segradius.certification.certificate import Certificate, rounded_down
from segradius.certification.testing import check
from segradius.certification.votes import Answer, Sampling, draw
from segradius.core.contracts import Journal
from segradius.core.declared import Inside, check_fields
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry

#: The tightest for confidences, which vary little.
DEFAULT = "betting"


@dataclass(frozen=True)
class SoftRadii:
    """Certify each pixel at σΦ⁻¹(p̲), p̲ a lower bound of the mean confidence in the class guessed.

    Args:
        alpha: Error rate that is promised for the image: all its radii hold together with probability 1 − α.
        bound: ``betting``, ``bernstein`` or ``hoeffding``; one of `SOFT_BOUNDS`.

    Raises:
        InputError: For α out of range or an unknown bound.

    Example:
        >>> from segradius.certification import Noise
        >>> image = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1).expand(3, 4, 4)
        >>> sampling, key = Sampling(Noise(0.1), 10, 100), Randomness(0, ("a",))
        >>> found = SoftRadii()(lambda x: (9 * x).softmax(1), image, 3, sampling, key)
        >>> found.guess.unique().tolist(), bool(found.certified.all())
        ([0], True)
    """

    alpha: Inside = 0.001
    bound: str = DEFAULT

    def __post_init__(self) -> None:
        check_fields(self)
        SOFT_BOUNDS[self.bound]

    def __call__(
        self,
        probabilities: Answer,
        image: Tensor,
        num_classes: int,
        sampling: Sampling,
        randomness: Randomness,
        *,
        progress: Callable[[int], None] | None = None,
        journal: Journal | None = None,
    ) -> Certificate:
        """Draw noisy copies of an image and certify it.

        Args:
            probabilities: The model: probabilities (k, C, H, W) of copies (k, B, H, W).
            image: (B, H, W) in [0, 1].
            num_classes: C.
            sampling: How many copies, and of what noise; without looks at votes.
            randomness: Key of the image, one id.
            progress: Called with the number of copies just seen.
            journal: Keeps the sums and bounds, so that a killed run goes on with the next copy.

        Raises:
            InputError: For looks at votes, a clock beside a bound that holds for n draws only, or values that are no
                probabilities.
        """
        if sampling.enough is not None:
            raise InputError("there are no votes to look at among confidences alone: see vote_softly")
        tally = self.tally(image, num_classes, sampling, journal.load() if journal is not None else None)
        draw(probabilities, image, sampling, randomness, tally, progress=progress, journal=journal)
        return self.certificate(tally)

    def tally(
        self, image: Tensor, num_classes: int, sampling: Sampling, kept: Mapping[str, Any] | None = None
    ) -> ConfidenceTally:
        """What is kept of the confidences in an image, none so far or as a journal kept it.

        Raises:
            InputError: The number of copies is chosen on the way, and the bound holds for one that was fixed before.
        """
        self.check(looks=sampling.looks)
        height, width = image.shape[1:]
        bound = SOFT_BOUNDS[self.bound](self.alpha / (height * width), sampling.n)
        return ConfidenceTally.opened(image, num_classes, sampling, bound, kept)

    def check(self, *, looks: bool) -> None:
        """Raise `InputError` where copies are drawn with looks and the bound holds for a fixed number of them."""
        if looks and not SOFT_BOUNDS.facts(self.bound).get("anytime"):
            raise InputError(
                f"the bound {self.bound} needs a number of copies that was fixed before: use betting, or leave out "
                "early stopping and minutes"
            )

    def certificate(self, tally: ConfidenceTally) -> Certificate:
        """What follows from the confidences; `InputError` for values that are no probabilities."""
        sigma, bound = tally.sampling.noise.sigma, tally.bound
        radius = sigma * torch.special.ndtri(bound.lower(tally.state)).clamp_min(0) * tally.finite
        radius = rounded_down(torch.where(radius > 0, radius, 0.0))
        return Certificate(tally.guess, radius > 0, radius, sigma, self.alpha, "image")


@dataclass
class ConfidenceTally:
    """Sums of confidences in the first lot, and the bound's state about those in the guess in the second."""

    sampling: Sampling
    bound: SoftBound
    first: Tensor
    state: Any
    finite: Tensor
    done: int = 0
    seconds: float = 0.0
    chosen: Tensor | None = None

    @staticmethod
    def opened(
        image: Tensor, num_classes: int, sampling: Sampling, bound: SoftBound, kept: Mapping[str, Any] | None
    ) -> ConfidenceTally:
        """Of no copies, or as a journal kept it."""
        state = bound.start(image.shape[1:], image.device)
        if kept is not None:
            back = {k: v.to(image.device) if isinstance(v, Tensor) else v for k, v in kept["state"].items()}
            first, finite = kept["first"].to(image.device), kept["finite"].to(image.device)
            done, seconds = int(kept["done"]), float(kept.get("seconds", 0))
            return ConfidenceTally(sampling, bound, first, type(state)(**back), finite, done, seconds)
        first = torch.zeros((num_classes, *image.shape[1:]), dtype=torch.float64, device=image.device)
        finite = torch.ones((), dtype=torch.bool, device=image.device)
        return ConfidenceTally(sampling, bound, first, state, finite)

    @property
    def guess(self) -> Tensor:
        """(H, W), the class of the largest mean; fixed once the first lot is in."""
        self.chosen = self.first.argmax(0) if self.chosen is None else self.chosen
        return self.chosen

    def add(self, answer: Tensor, second: bool) -> None:
        """Take in probabilities (k, C, H, W) of copies of the first lot or the second; no host sync."""
        if second:
            confidence = answer.gather(1, self.guess.expand(len(answer), 1, -1, -1)).squeeze(1)
            self.finite &= torch.isfinite(confidence).all()
            self.state = self.bound.add(self.state, confidence)
        else:
            self.first += answer.sum(0)
            self.finite &= torch.isfinite(self.first).all()
        self.done += len(answer)

    def standing(self) -> dict[str, Any]:
        """For a journal."""
        state = {field.name: getattr(self.state, field.name) for field in fields(self.state)}
        names = ("first", "finite", "done", "seconds")
        return {name: getattr(self, name) for name in names} | {"state": state}


class SoftBound(Protocol):
    """A lower bound for the mean of each pixel's draws in [0, 1], with P(mean < bound) ≤ α."""

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Any:
        """The state before any draw."""

    def add(self, state: Any, values: Tensor) -> Any:
        """The state after draws ``values`` (k, …) in [0, 1]; the state given is used up."""

    def lower(self, state: Any) -> Tensor:
        """The bound, (…) float64 in [0, 1]."""


#: From α of one pixel and n to a bound.
#: Registered with ``anytime`` where it holds whatever number of draws a look at them stops at, up to n.
SOFT_BOUNDS: Registry[Callable[[float, int], SoftBound]] = Registry("soft bound")


# Stakes are of the draws before them, and the highest capital is a maximum over some times of a supermartingale.
SOFT_BOUNDS.register("betting", anytime=True)(Betting)


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
        check(self.trials, alpha=self.alpha)

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


@dataclass(frozen=True)
class Moments:
    """Number of draws, their sum and the sum of their squares, the sums (…) float64."""

    count: int
    total: Tensor
    squares: Tensor


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


def hoeffding_lower(total: Tensor, trials: int, alpha: float) -> Tensor:
    """Hoeffding's bound: mean − √(ln(1/α) / 2n), blind to the variance (Hoeffding 1963, Theorem 1).

    Args:
        total: Sum of the n values, any shape, float64 if n is large.
        trials: n ≥ 1.
        alpha: Error rate of one pixel in (0, 1).

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        InputError: For sums outside [0, n], n < 1 or α outside (0, 1).

    Example:
        >>> hoeffding_lower(torch.tensor([90.0]), 100, 0.001)
        tensor([0.7142], dtype=torch.float64)
    """
    check(trials, alpha=alpha)
    return (checked_mean(total, trials) - math.sqrt(math.log(1 / alpha) / (2 * trials))).clamp(0, 1)


def bernstein_lower(total: Tensor, squares: Tensor, trials: int, alpha: float) -> Tensor:
    """The empirical Bernstein bound: mean − √(2V ln(2/α) / n) − 7 ln(2/α) / (3(n − 1)).

    V is the unbiased sample variance, V = Σ(x − mean)² / (n − 1). From Maurer & Pontil (COLT 2009), Theorem 4, which is
    one-sided as it stands: the 2 in ln(2/α) pays for the mean and for the variance, not for two sides.

    Args:
        total: Sum of the n values, any shape, float64.
        squares: Sum of their squares, float64 (V is a difference of nearly equal numbers).
        trials: n ≥ 1; one draw has no variance, its bound is 0.
        alpha: Error rate of one pixel in (0, 1).

    Returns:
        float64 in [0, 1], of the same shape.

    Raises:
        InputError: For sums outside [0, n], n < 1 or α outside (0, 1).

    Example:
        >>> total, squares = torch.tensor([900.0]).double(), torch.tensor([811.0]).double()
        >>> bernstein_lower(total, squares, 1000, 0.001)
        tensor([0.8783], dtype=torch.float64)
    """
    check(trials, alpha=alpha)
    mean = checked_mean(total, trials)
    if trials == 1:
        return torch.zeros_like(mean)
    variance = (squares.double() - trials * mean.square()).clamp_min(0) / (trials - 1)
    log = math.log(2 / alpha)
    return (mean - (2 * variance * log / trials).sqrt() - 7 * log / (3 * (trials - 1))).clamp(0, 1)
