"""‖w ⊙ δ‖ ≤ ε: projections against scipy, and weights of 1 that change no bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, NonlinearConstraint, minimize

from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.threats.threat import L2, NORMS, Threat, make_threat
from segradius.threats.weighted import read_weights

BANDS, VALUES = 3, 2
weights = st.lists(st.floats(0.25, 4.0), min_size=BANDS, max_size=BANDS)
values = st.lists(st.floats(-2, 2), min_size=BANDS * VALUES, max_size=BANDS * VALUES)
pixels = st.lists(st.floats(0, 1), min_size=BANDS * VALUES, max_size=BANDS * VALUES)


def shaped(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64).view(1, BANDS, 1, VALUES)


def nearest(norm: str, u: np.ndarray, low: np.ndarray, high: np.ndarray, eps: float) -> np.ndarray:
    """The point of ball and box next to u, by scipy: its own quadratic programme over u⁺ and u⁻ for l1."""
    if norm == "linf":
        return np.clip(u, np.maximum(low, -eps), np.minimum(high, eps))
    if norm == "l2":
        ball = NonlinearConstraint(lambda v: (v * v).sum(), -np.inf, eps**2, jac=lambda v: 2 * v)
        found = minimize(
            lambda v: ((v - u) ** 2).sum(), np.zeros_like(u), jac=lambda v: 2 * (v - u), method="SLSQP",
            bounds=list(zip(low, high, strict=True)), constraints=[ball], options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        return found.x
    n = len(u)
    ball = LinearConstraint(np.ones(2 * n), -np.inf, eps)
    bounds = [(0, max(0.0, most)) for most in high] + [(0, max(0.0, -least)) for least in low]
    gap = lambda v: v[:n] - v[n:] - u  # noqa: E731
    found = minimize(
        lambda v: (gap(v) ** 2).sum(), np.zeros(2 * n), jac=lambda v: 2 * np.concatenate([gap(v), -gap(v)]),
        method="SLSQP", bounds=bounds, constraints=[ball], options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return found.x[:n] - found.x[n:]


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@settings(deadline=None, max_examples=40)
@given(w=weights, delta=values, image=pixels, eps=st.floats(0.05, 3.0))
def test_the_projection_is_the_nearest_point_of_the_weighted_ball_and_the_box(
    norm: str, w: list[float], delta: list[float], image: list[float], eps: float
) -> None:
    threat = Threat(NORMS[norm], eps, weights=tuple(w))
    u, x = shaped(delta), shaped(image)
    found = threat.project(u, x)
    scale = np.repeat(w, VALUES)
    low, high = -scale * np.array(image), scale * (1 - np.array(image))
    expected = nearest(norm, np.array(delta), low, high, eps)
    away, least = (found.flatten().numpy() - np.array(delta)), expected - np.array(delta)
    assert (away**2).sum() <= (least**2).sum() * (1 + 1e-5) + 1e-7
    if (least**2).sum() <= (away**2).sum() + 1e-7:  # where the solver got stuck, it is no reference
        assert np.allclose(found.flatten().numpy(), expected, atol=2e-3)
    change = found / torch.tensor(w, dtype=torch.float64).view(BANDS, 1, 1)
    assert (threat.length(change) <= eps * (1 + 1e-9)).all()
    assert (x + change).min() >= -1e-12
    assert (x + change).max() <= 1 + 1e-12


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("projection", ["euclidean", "radial"])
def test_weights_of_one_change_no_bit(norm: str, projection: str) -> None:
    keys, images = Randomness(0, ("a", "b")), torch.rand(2, 4, 5, 6)
    delta = torch.randn(2, 4, 5, 6)
    plain, ones = (make_threat(norm, 0.7, projection, band_weights=w) for w in (None, "1,1,1,1"))  # type: ignore[arg-type]
    assert torch.equal(plain.project(delta, images), ones.project(delta, images))
    assert torch.equal(plain.start(images, keys), ones.start(images, keys))
    assert torch.equal(plain.length(delta), ones.length(delta))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_a_band_of_weight_inf_has_no_room_and_takes_none_from_the_others(norm: str) -> None:
    images, delta = torch.rand(2, 3, 4, 4), 0.1 * torch.randn(2, 3, 4, 4)
    frozen = make_threat(norm, 0.5, band_weights=[1, 2, math.inf]).project(delta, images)
    alone = make_threat(norm, 0.5, band_weights=[1, 2]).project(delta[:, :2], images[:, :2])
    assert (frozen[:, 2] == 0).all()
    torch.testing.assert_close(frozen[:, :2], alone)
    assert make_threat(norm, 0.5, band_weights=[1, 2, math.inf]).length(torch.full_like(delta, 0.1)).isinf().all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,x", "band_weights"),
        ([1, 0], r"holds 0; expected numbers in \[1e-06, 1e\+06\], or inf"),
        ([1, -1], "holds -1"),
        ([1, math.nan], "holds nan"),
        ([True, 1], "band_weights"),
        (["inf", math.inf], "nothing may be changed"),
        (3, "expected a number for each band"),
        ("1,1e9", "holds '1e9'"),
    ],
)
def test_bad_weights_are_named(given: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_weights(given)  # type: ignore[arg-type]


def test_weights_must_be_as_many_as_bands() -> None:
    with pytest.raises(InputError, match=r"band_weights has 2 numbers \(1,2\) for images of 3 bands"):
        make_threat("l2", 1.0, band_weights=[1, 2]).project(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
    with pytest.raises(InputError, match="for images of 4 bands"):
        make_threat("l2", 1.0, band_weights=[1, 2], shape=(4, 8, 8))


def test_a_threat_prints_its_weights_where_it_has_some() -> None:
    assert str(Threat(L2(), 1.0)) == "Threat(norm=L2(), eps=1.0, projection='euclidean')"
    assert "weights=(1.0, inf)" in str(make_threat("l2", 1.0, band_weights="1,inf"))
