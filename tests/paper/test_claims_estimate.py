"""Intervals over images and seeds: against scipy and statsmodels where they know the case; simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from segradius.core.errors import InputError
from segradius.paper.estimate import Estimate, Term, estimate, holm, unknown


def gap(shares):
    return shares[..., 0] - shares[..., 1]


def term(group, above, below=None):
    above = torch.as_tensor(above, dtype=torch.float64)
    return Term(group, above, torch.ones_like(above) if below is None else torch.as_tensor(below, dtype=torch.float64))


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def test_of_one_network_it_is_the_paired_t_test():
    a, b = drawn(1, 12, seed=1), drawn(1, 12, seed=2)
    found, theirs = estimate([term("net", a), term("net", b)], gap), scipy.stats.ttest_rel(a[0], b[0])
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.df == pytest.approx(11)
    for side, word in (("above", "greater"), ("below", "less")):
        theirs = scipy.stats.ttest_rel(a[0], b[0], alternative=word).pvalue
        assert found.p_value(0.0, side) == pytest.approx(theirs)


def test_of_groups_on_images_that_are_all_alike_it_is_welchs_t_test():
    x, y = np.repeat(drawn(3, 1, seed=1), 6, 1), np.repeat(drawn(4, 1, seed=2), 6, 1)
    found, theirs = (
        estimate([term("x", x), term("y", y)], gap),
        scipy.stats.ttest_ind(x[:, 0], y[:, 0], equal_var=False),
    )
    assert found.df == pytest.approx(theirs.df)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.seeds == 3


def test_networks_of_one_group_are_paired_by_row():
    networks = np.repeat(drawn(5, 1, seed=3), 8, 1)
    found = estimate([term("net", networks + 0.1), term("net", networks)], gap)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert estimate([term("a", networks + 0.1), term("b", networks)], gap).half > 0.1


def test_the_variance_is_that_of_the_two_margins_of_the_table():
    x = drawn(4, 9, seed=4)
    found = estimate([term("net", x)], lambda shares: shares[..., 0])
    rows, columns = x.mean(1).var(ddof=1) / 4, x.mean(0).var(ddof=1) / 9
    df = (rows + columns) ** 2 / (rows**2 / 3 + columns**2 / 8)
    assert found.df == pytest.approx(df)
    assert found.half == pytest.approx(scipy.stats.t.ppf(0.975, df) * math.sqrt(rows + columns))


def test_shares_are_pooled_over_pixels_and_a_ratio_is_done_on_its_logarithm():
    above, below = np.array([[10.0, 90, 30, 20, 50, 5]]), np.array([[100.0, 100, 50, 20, 200, 10]])
    found = estimate([term("net", above, below)], lambda shares: shares[..., 0])
    assert found.value == pytest.approx(above.sum() / below.sum())
    there = estimate([term("net", above), term("net", below)], lambda s: s[..., 0] / s[..., 1], positive=True)
    back = estimate([term("net", below), term("net", above)], lambda s: s[..., 0] / s[..., 1], positive=True)
    assert (1 / back.value, 1 / back.high, 1 / back.low) == pytest.approx((there.value, there.low, there.high))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.floats(-1, 1), st.sampled_from(["above", "below"]))
def test_a_p_value_is_below_a_half_of_five_per_cent_exactly_where_the_interval_ends(seed, than, side):
    found = estimate([term("net", drawn(2, 7, seed=seed) - 0.5)], lambda shares: shares[..., 0])
    beyond = found.low > than if side == "above" else found.high < than
    assert (found.p_value(than, side) < 0.025) == beyond


def test_given_ends_are_read_as_those_of_a_normal():
    assert Estimate(1.0, 1.0 - 1.959964, 1.0 + 1.959964).p_value(0.0, "above") == pytest.approx(
        scipy.stats.norm.sf(1.0), rel=1e-6
    )


def test_what_has_no_interval_says_why_and_rejects_nothing():
    few = estimate([term("net", [[0.5, 0.25, 0.5, 0.75]])], lambda shares: shares[..., 0])
    assert (few.value, few.known, few.reason) == (0.5, False, "4 images; an interval takes 5")
    none = estimate([term("net", np.zeros((2, 0)))], lambda shares: shares[..., 0])
    assert (none.known, none.reason) == (False, "no image that all have")
    nothing = estimate([term("net", np.zeros((1, 6)), np.zeros((1, 6)))], lambda shares: shares[..., 0])
    assert (nothing.known, nothing.reason) == (False, "no finite value")
    assert unknown("x").p_value(0.0, "above") == few.p_value(0.0, "above") == 1.0


def test_images_that_do_not_differ_have_an_interval_of_no_width():
    found = estimate([term("net", np.full((3, 6), 0.25))], lambda shares: shares[..., 0])
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)
    assert found.p_value(0.2, "above") == 0.0
    assert found.p_value(0.25, "above") == 1.0


def test_terms_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="expected 2 and 6"):
        estimate([term("net", np.ones((2, 6))), term("net", np.ones((3, 6)))], gap)
    with pytest.raises(InputError, match=r"\(1, 2\) and \(2, 1\)"):
        Term("net", torch.ones(1, 2), torch.ones(2, 1))
    with pytest.raises(InputError, match="at least one term"):
        estimate([], gap)


def test_holm_is_that_of_statsmodels():
    p_values = list(drawn(9, seed=5) ** 4)
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
    assert holm([]) == []


def covered(networks, images, of_network, of_image, of_both, repeats, rng):
    """Share of intervals that hold the mean of a table of normal effects, by the estimate and by a bootstrap."""
    ours = theirs = 0
    for _ in range(repeats):
        table = of_network * rng.standard_normal((networks, 1)) + of_image * rng.standard_normal((1, images))
        table += of_both * rng.standard_normal((networks, images))
        found = estimate([term("net", table)], lambda shares: shares[..., 0])
        ours += found.low < 0 < found.high
        rows, columns = (rng.integers(n, size=(200, n)) for n in (networks, images))
        low, high = np.quantile(table[rows[:, :, None], columns[:, None, :]].mean((1, 2)), [0.025, 0.975])
        theirs += low < 0 < high
    return ours / repeats, theirs / repeats


@pytest.mark.parametrize(("of_network", "bootstrap"), [(1.0, 0.85), (0.5, 0.91), (0.0, 0.98)])
def test_with_three_networks_it_covers_where_a_bootstrap_of_both_does_not(of_network, bootstrap):
    ours, theirs = covered(3, 24, of_network, 1.0, 0.5, 800, np.random.default_rng(0))
    assert ours > 0.91  # 0.93 or more in 20,000 tables; studies/claim_coverage.py
    assert theirs < bootstrap
