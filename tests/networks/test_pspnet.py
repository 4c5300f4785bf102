"""PSPNet: the public implementation's names, shapes and values; any size; the auxiliary head in training only."""

from __future__ import annotations

import pytest
import torch

from networks import golden
from segradius.core.errors import InputError
from segradius.models.networks import PSPNet
from segradius.models.networks.pspnet import PyramidPooling


def light(num_classes=4, **options):
    torch.manual_seed(0)
    return PSPNet(num_classes, layers=18, width=8, **options)


def test_names_shapes_and_values_of_the_public_implementation(golden_folder):
    stored = golden.load(golden_folder, "psp50")
    network = PSPNet(21).eval()
    assert golden.shapes_of(network) == stored.shapes
    golden.fill(network)
    with torch.no_grad():
        out = network(golden.image(97, 97, batch=1))["out"]
    torch.testing.assert_close(out[:, :8, ::4, ::4], stored.tensors["out"], rtol=0, atol=1e-4)
    assert golden.ties(out, out.argmax(1), stored.tensors["argmax"])


@pytest.mark.parametrize("size", [(1, 1), (33, 41), (30, 64)])
def test_logits_have_the_size_of_the_image(size):
    assert light().eval()(torch.rand(2, 3, *size))["out"].shape == (2, 4, *size)


def test_the_trunk_has_stride_eight_whatever_the_depth():
    for layers in (18, 34, 50):
        network = PSPNet(4, layers=layers, width=4).eval()
        sizes = []
        network.layer3.register_forward_hook(lambda _m, _i, out, sizes=sizes: sizes.append(out.shape[1:]))
        network.layer4.register_forward_hook(lambda _m, _i, out, sizes=sizes: sizes.append(out.shape[1:]))
        network(torch.rand(1, 3, 57, 64))
        expansion = 4 if layers == 50 else 1
        assert sizes == [(16 * expansion, 8, 8), (32 * expansion, 8, 8)]


@pytest.mark.parametrize(("layers", "parameters"), [(18, 11_689_512), (34, 21_797_672)])
def test_shallow_trunks_differ_from_torchvision_by_the_stem_alone(layers, parameters):
    network = PSPNet(4, layers=layers, aux=False)
    trunk = sum(p.numel() for name, p in network.named_parameters() if name.startswith("layer"))
    stem = sum(p.numel() for p in network.layer0.parameters())
    wider = 64 * 64 * 9 + 64 * 128 + 2 * 64  # stage 1 takes 128 channels, so it has a shortcut convolution
    assert trunk - stem - wider == parameters - (64 * 3 * 49 + 2 * 64) - (512 * 1000 + 1000)


def test_the_auxiliary_head_runs_in_training_only():
    network, images = light(), torch.rand(2, 3, 33, 33)
    assert {key: value.shape for key, value in network(images).items()} == dict.fromkeys(["out", "aux"], (2, 4, 33, 33))
    assert list(network.eval()(images)) == ["out"]
    without = light(aux=False)
    assert list(without(images)) == ["out"]
    more = set(network.state_dict()) - set(without.state_dict())
    assert more == {name for name in network.state_dict() if name.startswith(PSPNet.OPTIONAL)}


def test_a_batch_gives_what_its_images_give():
    network, images = light().eval().double(), torch.rand(3, 3, 33, 41, dtype=torch.float64)
    singles = torch.cat([network(image[None])["out"] for image in images])
    torch.testing.assert_close(network(images)["out"], singles)


def test_memory_layout_does_not_matter():
    network, images = light().eval().double(), torch.rand(2, 3, 33, 41, dtype=torch.float64)
    channels_last = network(images.contiguous(memory_format=torch.channels_last))["out"]
    torch.testing.assert_close(channels_last, network(images)["out"])


def test_pyramid_of_a_constant_is_constant():
    pyramid = PyramidPooling(8, (1, 2, 3)).eval()
    out = pyramid(torch.full((1, 8, 7, 10), 0.3))
    assert out.shape == (1, 8 + 3 * 2, 7, 10)
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 19}, "layers=19.* 18, 34, 50"),
        ({"width": 0}, "width=0"),
        ({"bins": ()}, r"bins=\(\)"),
        ({"bins": (1, 0)}, "bins=0"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"num_classes": 0}, "num_classes=0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        PSPNet(**{"layers": 18, "width": 4, **options})
