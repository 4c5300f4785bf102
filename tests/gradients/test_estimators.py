"""Gradient estimators against autograd and closed forms: expectation, scale, variance, bounds, batches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known import (
    DOUBLE,
    assert_direction_and_scale,
    assert_mean,
    autograd,
    columns,
    cubic,
    keys,
    linear,
    linear_in,
    many,
    normal,
    probe,
    project,
    smooth,
)

from segradius.core.errors import InputError
from segradius.gradients import (
    ESTIMATORS,
    NES,
    OPGE,
    TPGE,
    ZOO,
    Dct,
    LocalTPGE,
    Pixel,
    ShiftedTiles,
    Sphere,
    Tiles,
    dimension,
    estimate,
)
from segradius.gradients.sphere import second_moment
from segradius.threats.threat import L1, L2, NORMS, Linf

SHAPE = (3, 2, 3)
N = 18
SUBSPACES = [Pixel(), Tiles(2), ShiftedTiles(2), Dct(0.5)]
TINY = 1e-4  # where the bias of a smooth loss, O(γ²), is far below any sampling error
UNBIASED = [
    *(TPGE(TINY, Sphere(norm, each)) for norm in NORMS.values() for each in SUBSPACES),
    *(TPGE(TINY, Sphere(norm, each, "exact")) for norm in (L1(), Linf()) for each in SUBSPACES),
    TPGE(TINY, samples=3),
    *(OPGE(TINY, Sphere(norm, form=form)) for norm in NORMS.values() for form in ("dense", "exact")),
    OPGE(TINY, Sphere(directions=ShiftedTiles(2)), samples=2),
    # A window over the whole image: smaller ones are biased, as they should be on a loss that is not local.
    *(LocalTPGE(TINY, Sphere(directions=each), window=7) for each in SUBSPACES),
    LocalTPGE(TINY, samples=3, window=7),
    *(NES(TINY, 4, directions=each) for each in SUBSPACES),
    NES(TINY, 5, antithetic=False),
    *(ZOO(TINY, 2, unbiased=True, directions=each) for each in (Pixel(), Tiles(2), Dct(0.5))),
]
EVERY = [*UNBIASED, *(TPGE(0.1, Sphere(norm, form="paper")) for norm in NORMS.values()), ZOO(0.1, 3)]
LENGTHS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


def test_every_registered_estimator_is_tested():
    assert {type(each) for each in UNBIASED} == {ESTIMATORS[name] for name in ESTIMATORS}


@pytest.mark.parametrize("estimator", UNBIASED, ids=str)
@pytest.mark.parametrize("batch", [1, 8])
def test_the_mean_is_the_projected_gradient_in_direction_and_scale(estimator, batch: int):
    """The loss is measured from its value at δ, which changes no gradient and leaves OPGE a finite variance."""
    delta, randomness = normal(batch, *SHAPE, seed=3), keys(batch)
    directions = estimator.sphere.directions if hasattr(estimator, "sphere") else estimator.directions
    gradient, ask = autograd(smooth, delta), probe(smooth, smooth(delta))
    rounds = range(500 if batch == 1 else 150)
    found = torch.stack([estimate(estimator, ask, delta, randomness, step) for step in rounds])
    steps = rounds if isinstance(directions, ShiftedTiles) else range(1)
    expected = torch.stack([project(directions, gradient, randomness, step) for step in steps])
    # ZOO's order repeats: whole sweeps only, or the places visited once more would count more.
    rounds_kept = len(found) - len(found) % (dimension(directions, SHAPE) // 2 if isinstance(estimator, ZOO) else 1)
    assert_direction_and_scale(found[:rounds_kept].flatten(2), expected[:rounds_kept].flatten(2), precision=0.5)
    pooled = (found * expected).flatten(2).sum(2) / expected.square().flatten(2).sum(2)
    assert_mean(pooled[:rounds_kept].mean(1), 1.0, precision=0.15)


@pytest.mark.parametrize("estimator", EVERY, ids=str)
def test_a_batch_gives_what_its_images_give_alone(estimator):
    delta, randomness = normal(8, *SHAPE, seed=4), keys(8)
    together = estimate(estimator, probe(smooth), delta, randomness, step=5)
    for i in range(8):
        alone = estimate(estimator, probe(smooth), delta[i : i + 1], type(randomness)(0, randomness.ids[i : i + 1]), 5)
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("estimator", EVERY, ids=str)
def test_the_answer_of_an_image_uses_its_own_losses_alone_and_equals_its_lone_answer(estimator):
    """Given the same losses, to the last bit: nothing in an estimator depends on the batch."""
    delta, randomness = normal(8, *SHAPE, seed=4), keys(8)
    losses = normal(estimator.queries, 8, *SHAPE[1:], seed=5)
    draw = estimator.draw(delta, randomness, 5)
    points, together = estimator.points(delta, draw)[:], estimator.gradient(losses, draw)
    assert points.shape == (estimator.queries, 8, *SHAPE)
    for i in range(8):
        one = type(randomness)(0, randomness.ids[i : i + 1])
        again = estimator.draw(delta[i : i + 1], one, 5)
        assert torch.equal(estimator.points(delta[i : i + 1], again)[:][:, 0], points[:, i])
        assert torch.equal(estimator.gradient(losses[:, i : i + 1], again)[0], together[i])


@pytest.mark.parametrize("estimator", EVERY, ids=str)
def test_rounds_differ_and_the_same_round_repeats(estimator):
    delta = torch.zeros(1, *SHAPE, dtype=DOUBLE)
    first, again, other = (estimator.points(delta, estimator.draw(delta, keys(1), step))[:] for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# Directions on spheres


@pytest.mark.parametrize("directions", SUBSPACES, ids=str)
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("form", ["dense", "exact"])
def test_directions_have_unit_norm_and_their_duals_make_the_projection(directions, name: str, form):
    norm, count, randomness = NORMS[name], 4000, keys(4000)
    draw = Sphere(norm, directions, form).draw(torch.zeros(count, *SHAPE, dtype=DOUBLE), randomness, 0, samples=1)
    along, dual = draw.along[0].flatten(1), draw.dual[0].flatten(1)
    if not (isinstance(directions, Dct) and name != "l2"):
        torch.testing.assert_close(along.norm(LENGTHS[name], dim=1), torch.ones(count, dtype=DOUBLE))
    basis = columns(directions, SHAPE, 0.5, randomness, 0)
    products = (along.unsqueeze(2) * dual.unsqueeze(1) - basis @ basis.mT).flatten(1)
    assert_mean(products, 0.0)


@pytest.mark.parametrize("name", NORMS)
def test_the_sphere_has_the_second_moment_that_the_scale_relies_on(name: str):
    u = NORMS[name].sample_sphere(torch.zeros(4000, N, dtype=DOUBLE), keys(4000))
    assert_mean(u.square(), second_moment(NORMS[name], N))


def test_the_three_forms_agree_for_the_euclidean_norm():
    delta = torch.zeros(2, *SHAPE, dtype=DOUBLE)
    duals = [Sphere(L2(), form=form).draw(delta, keys(2), 0, 1).dual for form in ("dense", "exact", "paper")]
    torch.testing.assert_close(duals[0], duals[1])
    assert torch.equal(duals[1], duals[2])


# What is estimated at a γ that is not small


def ball_moment(name: str, n: int) -> float:
    """E[v_i²] for v uniform in the unit ball."""
    return {"l1": 2 / ((n + 1) * (n + 2)), "l2": 1 / (n + 2), "linf": 1 / 3}[name]


def sphere_ratio(name: str, n: int) -> float:
    """E[u_i⁴]/E[u_i²] for u uniform on the unit sphere."""
    return {"l1": 12 / ((n + 2) * (n + 3)), "l2": 3 / (n + 2), "linf": 3 * (n + 4) / (5 * (n + 2))}[name]


@pytest.mark.parametrize("kind", [TPGE, OPGE])
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("form", ["dense", "exact", "paper"])
def test_a_cubic_loss_shows_smoothing_bias_and_scale_in_closed_form(kind, name: str, form):
    """Exact: 3a(δ² + γ²E[v²]), the gradient of the smoothed loss. Dense: a(3δ² + γ²E[u⁴]/E[u²]). Paper: n·E[u²] times
    that."""
    shape, gamma = (3, 1, 2), 0.8
    slope, delta = normal(*shape, seed=6), 0.5 * normal(*shape, seed=7)
    found = many(kind(gamma, Sphere(NORMS[name], form=form)), cubic(slope), delta, 12000)
    n = 6
    extra = 3 * ball_moment(name, n) if form == "exact" else sphere_ratio(name, n)
    expected = slope * (3 * delta.square() + gamma**2 * extra)
    if form == "paper":
        expected *= {"l1": 2 / (n + 1), "l2": 1.0, "linf": (n + 2) / 3}[name]
    assert_mean(found, expected.flatten())
    if (name, kind) == ("linf", TPGE):  # the sample can tell the two apart
        other = slope * (3 * delta.square() + gamma**2 * 3 * ball_moment(name, n))
        away = (found.mean(0) - other.flatten()).abs() * len(found) ** 0.5 / found.std(0)
        assert (float(away.max()) > 5) == (form != "exact")


@pytest.mark.parametrize("antithetic", [True, False])
def test_nes_estimates_the_gradient_of_the_gaussian_smoothed_loss(antithetic: bool):
    slope, delta = normal(3, 1, 2, seed=6), normal(3, 1, 2, seed=7)
    found = many(NES(0.5, 10, antithetic), cubic(slope), delta, 6000)
    assert_mean(found, (3 * slope * (delta.square() + 0.25)).flatten())


def test_zoo_adds_the_third_derivative_and_no_noise():
    slope, delta = normal(3, 1, 2, seed=6), normal(3, 1, 2, seed=7)
    found = many(ZOO(0.5, 6), cubic(slope), delta, 2)
    torch.testing.assert_close(found[0], (slope * (3 * delta.square() + 0.25)).flatten())


# Variance of a linear loss

SLOPE = normal(*SHAPE, seed=8)
SQUARE = float(SLOPE.square().sum())
CONSTANT = 0.7
AT = {
    "l1": {"dense": N * (N + 1) * (N + 5) / ((N + 2) * (N + 3)), "exact": 2 * N**2 / (N + 1)},
    "l2": {"dense": N, "exact": N},
    "linf": {"dense": N + 4 * N * (N - 1) / (5 * (N + 2) ** 2), "exact": N * (N + 2) / 3},
}


@pytest.mark.parametrize("gamma", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("form", ["dense", "exact"])
def test_second_moment_of_two_points_does_not_depend_on_the_radius(gamma: float, name: str, form: str):
    found = many(TPGE(gamma, Sphere(NORMS[name], form=form)), linear(SLOPE, CONSTANT), 0 * SLOPE, 4000)
    assert_mean(found.square().sum(1) / SQUARE, AT[name][form], precision=0.06 * AT[name][form])


def test_two_points_average_over_samples():
    found = many(TPGE(1.0, samples=4), linear(SLOPE), 0 * SLOPE, 3000)
    variance = (found - SLOPE.flatten()).square().sum(1) / SQUARE
    assert_mean(variance, (N - 1) / 4, precision=0.2)


@pytest.mark.parametrize("gamma", [0.1, 1.0])
def test_second_moment_of_one_point_grows_with_the_loss_over_the_radius(gamma: float):
    found = many(OPGE(gamma), linear(SLOPE, CONSTANT), 0 * SLOPE, 4000)
    expected = N**2 * CONSTANT**2 / gamma**2 + N * SQUARE
    assert_mean(found.square().sum(1), expected, precision=0.05 * expected)


@pytest.mark.parametrize("antithetic", [True, False])
def test_variance_of_nes(antithetic: bool):
    found = many(NES(0.5, 10, antithetic), linear(SLOPE, CONSTANT), 0 * SLOPE, 3000)
    pairs = (N + 1) * SQUARE / 5
    single = (N * CONSTANT**2 / 0.25 + (N + 1) * SQUARE) / 10
    expected = pairs if antithetic else single
    assert_mean((found - SLOPE.flatten()).square().sum(1), expected, precision=0.05 * expected)


def test_variance_of_zoo():
    found = many(ZOO(0.5, 3, unbiased=True), linear(SLOPE, CONSTANT), 0 * SLOPE, 3000)
    assert_mean((found - SLOPE.flatten()).square().sum(1), (N / 3 - 1) * SQUARE, precision=0.05 * N * SQUARE)


def test_pairs_see_nothing_of_an_even_loss():
    even = linear_in(SLOPE, 2)
    assert not many(NES(0.5, 10), even, 0 * SLOPE, 5).any()
    assert not many(TPGE(0.5), even, 0 * SLOPE, 5).any()
    assert many(NES(0.5, 10, antithetic=False), even, 0 * SLOPE, 5).all()


# Theorem 2


@st.composite
def lipschitz(draw):
    """A convex loss that is C-Lipschitz in lp: the largest of five affine functions with slopes of dual norm C."""
    name, seed = draw(st.sampled_from(sorted(NORMS))), draw(st.integers(0, 2**31))
    constant, gamma = draw(st.floats(0.01, 100)), draw(st.floats(1e-3, 10))
    dual = {"l1": math.inf, "l2": 2.0, "linf": 1.0}[name]
    slopes = normal(5, N, seed=seed)
    slopes *= constant / slopes.norm(dual, dim=1, keepdim=True)

    def maps(images):
        values = (images.flatten(1) @ slopes.T + normal(5, seed=seed + 1)).amax(1)
        return (values / 6).view(-1, 1, 1).expand(-1, *SHAPE[1:])

    return name, dual, constant, gamma, maps, seed


@given(lipschitz())
@settings(max_examples=80, deadline=None)
def test_theorem_2_bounds_every_two_point_estimate(case):
    """‖ĝ‖_p ≤ nC for the paper's form, ‖ĝ‖_q ≤ nC for the exact one (q dual to p), ‖ĝ‖_p ≤ C/E[u²] for the dense."""
    name, dual, constant, gamma, maps, seed = case
    bounds = {
        "paper": (LENGTHS[name], N * constant),
        "exact": (dual, N * constant),
        "dense": (LENGTHS[name], constant / second_moment(NORMS[name], N)),
    }
    for form, (order, bound) in bounds.items():
        estimator = TPGE(gamma, Sphere(NORMS[name], form=form))
        found = estimate(estimator, probe(maps), normal(4, *SHAPE, seed=seed), keys(4, seed)).flatten(1)
        # The differences are exact to 1e-15 of losses of about 1 + C·γ, divided by γ.
        slack = 1e-12 * bound * (1 + 1 / (gamma * constant))
        assert float(found.norm(order, dim=1).max()) <= bound + slack


