"""Sliding windows, scales and mirroring: against a loop written window by window, and what must hold of any of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.models import Tiling, load_model, tiled, wrap
from segradius.models.tiling import average, cut, window_starts
from tiny import CLASSES, batch, network

MEAN, STD = (0.3, 0.5, 0.8), (0.2, 0.25, 0.4)
PIPELINES = [
    ((9, 13), {"crop": (5, 6)}),
    ((9, 13), {"crop": (16, 16)}),
    ((9, 13), {"crop": (12, 8), "flip": True}),
    ((13, 9), {"crop": (5, 5), "stride": 0.4, "scales": (0.5, 1.0, 1.7)}),
    ((8, 8), {"crop": (6, 9), "stride": 1.0, "scales": (0.75, 1.25), "base": 11, "flip": True}),
    ((1, 7), {"crop": (3, 2), "scales": (0.3, 2), "flip": True, "chunk": 3}),
]
every_pipeline = pytest.mark.parametrize(("size", "options"), PIPELINES)


def model(order=(0, 1, 2)):
    """A float64 network whose windows' borders matter (zero padding), with a colour mean that is not zero."""
    return wrap(network(), num_classes=CLASSES, normalisation={"mean": MEAN, "std": STD, "order": order}, name="net")


def images(height, width, count=2, seed=0):
    return torch.rand(count, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The reference: NumPy on one image (H, W, channels), each window given to the network by itself.


def resized(image, height, width):
    for axis, side in ((0, height), (1, width)):
        old = image.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * old / side - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        high = np.minimum(low + 1, old - 1)
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def of_window(net, window, flip):
    x = torch.from_numpy(((window - MEAN) / STD).transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        p = net(x).softmax(1)
        if flip:
            p = (p + net(x.flip(3)).softmax(1).flip(3)) / 2
    return p[0].numpy().transpose(1, 2, 0)


def of_scale(net, image, crop, stride, flip):
    height, width = image.shape[:2]
    tall, wide = max(height, crop[0]), max(width, crop[1])
    top, left = (tall - height) // 2, (wide - width) // 2
    canvas = np.broadcast_to(np.array(MEAN), (tall, wide, 3)).copy()
    canvas[top : top + height, left : left + width] = image
    total, count = np.zeros((tall, wide, CLASSES)), np.zeros((tall, wide, 1))
    step = [math.ceil(c * stride) for c in crop]
    for i in range(math.ceil((tall - crop[0]) / step[0]) + 1):
        for j in range(math.ceil((wide - crop[1]) / step[1]) + 1):
            bottom, right = min(i * step[0] + crop[0], tall), min(j * step[1] + crop[1], wide)
            here = np.s_[bottom - crop[0] : bottom, right - crop[1] : right]
            total[here] += of_window(net, canvas[here], flip)
            count[here] += 1
    return (total / count)[top : top + height, left : left + width]


def reference(net, image, crop, stride=2 / 3, scales=(1.0,), flip=False, base=None, chunk=None):
    height, width = image.shape[:2]
    total = np.zeros((height, width, CLASSES))
    for scale in scales:
        long = round((base or max(height, width)) * scale)
        new_height = long if height > width else max(1, round(long / width * height))
        new_width = max(1, round(long / height * width)) if height > width else long
        found = of_scale(net, resized(image, new_height, new_width), crop, stride, flip)
        total += resized(found, height, width)
    return total / len(scales)


@every_pipeline
def test_probabilities_are_those_of_a_loop_over_windows(size, options):
    net, x = model(), images(*size)
    found = tiled(net, **options).scores(x)
    with net.frozen():
        expected = [reference(net.network, image.permute(1, 2, 0).numpy(), **options) for image in x]
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2), rtol=1e-9, atol=1e-12)


@every_pipeline
def test_gradient_is_that_of_finite_differences(size, options):
    windows = tiled(model(), **options)
    x = images(*size, count=1).requires_grad_()
    assert torch.autograd.gradcheck(windows.logits, x, fast_mode=True)


def test_one_window_over_the_whole_image_is_the_plain_softmax():
    net, x = model(), images(9, 13)
    torch.testing.assert_close(tiled(net, crop=(9, 13)).scores(x), net.scores(x), rtol=1e-12, atol=0)


