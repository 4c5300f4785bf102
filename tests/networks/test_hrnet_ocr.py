"""HRNetV2-OCR: the public network's values, names and shapes, and the facts that its parts must satisfy."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models.networks import HRNetOCR
from segradius.models.networks.hrnet import HighResolutionModule
from segradius.models.networks.hrnet_ocr import LIGHT
from segradius.models.networks.ocr import ObjectAttention, spatial_gather

TINY = {"width": 4, "stem": 4, "modules": (1, 1, 1), "blocks": 1, "layer1_blocks": 2, "mid": 6, "key": 5}


def tiny(num_classes=3, **options):
    torch.manual_seed(0)
    network = HRNetOCR(num_classes, **TINY, **options)
    for module in network.modules():  # statistics that are not those of a fresh network
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    for classifier in (network.cls_head, network.aux_head[-1]):
        torch.nn.init.normal_(classifier.weight)
    return network


@pytest.fixture(scope="module")
def recipe(golden_folder):
    spec = importlib.util.spec_from_file_location("golden_recipe", golden_folder / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("width", [18, 48])
def test_values_of_the_public_implementation(width, golden_folder, recipe):
    with torch.device("meta"):
        network = HRNetOCR(19, width=width).eval()
    network.load_state_dict(recipe.fill(network.state_dict()), assign=True)
    with torch.no_grad():
        out, aux = network.coarse(recipe.image(96, 192, batch=1))
    expected = load_file(golden_folder / f"hrnet{width}.safetensors")
    torch.testing.assert_close(out[:, :8, ::4, ::4], expected["out"], rtol=0, atol=1e-4)
    torch.testing.assert_close(aux[:, :8, ::4, ::4], expected["aux"], rtol=0, atol=1e-4)
    # The public argmax is ours, or a class that ties with it.
    chosen = out.gather(1, expected["argmax"].long().unsqueeze(1)).squeeze(1)
    assert (out.amax(1) - chosen).max() <= 1e-5


@pytest.mark.parametrize("width", [18, 48])
def test_names_shapes_and_order_of_the_public_checkpoints(width, golden_folder):
    with torch.device("meta"):
        ours = HRNetOCR(19, width=width).state_dict()
    public = json.loads((golden_folder / f"hrnet{width}.json").read_text())
    assert [(name, list(value.shape)) for name, value in ours.items()] == list(public.items())


def test_spatial_gather_is_a_mean_weighted_by_a_softmax_over_positions():
    features, logits = torch.randn(2, 4, 3, 5).double(), torch.randn(2, 6, 3, 5).double()
    weights = logits.exp() / logits.exp().sum((2, 3), keepdim=True)
    expected = torch.einsum("nchw,ndhw->ndc", weights, features)
    torch.testing.assert_close(spatial_gather(features, logits), expected.unsqueeze(3))


@torch.no_grad()
def test_object_attention_pixel_by_pixel():
    torch.manual_seed(0)
    block = ObjectAttention(6, 4).double().eval()
    features, context = torch.randn(2, 6, 3, 5).double(), torch.randn(2, 6, 7, 1).double()
    query, key, value = block.f_pixel(features), block.f_object(context), block.f_down(context)
    mixture = torch.empty(2, 4, 3, 5).double()
    for n in range(2):
        for row in range(3):
            for column in range(5):
                scores = [float(query[n, :, row, column] @ key[n, :, c, 0]) / math.sqrt(4) for c in range(7)]
                shares = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
                mixture[n, :, row, column] = sum(p * value[n, :, c, 0] for c, p in enumerate(shares))
    torch.testing.assert_close(block(features, context), block.f_up(mixture))


def test_exchange_is_the_sum_of_what_every_branch_sends():
    module = HighResolutionModule((2, 4, 8), 1, align_corners=False).double().eval()
    maps = [torch.randn(2, *shape).double() for shape in ((2, 11, 4), (4, 6, 2), (8, 3, 1))]
    a, b, c = (branch(x) for branch, x in zip(module.branches, maps, strict=True))
    fuse = module.fuse_layers

    def up(x, like):
        return functional.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    expected = [
        a + up(fuse[0][1](b), a) + up(fuse[0][2](c), a),
        fuse[1][0](a) + b + up(fuse[1][2](c), b),
        fuse[2][0](a) + fuse[2][1](b) + c,
    ]
    for ours, total in zip(module(maps), expected, strict=True):
        torch.testing.assert_close(ours, total.clamp_min(0))


@pytest.mark.parametrize(("height", "width"), [(65, 97), (64, 96), (33, 40), (7, 50), (1, 1)])
def test_output_at_the_size_of_the_input(height, width):
    network, x = tiny().eval(), torch.randn(1, 3, height, width)
    assert network(x)["out"].shape == (1, 3, height, width)
    assert all(c.shape == (1, 3, -(-height // 4), -(-width // 4)) for c in network.coarse(x))


@pytest.mark.parametrize("align_corners", [True, False])
def test_output_is_the_coarse_one_upsampled(align_corners):
    network, x = tiny(align_corners=align_corners).eval(), torch.randn(2, 3, 65, 97)
    coarse = functional.interpolate(network.coarse(x)[0], (65, 97), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(network(x)["out"], coarse)


def test_alignment_of_corners_reaches_the_branches():
    x = torch.randn(1, 3, 64, 96)
    aligned, centred = (tiny(align_corners=a).eval().coarse(x)[1] for a in (True, False))
    assert (aligned - centred).abs().max() > 1e-3


def test_every_parameter_gets_a_gradient():
    network = tiny().train()
    logits = network(torch.randn(2, 3, 64, 96))
    (logits["out"].square().mean() + logits["aux"].square().mean()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A bias before batch normalisation is subtracted with the mean again: its gradient is rounding.
    assert set(without) <= {"conv3x3_ocr.0.bias", "aux_head.0.bias"}
    assert all(p.grad is not None for p in network.parameters())


def test_auxiliary_logits_only_in_training_mode_and_if_asked_for():
    x = torch.randn(2, 3, 40, 48)
    assert list(tiny().train()(x)) == ["out", "aux"]
    assert list(tiny().eval()(x)) == ["out"]
    assert list(tiny(aux=False).train()(x)) == ["out"]


def test_images_of_a_batch_do_not_meet_in_evaluation_mode():
    network, x = tiny().double().eval(), torch.randn(2, 3, 65, 97).double()
    torch.testing.assert_close(network(x)["out"], torch.cat([network(image)["out"] for image in x.split(1)]))


def test_channels_last_changes_nothing_but_rounding():
    network, x = tiny().double().eval(), torch.randn(2, 3, 65, 97).double()
    expected = network(x)["out"]
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last))["out"], expected)


def test_gradient_to_the_images_is_that_of_finite_differences():
    network, x = tiny().double().eval(), torch.randn(1, 3, 33, 40).double().requires_grad_()
    weights = torch.randn(1, 3, 33, 40).double()
    (gradient,) = torch.autograd.grad((network(x)["out"] * weights).sum(), x)
    direction = torch.randn_like(x)
    with torch.no_grad():
        ahead, behind = ((network(x + h * direction)["out"] * weights).sum() for h in (1e-6, -1e-6))
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / 2e-6, rtol=1e-5, atol=0)


def test_a_fresh_network_has_nearly_equal_classes():
    torch.manual_seed(0)
    p = HRNetOCR(11, **LIGHT).train()(torch.randn(2, 3, 64, 96))["out"].softmax(1)
    assert (p - 1 / 11).abs().max() < 0.01


def test_numbers_of_parameters():
    with torch.device("meta"):
        networks = HRNetOCR(19), HRNetOCR(11, **LIGHT)
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [70_372_678, 1_783_862]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0: expected a whole number of at least 1"),
        ({"width": 18.0}, "width=18.0"),
        ({"key": -1}, "key=-1"),
        ({"modules": (1, 4)}, r"modules=\(1, 4\): expected three"),
        ({"modules": (1, 0, 1)}, r"modules=\(1, 0, 1\): expected three"),
        ({"dropout": 1.0}, r"dropout=1.0: expected a probability in \[0, 1\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        HRNetOCR(**arguments)
