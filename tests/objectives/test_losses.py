"""Losses against closed forms, scipy and finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm

from segradius.core.errors import InputError
from segradius.objectives.losses import (
    LOSSES,
    SCORE_FLOOR,
    CrossEntropy,
    DifferenceOfLogitsRatio,
    ExpectedFlips,
    Hinge,
    JensenShannon,
    Margin,
    Spherical,
    Wrong,
)
from segradius.radius.gaussian import normal_quantile, signed_radius

SCALED = {"scaled_flips", "scaled_sigmoid"}
SMOOTH = [name for name in LOSSES if LOSSES[name].differentiable]


def logits_and_labels(seed: int = 0, classes: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 3, 4, generator=g, dtype=torch.float64) * scale
    return logits, torch.randint(classes, (2, 3, 4), generator=g)


def own(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def test_jensen_shannon_equals_scipys_squared_distance() -> None:
    logits, labels = logits_and_labels()
    found = JensenShannon()(logits, labels)
    p = logits.softmax(1).movedim(1, -1).reshape(-1, 5).numpy()
    q = np.eye(5)[labels.flatten().numpy()]
    assert np.allclose(found.flatten().numpy(), jensenshannon(p, q, axis=1) ** 2, atol=1e-12)


def test_margin_is_positive_exactly_where_the_pixel_is_wrong() -> None:
    logits, labels = logits_and_labels()
    assert ((Margin()(logits, labels) > 0) == (logits.argmax(1) != labels)).all()


def test_hinge_is_the_margin_up_to_kappa() -> None:
    logits, labels = logits_and_labels()
    margin = Margin()(logits, labels)
    assert torch.equal(Hinge(0.5)(logits, labels), margin.clamp(max=0.5))


def test_dlr_against_its_definition_and_invariance() -> None:
    logits, labels = logits_and_labels()
    z = np.sort(logits.movedim(1, -1).numpy(), axis=-1)
    expected = Margin()(logits, labels).numpy() / (z[..., -1] - z[..., -3])
    assert np.allclose(DifferenceOfLogitsRatio()(logits, labels).numpy(), expected)
    assert torch.allclose(DifferenceOfLogitsRatio()(7 * logits + 2, labels), DifferenceOfLogitsRatio()(logits, labels))


def test_dlr_of_two_classes_is_refused() -> None:
    logits, labels = logits_and_labels(classes=2)
    with pytest.raises(InputError, match="at least 3 classes, the model has 2"):
        DifferenceOfLogitsRatio()(logits, labels)


def test_spherical_is_minus_the_cosine() -> None:
    logits, labels = logits_and_labels()
    cosine = torch.cosine_similarity(logits, torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).double(), dim=1)
    assert torch.allclose(Spherical()(logits, labels), -cosine)


def test_expected_flips_against_scipy_and_its_annealing() -> None:
    logits, labels = logits_and_labels()
    p = logits.softmax(1)
    mine, rival = own(p, labels), p.scatter(1, labels[:, None], 0).amax(1)
    radius = 0.5 * (norm.ppf(mine.numpy()) - norm.ppf(rival.numpy()))
    for progress, tau in ((0.0, 4.0), (0.5, 2.25), (1.0, 0.5)):
        assert np.allclose(ExpectedFlips()(logits, labels, progress).numpy(), norm.cdf(-radius / tau), atol=1e-9)


def test_expected_flips_tends_to_the_count_of_flipped_pixels() -> None:
    logits, labels = logits_and_labels()
    soft = ExpectedFlips(tau=1e-3, tau_end=1e-3)(logits, labels)
    assert torch.allclose(soft, (logits.argmax(1) != labels).double(), atol=1e-6)


def test_quantile_keeps_both_tails_in_float32() -> None:
    log_p = torch.tensor([-1e-12, -80.0, -1e-3, math.log(0.5)])
    log_1mp = torch.tensor([math.log(1e-12), -1e-30, math.log(-math.expm1(-1e-3)), math.log(0.5)])
    found = normal_quantile(log_p, log_1mp)
    expected = [norm.isf(1e-12), norm.ppf(math.exp(-80)), norm.ppf(math.exp(-1e-3)), 0.0]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float32), rtol=1e-4, atol=1e-6)


def test_signed_radius_of_a_confident_pixel_is_exact_where_float32_softmax_is_one() -> None:
    logits = torch.tensor([30.0, 0.0, -2.0]).view(1, 3, 1, 1)
    assert logits.softmax(1)[0, 0].item() == 1.0
    rest = math.exp(-30) + math.exp(-32)
    expected = 0.5 * (norm.isf(rest / (1 + rest)) - norm.ppf(math.exp(-30) / (1 + rest)))
    found = signed_radius(logits, torch.zeros(1, 1, 1, dtype=torch.long)).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_signed_radius_flips_sign_with_the_class_in_the_two_class_case() -> None:
    logits, _ = logits_and_labels(classes=2)
    zeros = torch.zeros(2, 3, 4, dtype=torch.long)
    assert torch.allclose(signed_radius(logits, zeros), -signed_radius(logits, zeros + 1))


@pytest.mark.parametrize("name", sorted({*SMOOTH} - SCALED))  # whose scale has no gradient
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    logits, labels = logits_and_labels(seed=3, scale=1.0)
    logits = logits[:1, :, :1, :2].clone().requires_grad_()
    loss = LOSSES[name]()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels[:1, :1, :2], 0.3), (logits,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SMOOTH)
def test_slope_is_the_derivative_that_autograd_finds_and_leaves_the_logits(name: str, dtype: torch.dtype) -> None:
    loss = replace(LOSSES[name](), kappa=0.5) if name == "hinge" else LOSSES[name]()
    logits, labels = logits_and_labels()
    pull = torch.randn(labels.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits = logits.to(dtype)
    logits[:, 1:3, 0] = 4.0  # rivals that tie share the pull
    before, free = logits.clone(), logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad((loss(free, labels, 0.3) * pull).sum(), free)
    found = loss.slope(logits, labels, pull, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-6)
    assert torch.equal(logits, before)
    assert not found.requires_grad


def test_a_loss_made_of_another_has_its_own_derivative() -> None:
    @dataclass(frozen=True)
    class Focal(CrossEntropy):
        def __call__(self, logits: torch.Tensor, labels: torch.Tensor, progress: float = 0.0) -> torch.Tensor:
            found = super().__call__(logits, labels, progress)
            return (1 - (-found).exp()).square() * found

    @dataclass(frozen=True)
    class Sharper(ExpectedFlips):
        tau: float = 1.0

    logits, labels = logits_and_labels()
    free = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Focal()(free, labels).sum(), free)
    assert torch.equal(Focal().slope(logits, labels, torch.ones(labels.shape, dtype=logits.dtype)), expected)
    assert Sharper.slope is ExpectedFlips.slope


@pytest.mark.parametrize("name", SMOOTH)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-300, 300, width=32), min_size=3, max_size=6), st.integers(0, 2), st.floats(0, 1))
def test_value_and_gradient_are_finite_for_any_finite_logits(
    name: str, values: list[float], label: int, progress: float
) -> None:
    logits = torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).requires_grad_()
    loss = LOSSES[name]()(logits, torch.full((1, 1, 1), label), progress)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(grad).all()
    slope = LOSSES[name]().slope(logits, torch.full((1, 1, 1), label), torch.ones(1, 1, 1), progress)
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("name", sorted({*SMOOTH} - {"dlr", *SCALED}))  # whose scales move with it
def test_loss_does_not_fall_when_the_label_loses_logit(name: str) -> None:
    logits, labels = logits_and_labels(seed=5)
    lower = logits.scatter_add(1, labels[:, None], torch.full_like(logits[:, :1], -0.1))
    assert (LOSSES[name]()(lower, labels) >= LOSSES[name]()(logits, labels) - 1e-12).all()


def test_bad_temperature_is_named() -> None:
    with pytest.raises(InputError, match="tau"):
        ExpectedFlips(tau=0.0)


@pytest.mark.parametrize("name", [n for n in SMOOTH if hasattr(LOSSES[n], "of_scores")])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=6), st.integers(0, 2), st.floats(0, 1))
def test_scores_give_what_their_logarithms_give_as_logits(
    name: str, values: list[float], label: int, progress: float
) -> None:
    logits = torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)
    labels = torch.full((1, 1, 1), label)
    scores = logits.softmax(1)
    rivals = scores.scatter(1, labels[:, None], -1.0).amax(1)
    assert (scores > SCORE_FLOOR).all()
    expected = LOSSES[name]()(logits, labels, progress)
    assert torch.allclose(LOSSES[name]().of_scores(own(scores, labels), rivals, progress), expected, atol=1e-6)


def test_losses_of_scores_are_finite_where_scores_were_rounded_to_zero_or_one() -> None:
    mine, rival = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    for loss in (CrossEntropy(), JensenShannon(), Margin(), Hinge(), ExpectedFlips(), Wrong()):
        assert torch.isfinite(loss.of_scores(mine, rival)).all()
    assert Wrong().of_scores(mine, rival).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(InputError, match="no gradient"):
        Wrong()(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long))
