"""Exact radii of affine models: closed forms, and steps that do and do not flip a pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.radius.jacobians import check_affine, exact_radius
from tiny import CLASSES, batch, linear, network


def convolution(side: int, classes: int = CLASSES) -> tuple[nn.Conv2d, sr.Segmenter]:
    torch.manual_seed(2)
    layer = nn.Conv2d(3, classes, side, padding=side // 2).double()
    return layer, sr.wrap(layer, num_classes=classes, normalisation="imagenet")


def test_a_pointwise_convolution_has_the_closed_form() -> None:
    images, _ = batch(count=2, size=4)
    layer, model = convolution(1)
    std = torch.tensor([0.229, 0.224, 0.225]).double()
    weight = layer.weight.detach().view(CLASSES, 3) / std
    logits = model.logits(images).detach()
    expected = torch.full((2, 4, 4), torch.inf).double()
    for place in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)):
        n, y, x = place.tolist()
        z, c = logits[n, :, y, x], int(logits[n, :, y, x].argmax())
        expected[n, y, x] = min((z[c] - z[j]) / (weight[c] - weight[j]).norm() for j in range(CLASSES) if j != c)
    torch.testing.assert_close(exact_radius(model, images), expected)


def test_two_classes_whose_margin_is_one_plane() -> None:
    weights = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    bias = torch.tensor(0.3).double()
    images, _ = batch(count=3, size=4)
    margin = (images * weights).flatten(1).sum(1) + bias
    expected = (margin.abs() / weights.norm()).view(-1, 1, 1).expand(-1, 4, 4)
    torch.testing.assert_close(exact_radius(linear(weights, bias), images), expected)


@pytest.mark.parametrize("side", [1, 3])
def test_a_step_just_above_the_radius_flips_and_one_just_below_does_not(side: int) -> None:
    images, _ = batch(count=1, size=4)
    _, model = convolution(side)
    clean = model.logits(images)[0].argmax(0)
    for place, radius in enumerate(exact_radius(model, images).flatten().tolist()):
        y, x = divmod(place, 4)
        flips = [moved(model, images, (y, x), j, radius) for j in range(CLASSES) if j != clean[y, x]]
        assert any(above for _, above in flips)
        assert not any(below for below, _ in flips)


def moved(model: sr.Segmenter, images: Tensor, pixel: tuple[int, int], rival: int, radius: float) -> tuple[bool, bool]:
    """Whether the pixel leaves its class on the way to a rival, just below and just above the radius."""
    leaf = images.clone().requires_grad_()
    logits = model.logits(leaf)[0, :, *pixel]
    before = int(logits.argmax())
    (way,) = torch.autograd.grad(logits[rival] - logits[before], leaf)
    ends = (images + way / way.norm() * radius * factor for factor in (1 - 1e-6, 1 + 1e-6))
    below, above = (int(model.logits(end)[0, :, *pixel].argmax()) != before for end in ends)
    return below, above


def test_random_directions_within_the_radius_flip_nothing() -> None:
    images, _ = batch(count=1, size=4)
    _, model = convolution(3)
    radius, clean = exact_radius(model, images)[0], model.logits(images)[0].argmax(0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        way = torch.randn(images.shape, generator=generator).double()
        length = float(torch.rand((), generator=generator)) * float(radius.max())
        kept = model.logits(images + way / way.norm() * length)[0].argmax(0) == clean
        assert kept[radius > length].all()


def test_what_cannot_change_has_an_infinite_radius_and_a_tie_none() -> None:
    images, _ = batch(count=1, size=4)
    constant = sr.wrap(lambda x: torch.stack([x[:, 0], x[:, 0] - 1], 1), num_classes=2)
    assert torch.isinf(exact_radius(constant, images)).all()
    tie = sr.wrap(lambda x: torch.stack([x[:, 0], x[:, 0]], 1), num_classes=2)
    assert (exact_radius(tie, images) == 0).all()
    no_input = sr.wrap(lambda x: torch.ones(len(x), 2, 4, 4).double().cumsum(1), num_classes=2)
    assert torch.isinf(exact_radius(no_input, images)).all()


def test_batch_equals_single_images() -> None:
    images, _ = batch(size=4)
    _, model = convolution(3)
    together = exact_radius(model, images)
    torch.testing.assert_close(together, torch.cat([exact_radius(model, image.unsqueeze(0)) for image in images]))


def test_float32_agrees_with_float64() -> None:
    images, _ = batch(count=1, size=4)
    layer, _ = convolution(3)
    double = exact_radius(sr.wrap(layer, num_classes=CLASSES), images)
    single = exact_radius(sr.wrap(layer.float(), num_classes=CLASSES), images.float())
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bend", [torch.relu, torch.tanh, torch.square])
def test_a_bent_model_is_refused(bend: nn.Module) -> None:
    images, _ = batch(count=1, size=4)
    layer, _ = convolution(1)
    with pytest.raises(InputError, match="not affine"):
        exact_radius(sr.wrap(lambda x: bend(layer(x)), num_classes=CLASSES), images)


def test_a_network_with_an_activation_is_refused_and_one_without_is_not() -> None:
    images, _ = batch(count=1, size=4)
    with pytest.raises(InputError, match="not affine"):
        check_affine(sr.wrap(network(), num_classes=CLASSES), images)
    deep = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2.0), nn.Conv2d(8, CLASSES, 1))
    check_affine(sr.wrap(deep.double(), num_classes=CLASSES), images)
