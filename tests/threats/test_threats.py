"""Threat models against closed forms, an exact sort, a convex solver and the definition of a projection."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.threats import projections
from segradius.threats.threat import L1, L2, NORMS, Linf, Threat, make_threat, parse_eps, sparse_steepest

NAMES = sorted(NORMS)
ORDER = {"l1": 1, "l2": 2, "linf": np.inf}
DOUBLE = torch.float64


def column(values):
    return torch.tensor([values], dtype=DOUBLE)


def root(decreasing, high):
    """Bisection in float64, an independent way to the multiplier."""
    return optimize.brentq(decreasing, 0.0, high, xtol=1e-15, rtol=1e-14, maxiter=500) if decreasing(0.0) > 0 else 0.0


def reference(name, delta, image, eps):
    """The projection of one image in NumPy from its optimality conditions, the multiplier by Brent's method."""
    low, high = -image, 1 - image
    if name == "linf":
        return np.clip(delta, np.maximum(low, -eps), np.minimum(high, eps))
    if name == "l2":

        def at(multiplier):
            return np.clip(delta / (1 + multiplier), low, high)

        top = np.linalg.norm(delta) / eps
    else:

        def at(multiplier):
            return np.clip(np.sign(delta) * np.maximum(np.abs(delta) - multiplier, 0), low, high)

        top = np.abs(delta).max()
    return at(root(lambda m: np.linalg.norm(at(m).ravel(), ORDER[name]) - eps, top))


