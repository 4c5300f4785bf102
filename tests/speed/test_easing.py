"""Eased layers give what the usual ones give, and their gradients, in every size, layout and type."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.models.preprocessing import SizeRule
from segradius.radius.jacobians import derivative
from segradius.speed import Form
from segradius.speed.easing import EasedSize, ease
from segradius.speed.forming import formed
from segradius.speed.layers import Pointwise, Stem
from segradius.speed.resizing import Resizing

LAYOUTS = st.sampled_from((torch.contiguous_format, torch.channels_last))
SIDES = st.integers(1, 9)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient(y: Tensor, x: Tensor, cotangent: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(y, x, cotangent)
    return found


@settings(max_examples=80, deadline=None)
@given(
    SIDES,
    SIDES,
    SIDES,
    SIDES,
    st.integers(1, 3),
    LAYOUTS,
    LAYOUTS,
    st.booleans(),
    st.sampled_from(("size", "by", "one")),
)
def test_resizing_has_the_gradient_of_the_usual_kernel(h, w, height, width, c, layout, back, align, how):
    x = random(2, c, h, w).contiguous(memory_format=layout).requires_grad_()
    asked: dict[str, Any] = {
        "size": {"size": (height, width)},
        "by": {"scale_factor": (1 + height / 3, 1 + width / 5)},
        "one": {"scale_factor": 2},
    }[how]
    asked |= {"mode": "bilinear", "align_corners": align}
    usual = functional.interpolate(x, **asked)
    with Resizing():
        eased = functional.interpolate(x, **asked)
    assert torch.equal(usual, eased)
    some = random(2, c + 2, *usual.shape[2:], seed=1).contiguous(memory_format=back)[:, 1 : c + 1]
    torch.testing.assert_close(gradient(eased, x, some), gradient(usual, x, some), rtol=1e-10, atol=1e-10)


def test_the_layout_of_a_single_image_is_known_by_its_channels():
    rows = random(1, 12, 5).requires_grad_()
    x = rows.permute(0, 2, 1).reshape(1, 5, 3, 4)  # strides that leave it open whether this is channels-last
    with Resizing():
        y = functional.interpolate(x, (6, 8), mode="bilinear")
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, functional.interpolate(x, (6, 8), mode="bilinear"))


def test_other_ways_of_resizing_are_left_as_they_are():
    x = random(1, 2, 4, 4).requires_grad_()
    ways: tuple[dict[str, Any], ...] = (
        {"mode": "nearest"},
        {"mode": "bicubic"},
        {"mode": "bilinear", "antialias": True},
        {"mode": "bilinear", "recompute_scale_factor": True},
    )
    with Resizing():
        made = [functional.interpolate(x, scale_factor=1.5, **way) for way in ways]
        assert "Upsample" in type(functional.interpolate(x.float(), (8, 8)).grad_fn).__name__
    assert all("Upsample" in type(y.grad_fn).__name__ for y in made)


def test_gradients_in_gradients_and_of_many_at_once():
    x, many = random(1, 2, 3, 3).requires_grad_(), random(5, 1, 2, 6, 6, seed=2)
    layer = Stem(2, 3, 4, 2, padding=1).double().requires_grad_(False)
    point = Pointwise(3, 2, 1).double().requires_grad_(False)
    with Resizing():
        y = functional.interpolate(x, (12, 12), mode="bilinear")
    z = functional.avg_pool2d(point(layer(y)), 1)
    (at_once,) = torch.autograd.grad(z, x, many, retain_graph=True, is_grads_batched=True)
    one_by_one = torch.stack([torch.autograd.grad(z, x, each, retain_graph=True)[0] for each in many])
    torch.testing.assert_close(at_once, one_by_one)
    assert torch.autograd.gradgradcheck(lambda t: point(layer(t)) ** 2, random(1, 2, 6, 6).requires_grad_())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(4, 8),
    st.integers(2, 5),
    st.integers(0, 3),
    st.integers(8, 17),
    st.integers(8, 17),
    st.integers(1, 4),
    LAYOUTS,
)
def test_the_first_convolution_gives_back_what_the_usual_one_does(k, s, p, h, w, bands, layout):
    usual = nn.Conv2d(bands, 5, k, s, padding=p, bias=p > 0).double().requires_grad_(False)
    assert Stem.fits(usual)
    eased = Stem(bands, 5, k, s, padding=p, bias=p > 0).double().requires_grad_(False)
    eased.load_state_dict(usual.state_dict())
    x = random(2, bands, h, w).contiguous(memory_format=layout).requires_grad_()
    y, z = usual(x), eased(x)
    some = random(*y.shape, seed=1)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(gradient(z, x, some), gradient(y, x, some))


@settings(max_examples=30, deadline=None)
@given(SIDES, SIDES, st.integers(1, 5), st.integers(1, 5), st.booleans(), LAYOUTS, LAYOUTS)
def test_a_convolution_of_single_pixels_is_a_product(h, w, c, out, bias, layout, back):
    usual = nn.Conv2d(c, out, 1, bias=bias).double().requires_grad_(False)
    eased = Pointwise(c, out, 1, bias=bias).double().requires_grad_(False)
    eased.load_state_dict(usual.state_dict())
    x = random(2, c, h, w).contiguous(memory_format=layout).requires_grad_()
    y, z = usual(x), eased(x)
    some = random(*y.shape, seed=1).contiguous(memory_format=back)
    torch.testing.assert_close(z, y)
    torch.testing.assert_close(gradient(z, x, some), gradient(y, x, some))
    assert eased(x).relu_().min() >= 0  # not a view, which in-place functions would copy


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Pointwise, {"kernel_size": 1, "stride": 2}),
        (Pointwise, {"kernel_size": 1, "padding": 1}),
        (Pointwise, {"kernel_size": 1, "groups": 3}),
        (Pointwise, {"kernel_size": 3}),
        (Stem, {"kernel_size": (7, 5), "stride": 2}),
        (Stem, {"kernel_size": 7, "stride": (2, 1)}),
        (Stem, {"kernel_size": 7, "stride": 2, "dilation": 2}),
        (Stem, {"kernel_size": 7, "stride": 2, "groups": 3}),
        (Stem, {"kernel_size": 7, "stride": 2, "padding": 3, "padding_mode": "reflect"}),
        (Stem, {"kernel_size": 7, "padding": "same"}),
        (Stem, {"kernel_size": 7, "stride": 2, "padding": (3, 2)}),
    ],
)
def test_other_convolutions_are_left(kind, arguments):
    assert not kind.fits(nn.Conv2d(3, 6, **arguments))


class Net(nn.Module):
    """A first convolution, two ways of resizing, and logits at half the size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 5, 2, padding=2), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1), nn.MaxPool2d(2))
        self.up, self.last = nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.norm(self.first(x)))
        high = self.up(x)
        low = functional.interpolate(functional.avg_pool2d(x, 2), high.shape[2:], mode="bilinear", align_corners=True)
        return self.last(torch.cat([low, high], 1))