def test_one_point_has_no_such_bound():
    constant = linear(0 * SLOPE, 1.0)
    for gamma in (1e-1, 1e-3):
        norms = many(OPGE(gamma), constant, 0 * SLOPE, 3).norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, N / gamma))


@pytest.mark.parametrize("gamma", [0.01, 1.0])
def test_second_moment_of_two_points_is_bounded_far_below_theorem_2(gamma: float):
    """E‖ĝ‖² ≤ n²C²/(n − 1) for a loss that is C-Lipschitz in l2, here the distance to a point, C = 1."""
    centre = 0.1 * normal(*SHAPE, seed=9)

    def maps(images):
        return ((images - centre).flatten(1).norm(dim=1) / 6).view(-1, 1, 1).expand(-1, *SHAPE[1:])

    squares = many(TPGE(gamma), maps, 0 * centre, 4000).square().sum(1)
    assert float(squares.mean() - 4 * squares.std() / 4000**0.5) <= N**2 / (N - 1)
    assert float(squares.mean()) < N**2 / 5


# ZOO's sweep


@pytest.mark.parametrize("k", [1, 4, 5, 18])
def test_a_sweep_of_zoo_visits_every_coordinate_once_in_an_order_of_the_images_own(k: int):
    delta, zoo = torch.zeros(2, *SHAPE, dtype=DOUBLE), ZOO(0.1, k)
    visited = [zoo.draw(delta, keys(2), step)[:].flatten(2).argmax(2) for step in range(2 * N)]
    orders = torch.cat(visited)[: 2 * N].T
    for order in orders.tolist():
        assert sorted(order[:N]) == list(range(N))
        assert order[:N] == order[N:]
    assert not torch.equal(orders[0], orders[1])


