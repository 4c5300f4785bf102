"""A lower confidence bound for the mean of a variable in [0, 1] by betting, tight where the variance is small.

For a candidate mean m a gambler starts with capital 1 and stakes λ on each draw being above m: the capital is
Π (1 + λ(x − m)). If m is the true mean or more, the capital is a supermartingale and ever reaches 1/α with probability
at most α (Ville), so that candidates at which it did are rejected. As λ ≥ 0 each factor falls with m, rejected
candidates lie below all others, and the largest of them is the bound (Waudby-Smith & Ramdas, JRSS-B 2024, Section 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from segradius.certification.testing import check
from segradius.core.declared import Copies, Count, Inside, check_fields
from segradius.core.errors import InputError, at_least, must

#: Candidates m = Φ(z), z = 0, 0.05 … 4: the radius is σ·z, and there is none at p ≤ ½.
RADIUS_GRID: tuple[float, ...] = tuple(torch.special.ndtr(torch.linspace(0, 4, 81, dtype=torch.float64)).tolist())

# A stake is at most c/m, a loss at most the share c of the capital. The paper uses c = 1/2 and 3/4; with α as small as
# one pixel of an image gets it, stakes are at this limit for the first hundreds of draws, and 3/4 is tighter there:
# 0.74 against 0.67 for Beta(19, 1) at n = 100, α = 1e-8. It costs 0.01 for Bernoulli(0.95) at n = 1000.
_LIMIT = 0.75
_RUIN = 1e-25  # capital below this counts as lost: valid, and it spares the CPU slow denormal numbers
_SMALLEST_ALPHA = 1e-30  # 1/α must be a float32
_ROUNDING = 2.0**-19  # a factor is at least 1 − c = 1/4 and has, with its product, an error below 14 roundings of 2⁻²⁴
# Sums of float32 softmax outputs may exceed the number of draws by their rounding, and by no more.
_EXCESS = 1e-5
_CELLS = {"cpu": 1 << 17}  # candidates × pixels at once: what the cache of a CPU holds
_CELLS_ELSEWHERE = 1 << 24


@dataclass(frozen=True)
class Bets:
    """Capital of each candidate after some draws.

    ``capital`` (K, …) now; ``highest`` (K, …) at the end of any group so far; ``stake`` (…) before it is limited;
    ``total`` (…) of the draws and ``spread`` (…) of them about their running mean, both with their prior.
    """

    count: int
    capital: Tensor
    highest: Tensor
    stake: Tensor
    total: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Betting:
    """Betting: the tightest of the bounds, up to a step of its grid; it holds at every length of the stream.

    The stake is λ = √(2 ln(1/α) / (n·v)), at most c/m with c = 3/4, where v is the variance of the draws before it with
    a prior of one draw of variance ¼ about the mean ½ (the predictable plug-in, one-sided and for a fixed n). It is
    renewed, and the highest capital taken, every ``group`` draws. Each draw is bet on by itself: bets on the *mean* of
    a group lose most of the tightness (0.74 instead of 0.92 for Beta(19, 1), groups of 10, n = 1000 and α = 1e-8).

    Args:
        alpha: Error rate of one pixel in [1e-30, 1).
        trials: Draws n ≥ 1 the stakes are made for; fewer or more remain valid.
        grid: Candidate means in (0, 1), ascending, rounded to float32; the bound is one of them, or 0.
        group: Draws that share a stake. At n = 1000, 10 is four times as fast as 1 and costs at most 0.0005.

    Raises:
        InputError: For values out of these ranges.

    Example:
        >>> betting = Betting(alpha=0.001, trials=100)
        >>> bets = betting.add(betting.start((1, 2)), torch.full((100, 1, 2), 0.9))
        >>> betting.lower(bets)
        tensor([[0.8159, 0.8159]], dtype=torch.float64)
    """

    alpha: Inside
    trials: Copies
    grid: Sequence[float] = RADIUS_GRID
    group: Count = 10

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.trials, alpha=self.alpha)
        at_least(_SMALLEST_ALPHA, alpha=self.alpha)
        ends = (0.0, *self.grid, 1.0)
        ascending = all(low < high for low, high in pairwise(ends))
        must(len(self.grid) > 0 and ascending, "grid", tuple(self.grid), "ascending numbers in (0, 1), one or more")

    def start(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Bets:
        """Capital 1 for every candidate and pixel of ``shape``, before any draw."""
        capital = torch.ones((len(self.grid), *shape), device=device)
        total = torch.full(tuple(shape), 0.5, device=device)
        return Bets(0, capital, capital.clone(), torch.zeros_like(total), total, torch.full_like(total, 0.25))

    def add(self, state: Bets, values: Tensor) -> Bets:
        """Bet on more draws.

        Args:
            state: From `start` or `add`. Its capital, K times an image, is **overwritten**: keep what is returned.
            values: (k, …) in [0, 1], draws in their order. How a stream is cut into calls changes nothing.

        Returns:
            The state after them.
        """
        values = values.detach().float()
        first = -state.count % self.group
        for part in (values[:first], *torch.split(values[first:], self.group)):
            state = self._bet(state, part) if len(part) else state
        return state

    def lower(self, state: Bets) -> Tensor:
        """The largest rejected candidate of each pixel, or 0: (…) float64; `InputError` for values outside [0, 1]."""
        _check_values(state)
        bar = _rounding(state) / self.alpha
        found = torch.zeros_like(state.total, dtype=torch.float64)
        for m, highest, capital in zip(self._candidates(found).double(), state.highest, state.capital, strict=True):
            found = torch.where((highest >= bar) | (capital >= bar), m, found)
        return found

    def p_value(self, state: Bets) -> Tensor:
        """1 / (highest capital), at most 1: p-values (…) float64 of "the mean is at most m", m the only candidate.

        Raises:
            InputError: If the grid has several candidates or values were outside [0, 1].
        """
        if len(self.grid) != 1:
            raise InputError(f"a p-value belongs to one candidate mean, the grid has {len(self.grid)}")
        _check_values(state)
        highest = torch.maximum(state.highest, state.capital)[0].double()
        return (_rounding(state) / highest.clamp(max=torch.finfo(torch.float32).max)).clamp(max=1)

    def _bet(self, state: Bets, draws: Tensor) -> Bets:
        """Bet on draws (k, …) of one group."""
        stake = self._stake(state) if state.count % self.group == 0 else state.stake
        count, total, spread = state.count, state.total, state.spread
        for x in draws:
            count, total = count + 1, total + x
            spread = spread + (x - total / (count + 1)).square()
        _pay(state, stake, draws, self._candidates(stake).unsqueeze(1), closing=count % self.group == 0)
        return replace(state, count=count, stake=stake, total=total, spread=spread)

    def _stake(self, state: Bets) -> Tensor:
        variance = state.spread / (state.count + 1)
        return (2 * math.log(1 / self.alpha) / (self.trials * variance)).sqrt()

    def _candidates(self, like: Tensor) -> Tensor:
        return torch.tensor(self.grid, dtype=torch.float32, device=like.device)


def checked_mean(total: Tensor, trials: int) -> Tensor:
    """Mean of values from their sum, float64; `InputError` where it lies outside [0, 1], so that some value did."""
    mean = total.double() / trials
    if bool(((mean < -_EXCESS) | (mean > 1 + _EXCESS)).any()):
        raise InputError(f"the values must lie in [0, 1]: the mean of {trials} of them is outside")
    return mean


def _pay(state: Bets, stake: Tensor, draws: Tensor, m: Tensor, closing: bool) -> None:
    """Multiply the capital by 1 + λ(x − m) for each of the draws (k, …), m (K, 1), in place and by blocks of pixels.

    Closing a group, its capital is compared with the highest.
    """
    size = max(1, _CELLS.get(stake.device.type, _CELLS_ELSEWHERE) // len(m))
    flat = state.capital.flatten(1), state.highest.flatten(1), draws.flatten(1), stake.reshape(1, -1)
    for capital, highest, values, wanted in zip(*(torch.split(each, size, 1) for each in flat), strict=True):
        bet = torch.minimum(wanted, _LIMIT / m)
        rest = 1 - bet * m
        for x in values:
            capital.mul_(torch.addcmul(rest, bet, x))
        if closing:
            torch.maximum(highest, capital, out=highest)
            torch.threshold_(capital, _RUIN, 0.0)


def _rounding(state: Bets) -> float:
    """What rounding may have multiplied the capital by, at most."""
    return math.exp(_ROUNDING * (state.count + 1))


def _check_values(state: Bets) -> None:
    checked_mean(state.total - 0.5, max(state.count, 1))
