"""p-values against scipy's tests, corrections against statsmodels and the definitions, both over random inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from segradius.certification import CORRECTIONS, anytime_p_values, p_values, rejected
from segradius.certification.testing import upper_tail
from segradius.core.errors import InputError

ps = st.lists(st.sampled_from([0.0, 1e-9, 1e-4, 0.001, 0.004, 0.01, 0.02, 0.04, 0.3, 1.0]), min_size=1, max_size=40)
alphas = st.sampled_from([0.001, 0.05, 0.2])


@pytest.mark.parametrize(("trials", "tau"), [(1, 0.5), (10, 0.75), (100, 0.75), (1000, 0.9)])
def test_p_values_are_those_of_the_exact_test(trials, tau):
    counts = torch.arange(trials + 1).view(1, -1)[:, :: max(1, trials // 10)]
    expected = [stats.binomtest(int(s), trials, tau, alternative="greater").pvalue for s in counts[0]]
    assert torch.allclose(p_values(counts, trials, tau)[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("trials", [1, 37, 1000])
def test_the_tail_is_that_of_the_binomial_law(trials):
    counts = np.arange(trials + 1)
    for rate in (1e-3, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(
            upper_tail(counts, trials, rate), stats.binom.sf(counts - 1, trials, rate), rtol=1e-12
        )


def test_p_values_are_valid_for_every_probability_up_to_tau():
    trials, tau = 60, 0.7
    p = p_values(torch.arange(trials + 1), trials, tau).numpy()
    for truth in (0.2, 0.5, 0.69, 0.7):
        law = stats.binom.pmf(np.arange(trials + 1), trials, truth)
        for alpha in (0.2, 0.05, 1e-3):
            assert law[p <= alpha].sum() <= alpha * (1 + 1e-9)


@given(st.integers(1, 300), st.floats(0.5, 0.95), st.data())
def test_anytime_p_values_are_the_inverse_of_the_mixture(trials, tau, data):
    hits = data.draw(st.integers(0, trials))

    def ratio(theta):
        return np.exp(hits * np.log(theta / tau) + (trials - hits) * np.log1p((tau - theta) / (1 - tau)))

    peak = min(max(hits / trials, tau + 1e-9), 1 - 1e-9)
    mixture = integrate.quad(ratio, tau, 1, points=[peak], limit=200)[0] / (1 - tau)
    found = anytime_p_values(torch.tensor([hits]), trials, tau).item()
    assert found == pytest.approx(min(1.0, 1 / mixture), rel=1e-5)


def test_the_mixture_is_a_supermartingale_up_to_tau():
    """E[e_{n+1} | s, n] ≤ e_n for every p ≤ τ, with equality at τ: what makes looking at every copy free."""
    trials, tau = 40, 0.75
    now = 1 / anytime_p_values(torch.arange(trials + 1), trials, tau)
    then = 1 / anytime_p_values(torch.arange(trials + 2), trials + 1, tau)
    grown = now > 1.5  # where neither is cut off at 1
    step_up, step_down = then[1:], then[:-1]
    assert torch.allclose((tau * step_up + (1 - tau) * step_down)[grown], now[grown], rtol=1e-9)
    assert ((0.5 * step_up + 0.5 * step_down)[grown] < now[grown]).all()


def test_looking_after_every_copy_errs_no_more_than_promised():
    generator = np.random.default_rng(0)
    tau, alpha, runs, copies = 0.75, 0.05, 4000, 150
    hits = (generator.random((runs, copies)) < tau).cumsum(1)
    fixed = anytime = np.zeros(runs, dtype=bool)
    for n in range(1, copies + 1):
        counts = torch.from_numpy(hits[:, n - 1])
        fixed = fixed | (p_values(counts, n, tau) <= alpha).numpy()
        anytime = anytime | (anytime_p_values(counts, n, tau) <= alpha).numpy()
    assert anytime.mean() <= alpha
    assert fixed.mean() > 3 * alpha  # the fixed test may not be looked at


@given(ps, alphas)
@settings(deadline=None)  # the first call imports the library
def test_corrections_are_those_of_statsmodels(values, alpha):
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is in the extra test")
    for name, theirs in (("bonferroni", "bonferroni"), ("holm", "holm"), ("by", "fdr_by")):
        adjusted = multitest.multipletests(values, alpha, theirs)[1]
        if np.abs(adjusted - alpha).min() < 1e-9:
            continue  # equal up to rounding: either answer is right
        assert rejected(torch.tensor(values), alpha, name).tolist() == (adjusted <= alpha).tolist()


@given(ps, alphas, st.integers(1, 5))
def test_kfwer_is_the_definition(values, alpha, k):
    ordered, count, passed = sorted(values), len(values), 0
    for i, value in enumerate(np.float64(ordered), start=1):
        if value > (k * alpha / count if i <= k else k * alpha / (count + k - i)):
            break
        passed = i
    expected = [value <= ordered[passed - 1] if passed else False for value in values]
    assert rejected(torch.tensor(values, dtype=torch.float64), alpha, "kfwer", k).tolist() == expected


@given(ps, alphas)
def test_the_order_of_power(values, alpha):
    p = torch.tensor(values, dtype=torch.float64)
    bonferroni, holm, many = (rejected(p, alpha, *how) for how in (("bonferroni",), ("holm",), ("kfwer", 4)))
    assert (bonferroni <= holm).all()
    assert (holm <= many).all()
    assert (many <= rejected(p, min(4 * alpha, 0.999), "none")).all()


@given(ps, alphas, st.sampled_from(sorted(CORRECTIONS)), st.randoms())
def test_a_correction_knows_no_order(values, alpha, name, random):
    p = torch.tensor(values, dtype=torch.float64)
    order = torch.tensor(random.sample(range(len(p)), len(p)))
    assert torch.equal(rejected(p[order], alpha, name), rejected(p, alpha, name)[order])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rejected(torch.rand(3), 0.0), "alpha is 0.0"),
        (lambda: rejected(torch.rand(3), 0.1, "holms"), "holm"),
        (lambda: rejected(torch.rand(3), 0.1, "kfwer", 0), "k is 0"),
        (lambda: p_values(torch.tensor([0]), 0, 0.75), "trials is 0"),
        (lambda: p_values(torch.tensor([0]), 1, 1.0), "tau is 1.0"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
