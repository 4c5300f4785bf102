"""Theorem 1's radius against closed forms, and the loss that uses it."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm, spearmanr

import segradius as sr
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.radius.smoothing import normalised_radius, pixel_radius, smoothed_probabilities, two_class_radius
from tiny import CLASSES, Counting, batch, linear, network

KEYS = Randomness(0, ("a", "b", "c", "d"))


def test_radius_of_known_probabilities() -> None:
    p = torch.tensor([0.2, 0.5, 0.75, 0.99], dtype=torch.float64)
    assert torch.allclose(normalised_radius(p), torch.tensor([0, 0, *norm.ppf([0.75, 0.99])], dtype=torch.float64))


def test_two_class_form_equals_the_one_class_form_for_two_classes() -> None:
    p = torch.linspace(0.5, 0.999, 50, dtype=torch.float64)
    assert torch.allclose(two_class_radius(p, 1 - p), normalised_radius(p))


def test_two_class_form_is_never_smaller() -> None:
    top, runner = torch.tensor([0.6, 0.5, 0.4]), torch.tensor([0.1, 0.2, 0.3])
    assert (two_class_radius(top, runner) >= normalised_radius(top)).all()


def test_radius_of_a_model_without_dependence_on_noise_is_sigma_times_the_quantile() -> None:
    logit = torch.tensor(1.3, dtype=torch.float64)
    model = linear(torch.zeros(1, dtype=torch.float64), logit)
    found = pixel_radius(model, torch.rand(2, 3, 4, 4, dtype=torch.float64), Randomness(0, ("a", "b")), sigma=0.2)
    assert torch.allclose(found.radius, torch.tensor(0.2 * norm.ppf(logit.sigmoid().item())).double())
    assert torch.allclose(found.normalised, found.radius / 0.2)
    assert (found.prediction == 1).all()


def test_smoothed_probability_is_the_mean_softmax_of_the_noisy_copies() -> None:
    images, _ = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    found = smoothed_probabilities(model, images, KEYS, sigma=0.3, samples=5, step=2)
    noises = [KEYS.normal(images.shape[1:], f"radius/{j}", 2, dtype=images.dtype) for j in range(5)]
    expected = torch.stack([model.scores((images + 0.3 * n).clamp(0, 1)) for n in noises]).mean(0)
    assert torch.allclose(found, expected, atol=1e-12)


def test_radius_does_not_depend_on_the_batch() -> None:
    images, _ = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    together = pixel_radius(model, images, KEYS, sigma=0.3)
    alone = pixel_radius(model, images[2:3], Randomness(0, ("c",)), sigma=0.3)
    assert torch.allclose(together.radius[2], alone.radius[0], atol=1e-12)


def test_radius_enters_its_passes() -> None:
    images, _ = batch()
    model, book = Counting(sr.wrap(network(), num_classes=CLASSES)), Ledger(4)
    pixel_radius(model, images, KEYS, samples=7, ledger=book)
    assert book.by_purpose() == {"radius": {"forward": model.forward, "backward": 0}}
    assert model.forward == 28


def test_noise_is_clamped_to_the_box_unless_switched_off() -> None:
    seen = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x[:, :2]

    images = torch.ones(1, 3, 4, 4)
    for clamp in (True, False):
        model = sr.wrap(forward, num_classes=2)
        smoothed_probabilities(model, images, Randomness(0, ("a",)), sigma=0.5, samples=2, clamp=clamp)
    assert seen[0].max() <= 1
    assert seen[1].max() > 1


@pytest.mark.parametrize(
    ("sigma", "samples", "message"),
    [
        (0.0, 8, "sigma is 0.0; expected more than 0"),
        (-1.0, 8, "sigma is -1.0; expected more than 0"),
        (0.1, 0, "samples is 0; expected at least 1"),
        (float("nan"), 8, "sigma is nan; expected more than 0"),
    ],
)
def test_bad_sigma_or_samples_is_named(sigma: float, samples: int, message: str) -> None:
    images, _ = batch()
    with pytest.raises(InputError, match=message):
        smoothed_probabilities(sr.wrap(network(), num_classes=CLASSES), images, KEYS, sigma=sigma, samples=samples)


def test_bfloat16_passes_rank_pixels_as_float32_does_on_a_real_network(
    camvid_model: sr.Segmenter, camvid_batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, keys = camvid_batch[0][:2], Randomness(0, ("x", "y"))
    exact = pixel_radius(camvid_model, images, keys, samples=8)
    low = pixel_radius(camvid_model, images, keys, samples=8, precision=torch.bfloat16)
    for i in range(2):
        assert spearmanr(exact.probability[i].flatten(), low.probability[i].flatten())[0] > 0.9999


class TestLossModule:
    def test_without_samples_equals_the_formula(self) -> None:
        logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        labels = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
        labels[0, 0] = 255
        p = logits.softmax(1).amax(1)
        z = torch.as_tensor(norm.ppf(p.numpy())).clamp(min=0)
        weights = 1 / (1 + torch.exp(2 * z - 4))
        ce = torch.nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=255)
        expected = (weights * ce)[labels != 255].mean()
        assert torch.allclose(sr.CertifiedRadiusLoss()(logits, labels), expected)

    def test_with_samples_weighs_as_the_attack_does_and_refreshes_every_interval(self) -> None:
        images, labels = batch()
        net = network().eval()
        guided = sr.CertifiedRadiusLoss(net, samples=4, every=3, sigma=0.3, precision="float32")
        losses = [guided(net(images), labels) for _ in range(4)]
        model = sr.wrap(net, num_classes=CLASSES)
        for call, loss in enumerate(losses):
            keys = Randomness(0, ("0", "1", "2", "3"))
            p = smoothed_probabilities(model, images, keys, sigma=0.3, samples=4, step=call // 3 * 3).amax(1)
            ce = torch.nn.functional.cross_entropy(net(images), labels, reduction="none", ignore_index=255)
            expected = (guided.weighting.of_probability(p) * ce)[labels != 255].mean()
            assert torch.allclose(loss, expected)
        guided.close()
        assert not net._forward_pre_hooks

    def test_gradient_flows_through_the_loss_and_not_the_weights(self) -> None:
        logits = torch.randn(1, 3, 2, 2, dtype=torch.float64).requires_grad_()
        labels = torch.zeros(1, 2, 2, dtype=torch.long)
        guided = sr.CertifiedRadiusLoss()
        (found,) = torch.autograd.grad(guided(logits, labels), logits)
        weights = guided.weighting.of_probability(logits.detach().softmax(1).amax(1)).unsqueeze(1)
        onehot = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
        assert torch.allclose(found, weights * (logits.softmax(1) - onehot) / 4, atol=1e-9)

    def test_samples_without_a_network_are_refused(self) -> None:
        with pytest.raises(InputError, match="give the network"):
            sr.CertifiedRadiusLoss(samples=8)