def test_the_estimates_of_a_sweep_sum_to_central_differences():
    delta, gamma = normal(2, *SHAPE, seed=3), 0.3
    total = sum(estimate(ZOO(gamma, 3), probe(smooth), delta, keys(2), step) for step in range(N // 3))
    units = torch.eye(N, dtype=DOUBLE).view(N, 1, *SHAPE) * gamma
    loss = probe(smooth)
    expected = (loss(delta + units) - loss(delta - units)).flatten(2).sum(2) / (2 * gamma)
    torch.testing.assert_close(total.flatten(1), expected.T)


def test_on_a_kink_zoo_is_no_subgradient_and_two_points_are():
    """max δ_i at a tie: every subgradient sums to 1; Eq. 13 sums to n/2."""

    def largest(images):
        return (images.flatten(1).amax(1) / 6).view(-1, 1, 1).expand(-1, *SHAPE[1:])

    assert float(many(ZOO(0.1, N), largest, 0 * SLOPE, 1).sum()) == pytest.approx(N / 2)
    assert_mean(many(TPGE(0.1), largest, 0 * SLOPE, 4000).sum(1), 1.0, precision=0.05)
    assert_mean(many(NES(0.1, 20), largest, 0 * SLOPE, 1000).sum(1), 1.0, precision=0.05)


# Precision, queries, refusals


def test_a_small_difference_of_large_losses_keeps_its_digits():
    """In float32 L = 6·10⁴ is known to 4·10⁻³ only; pixel by pixel, a difference of 6·10⁻³ is exact."""
    losses = torch.full((2, 1, 100, 100), 6.0)
    losses[0] += 2.0**-20
    draw = TPGE(0.5).draw(torch.zeros(1, 3, 100, 100), keys(1))
    found = TPGE(0.5).gradient(losses, draw)
    torch.testing.assert_close(found, draw.dual[0] * (10000 * 2.0**-20), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("estimator", "queries"),
    [(TPGE(1.0), 2), (OPGE(1.0), 1), (NES(1.0), 100), (ZOO(1.0, 18), 36), (TPGE(1.0, samples=3), 6)],
)
def test_queries_of_table_1(estimator, queries: int):
    assert estimator.queries == queries


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TPGE(0.0), "gamma is 0.0; expected a number in"),
        (lambda: OPGE(-1.0), "gamma is -1.0; expected a number in"),
        (lambda: TPGE(1.0, samples=0), "samples is 0; expected a whole number in"),
        (lambda: NES(math.nan), "sigma is nan; expected a number in"),
        (lambda: NES(1.0, 7), "population is 7; expected an even number"),
        (lambda: ZOO(1.0, 0), "coordinates is 0; expected a whole number in"),
        (
            lambda: ZOO(1.0, 19).draw(torch.zeros(1, *SHAPE), keys(1)),
            "coordinates is 19; expected at most 18, the dimension",
        ),
        (lambda: Sphere(form="denser"), "form is 'denser'; expected dense or exact or paper"),
        (lambda: ESTIMATORS["tpeg"], "did you mean 'tpge'"),
    ],
)
def test_wrong_settings_are_refused_by_name(make, named: str):
    with pytest.raises(InputError, match=named):
        make()
