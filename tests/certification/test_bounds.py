"""Confidence bounds against scipy, closed forms and exact error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segradius.certification.soft import DEFAULT, SOFT_BOUNDS, bernstein_lower, hoeffding_lower
from segradius.certification.testing import clopper_pearson_lower, clopper_pearson_upper
from segradius.core.errors import InputError

TRIALS = st.integers(2, 300)
ALPHA = st.floats(1e-12, 0.5)


@pytest.mark.parametrize("alpha", [0.05, 1e-3 / 76800])
@pytest.mark.parametrize("trials", [1, 7, 100])
def test_clopper_pearson_is_scipys_exact_interval(trials: int, alpha: float) -> None:
    counts = torch.arange(trials + 1)
    tests = [stats.binomtest(s, trials, alternative="greater") for s in range(trials + 1)]
    low = [t.proportion_ci(1 - alpha, "exact").low for t in tests]
    # 1 − alpha has lost digits of alpha, and scipy searches a root to within 1e-12 or so.
    assert np.allclose(clopper_pearson_lower(counts, trials, alpha), low, rtol=1e-4, atol=0)
    assert np.allclose(clopper_pearson_upper(counts, trials, alpha), 1 - np.array(low)[::-1], rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("alpha", [0.05, 1e-12])
@pytest.mark.parametrize("trials", [1, 100, 10_000])
def test_clopper_pearson_solves_its_defining_equation(trials: int, alpha: float) -> None:
    counts = np.arange(1, trials + 1)
    bound = clopper_pearson_lower(torch.from_numpy(counts), trials, alpha).numpy()
    assert np.allclose(stats.binom.sf(counts - 1, trials, bound), alpha, rtol=1e-6, atol=0)


def test_clopper_pearson_ends_and_closed_form() -> None:
    counts = torch.tensor([[0, 50]], dtype=torch.uint8)
    assert clopper_pearson_lower(counts, 50, 1e-6).tolist() == [[0.0, pytest.approx(1e-6 ** (1 / 50))]]
    assert clopper_pearson_upper(counts, 50, 1e-6).tolist() == [[pytest.approx(1 - 1e-6 ** (1 / 50)), 1.0]]


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
@pytest.mark.parametrize("trials", [1, 2, 20, 200])
def test_error_rates_for_a_coin_are_at_most_alpha_exactly(trials: int, alpha: float) -> None:
    counts = torch.arange(trials + 1)
    p = np.linspace(0.001, 0.999, 400)[:, None]
    pmf = stats.binom.pmf(counts.numpy(), trials, p)
    for bound in (
        clopper_pearson_lower(counts, trials, alpha),
        hoeffding_lower(counts.double(), trials, alpha),
        bernstein_lower(counts.double(), counts.double(), trials, alpha),
    ):
        assert ((bound.numpy() > p) * pmf).sum(1).max() <= alpha * (1 + 1e-9)
    above = (clopper_pearson_upper(counts, trials, alpha).numpy() < p) * pmf
    assert above.sum(1).max() <= alpha * (1 + 1e-9)


@pytest.mark.parametrize("name", sorted(SOFT_BOUNDS))
@pytest.mark.parametrize("kind", ["beta", "skewed", "nearly constant"])
def test_error_rates_for_other_variables_are_at_most_alpha(name: str, kind: str) -> None:
    random = np.random.default_rng(3)
    repetitions, trials, alpha = 4000, 60, 0.1
    size = (trials, repetitions)
    values, mean = {
        "beta": lambda: (random.beta(8, 2, size), 0.8),
        "skewed": lambda: (random.beta(0.19, 0.01, size), 0.95),
        "nearly constant": lambda: (np.where(random.random(size) < 0.01, 0.0, 0.7), 0.693),
    }[kind]()
    bound = SOFT_BOUNDS[name](alpha, trials)
    found = bound.lower(bound.add(bound.start((repetitions,)), torch.from_numpy(values)))
    assert (found > mean).sum() <= stats.binom.ppf(1 - 1e-6, repetitions, alpha)
    assert ((found >= 0) & (found <= 1)).all()


def test_hoeffding_and_bernstein_are_their_formulas() -> None:
    x = np.random.default_rng(0).beta(9, 1, 500)
    total, squares = torch.tensor(x.sum()), torch.tensor((x**2).sum())
    assert hoeffding_lower(total, 500, 0.01).item() == pytest.approx(x.mean() - math.sqrt(math.log(100) / 1000))
    width = math.sqrt(2 * x.var(ddof=1) * math.log(200) / 500) + 7 * math.log(200) / (3 * 499)
    assert bernstein_lower(total, squares, 500, 0.01).item() == pytest.approx(x.mean() - width)


@given(TRIALS, ALPHA, st.data())
def test_a_bound_rises_with_successes_and_with_alpha_and_stays_below_the_mean(
    trials: int, alpha: float, data: st.DataObject
) -> None:
    other = data.draw(st.floats(alpha, 0.5))
    counts = torch.arange(trials + 1)
    for bound in (clopper_pearson_lower, lambda s, n, a: hoeffding_lower(s.double(), n, a)):
        found = bound(counts, trials, alpha)
        assert (found.diff() >= 0).all()
        assert (found <= bound(counts, trials, other) + 1e-12).all()
        assert (found <= counts / trials + 1e-12).all()
    assert (clopper_pearson_upper(counts, trials, alpha) >= counts / trials - 1e-12).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), ALPHA)
def test_more_variance_never_raises_the_bernstein_bound(values: list[float], alpha: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    spread, total = x.square().sum(), x.sum()
    least = total.square() / len(x)
    found = bernstein_lower(total, spread, len(x), alpha)
    assert bernstein_lower(total, least, len(x), alpha) + 1e-9 >= found
    assert found <= x.mean() + 1e-12


def test_exact_bound_beats_hoeffding_for_a_coin() -> None:
    counts = torch.arange(101)
    assert (clopper_pearson_lower(counts, 100, 0.001) >= hoeffding_lower(counts, 100, 0.001)).all()


def test_low_variance_is_what_bernstein_and_betting_use() -> None:
    x = torch.from_numpy(np.random.default_rng(1).beta(190, 10, (1000, 50)))
    found = {}
    for name in SOFT_BOUNDS:
        bound = SOFT_BOUNDS[name](1e-8, 1000)
        found[name] = bound.lower(bound.add(bound.start((50,)), x))
    assert (found["betting"] > found["bernstein"]).all()
    assert (found["bernstein"] > found["hoeffding"]).all()
    assert DEFAULT in SOFT_BOUNDS


@pytest.mark.parametrize("name", ["hoeffding", "bernstein"])
def test_sums_are_streamed(name: str) -> None:
    x = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(0))
    bound = SOFT_BOUNDS[name](0.1, 20)
    whole = bound.add(bound.start((3, 4)), x)
    state = bound.start((3, 4))
    for part in torch.split(x, [3, 1, 16]):
        state = bound.add(state, part)
    assert torch.equal(bound.lower(state), bound.lower(whole))
    with pytest.raises(InputError, match="20 draws it was made for, got 21"):
        bound.lower(bound.add(state, x[:1]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_alpha_outside_its_range(alpha: float) -> None:
    one = torch.ones(1)
    with pytest.raises(InputError, match="alpha"):
        clopper_pearson_lower(one.long(), 2, alpha)
    with pytest.raises(InputError, match="alpha"):
        hoeffding_lower(one, 2, alpha)
    with pytest.raises(InputError, match="alpha"):
        bernstein_lower(one, one, 2, alpha)
    for name in SOFT_BOUNDS:
        with pytest.raises(InputError, match="alpha"):
            SOFT_BOUNDS[name](alpha, 2)
        with pytest.raises(InputError, match="trials is 0; expected"):
            SOFT_BOUNDS[name](0.1, 0)


@pytest.mark.parametrize("counts", [[-1], [4], [1.0]])
def test_counts_that_cannot_be(counts: list[float]) -> None:
    with pytest.raises(InputError, match="0 … 3"):
        clopper_pearson_lower(torch.tensor(counts), 3, 0.1)


@pytest.mark.parametrize("name", sorted(SOFT_BOUNDS))
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_values_outside_the_unit_interval(name: str, value: float) -> None:
    bound = SOFT_BOUNDS[name](0.1, 4)
    state = bound.add(bound.start((2,)), torch.tensor([[0.5, value]]).expand(4, 2))
    with pytest.raises(InputError, match=r"lie in \[0, 1\]"):
        bound.lower(state)
