"""CLEVER against autograd's Jacobian, scipy's fit and affine models, where it must be exact."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import weibull_max
from torch import Tensor, nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.objectives.goal import Goal
from segradius.objectives.view import LogitView
from segradius.objectives.weightings import CleverRadius, Product, StillCorrect, parse_weighting
from segradius.radius import jacobians
from segradius.radius.clever import (
    REACH,
    Ball,
    clever_radius,
    gradient_maxima,
    least_ratio,
    reverse_weibull_location,
    squared_lengths,
)
from segradius.radius.jacobians import derivative, differences, exact_radius, gradient_norms
from segradius.threats.threat import L2
from tiny import CLASSES, Counting, batch, network

KEYS = Randomness(0, tuple("abcd"))


def smooth() -> sr.Segmenter:
    return sr.wrap(network(), num_classes=CLASSES)


def affine(side: int = 3) -> sr.Segmenter:
    torch.manual_seed(3)
    return sr.wrap(nn.Conv2d(3, CLASSES, side, padding=side // 2).double(), num_classes=CLASSES)


def jacobian(model: sr.Segmenter, image: Tensor) -> Tensor:
    """(C, H, W, 3, H, W) of one image (3, H, W), row by row."""
    leaf = image.clone().requires_grad_()
    logits = model.logits(leaf.unsqueeze(0))[0]
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in logits.flatten()]
    return torch.stack(rows).view(*logits.shape, *image.shape)


def test_lengths_are_those_of_the_jacobian_of_autograd() -> None:
    images, _ = batch(count=2, size=4)
    model = smooth()
    classes = model.logits(images).argmax(1)
    found = gradient_norms(model, images, classes, at_once=7).view(2, CLASSES, 4, 4)
    for image, c, norms in zip(images, classes, found, strict=True):
        rows = jacobian(model, image)
        own = rows.gather(0, c.view(1, 4, 4, 1, 1, 1).expand(1, *rows.shape[1:]))
        torch.testing.assert_close(norms, (own - rows).flatten(3).norm(dim=3).detach())


def test_lengths_of_chosen_pixels_are_those_of_all() -> None:
    images, _ = batch(count=2, size=4)
    model, places = smooth(), torch.tensor([5, 0, 15])
    classes = model.logits(images).argmax(1)
    chosen = gradient_norms(model, images, classes, places)
    torch.testing.assert_close(chosen, gradient_norms(model, images, classes)[..., places])


def test_derivative_is_the_jacobian_times_the_direction() -> None:
    images, _ = batch(count=1, size=4)
    v = KEYS.normal((3, 4, 4), "v", dtype=torch.float64)[:1]
    expected = (jacobian(smooth(), images[0]) * v[0]).flatten(3).sum(3)
    found = derivative(smooth(), images, v)
    assert not found.requires_grad
    torch.testing.assert_close(found[0], expected.detach())


class OneWay(torch.autograd.Function):
    """The sine, without a rule for forward mode."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.sin()


def left_torch(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy()).sin()


@pytest.mark.parametrize("through", [OneWay.apply, left_torch])
def test_where_forward_mode_fails_a_difference_takes_its_place(through: object) -> None:
    images, _ = batch(count=2, size=4)
    conv = affine()
    v = KEYS.normal((3, 4, 4), "v", dtype=torch.float64)[:2]
    odd = sr.wrap(lambda x: conv.network(through(x)), num_classes=CLASSES)  # type: ignore[operator]
    plain = sr.wrap(lambda x: conv.network(x.sin()), num_classes=CLASSES)
    torch.testing.assert_close(derivative(odd, images, v), derivative(plain, images, v), rtol=1e-4, atol=1e-4)


