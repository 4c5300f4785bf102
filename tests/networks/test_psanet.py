"""PSANet: the public implementation's names, shapes and values, with over-complete and with compact masks."""

from __future__ import annotations

import pytest
import torch

from networks import golden
from segradius.core.errors import InputError
from segradius.models.networks import PSANet


def light(num_classes=4, **options):
    torch.manual_seed(0)
    return PSANet(num_classes, layers=18, width=8, **{"mask": (5, 7), **options})


@pytest.mark.parametrize(
    ("name", "options"), [("psa50", {"mask": (13, 13)}), ("psa50c", {"mask": (7, 7), "compact": True})]
)
def test_names_shapes_and_values_of_the_public_implementation(golden_folder, name, options):
    stored = golden.load(golden_folder, name)
    network = PSANet(150, **options).eval()
    assert golden.shapes_of(network) == stored.shapes
    golden.fill(network)
    with torch.no_grad():
        out = network(golden.image(97, 97, batch=1))["out"]
    torch.testing.assert_close(out[:, :8, ::4, ::4], stored.tensors["out"], rtol=0, atol=1e-4)
    assert golden.ties(out, out.argmax(1), stored.tensors["argmax"])


@pytest.mark.parametrize("size", [(1, 1), (33, 41), (30, 64)])
def test_logits_have_the_size_of_the_image(size):
    assert light().eval()(torch.rand(2, 3, *size))["out"].shape == (2, 4, *size)


def test_compact_masks_take_images_of_one_size():
    network = light(compact=True, mask=(3, 4)).eval()
    assert network(torch.rand(1, 3, 40, 60))["out"].shape == (1, 4, 40, 60)
    with pytest.raises(InputError, match=r"map of 3x3; expected 5x7 .* image of 33x49"):
        network(torch.rand(1, 3, 20, 20))


def test_the_auxiliary_head_runs_in_training_only():
    network, images = light(), torch.rand(2, 3, 33, 33)
    assert {key: value.shape for key, value in network(images).items()} == dict.fromkeys(["out", "aux"], (2, 4, 33, 33))
    assert list(network.eval()(images)) == ["out"]
    without = light(aux=False)
    assert list(without(images)) == ["out"]
    more = set(network.state_dict()) - set(without.state_dict())
    assert more == {name for name in network.state_dict() if name.startswith(PSANet.OPTIONAL)}


def test_memory_layout_does_not_matter():
    network, images = light().eval().double(), torch.rand(2, 3, 33, 41, dtype=torch.float64)
    channels_last = network(images.contiguous(memory_format=torch.channels_last))["out"]
    torch.testing.assert_close(channels_last, network(images)["out"])


def test_gradient_in_the_image():
    network = light(psa_type=2, shrink=1).eval().double()
    x = torch.rand(1, 3, 17, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: network(x)["out"][:, :, ::8, ::8], x, fast_mode=True)


@pytest.mark.parametrize(
    ("options", "message"), [({"psa_type": "both"}, "psa_type='both'"), ({"mask": (58, 59)}, r"mask=\(58, 59\).*odd")]
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        light(**options)
