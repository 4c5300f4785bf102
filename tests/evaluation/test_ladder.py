"""What a budget allows: never more than it, nothing less for more, and images that are spread and stay."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segradius.data import open_data
from segradius.data.prepared import spread
from segradius.evaluation.expecting import Price
from segradius.evaluation.ladder import CERTIFIED, TARGET_THREATS, THREATS, Rung, State, choose, rungs_of, states

GROUPS = rungs_of(THREATS, asks=False)
ASKING = rungs_of(TARGET_THREATS, asks=True)
EACH = {id(rung): rung for group in (*GROUPS, *ASKING) for rung in group}

costs = st.floats(1e-3, 10).flatmap(lambda f: st.floats(2, 4).map(lambda ratio: Price(f, ratio * f)))


def paid(found, cost: Price, copies: int, *, asks: bool) -> float:
    """Counted again: of each image one look, every step and three verdicts of each attack; copies of certified ones."""
    total = cost.forward
    for rung in found.rungs:
        steps = {"fgsm": 1, "auto": 3 * rung.options.get("steps", 0)}.get(rung.attack, rung.options.get("steps", 0))
        if "queries" in rung.options:
            total += (rung.options["queries"] + (0 if asks else 2)) * cost.forward
        else:
            total += steps * cost.both + 3 * cost.forward
    looked = 0 if asks else min(found.images, max(2, min(4, found.images // 8)))
    checks = 0.0 if asks else looked * (10 * cost.forward + 2 * cost.both) + 24 * cost.forward + 12 * cost.both
    return found.images * total + found.certified * copies * cost.forward + checks


@settings(deadline=None, max_examples=60)
@given(costs, st.floats(1, 1e5), st.integers(1, 2000), st.sampled_from([0, 110]), st.booleans())
def test_a_budget_is_kept_unless_it_does_not_reach_the_first_state(cost, budget, images, copies, asks):
    groups = ASKING if asks else GROUPS
    found = choose(groups, cost, budget, images, copies=copies)
    assert found.price == pytest.approx(paid(found, cost, copies, asks=asks))
    assert found.price <= budget * (1 + 1e-9) or found.state == states(len(groups), images)[0]
    assert 1 <= found.images <= images
    assert found.next_price == 0 or found.next_price > budget or copies  # what is reserved for certificates may be left
    assert [*found.rungs, *found.left_out] == [rung for group in groups for rung in group]
    assert (found.certified > 0) == (copies > 0)
    assert found.certified * copies * cost.forward <= max(CERTIFIED * budget, copies * cost.forward) * (1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(costs, st.lists(st.floats(1, 1e5), min_size=2, max_size=6), st.integers(1, 500), st.sampled_from([0, 110]))
def test_more_budget_takes_neither_an_image_nor_a_rung_away(cost, budgets, images, copies):
    found = [choose(GROUPS, cost, budget, images, copies=copies) for budget in sorted(budgets)]
    for less, more in pairwise(found):
        assert more.images >= less.images
        assert more.rungs[: len(less.rungs)] == less.rungs
        assert more.certified >= less.certified


@settings(deadline=None, max_examples=30)
@given(costs, st.floats(1, 1e4), st.integers(1, 9000), st.integers(1, 9))
def test_what_an_earlier_run_reached_is_kept(cost, budget, images, groups):
    found = choose(GROUPS, cost, budget, 300, reached=State(images, groups))
    assert found.images >= min(images, 300)
    assert found.state.groups >= min(groups, len(GROUPS))
    plain = choose(GROUPS, cost, budget, 300)
    assert found == plain or found.price > plain.price


@given(st.integers(1, 9), st.integers(1, 3000))
def test_states_only_grow_and_end_with_all(groups, images):
    every = states(groups, images)
    for one, other in pairwise(every):
        assert other.images >= one.images
        assert other.groups >= one.groups
        assert one != other
    assert (every[-1].images, every[-1].groups) == (min(images, 8192) if images > 8192 else images, groups)


def test_the_cheapest_comes_first_and_every_rung_says_what_for():
    prices = [sum(rung.price(Price(1, 3)) for rung in group) for group in GROUPS]
    assert prices[0] == min(prices)
    assert all(rung.why for rung in EACH.values())
    assert [rung.attack for rung in GROUPS[0]] == ["fgsm", "flips"]
    assert all(rung.plan.label == rung.label for rung in EACH.values())
    plans = [(rung.label, rung.norm, rung.eps) for group in GROUPS for rung in group]
    assert len(set(plans)) == len(plans)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_one_budget_of_another_norm_has_a_ladder_too(norm):
    groups = rungs_of([(norm, 5.0)], asks=False)
    assert {(rung.norm, rung.eps) for group in groups[:-1] for rung in group} == {(norm, 5.0)}


def test_a_rung_costs_what_its_attack_does():
    assert Rung("auto", "auto", "linf", 4 / 255, "", {"steps": 30}).price(Price(1, 3)) == 90 * 3 + 3
    assert Rung("b", "local_pbgd", "linf", 4 / 255, "", {"queries": 100}, 0).price(Price(1, 3)) == 100


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_first_so_many_are_spread_and_stay_when_there_are_more(whole, some):
    order = spread(whole)
    assert sorted(order) == list(range(whole))
    some = min(some, whole)
    places = sorted(order[:some])
    gaps = [b - a for a, b in zip([*places[:1], *places], [*places, whole], strict=True)]
    assert max(gaps) <= 2 * -(-whole // some) + 1


def test_images_in_that_order_are_those_of_the_data_and_a_limit_takes_the_first_of_it():
    plain, mixed = open_data("scenes:16x16,20"), open_data("scenes:16x16,20", order="spread")
    assert sorted(mixed.ids) == sorted(plain.ids)
    assert mixed.ids != plain.ids
    few = open_data("scenes:16x16,20", order="spread", limit=5)
    assert few.ids == mixed.ids[:5]
    assert few.ids != plain.ids[:5]