def test_squared_lengths_are_unbiased() -> None:
    """Mean over 1024 probes, relative standard deviation √(2/1024) = 0.044 at every pixel: within 5 of those."""
    images, _ = batch(count=2, size=4)
    model = smooth()
    classes = model.logits(images).argmax(1)
    exact = gradient_norms(model, images, classes).view(2, CLASSES, 4, 4).square()
    found = squared_lengths(model, images, classes, Randomness(1, ("a", "b")), 1024)
    other = exact > 0
    assert torch.equal(other, found > 0)
    error = (found / exact - 1)[other]
    assert error.abs().max() < 5 * (2 / 1024) ** 0.5
    assert abs(error.mean()) < 0.03


@pytest.mark.parametrize("shape", [1.5, 3.0, 8.0])
def test_location_is_near_that_of_scipy_and_at_least_as_likely(shape: float) -> None:
    samples = weibull_max.rvs(shape, loc=10, scale=2, size=(400, 6), random_state=0)
    found = reverse_weibull_location(torch.tensor(samples))
    for column, location in zip(samples.T, found.tolist(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = weibull_max.fit(column, shape, loc=column.max() + 0.1, scale=1.0)
            fixed = weibull_max.fit(column, theirs[0], floc=location, scale=theirs[2])
        assert location == pytest.approx(theirs[1], abs=0.03)
        assert weibull_max.logpdf(column, *fixed).sum() > weibull_max.logpdf(column, *theirs).sum() - 0.02


def test_location_converges_to_the_true_one() -> None:
    samples = weibull_max.rvs(2.0, loc=5, scale=1, size=(20000, 3), random_state=1)
    assert reverse_weibull_location(torch.tensor(samples)) == pytest.approx([5.0] * 3, abs=0.02)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 1e6, width=32), min_size=3, max_size=12),
    st.floats(1e-3, 1e3),
)
def test_location_is_beyond_the_samples_within_reach_and_scales_with_them(samples: list[float], factor: float) -> None:
    x = torch.tensor(samples, dtype=torch.float64).unsqueeze(1)
    found = reverse_weibull_location(x)
    assert (found >= x.amax(0)).all()
    assert (found <= x.amax(0) + REACH[1] * (x.amax(0) - x.amin(0)) * (1 + 1e-9)).all()
    torch.testing.assert_close(reverse_weibull_location(x * factor), found * factor, rtol=1e-6, atol=1e-9)


def test_location_is_the_largest_where_there_is_nothing_to_fit() -> None:
    x = torch.tensor([[1.0, 3.0, 0.0], [2.0, 3.0, 0.0]])
    assert torch.equal(reverse_weibull_location(x), torch.tensor([2.0, 3.0, 0.0]))
    same = torch.tensor([3.0, 0.0]).expand(5, 2)
    assert torch.equal(reverse_weibull_location(same), same[0])


def test_exact_lengths_give_the_exact_radius_of_an_affine_model() -> None:
    images, _ = batch(count=2, size=4)
    model = affine()
    found = clever_radius(model, images, Randomness(0, ("a", "b")), Ball(10.0, 4, 2, probes=0))
    torch.testing.assert_close(found.radius, exact_radius(model, images).clamp_max(10.0), rtol=1e-5, atol=0)


def test_probes_give_it_within_monte_carlo_error_whatever_the_number_of_samples() -> None:
    images, _ = batch(count=2, size=4)
    model, keys = affine(), Randomness(0, ("a", "b"))
    exact = exact_radius(model, images)
    few, many = (clever_radius(model, images, keys, Ball(1e6, 3, s, probes=256)).radius for s in (1, 6))
    torch.testing.assert_close(few, many, rtol=1e-5, atol=0)
    # Five standard errors of a length, √(1/2K), and a few more for the least of three.
    assert (few / exact - 1).abs().max() < 6 * (1 / 512) ** 0.5