@st.composite
def problems(draw, images=1):
    """δ of several sizes and shapes, images with values on, near and off the border, ε from tight to loose."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.integers(1, 24))
    shape = (images, values)
    delta = rng.standard_normal(shape) * 10.0 ** rng.uniform(-draw(st.sampled_from([0, 1, 4])), 0.5, shape)
    image = rng.random(shape)
    if draw(st.booleans()):
        image = np.clip(image * 1.6 - 0.3, 0, 1)
    name = draw(st.sampled_from(NAMES))
    eps = np.linalg.norm(delta, ORDER[name], axis=1) * 10.0 ** rng.uniform(-2, 0.3, images)
    return name, torch.tensor(delta), torch.tensor(image), torch.tensor(eps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.5, 1.0, 4.0], ids=["inside", "boundary", "outside"])
def test_projection_away_from_the_box_is_the_textbook_one(name, share):
    delta, image = column([0.03, -0.01, 0.02]), column([0.5, 0.5, 0.5])
    eps = NORMS[name].length(delta) / share
    expected = {
        "l1": column([0.015, 0.0, 0.0]) if share > 1 else delta,  # λ = 0.015: 0.03 - λ, and 0.02 - λ > 0 as well
        "l2": delta / max(share, 1),
        "linf": delta.clamp(-0.03 / max(share, 1), 0.03 / max(share, 1)),
    }[name]
    if name == "l1" and share > 1:
        expected = column([0.0125, 0.0, 0.0025])  # λ = (0.03 + 0.02 - 0.015)/2 = 0.0175
    torch.testing.assert_close(NORMS[name].project(delta, image, eps), expected, rtol=1e-12, atol=1e-14)


@settings(max_examples=300, deadline=None)
@given(problems())
def test_projection_equals_the_optimality_conditions(problem):
    name, delta, image, eps = problem
    found = NORMS[name].project(delta, image, eps)[0].numpy()
    np.testing.assert_allclose(
        found, reference(name, delta[0].numpy(), image[0].numpy(), float(eps)), rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_projection_equals_a_convex_solver(name, seed):
    rng = np.random.default_rng(seed)
    delta, image = rng.normal(size=6), np.clip(rng.random(6) * 1.4 - 0.2, 0, 1)
    eps = 0.4 * np.linalg.norm(delta, ORDER[name])
    # δ = u - v with u, v >= 0 makes every ball smooth: sum(u + v), |u - v|², and bounds.
    top, bottom = 1 - image, image.copy()
    if name == "linf":
        top, bottom = np.minimum(top, eps), np.minimum(bottom, eps)
    ball = {
        "l1": [{"type": "ineq", "fun": lambda w: eps - w.sum(), "jac": lambda w: -np.ones(12)}],
        "l2": [
            {
                "type": "ineq",
                "fun": lambda w: eps**2 - ((w[:6] - w[6:]) ** 2).sum(),
                "jac": lambda w: -2 * np.concatenate([w[:6] - w[6:], w[6:] - w[:6]]),
            }
        ],
        "linf": [],
    }[name]
    solved = optimize.minimize(
        lambda w: 0.5 * ((w[:6] - w[6:] - delta) ** 2).sum(),
        np.zeros(12),
        jac=lambda w: np.concatenate([w[:6] - w[6:] - delta, delta - w[:6] + w[6:]]),
        bounds=[(0, t) for t in top] + [(0, b) for b in bottom],
        constraints=ball,
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert solved.status in (0, 8)  # 8: the line search finds no better point within rounding
    found = NORMS[name].project(column(delta.tolist()), column(image.tolist()), torch.tensor([eps], dtype=DOUBLE))
    np.testing.assert_allclose(found[0].numpy(), solved.x[:6] - solved.x[6:], atol=1e-6)


@settings(max_examples=200, deadline=None)
@given(problems(images=3))
def test_projection_is_feasible_idempotent_and_blind_to_its_batch(problem):
    name, delta, image, eps = problem
    norm = NORMS[name]
    found = norm.project(delta, image, eps)
    assert bool((image + found >= 0).all())
    assert bool((image + found <= 1).all())
    assert bool((norm.length(found) <= eps * (1 + 1e-14)).all())
    assert torch.equal(norm.project(found, image, eps), found)
    for i in range(3):
        alone = norm.project(delta[i : i + 1], image[i : i + 1], eps[i : i + 1])
        torch.testing.assert_close(alone[0], found[i], rtol=1e-12, atol=1e-13)


@settings(max_examples=200, deadline=None)
@given(problems(images=2), st.integers(0, 2**32 - 1))
def test_projection_is_nonexpansive_and_satisfies_the_variational_inequality(problem, seed):
    name, delta, image, eps = problem
    norm = NORMS[name]
    image, eps = image[:1].expand(2, -1), eps[:1].expand(2)
    first, second = norm.project(delta, image, eps)
    assert torch.linalg.norm(first - second) <= torch.linalg.norm(delta[0] - delta[1]) * (1 + 1e-9) + 1e-12
    rng = np.random.default_rng(seed)
    feasible = norm.project(torch.tensor(rng.normal(size=delta.shape)), image, eps * rng.random())
    gap = ((delta[0] - first) * (feasible - first)).sum(1)
    assert bool((gap <= 1e-9 * (1 + delta[0].abs().sum())).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [1.05, 3.0, 1000.0])
def test_float32_projection_of_an_image_stays_within_the_stated_tolerance(name, factor):
    generator = torch.Generator().manual_seed(3)
    images = (torch.rand(2, 3, 60, 80, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    norm = NORMS[name]
    eps = torch.tensor([1.0, 0.3]) * norm.default_eps / {"l1": 16, "l2": 4, "linf": 1}[name]
    delta = torch.randn(images.shape, generator=generator)
    delta *= (factor * eps / norm.length(delta)).view(2, 1, 1, 1)
    found = norm.project(delta, images, eps)
    assert bool(((images + found >= 0) & (images + found <= 1)).all())
    assert bool((norm.length(found.double()) <= eps.double() * (1 + 1e-6)).all())
    for i in range(2):
        exact = reference(name, delta[i].double().numpy(), images[i].double().numpy(), float(eps[i]))
        assert np.abs(found[i].numpy() - exact).max() <= 2e-6 * np.abs(exact).max() + 2e-7 * float(delta[i].abs().max())


@pytest.mark.parametrize("name", ["l1", "l2"])
@pytest.mark.parametrize("factor", [1.05, 30.0])
def test_the_rounds_of_an_accelerator_are_enough(monkeypatch, name, factor):
    generator = torch.Generator().manual_seed(5)
    images = (torch.rand(2, 3, 60, 80, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    norm, delta = NORMS[name], torch.randn(images.shape, generator=generator) * 0.01
    box = norm.length(norm.project(delta, images, torch.tensor([math.inf] * 2)))
    eps = box / torch.tensor([factor, 0.9])
    exact = norm.project(delta, images, eps)
    monkeypatch.setattr(projections, "done", lambda images: False)
    monkeypatch.setattr(projections, "_rounds", lambda table, like: range(table["accelerator"]))
    torch.testing.assert_close(norm.project(delta, images, eps), exact, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_projection_with_infinite_eps_is_the_box(name):
    image, delta = column([0.2, 0.9, 0.5]), column([-1.0, 1.0, 0.1])
    found = NORMS[name].project(delta, image, torch.tensor([math.inf], dtype=DOUBLE))
    torch.testing.assert_close(found, column([-0.2, 0.1, 0.1]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_projection_of_zero_is_zero_and_nan_stays_with_its_image(name):
    norm, image = NORMS[name], torch.full((2, 3), 0.5)
    assert torch.equal(norm.project(torch.zeros(2, 3), image, torch.tensor([0.1, 0.2])), torch.zeros(2, 3))
    delta = torch.tensor([[math.nan, 1.0, 1.0], [1.0, 1.0, 1.0]])
    found = norm.project(delta, image, torch.tensor([0.1, 0.2]))
    assert bool(found[0].isnan().any())
    torch.testing.assert_close(found[1:], norm.project(delta[1:], image[1:], torch.tensor([0.2])))


def test_radial_scales_then_clamps():
    delta, image = column([0.6, -0.8]), column([0.9, 0.5])
    eps = torch.tensor([0.5], dtype=DOUBLE)
    torch.testing.assert_close(L2().radial(delta, image, eps), column([0.1, -0.4]))
    torch.testing.assert_close(L1().radial(delta, image, eps), column([0.1, -0.5 * 0.8 / 1.4]))
    torch.testing.assert_close(Linf().radial(delta, image, eps), Linf().project(delta, image, eps))
    torch.testing.assert_close(L2().radial(delta / 10, image, eps), delta / 10)


@given(st.integers(0, 2**32 - 1), st.integers(-30, 10))
def test_steepest_has_unit_norm_and_attains_the_dual_norm(seed, exponent):
    grad = torch.tensor(np.random.default_rng(seed).normal(size=(2, 3, 2, 2)) * 10.0**exponent)
    flat = grad.flatten(1)

    def gain(direction):
        return (flat * direction.flatten(1)).sum(1)

    torch.testing.assert_close(gain(L2().steepest(grad)), flat.norm(dim=1))
    torch.testing.assert_close(gain(Linf().steepest(grad)), flat.abs().sum(1))
    torch.testing.assert_close(gain(sparse_steepest(grad, 1 / 12)), flat.abs().amax(1))
    torch.testing.assert_close(L1().steepest(grad) * flat.abs().sum(1).view(2, 1, 1, 1), grad)
    for direction, norm in [
        (L2().steepest(grad), L2()),
        (Linf().steepest(grad), Linf()),
        (L1().steepest(grad), L1()),
        (sparse_steepest(grad, 0.4), L1()),
    ]:
        torch.testing.assert_close(norm.length(direction), torch.ones(2, dtype=DOUBLE))


@pytest.mark.parametrize("name", NAMES)
def test_steepest_of_a_gradient_too_small_to_square(name):
    grad = torch.tensor([[1e-30, -2e-30, 0.0], [0.0, 0.0, 0.0]])
    found = NORMS[name].steepest(grad)
    torch.testing.assert_close(found[0], NORMS[name].steepest(grad[:1] * 1e30)[0])
    assert torch.equal(found[1], torch.zeros(3))
    assert torch.equal(sparse_steepest(grad, 0.5)[1], torch.zeros(3))


def test_sparse_steepest_takes_a_share_for_each_image():
    grad = torch.tensor([[4.0, -3.0, 2.0, -1.0]] * 3)
    found = sparse_steepest(grad, torch.tensor([0.01, 0.5, 1.0]))
    expected = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, -0.5, 0.0, 0.0], [0.25, -0.25, 0.25, -0.25]])
    torch.testing.assert_close(found, expected)


def many(norm, draw, values, n=2000):
    like = torch.empty(n, values, dtype=DOUBLE)
    return getattr(norm, draw)(like, Randomness(7, tuple(map(str, range(n)))))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", [1, 3])
def test_ball_samples_are_uniform(name, values):
    points = many(NORMS[name], "sample_ball", values)
    lengths = NORMS[name].length(points)
    assert bool((lengths <= 1).all())
    # In a ball of n dimensions P(‖z‖ <= r) = rⁿ, and no coordinate is preferred in sign or size.
    assert stats.kstest((lengths**values).numpy(), "uniform").pvalue > 1e-3
    first, last = points[:, 0].numpy(), points[:, -1].numpy()
    assert stats.ks_2samp(first, -last).pvalue > 1e-3
    # Second moment of one coordinate, in closed form for n dimensions.
    n = values
    moment = {"l1": 2 / ((n + 1) * (n + 2)), "l2": 1 / (n + 2), "linf": 1 / 3}[name]
    assert float((points**2).mean()) == pytest.approx(moment, rel=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_sphere_samples_lie_on_the_sphere_and_prefer_no_side(name):
    points = many(NORMS[name], "sample_sphere", 3)
    torch.testing.assert_close(NORMS[name].length(points), torch.ones(2000, dtype=DOUBLE))
    # Second moment of one coordinate: Dirichlet(1, 1, 1), Archimedes, and one face in three.
    moment = {"l1": 1 / 6, "l2": 1 / 3, "linf": (1 + 2 / 3) / 3}[name]
    assert float((points**2).mean()) == pytest.approx(moment, rel=0.05)
    for i in range(3):
        assert float((points[:, i] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("draw", ["sample_ball", "sample_sphere"])
def test_samples_do_not_depend_on_the_batch(name, draw):
    both = getattr(NORMS[name], draw)(torch.empty(2, 3, 4, 5), Randomness(1, ("a", "b")), 4)
    alone = getattr(NORMS[name], draw)(torch.empty(1, 3, 4, 5), Randomness(1, ("b",)), 4)
    torch.testing.assert_close(both[1], alone[0])


def test_threat_starts_and_projects_with_one_eps_for_each_image():
    images = torch.full((2, 3, 2, 2), 0.5)
    threat = Threat(L2(), (0.1, 0.2))
    start = threat.start(images, Randomness(0, ("a", "b")))
    assert bool((L2().length(start) <= torch.tensor([0.1, 0.2])).all())
    assert torch.equal(threat.project(start, images), start)
    assert threat.budgets(2, images).tolist() == pytest.approx([0.1, 0.2])
    assert threat.scaled(2).eps == (0.2, 0.4)
    with pytest.raises(InputError, match="2 values of eps for 3 images"):
        threat.budgets(3, images)


def test_threat_chooses_its_projection():
    images, delta = column([0.9, 0.5, 0.5]), column([1.0, 1.0, 0.0])
    exact = Threat(L2(), 0.5).project(delta, images)
    radial = Threat(L2(), 0.5, "radial").project(delta, images)
    torch.testing.assert_close(exact, column([0.1, math.sqrt(0.24), 0.0]))
    torch.testing.assert_close(radial, column([0.1, 0.5 / math.sqrt(2), 0.0]))


@pytest.mark.parametrize(("text", "eps"), [("1.5", 1.5), ("4/255", 4 / 255), (750, 750.0), ("inf", math.inf)])
def test_parse_eps_reads(text, eps):
    assert parse_eps(text) == eps


@pytest.mark.parametrize("text", ["0", "-1", "nan", "a", "1/0", "1/2/3", "", 0.0, float("nan"), "-1/255"])
def test_parse_eps_refuses(text):
    with pytest.raises(InputError, match="eps"):
        parse_eps(text)


def test_make_threat_knows_the_papers_budgets_and_refuses_slips():
    assert [make_threat(name).eps for name in NAMES] == [750, 1.5, 0.006]
    assert make_threat("l2", 2.0, "radial") == Threat(L2(), 2.0, "radial")
    assert make_threat("l1", math.inf, shape=(3, 2, 2)).eps == math.inf
    with pytest.raises(InputError, match="did you mean 8/255"):
        make_threat("linf", 8.0)
    with pytest.raises(InputError, match=r"units of 0 to 255"):
        make_threat("l2", 128.0, shape=(3, 64, 64))
    with pytest.raises(InputError, match="did you mean 'linf'"):
        make_threat("lin", 0.1)
    with pytest.raises(InputError, match="projection is 'exact'; expected euclidean or radial"):
        make_threat("l2", 0.1, "exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [[True, True], [False, False], [True, False]])
def test_images_are_chosen_as_where_does(rows, monkeypatch):
    rows, one, other = torch.tensor(rows), torch.rand(2, 3, 1, 2), torch.rand(2, 3, 1, 2)
    found = projections.choose(rows, one, other)
    monkeypatch.setattr(projections, "done", lambda images: False)  # as on an accelerator
    assert torch.equal(found, projections.choose(rows, one, other))
    assert torch.equal(found, torch.where(rows.view(2, 1, 1, 1), one, other))
