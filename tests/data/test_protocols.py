from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode
from torchvision.transforms import Resize as TorchResize

from segradius.core.errors import InputError
from segradius.data import PROTOCOLS, Resize, open_data
from segradius.data.protocols import short_side_crop


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.integers(0, 300, (height, width))
    return pixels, label


def tensors(pixels, label):
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255, torch.from_numpy(label)


def test_resize_is_pillows_on_eight_bits():
    pixels, label = scene(9, 14)
    image, resized = Resize(5, 6)(*tensors(pixels, label))
    expected = np.asarray(Image.fromarray(pixels).resize((6, 5), Image.Resampling.BILINEAR))
    assert torch.equal(image, torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255)
    assert torch.equal(resized, torch.from_numpy(label)[_nearest(9, 5)][:, _nearest(14, 6)])


def _nearest(length, new):
    """Index of the pixel under the centre of each new one."""
    return ((torch.arange(new) + 0.5) * length / new).long()


def test_resize_to_the_own_size_changes_nothing():
    image, label = torch.rand(3, 4, 5), torch.zeros(4, 5, dtype=torch.int64)
    same, _ = Resize(4, 5)(image, label)
    assert torch.equal(same, image)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40), st.integers(2, 20))
def test_short_side_crop_is_torchvisions(height, width, side):
    pixels, label = scene(height, width)
    image, cropped = short_side_crop(*tensors(pixels, label), side)
    theirs = Compose([TorchResize(side), CenterCrop(side)])(Image.fromarray(pixels))
    nearest = Compose([TorchResize(side, InterpolationMode.NEAREST), CenterCrop(side)])
    assert torch.equal(image, torch.from_numpy(np.array(theirs)).permute(2, 0, 1) / 255)
    assert torch.equal(cropped, torch.from_numpy(np.array(nearest(Image.fromarray(label.astype(np.int32))))).long())


@pytest.mark.parametrize(
    ("name", "size"), [("paper-voc", (473, 473)), ("paper-ade20k", (473, 473)), ("paper-cityscapes", (513, 1025))]
)
def test_paper_sizes(name, size):
    image, label = PROTOCOLS[name](*tensors(*scene(50, 80)))
    assert tuple(label.shape) == tuple(image.shape[1:]) == size
    assert label.dtype == torch.int64
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1


def test_native_changes_nothing():
    image, label = tensors(*scene(4, 5))
    same = PROTOCOLS["native"](image, label)
    assert same[0] is image
    assert same[1] is label


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (10, 10), "protocol": "native"}, "exclude each other"),
        ({"size": (0, 10)}, "height is 0; expected a whole number in"),
        ({"size": (1, 2, 3)}, r"expected \(height, width\)"),
        ({"protocol": "paper-vox"}, "did you mean 'paper-voc'"),
        ({"limit": 0}, "limit is 0; expected a whole number in"),
        ({"limit": "5"}, "limit is '5'; expected a whole number in"),
        ({"stride": 2.5}, "stride is 2.5; expected a whole number in"),
        ({"size": (10**12, 3)}, "height is 1000000000000; expected"),
        ({"split": "tset"}, "did you mean 'test'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        open_data("scenes:16x16", **options)


def test_unknown_data_set_suggests_a_near_one():
    with pytest.raises(InputError, match="did you mean 'cityscapes'"):
        open_data("cityscape:/data")


def test_limit_keeps_the_first_and_ends_iteration():
    data = open_data("scenes:16x16", limit=2)
    assert [sample.id for sample in data] == ["val-00000", "val-00001"] == list(data.ids)
    assert data[-1].id == "val-00001"
    assert len(open_data("scenes:16x16", limit=1000)) == 64


@pytest.mark.parametrize(("bands", "size"), [(1, (5, 7)), (4, (30, 11)), (3, (64, 64))])
def test_images_of_more_than_eight_bits_are_resized_in_floating_point(bands, size):
    image = torch.rand(bands, 24, 32, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(24, 32, dtype=torch.int64)
    found, _ = Resize(*size)(image, label)
    expected = TorchResize(size, antialias=True)(image)
    assert found.shape == (bands, *size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found * 255 - (found * 255).round()).abs().max() > 0.4
    each = torch.cat([Resize(*size)(band[None], label)[0] for band in image])
    assert torch.equal(found, each)