def test_radius_is_the_least_ratio_of_margin_and_location_over_all_classes() -> None:
    """The classes that are left out of the fit do not matter."""
    images, _ = batch(count=2, size=4)
    model, keys = smooth(), Randomness(0, ("a", "b"))
    logits = model.logits(images).detach()
    classes = logits.argmax(1)
    maxima = gradient_maxima(model, images, classes, keys, Ball(2.0, 6, 2, probes=3))
    ratios = differences(logits, classes) / reverse_weibull_location(maxima)
    ratios.scatter_(1, classes.unsqueeze(1), torch.inf)
    least, rival = least_ratio(differences(logits, classes), maxima, classes)
    torch.testing.assert_close(least, ratios.amin(1))
    assert torch.equal(rival, ratios.argmin(1))


def test_radius_is_at_most_that_of_the_ball_and_normalised_by_it() -> None:
    images, _ = batch()
    found = clever_radius(smooth(), images, KEYS, Ball(0.01, 3, 1, probes=2))
    assert (found.radius <= 0.01).all()
    assert (found.radius == 0.01).any()
    torch.testing.assert_close(found.normalised, found.radius / 0.01)


def test_a_constant_model_has_the_largest_radius_and_a_tie_none() -> None:
    constant = sr.wrap(lambda x: torch.stack([x[:, 0] * 0, x[:, 0] * 0 + 1], 1), num_classes=2)
    tie = sr.wrap(lambda x: torch.stack([x[:, 0], x[:, 0]], 1), num_classes=2)
    images, _ = batch(count=1, size=4)
    assert (clever_radius(constant, images, Randomness(0, ("a",)), Ball(0.7)).radius == 0.7).all()
    assert (clever_radius(tie, images, Randomness(0, ("a",)), Ball(0.7, 3, 1)).radius == 0).all()


def test_samples_lie_in_the_ball_and_are_new_at_every_place_and_step() -> None:
    images, _ = batch()
    ball = Ball(0.3)
    points = [ball.point(images, KEYS, place, step) for place, step in (("0/0", 0), ("0/1", 0), ("1/0", 0), ("0/0", 1))]
    assert all((L2().length(p - images) <= 0.3 * (1 + 1e-9)).all() for p in points)
    assert len({float(p.sum()) for p in points}) == 4


def test_maxima_are_the_largest_of_each_batch_of_samples() -> None:
    images, _ = batch(count=1, size=4)
    model, keys, ball = smooth(), Randomness(0, ("a",)), Ball(0.5, 2, 3, probes=2)
    classes = model.logits(images).argmax(1)
    found = gradient_maxima(model, images, classes, keys, ball, step=4)
    each = [
        [squared_lengths(model, ball.point(images, keys, f"{b}/{s}", 4), classes, keys, 2, 4).sqrt() for s in range(3)]
        for b in range(2)
    ]
    torch.testing.assert_close(found, torch.stack([torch.stack(batch_of).amax(0) for batch_of in each]))


@pytest.mark.parametrize("probes", [0, 2])
def test_batch_equals_single_images(probes: int) -> None:
    images, _ = batch(size=4)
    ball = Ball(0.5, 3, 2, probes)
    together = clever_radius(smooth(), images, KEYS, ball, step=3)
    for i, key in enumerate("abcd"):
        alone = clever_radius(smooth(), images[i : i + 1], Randomness(0, (key,)), ball, step=3)
        torch.testing.assert_close(together.radius[i], alone.radius[0], rtol=1e-6, atol=1e-9)


def test_passes_are_entered() -> None:
    images, _ = batch(count=2, size=4)
    keys = Randomness(0, ("a", "b"))
    book, model = Ledger(2), Counting(smooth())
    clever_radius(model, images, keys, Ball(0.5, 3, 2, probes=4), ledger=book)
    assert book.forward.tolist() == [1 + 2 * 4 * 6] * 2  # a pass with its tangent counts as two
    assert model.forward == 2 * (1 + 4 * 6)
    book, model = Ledger(2), Counting(smooth())
    clever_radius(model, images, keys, Ball(0.5, 3, 2, probes=0), ledger=book)
    assert book.forward.tolist() == [1 + 6] * 2
    assert model.forward == 2 * (1 + 6)
    assert book.backward.tolist() == [6 * CLASSES * 16] * 2