def test_padding_is_what_normalisation_makes_zero_in_any_channel_order():
    seen = []

    def watch(x):
        seen.append(x)
        return torch.cat([x, x[:, :1]], 1)

    bgr = wrap(watch, num_classes=CLASSES, normalisation={"mean": MEAN, "std": STD, "order": (2, 1, 0)})
    x = images(4, 3)
    tiled(bgr, crop=(7, 3)).logits(x)
    border = torch.cat([seen[0][..., :1, :], seen[0][..., 5:, :]], 2)
    assert border.abs().max() == 0
    torch.testing.assert_close(seen[0][..., 1:5, :], bgr.normalisation.apply(x), rtol=0, atol=0)


def test_logits_stay_finite_where_a_probability_vanishes():
    sure = wrap(lambda x: torch.stack([x[:, 0] * 1e4, x[:, 0] * -1e4], 1), num_classes=2)
    logits = tiled(sure, crop=(4, 4)).logits(images(6, 6).float() + 0.5)
    assert logits.isfinite().all()
    assert torch.equal(logits.softmax(1)[:, 0], torch.ones(2, 6, 6))


def test_check_takes_the_logarithm_of_probabilities():
    tiled(model(), crop=(5, 5), scales=(0.5, 1.0), flip=True).check(images(8, 9))


def test_a_mirrored_image_has_the_mirrored_prediction():
    x = images(9, 13)
    windows = tiled(model(), crop=(9, 13), flip=True)
    torch.testing.assert_close(windows.logits(x.flip(-1)), windows.logits(x).flip(-1), rtol=1e-9, atol=1e-12)
    plain = tiled(model(), crop=(9, 13))
    assert (plain.logits(x.flip(-1)) - plain.logits(x).flip(-1)).abs().max() > 0.1


@given(crop=st.integers(1, 40), extra=st.integers(0, 200), stride=st.floats(0.01, 1.0))
def test_windows_cover_every_pixel_from_border_to_border(crop, extra, stride):
    side = crop + extra
    starts = window_starts(side, crop, stride)
    covered = {pixel for start in starts for pixel in range(start, start + crop)}
    assert covered == set(range(side))
    assert starts == sorted(set(starts))
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(gap == math.ceil(crop * stride) for gap in gaps[:-1])


@settings(deadline=None)
@given(data=st.data(), stride=st.floats(0.2, 1.0))
def test_the_mean_over_the_windows_of_an_image_is_the_image(data, stride):
    crop = (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)))
    size = [data.draw(st.integers(side, 20)) for side in crop]
    rows, columns = (window_starts(side, c, stride) for side, c in zip(size, crop, strict=True))
    x = images(*size)
    windows = cut(x, rows, columns, crop)
    assert windows.shape == (2 * len(rows) * len(columns), 3, *crop)
    torch.testing.assert_close(average(windows, rows, columns), x, rtol=1e-14, atol=0)


@given(height=st.integers(1, 500), width=st.integers(1, 500), scale=st.floats(0.1, 3.0))
def test_the_longer_side_is_scaled_and_the_other_keeps_the_proportion(height, width, scale):
    ((tall, wide),) = Tiling((1, 1), scales=(scale,), base=512).sides(height, width)
    assert max(tall, wide) == round(512 * scale)
    shorter = min(height, width) * max(tall, wide) / max(height, width)
    assert abs(min(tall, wide) - max(shorter, 1)) <= 0.5 + 1e-9
    assert Tiling((1, 1)).sides(height, width) == [(height, width)]


def test_a_batch_is_its_images_one_by_one():
    x = images(9, 13, count=3)
    windows = tiled(model(), crop=(5, 6), scales=(1.0, 1.5), flip=True)
    singles = torch.cat([windows.logits(image[None]) for image in x])
    torch.testing.assert_close(windows.logits(x), singles, rtol=1e-10, atol=1e-12)


def test_chunks_change_neither_logits_nor_gradients():
    x = images(9, 13).requires_grad_()
    found = []
    for chunk in (1, 5, 1000):
        logits = tiled(model(), crop=(5, 6), flip=True, scales=(1.0, 0.8), chunk=chunk).logits(x)
        (gradient,) = torch.autograd.grad((logits * logits.detach().cos()).sum(), x)
        found.append((logits.detach(), gradient))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-12)


class Watched(nn.Module):
    """A network that counts the images it is given, and refuses to run in training mode."""

    def __init__(self):
        super().__init__()
        self.inner, self.images, self.most = network(), 0, 0

    def forward(self, x):
        assert not self.training
        self.images, self.most = self.images + len(x), max(self.most, len(x))
        return self.inner(x)


