"""The one wording of values out of range, NaN and infinities included, and what errors carry."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segradius.core.errors import (
    BudgetError,
    InputError,
    at_least,
    missing_extra,
    must,
    one_of,
    positive,
    unknown_name,
    within,
)

numbers = st.floats(allow_nan=True) | st.integers(-(10**6), 10**6)


def passes(check, *args, **values) -> bool:
    """Whether a check raises nothing."""
    try:
        check(*args, **values)
    except InputError:
        return False
    return True


@given(numbers, numbers)
def test_at_least_is_the_comparison_and_nan_is_never_enough(low, value):
    assert passes(at_least, low, steps=value) == (value >= low)


@given(numbers)
def test_positive_is_the_comparison_and_nan_is_not(value):
    assert passes(positive, sigma=value) == (value > 0)


@given(st.sampled_from("[("), st.sampled_from("])"), numbers)
def test_within_is_the_comparison_at_both_ends(left, right, value):
    inside = (value >= -1 if left == "[" else value > -1) and (value <= 2.5 if right == "]" else value < 2.5)
    assert passes(within, f"{left}-1, 2.5{right}", alpha=value) == inside


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_ends_belong_where_the_bracket_is_square(end):
    assert passes(within, "[0, 1]", memory=end)
    assert not passes(within, "(0, 1)", memory=end)
    assert passes(within, "[0, 1)", memory=end) == (end == 0)


def test_an_open_interval_may_have_no_end():
    assert passes(within, "(0, inf)", sigma=1e300)
    assert not passes(within, "(0, inf)", sigma=math.inf)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: at_least(1, steps=0), "steps is 0; expected at least 1"),
        (lambda: at_least(1e-30, alpha=1e-31), "alpha is 1e-31; expected at least 1e-30"),
        (lambda: at_least(0, steps=math.nan), "steps is nan; expected at least 0"),
        (lambda: positive(sigma=math.nan), "sigma is nan; expected more than 0"),
        (lambda: within("(0, 1)", alpha=math.nan), "alpha is nan; expected a number in (0, 1)"),
        (lambda: one_of(("best", "last"), keep="first"), "keep is 'first'; expected best or last"),
        (lambda: must(False, "size", (1, 2), "a square"), "size is (1, 2); expected a square"),
    ],
)
def test_the_wording_names_the_option_its_value_and_what_would_do(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def test_the_first_bad_value_of_several_is_named():
    with pytest.raises(InputError, match="n is 0"):
        at_least(1, n0=5, n=0, every=-1)


def test_unknown_names_get_the_nearest_or_none():
    assert "did you mean 'pgd'?" in str(unknown_name("attack", "pdg", ["pgd", "fgsm"]))
    assert str(unknown_name("attack", "zzz", ["pgd", "fgsm"])) == "unknown attack 'zzz'. Known: fgsm, pgd"


def test_a_missing_library_names_its_extra():
    with pytest.raises(ImportError, match=r"segradius\[hf\]"):
        raise missing_extra("transformers", "hf")


def test_a_budget_error_survives_another_process():
    back = pickle.loads(pickle.dumps(BudgetError(98, 100, 4)))
    assert (back.used, back.budget, back.asked) == (98, 100, 4)
    assert str(back) == "a query of 4 images would exceed the budget: 98 of 100 are used"
