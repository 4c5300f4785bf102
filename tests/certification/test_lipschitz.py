"""Certificates from a Lipschitz constant: never above the exact optimum, equal to it where the theory says so."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp, minimize, nnls
from torch import Tensor

from segradius.certification.lipschitz import (
    ClassWorst,
    budgets,
    class_worst,
    distances,
    least_iou,
    least_recall,
    pixel_radii,
    turnable,
)
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return Randomness(seed, ("a",)).normal(shape, "test", dtype=torch.float64)[0]


def nearest(z: Tensor, c: int) -> float:
    """By quadratic programming: the l2 distance of one pixel's logits to those where class c is largest."""
    start = z.numpy()
    rows = [np.eye(len(z))[c] - np.eye(len(z))[j] for j in range(len(z)) if j != c]
    constraints = [{"type": "ineq", "fun": lambda x, r=r: r @ x, "jac": lambda x, r=r: r} for r in rows]
    found = minimize(
        lambda x: ((x - start) ** 2).sum(), start, jac=lambda x: 2 * (x - start), method="SLSQP",
        constraints=constraints, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return math.sqrt(found.fun)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_distances_to_the_regions_of_the_classes_are_those_of_a_quadratic_program(classes: int) -> None:
    z = drawn((classes, 2, 3), classes)
    found, slack = distances(z), 2.0**-16 * float(z.abs().max())
    for y, x in itertools.product(range(2), range(3)):
        exact = [nearest(z[:, y, x], c) for c in range(classes)]
        near = [float(found.become[c, y, x]) for c in range(classes)]
        assert near == pytest.approx(exact, abs=2e-5 + slack)
        assert all(mine <= theirs + 1e-7 for mine, theirs in zip(near, exact, strict=True))
        rivals = [d for c, d in enumerate(exact) if c != int(found.guess[y, x])]
        assert float(found.turn[y, x]) == pytest.approx(min(rivals), abs=2e-5 + slack)


def test_of_yes_no_channels_the_outputs_are_the_channels_and_not_the_logits_of_their_sets() -> None:
    z = drawn((2, 1, 4), 5)
    logits = torch.stack([torch.zeros_like(z[0]), z[0], z[1], z[0] + z[1]])
    found = distances(logits, structures=2)
    for x in range(4):
        a, b = z[:, 0, x].tolist()
        costs = [math.hypot(max(a, 0), max(b, 0)), math.hypot(min(a, 0), max(b, 0)), math.hypot(max(a, 0), min(b, 0)),
                 math.hypot(min(a, 0), min(b, 0))]  # fmt: skip
        assert found.become[:, 0, x].tolist() == pytest.approx(costs, abs=1e-4)
        assert float(found.turn[0, x]) == pytest.approx(min(abs(a), abs(b)), abs=1e-4)


def linear(pixels: int, classes: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Logits W x + b of an image x of as many values as there are logits: (W, b + W x₀, ‖W‖₂)."""
    width = pixels * classes
    weight = drawn((width, width), seed) / math.sqrt(width)
    return weight, drawn((width,), seed + 1), float(torch.linalg.matrix_norm(weight, 2))


def least_change(weight: Tensor, logits: Tensor, turned: dict[int, int]) -> float:
    """Exact: the shortest ‖δ‖₂ at which each pixel p of ``turned`` has class turned[p] level with its own."""
    rows, gaps = [], []
    for p, c in turned.items():
        z = logits[:, 0, p]
        own = int(z.argmax())
        rows.append(weight[c * logits.shape[2] + p] - weight[own * logits.shape[2] + p])
        gaps.append(float(z[own] - z[c]))
    a, b = torch.stack(rows), torch.tensor(gaps, dtype=torch.float64)
    # min ‖δ‖² with A δ ≥ b, after Lawson & Hanson: least distance programming by NNLS of [Aᵀ; bᵀ] y ≈ [0; 1].
    e = torch.cat([a.T, b[None]]).numpy()
    f = np.zeros(len(e))
    f[-1] = 1
    y, _ = nnls(e, f, maxiter=1000)
    r = e @ y - f
    return float(np.linalg.norm(-r[:-1] / r[-1]))


@pytest.mark.parametrize("seed", range(6))
def test_no_change_of_a_linear_network_turns_more_pixels_than_the_certificate_allows(seed: int) -> None:
    """Brute force over all sets of 6 pixels and all rivals; the exact least change of each set by programming."""
    pixels, classes = 6, 2 + seed % 2
    weight, flat, norm = linear(pixels, classes, 10 * seed)
    logits = flat.view(classes, 1, pixels)
    found = distances(logits)
    others = [[c for c in range(classes) if c != int(found.guess[0, p])] for p in range(pixels)]
    for size in range(1, pixels + 1):
        exact = min(
            least_change(weight, logits, dict(zip(which, to, strict=True)))
            for which in itertools.combinations(range(pixels), size)
            for to in itertools.product(*(others[p] for p in which))
        )
        allowed = turnable(found.turn.flatten().square(), budgets(norm, torch.tensor([exact * (1 + 1e-9)])))
        assert int(allowed) >= size
        half = turnable(found.turn.flatten().square(), budgets(norm / 2, torch.tensor([exact])))
        assert int(half) <= int(allowed)


@pytest.mark.parametrize("classes", [2, 4])
def test_for_an_orthogonal_network_the_certificate_is_the_exact_optimum(classes: int) -> None:
    """A rotation moves its logits wherever it likes: the bound is attained, and an L half as large is contradicted."""
    pixels = 5
    rotation = torch.linalg.qr(drawn((pixels * classes, pixels * classes), 3)).Q
    logits = drawn((classes, 1, pixels), 4)
    found = distances(logits)
    order = found.turn.flatten().argsort()
    for size in range(1, pixels + 1):
        moved = logits.clone()
        for p in order[:size].tolist():
            top = logits[:, 0, p].topk(2)
            moved[top.indices, 0, p] = top.values.mean()
            moved[top.indices[1], 0, p] += 1e-9
        delta = rotation.T @ (moved - logits).flatten()
        length = delta.norm()
        answer = (logits.flatten() + rotation @ delta).view_as(logits).argmax(0)
        assert int((answer != found.guess).sum()) == size
        costs = found.turn.flatten().square()
        assert int(turnable(costs, budgets(1.0, length[None]))) == size
        assert int(turnable(costs, budgets(0.5, length[None]))) < size  # stated 2× too small, it is caught


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.floats(0.0, 9.0))
def test_the_corners_give_the_least_iou_and_recall_of_every_choice_of_pixels(
    seed: int, classes: int, budget: float
) -> None:
    """All choices of lost and won pixels of two images whose costs fit their budgets, tried one by one."""
    images, choices = [], []
    for part in range(2):
        logits = drawn((classes, 1, 6), seed + part)
        labels = (drawn((6,), seed + 7 + part).abs() * classes).long().clamp_max(classes - 1).view(1, 6)
        labels[0, part] = 255
        found = distances(logits)
        images += class_worst(found, labels, 0, [budget])
        mine, predicted = labels[0] == 0, found.guess[0] == 0
        counts = labels[0] != 255
        loses = found.turn[0][mine & predicted].square().tolist()
        wins = found.become[0, 0][counts & ~mine & ~predicted].square().tolist()
        reached = {
            (sum(a), sum(b))
            for a in itertools.product((0, 1), repeat=len(loses))
            for b in itertools.product((0, 1), repeat=len(wins))
            if sum(x * c for x, c in zip(a, loses, strict=True)) + sum(x * c for x, c in zip(b, wins, strict=True))
            <= budget
        }
        choices.append(reached)
    right, union, labelled = (sum(getattr(each, n) for each in images) for n in ("right", "union", "labelled"))
    pairs = [(a[0] + b[0], a[1] + b[1]) for a in choices[0] for b in choices[1]]
    least = [(right - lost) / (union + won) for lost, won in pairs if union + won]
    assert least_iou(images) == pytest.approx(min(least)) if least else math.isnan(least_iou(images))
    if labelled:
        assert least_recall(images) == pytest.approx(min((right - lost) / labelled for lost, _ in pairs))


def test_the_most_pixels_by_a_sort_are_those_of_an_integer_program() -> None:
    costs = drawn((12,), 8).square()
    for budget in (0.1, 1.0, 3.0):
        exact = milp(
            -np.ones(12), integrality=np.ones(12), bounds=Bounds(0, 1),
            constraints=LinearConstraint(costs.numpy()[None], -np.inf, budget),
        )  # fmt: skip
        assert int(turnable(costs, torch.tensor([budget]))) == round(-exact.fun)


def test_noise_gains_nothing_from_all_pixels_together() -> None:
    """For any probabilities of the pixels there is a classifier at which one change turns every pixel it may turn.

    Pixel p of it is right where ⟨u, x⟩ ≤ t_p, for one unit vector u and all pixels. Under N(0, σ²I) around x that has
    the probability Φ((t_p − ⟨u, x⟩)/σ), which is the p given for t_p = ⟨u, x⟩ + σΦ⁻¹(p), and the smoothed model turns
    once ⟨u, δ⟩ > σΦ⁻¹(p). So the change εu turns all pixels of a radius below ε at once.
    """
    sigma, eps = 0.25, 0.3
    given = torch.linspace(0.55, 0.999, 40, dtype=torch.float64)
    u = drawn((30,), 1)
    u /= u.norm()
    x = drawn((30,), 2)
    t = u @ x + sigma * torch.special.ndtri(given)

    def smoothed(image: Tensor) -> Tensor:
        """Probability of every pixel to be right, in closed form."""
        return torch.special.ndtr((t - u @ image) / sigma)

    radius = sigma * torch.special.ndtri(given)
    assert torch.allclose(smoothed(x), given)
    assert torch.equal(smoothed(x + eps * u) < 0.5, radius < eps)


def test_a_pixel_level_with_a_rival_is_turned_by_nothing_and_has_no_radius() -> None:
    found = distances(torch.tensor([[[1.0, 2.0]], [[1.0, 0.0]]]))
    assert pixel_radii(found, 2.0).tolist()[0][0] == 0
    assert int(turnable(found.turn.flatten().square(), torch.tensor([0.0]))) == 1


def test_a_class_that_no_pixel_has_or_is_won_for_has_no_iou() -> None:
    assert math.isnan(least_iou([ClassWorst(0, 0, 0, (0,), (0,))]))
    assert math.isnan(least_recall([ClassWorst(0, 0, 0, (0,), (0,))]))


def test_rubbish_is_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        distances(torch.tensor([math.nan, 0.0]).view(2, 1, 1))
    with pytest.raises(InputError, match="lipschitz"):
        pixel_radii(distances(torch.zeros(2, 1, 1)), 0.0)