def test_a_chunk_bounds_what_the_network_sees_at_once_and_recomputes_it_frozen():
    net = Watched().train()
    x = images(10, 10, count=2).requires_grad_()
    windows = tiled(wrap(net, num_classes=CLASSES), crop=(6, 6), flip=True, chunk=3)  # 2 × 2 windows an image
    logits = windows.logits(x)
    assert (net.images, net.most) == (16, 6)
    logits.sum().backward()  # outside any frozen(): the second run must hold the network by itself
    assert (net.images, net.most) == (32, 6)
    with torch.no_grad():
        windows.logits(x)
    assert net.images == 48


def test_the_network_is_left_as_found():
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    windows = tiled(wrap(net, num_classes=CLASSES), crop=(5, 5), chunk=2)
    with windows.frozen():
        assert not any(module.training for module in net.modules())
        assert not any(parameter.requires_grad for parameter in net.parameters())
    windows.logits(images(8, 8).requires_grad_()).sum().backward()
    assert all(module.training for module in net.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert (windows.dtype, windows.device.type) == (torch.float64, "cpu")


def test_an_attack_sees_the_whole_pipeline():
    x, _ = batch(dtype=torch.float32, size=12)
    net = wrap(network(dtype=torch.float32), num_classes=CLASSES)
    windows = tiled(net, crop=(7, 7), scales=(0.75, 1.0), flip=True)
    labels = windows.logits(x).argmax(1)
    result = sr.make_attack("pgd", norm="linf", eps=8 / 255, steps=3)(windows, x, labels)
    assert torch.equal(result.prediction, windows.logits(result.adversarial).argmax(1))
    assert (result.prediction == labels).float().mean() < 0.9  # clean: 1 by construction
    assert (result.adversarial - x).abs().max() <= 8 / 255 + 1e-6


def test_low_precision_stays_close_and_comes_back_as_float32():
    x = images(9, 13).float()
    windows = tiled(wrap(network(dtype=torch.float32), num_classes=CLASSES), crop=(6, 6), scales=(0.5, 1.0))
    low = windows.logits(x, precision=torch.bfloat16)
    assert low.dtype == torch.float32
    assert (low.softmax(1) - windows.scores(x)).abs().max() < 0.05


def test_a_card_says_how_a_network_is_deployed(tmp_path):
    inference = {"crop": [32, 40], "stride": 0.5, "scales": [0.5, 1.0], "flip": True}
    card = {"model": "torchvision:lraspp_mobilenet_v3_large,num_classes=3", "inference": inference}
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump(card))
    torch.manual_seed(0)
    found = load_model(str(path))
    torch.manual_seed(0)
    plain = load_model(card["model"])
    expected = tiled(plain, crop=(32, 40), stride=0.5, scales=(0.5, 1.0), flip=True)
    x = images(40, 48, count=1).float()
    assert found.name == "net tiled 32x40 stride 0.5 scales 0.5, 1 flip"
    assert torch.equal(found.logits(x), expected.logits(x))
    assert load_model(str(path), inference={"crop": [64, 64]}).name == "net tiled 64x64"


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"crop": [473]}, r"net\.yaml: crop is \[473\]"),
        ({"crop": 473}, "crop is 473"),
        ({"crop": [0, 4]}, r"crop is \[0, 4\]; expected \(height, width\)"),
        ({"stride": 0.5}, "at least {crop"),
        (True, "inference True: expected a mapping"),
        ({"crop": [4, 4], "stride": 0}, r"stride is 0; expected .* \(0, 1\]"),
        ({"crop": [4, 4], "stride": 1.5}, r"stride is 1\.5"),
        ({"crop": [4, 4], "scales": []}, r"scales is \[\]"),
        ({"crop": [4, 4], "scales": [1.0, -1]}, r"scales is \[1\.0, -1\]"),
        ({"crop": [4, 4], "scales": 1.0}, r"scales is 1\.0"),
        ({"crop": [4, 4], "flip": 1}, "flip is 1; expected true or false"),
        ({"crop": [4, 4], "base": 0}, "base is 0"),
        ({"crop": [4, 4], "chunk": 0}, "chunk is 0"),
        ({"crop": [4, 4], "scale": [1.0]}, "did you mean 'scales'"),
    ],
)
def test_bad_values_are_named(tmp_path, inference, message):
    path = tmp_path / "net.yaml"
    path.write_text(yaml.safe_dump({"model": "demo", "inference": inference}))
    with pytest.raises(InputError, match=message):
        load_model(str(path))


def test_only_a_segmenter_is_tiled():
    with pytest.raises(InputError, match=r"wrap\(network\).*got a Conv2d"):
        tiled(nn.Conv2d(3, 2, 1), crop=(4, 4))
