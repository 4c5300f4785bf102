"""Normalisation against torchvision's, and what users may write for it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import normalize

from segradius.core.errors import InputError
from segradius.models import doubts, load_model
from segradius.models.preprocessing import Normalisation, as_normalisation
from segradius.models.wrapping import wrap


def test_imagenet_equals_torchvision():
    x = torch.rand(2, 3, 4, 5)
    expected = normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(Normalisation.imagenet().apply(x), expected, rtol=0, atol=1e-6)


def test_none_is_the_identity():
    x = torch.rand(1, 3, 2, 2)
    assert Normalisation.none().apply(x) is x


def test_blue_green_red_networks():
    x = torch.rand(1, 3, 2, 2)
    network_input = Normalisation((0.1, 0.2, 0.3), (1, 1, 1), order=(2, 1, 0)).apply(x)
    torch.testing.assert_close(network_input, x.flip(1) - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))


def test_constants_made_in_inference_mode_can_be_differentiated_later():
    normalisation = Normalisation((0.11, 0.12, 0.13), (0.21, 0.22, 0.23))
    with torch.inference_mode():
        normalisation.apply(torch.rand(1, 3, 2, 2))
    x = torch.rand(1, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(normalisation.apply(x).sum(), x)
    torch.testing.assert_close(gradient[0, :, 0, 0], 1 / torch.tensor([0.21, 0.22, 0.23]))


def test_what_users_write():
    expected = Normalisation((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert as_normalisation(([0.5] * 3, [0.2] * 3)) == expected
    assert as_normalisation({"mean": [0.5] * 3, "std": [0.2] * 3}) == expected
    assert as_normalisation("none") == Normalisation.none()
    assert as_normalisation(None) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("imagnet", "did you mean 'imagenet'"),
        (([0.5] * 3, [0.2, 0.0, 0.2]), "must be positive"),
        (([0.5] * 2, [0.2] * 3), "one number each for a band"),
        ((0.5, 0.2), "expected finite numbers"),
        (([0.5, 0.5, float("nan")], [0.2] * 3), "expected finite numbers"),
        ({"mean": [0.5] * 3}, "expected imagenet"),
        ({"mean": [0] * 3, "std": [1] * 3, "order": [0, 1, 1]}, "permutation"),
        (0.5, "expected imagenet"),
        (
            ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
            r"0–255.*divide both by 255, mean \(0\.485, 0\.456, 0\.406\)",
        ),
        (([123.675, 116.28, 103.53], [0.229, 0.224, 0.225]), "0–255"),
        (([104, 117, 123], [1, 1, 1]), "0–255"),
        (([0, 0, 0], [255, 255, 255]), r"std \(255\.0.*in \(0, 2\]"),
        (([0.485, 0.456, 0.406], [58.395, 57.12, 57.375]), r"std \(58\.395"),
        (([-0.1, 0.5, 0.5], [0.2] * 3), r"expected numbers in \[0, 1\]"),
        (([300, 0.5, 0.5], [0.2] * 3), r"expected numbers in \[0, 1\]"),
        (([0.5] * 3, [float("nan")] * 3), "expected finite numbers"),
        (([0.5] * 3, [0.2, -0.2, 0.2]), "must be positive"),
        (([0.5] * 3, [float("inf")] * 3), "expected finite numbers"),
        (([0.5] * 4, [0.2] * 3), "one number each for a band"),
        (([], []), "expected finite numbers"),
        ((["a", "b", "c"], [0.2] * 3), "expected finite numbers"),
    ],
)
def test_bad_normalisations_are_named(value, message):
    with pytest.raises(InputError, match=message):
        as_normalisation(value)


def test_no_normalisation_is_made_or_checked_in_a_pass(monkeypatch):
    model = wrap(torch.nn.Conv2d(3, 2, 1), normalisation="imagenet")
    made = []
    monkeypatch.setattr(Normalisation, "__post_init__", lambda self: made.append(self))
    for _ in range(3):
        model.logits(torch.rand(1, 3, 4, 4))
    assert not made


USED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cityscapes": ((0.2869, 0.3251, 0.2839), (0.1870, 0.1902, 0.1872)),
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
    "half": ((0.5,) * 3, (0.5,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
    "to 255": ((0.0,) * 3, (1 / 255,) * 3),
    "mean alone": ((0.408, 0.459, 0.482), (1 / 255,) * 3),
}


@pytest.mark.parametrize("name", USED)
def test_normalisations_that_are_used_are_taken_and_are_possible(name):
    mean, std = USED[name]
    assert not Normalisation(mean, std).is_impossible


@pytest.mark.parametrize("name", ["imagenet", "clip", "cifar"])
def test_mean_and_deviation_that_are_swapped_are_told(name):
    mean, std = USED[name]
    found = wrap(torch.nn.Conv2d(3, 2, 1), normalisation=(std, mean))
    assert [doubt.name for doubt in doubts(found)] == ["swapped"]


@given(st.lists(st.floats(0, 1), min_size=6, max_size=30))
def test_mean_and_deviation_of_any_values_are_possible(values):
    channels = [torch.tensor(values).double(), torch.tensor(values[1:]).double(), torch.tensor(values[2:]).double()]
    mean, std = zip(*((float(c.mean()), max(float(c.std(correction=0)), 1e-6)) for c in channels), strict=True)
    assert not Normalisation(mean, std).is_impossible


@pytest.mark.parametrize("open_it", [lambda **it: wrap(torch.nn.Conv2d(3, 2, 1), **it), partial(load_model, "demo")])
def test_other_spellings_are_told_the_right_one(open_it):
    with pytest.raises(InputError, match="did you mean 'normalisation'"):
        open_it(normalization="imagenet")
    with pytest.raises(InputError, match="unknown option of"):
        open_it(no_such_option=1)