@pytest.mark.parametrize("options", [{"radius": 0.0}, {"radius": float("inf")}, {"batches": 0}, {"probes": -1}])
def test_bad_ball_is_named(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Ball(**options)  # type: ignore[arg-type]


def view(step: int, book: Ledger) -> LogitView:
    images, labels = batch()
    model = smooth()
    logits = model.logits(images).detach()
    return LogitView(logits, logits.argmax(1), Goal.leave(labels), images, step, 10, model, KEYS, book)


def test_weight_is_equation_ten_of_the_radius_over_half_its_mean() -> None:
    seen = view(2, Ledger(4))
    weighting = CleverRadius(radius=0.5, batches=3, samples=2, probes=2)
    radius = clever_radius(seen.model, seen.images, KEYS, weighting.ball, step=2).radius
    known = seen.goal.counted
    means = torch.stack([r[k].mean() for r, k in zip(radius, known, strict=True)]).view(-1, 1, 1)
    expected = 1 / (1 + torch.exp(2 * (2 * radius / means) - 4))
    torch.testing.assert_close(weighting.weigh(seen, None)[0], expected)


def test_weights_are_refreshed_every_interval_and_paid_for() -> None:
    weighting, state, book, changed = CleverRadius(batches=2, samples=1, probes=1, every=3), None, Ledger(4), []
    for step in range(7):
        before = state
        _, state = weighting.weigh(view(step, book), state)
        changed.append(state is not before)
    assert changed == [True, False, False, True, False, False, True]
    assert book.by_purpose() == {"radius": {"forward": 4 * 3 * 5, "backward": 0}}


def test_an_attack_is_guided_by_name_with_options_in_brackets() -> None:
    images, labels = batch()
    name = "clever(batches=2;samples=1;probes=1;radius=0.5)"
    attack = sr.make_attack("pgd", norm="l2", eps=0.8, steps=4, weighting=name)
    found = attack(smooth(), images, labels, ids=tuple("abcd"))
    assert found.ledger.passes["radius"][0].tolist() == [5] * 4
    alone = attack(smooth(), images[1:2], labels[1:2], ids=("b",))
    torch.testing.assert_close(found.delta[1], alone.delta[0], rtol=1e-6, atol=1e-9)
    plain = sr.make_attack("pgd", norm="l2", eps=0.8, steps=4)(smooth(), images, labels, ids=tuple("abcd"))
    assert not torch.equal(found.delta, plain.delta)


def test_options_in_brackets_are_numbers_and_words() -> None:
    found = parse_weighting("clever(batches=4;radius=5e-1) * still_correct")
    assert found == Product((CleverRadius(batches=4, radius=0.5), StillCorrect()))
    assert parse_weighting("cr(precision=bfloat16;every=3)", samples=2).samples == 2  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="did you mean 'batches'"):
        parse_weighting("clever(batch=4)")
    with pytest.raises(InputError, match="every is 0; expected a whole number in"):
        parse_weighting("clever(every=0)")


def test_scores_alone_are_refused() -> None:
    with pytest.raises(InputError, match="the weighting 'clever' needs logits; scores give balanced, cr, eroseg"):
        sr.make_attack("pbgd", norm="l2", eps=1.0, queries=20, weighting="clever")


def test_forward_mode_agrees_with_a_central_difference_on_a_smooth_network() -> None:
    images, _ = batch(count=2, size=4)
    v = KEYS.normal((3, 4, 4), "v", dtype=torch.float64)[:2]
    with torch.no_grad():
        difference = jacobians._central(smooth(), images, v)
    torch.testing.assert_close(derivative(smooth(), images, v), difference, rtol=1e-4, atol=1e-4)
