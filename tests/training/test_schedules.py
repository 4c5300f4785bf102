"""Schedules: closed forms, and PyTorch's own schedulers step by step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segradius.core.errors import InputError
from segradius.training.recipe import SCHEDULES, Constant, OneCycle, Poly


def rates_of_torch(make_scheduler, steps):
    """The rate with which each step of a run is taken."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return rates


@pytest.mark.parametrize("total", [1, 2, 3, 4, 7, 10, 97, 1000])
def test_one_cycle_equals_torchs(total):
    expected = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total), total
    )
    got = [SCHEDULES["one_cycle"]().factor(step, total) for step in range(total)]
    assert got == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize(("share", "start", "end"), [(0.05, 10.0, 100.0), (0.5, 1.0, 1.0), (1.0, 25.0, 1e4)])
def test_one_cycle_with_other_values_equals_torchs(share, start, end):
    expected = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=1.0, total_steps=50, pct_start=share, div_factor=start, final_div_factor=end
        ),
        50,
    )
    schedule = OneCycle(share, start, end)
    assert [schedule.factor(step, 50) for step in range(50)] == pytest.approx(expected, rel=1e-12, abs=0)


def test_poly_has_its_closed_form_and_equals_torchs():
    total = 80
    for power in (0.5, 0.9, 2.0):
        got = [SCHEDULES["poly"](power=power).factor(step, total) for step in range(total + 1)]
        assert got == pytest.approx([((total - step) / total) ** power for step in range(total + 1)], rel=1e-12)
        chained = rates_of_torch(
            lambda optimizer, power=power: torch.optim.lr_scheduler.PolynomialLR(optimizer, total, power), total
        )
        assert got[:total] == pytest.approx(chained, rel=1e-9)
    assert Poly() == Poly(power=0.9)


def test_a_warm_up_is_a_straight_line_up_to_the_schedule():
    for warm, plain in ((Poly(warmup=8), Poly()), (Constant(warmup=8), Constant())):
        for step in range(40):
            ramp = (step + 1) / 8 if step < 8 else 1.0
            assert warm.factor(step, 40) == pytest.approx(ramp * plain.factor(step, 40), rel=1e-15)
    assert Constant().factor(17, 40) == 1.0


@given(
    schedule=st.sampled_from([SCHEDULES[name]() for name in SCHEDULES] + [Poly(warmup=5), OneCycle(0.0)]),
    total=st.integers(1, 10**6),
    share=st.floats(0, 1),
)
def test_factors_lie_between_zero_and_one_up_to_the_end(schedule, total, share):
    for step in (0, int(share * total), total):
        assert 0 <= schedule.factor(step, total) <= 1
    if isinstance(schedule, OneCycle):
        assert schedule.factor(total, total) == schedule.factor(total - 1, total) or total == 1


def test_every_schedule_is_listed_with_a_summary():
    assert list(SCHEDULES) == ["constant", "one_cycle", "poly"]
    assert all(SCHEDULES.summary(name).endswith(".") for name in SCHEDULES)
    with pytest.raises(InputError, match="did you mean 'poly'"):
        SCHEDULES["polly"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poly(power=0.0), "power is 0.0"),
        (lambda: Poly(warmup=-1), "warmup is -1; expected a whole number"),
        (lambda: Constant(warmup=2.5), "warmup is 2.5"),
        (lambda: OneCycle(warmup_share=1.5), "warmup_share is 1.5"),
        (lambda: OneCycle(start=0.5), "start is 0.5"),
        (lambda: OneCycle(end=math.inf), "end is inf"),
        (lambda: Poly().factor(11, 10), "step 11 of 10"),
        (lambda: OneCycle().factor(-1, 10), "step -1 of 10"),
        (lambda: Constant().factor(0, 0), "step 0 of 0"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
