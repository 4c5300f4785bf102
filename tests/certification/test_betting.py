"""The betting bound against a scalar loop, exact error rates and the ways to cut a stream."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from segradius.certification import betting as module
from segradius.certification.betting import RADIUS_GRID, Bets, Betting
from segradius.core.errors import InputError


def highest_capital(draws: list[float], m: float, alpha: float, trials: int, group: int) -> float:
    """One gambler against one candidate, a draw at a time."""
    capital = highest = 1.0
    stake, seen = 0.0, []
    for t, x in enumerate(draws):
        if t % group == 0:
            means = [(0.5 + sum(seen[: i + 1])) / (i + 2) for i in range(t)]
            variance = (0.25 + sum((s - mean) ** 2 for s, mean in zip(seen, means, strict=True))) / (t + 1)
            stake = min(math.sqrt(2 * math.log(1 / alpha) / (trials * variance)), 0.75 / m)
        capital *= 1 + stake * (x - m)
        seen.append(x)
        if (t + 1) % group == 0 or t + 1 == len(draws):
            highest = max(highest, capital)
    return highest


def same(one: Bets, other: Bets) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(Bets)]
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in pairs)


@pytest.mark.parametrize("group", [1, 4, 10])
@pytest.mark.parametrize("alpha", [0.05, 1e-8])
def test_bound_and_p_value_are_those_of_a_scalar_loop(group: int, alpha: float) -> None:
    random = np.random.default_rng(5)
    draws = np.stack([random.beta(9, 1, 57), random.integers(0, 2, 57), np.full(57, 0.9), random.beta(40, 1, 57)], 1)
    draws = draws.astype(np.float32)
    grid = (0.2, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9)
    bound = Betting(alpha, 60, grid, group)
    found = bound.lower(bound.add(bound.start((4,)), torch.from_numpy(draws)))
    for pixel, lower in zip(draws.T.tolist(), found.tolist(), strict=True):
        capital = [highest_capital(pixel, m, alpha, 60, group) for m in grid]
        assert lower == pytest.approx(max((m for m, c in zip(grid, capital, strict=True) if c >= 1 / alpha), default=0))
    one = Betting(alpha, 60, (0.6,), group)
    p = one.p_value(one.add(one.start((4,)), torch.from_numpy(draws)))
    expected = [min(1, 1 / highest_capital(pixel, 0.6, alpha, 60, group)) for pixel in draws.T.tolist()]
    assert np.allclose(p, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("mean", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_error_rates_for_a_coin_are_at_most_alpha_exactly(group: int, mean: float, alpha: float) -> None:
    draws = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12))).T
    weight = torch.where(draws == 1, mean, 1 - mean).double().prod(0)
    test = Betting(alpha, 12, (mean,), group)
    p = test.p_value(test.add(test.start((4096,)), draws))
    for level in (alpha, 0.001, 0.1, 0.5):
        assert weight[p <= level].sum() <= level
    bound = Betting(alpha, 12, tuple(np.linspace(0.01, 0.99, 99)), group)
    assert weight[bound.lower(bound.add(bound.start((4096,)), draws)) > mean + 1e-6].sum() <= alpha


@pytest.mark.parametrize("kind", ["beta", "skewed", "nearly constant"])
def test_p_values_of_the_true_mean_are_valid(kind: str) -> None:
    random = np.random.default_rng(2)
    size = (200, 4000)
    values, mean = {
        "beta": lambda: (random.beta(19, 1, size), 0.95),
        "skewed": lambda: (random.beta(0.19, 0.01, size), 0.95),
        "nearly constant": lambda: (np.where(random.random(size) < 0.01, 0.0, 0.7), 0.693),
    }[kind]()
    test = Betting(0.05, 200, (mean,))
    p = test.p_value(test.add(test.start((4000,)), torch.from_numpy(values)))
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).sum() <= stats.binom.ppf(1 - 1e-6, 4000, level)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 12), st.integers(0, 99))
def test_how_a_stream_is_cut_changes_nothing(cuts: list[int], group: int, seed: int) -> None:
    draws = torch.rand(sum(cuts), 2, 3, generator=torch.Generator().manual_seed(seed))
    bound = Betting(0.01, 40, group=group)
    whole = bound.add(bound.start((2, 3)), draws)
    state = bound.start((2, 3))
    for part in torch.split(draws, cuts):
        state = bound.add(state, part)
    assert same(state, whole)


def test_a_cut_where_the_capital_is_nearly_lost_changes_nothing() -> None:
    draws = torch.cat([torch.zeros(45, 1), torch.ones(155, 1)])
    bound = Betting(1e-8, 10, (0.5,), group=200)
    whole = bound.add(bound.start((1,)), draws)
    assert whole.highest.item() == pytest.approx(0.25**45 * 1.75**155, rel=1e-3)
    assert same(bound.add(bound.add(bound.start((1,)), draws[:45]), draws[45:]), whole)


def test_pixels_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = torch.rand(25, 7, 5, generator=torch.Generator().manual_seed(0)) ** 0.1
    bound = Betting(0.01, 25)
    whole = bound.lower(bound.add(bound.start((7, 5)), draws))
    monkeypatch.setattr(module, "_CELLS", {"cpu": 4 * len(RADIUS_GRID)})
    assert torch.equal(bound.lower(bound.add(bound.start((7, 5)), draws)), whole)
    alone = bound.lower(bound.add(bound.start((1, 1)), draws[:, 3:4, 2:3]))
    assert torch.equal(alone, whole[3:4, 2:3])


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.floats(1e-12, 0.5))
def test_capital_falls_with_the_candidate_and_the_bound_stays_below_the_largest_draw(
    draws: list[float], alpha: float
) -> None:
    bound = Betting(alpha, 60)
    state = bound.add(bound.start((1,)), torch.tensor(draws).unsqueeze(1))
    assert (state.capital[1:] <= state.capital[:-1] * (1 + 1e-4)).all()
    assert bound.lower(state) <= max(draws) + 1e-6


def test_the_bound_holds_at_every_length_and_rises_with_it() -> None:
    bound = Betting(1e-4, 200)
    state, last = bound.start((1,)), 0.0
    for _ in range(40):
        state = bound.add(state, torch.full((10, 1), 0.95))
        found = bound.lower(state).item()
        assert last <= found < 0.95
        last = found
    assert last > 0.91


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_capital_may_overflow_or_be_lost(value: float) -> None:
    test = Betting(1e-30, 2000, (0.5,))
    p = test.p_value(test.add(test.start((1,)), torch.full((2000, 1), value))).item()
    assert p == 1 if value == 0 else 0 < p < 1e-38


def test_nothing_is_known_before_any_draw() -> None:
    bound = Betting(0.999999999, 5)
    assert bound.lower(bound.start((2, 2))).tolist() == [[0, 0], [0, 0]]


def test_a_pixel_without_numbers_has_no_bound() -> None:
    bound = Betting(0.1, 50)
    draws = torch.full((50, 2), 0.99)
    draws[3, 0] = math.nan
    found = bound.lower(bound.add(bound.start((2,)), draws)).tolist()
    assert found[0] == 0 < found[1]


def test_the_default_grid_is_the_radius_in_steps_of_a_twentieth_of_sigma() -> None:
    assert np.allclose(stats.norm.ppf(RADIUS_GRID), np.arange(81) / 20)


@pytest.mark.parametrize("grid", [(), (0.5, 0.5), (0.6, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_grids_that_are_none(grid: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="ascending numbers"):
        Betting(0.1, 10, grid)


def test_other_errors() -> None:
    with pytest.raises(InputError, match="group is 0; expected a whole number in"):
        Betting(0.1, 10, group=0)
    with pytest.raises(InputError, match="at least 1e-30"):
        Betting(1e-31, 10)
    bound = Betting(0.1, 10)
    with pytest.raises(InputError, match="the grid has 81"):
        bound.p_value(bound.start((1,)))