@pytest.mark.parametrize("form", [Form(eased=True), Form(folded=True, channels_last=True, eased=True)], ids=str)
def test_an_eased_form_differs_by_rounding_and_the_network_is_as_it_was(form):
    images = torch.rand(2, 3, 21, 26, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = sr.wrap(Net().double(), size={"multiple_of": 16})
    kinds = {name: type(module) for name, module in model.network.named_modules()}
    eased = formed(model, form, images)
    assert {name: type(module) for name, module in model.network.named_modules()} == kinds
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.network.modules())
    assert {name for name, module in eased.network.named_modules() if "forward" in vars(module)} == {"", "up"}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in eased.network.modules())
    assert [type(eased.network.first), type(eased.network.last)] == [Stem, Pointwise]
    x = images.clone().requires_grad_()
    some = random(*model.logits(images).shape)
    torch.testing.assert_close(eased.logits(images), model.logits(images), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        gradient(eased.logits(x), x, some), gradient(model.logits(x), x, some), rtol=1e-8, atol=1e-9
    )


def test_a_pass_that_fails_leaves_no_hooks():
    network = Net()
    with pytest.raises(RuntimeError):
        ease(network, lambda: network(torch.rand(1, 2, 8, 8)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_an_eased_rule_equals_its_rule():
    rule = SizeRule(multiple_of=8)
    assert EasedSize.of(rule) == rule == EasedSize.of(rule)
    assert EasedSize.of(rule) != SizeRule(multiple_of=4)
    assert hash(EasedSize.of(rule)) == hash(rule)


@pytest.mark.parametrize("kind", ["resizing", "pointwise", "stem"])
def test_eased_layers_have_the_usual_derivative_along_a_direction_too(kind):
    x, v = (random(2, 3, 8, 8, seed=s).contiguous(memory_format=torch.channels_last) for s in (0, 1))
    layers = {"pointwise": (3, 4, 1), "stem": (3, 4, 7, 2, 3)}
    layer = nn.Conv2d(*layers.get(kind, (3, 3, 1))).double().requires_grad_(False)
    usual = nn.Sequential(layer, nn.Upsample(scale_factor=2, mode="bilinear"), nn.Tanh())
    wanted = derivative(SimpleNamespace(logits=usual), x, v)
    ease(usual, lambda: usual(x))
    with torch.enable_grad():  # a central difference is wrong in the tenth digit
        found = derivative(SimpleNamespace(logits=usual), x.requires_grad_(), v)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
