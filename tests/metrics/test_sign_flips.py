"""Flips of signs: equal to SciPy's permutation test, ends that agree with the test, rows adjusted together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from segradius.core.errors import InputError
from segradius.metrics import SignFlips


def drawn(n: int, rows: int, seed: int = 0, mean: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + torch.randn(n, rows, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_p_values_are_those_of_scipy(margin: float):
    gaps = drawn(9, 4, mean=0.5)
    found = SignFlips(gaps).p_values(margin)
    for row in range(4):
        shifted = gaps[:, row].numpy() - margin
        theirs = permutation_test((shifted,), np.mean, permutation_type="samples", alternative="greater")
        assert float(found[row]) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("n", [8, 13, 20])
def test_the_lower_end_is_where_the_test_begins_to_reject(n: int):
    flips = SignFlips(drawn(n, 3, mean=0.4), flips=9000)
    assert flips.exact is (n <= 13)
    low, high = flips.ends(0.9)
    assert (flips.p_values(low - 1e-9) <= 0.05).all()
    assert (flips.p_values(low + 1e-9) > 0.05).all()
    mirrored = SignFlips(-flips.gaps, flips=9000)
    assert (mirrored.p_values(-high - 1e-9) <= 0.05).all()
    assert (mirrored.p_values(-high + 1e-9) > 0.05).all()


def test_few_images_have_no_ends_and_equal_ones_no_width():
    low, high = SignFlips(drawn(5, 1)).ends(0.95)
    assert low.isnan()
    assert high.isnan()
    low, high = SignFlips(torch.zeros(6, 1).double()).ends(0.95)
    assert (float(low), float(high)) == (0.0, 0.0)
    assert SignFlips(torch.zeros(6, 1).double()).adjusted(0.0).tolist() == [1.0]


def test_an_image_without_a_part_is_as_if_it_were_not_there():
    gaps, hole = drawn(10, 2, mean=0.5), torch.full((2, 1), math.nan, dtype=torch.float64)
    holed = torch.cat([torch.cat([gaps[:, :1], hole]), torch.cat([gaps[:, 1:], drawn(2, 1, seed=3)])], 1)
    whole, more = SignFlips(gaps[:, :1]), SignFlips(holed)
    assert float(more.p_values(0.1)[0]) == float(whole.p_values(0.1)[0])
    assert float(more.ends(0.9)[0][0]) == pytest.approx(float(whole.ends(0.9)[0][0]), abs=1e-12)


def test_rows_with_nothing_in_common_are_adjusted_much_as_holm_adjusts_them():
    flips = SignFlips(drawn(40, 6, mean=0.35), flips=20_000)
    holm = multipletests(flips.p_values(0.0).numpy(), method="holm")[1]
    found = flips.adjusted(0.0)
    assert (found >= flips.p_values(0.0)).all()
    assert (found <= torch.from_numpy(holm) + 0.01).all()
    assert found.numpy() == pytest.approx(holm, abs=0.12)


def test_equal_rows_cost_nothing():
    gaps = drawn(12, 1, mean=0.8).expand(12, 30)
    flips = SignFlips(gaps)
    torch.testing.assert_close(flips.adjusted(0.1), flips.p_values(0.1))


def test_a_row_of_two_equal_models_is_rarely_found_among_many():
    """The chance that any row is found is at most α, rows being as independent as can be."""
    found = [float(SignFlips(drawn(8, 10, seed=k)).adjusted(0.0).min()) <= 0.05 for k in range(400)]
    assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_many_images_are_drawn_from_with_a_declared_resolution():
    flips = SignFlips(drawn(30, 1, mean=5.0), flips=999)
    assert flips.resolution == 1 / 1000
    assert float(flips.p_values(0.0)[0]) == 1 / 1000


@pytest.mark.parametrize("gaps", [torch.zeros(3).double(), torch.full((3, 1), math.inf).double()])
def test_other_shapes_and_infinities_are_refused(gaps: torch.Tensor):
    with pytest.raises(InputError, match="paired differences of shape"):
        SignFlips(gaps)
