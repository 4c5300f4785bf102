"""The path from an image to logits, against one written by hand; and what `check` refuses."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models import Normalisation, Segmenter, wrap

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Strided(nn.Module):
    """Takes only multiples of 4; logits at a quarter of the size."""

    def __init__(self, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Sequential(
            nn.Conv2d(3, 6, 5, 2, 2), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, classes, 3, 2, 1)
        )

    def forward(self, x):
        assert x.shape[-2] % 4 == x.shape[-1] % 4 == 0
        return self.conv(x)


def by_hand(network, x):
    n = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    h, w = -(-x.shape[2] // 4) * 4, -(-x.shape[3] // 4) * 4
    n = functional.pad(n, (0, w - x.shape[3], 0, h - x.shape[2]), mode="replicate")
    z = functional.interpolate(network.eval()(n), size=(h, w), mode="bilinear", align_corners=False)
    return z[..., : x.shape[2], : x.shape[3]]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(12, 16), (9, 14)])
def test_logits_and_gradient_equal_a_path_written_by_hand(size, channels_last):
    network = Strided()
    model = wrap(network, normalisation="imagenet", size={"multiple_of": 4}, channels_last=channels_last)
    x = torch.rand(3, 3, *size, requires_grad=True)
    z, expected = model.logits(x), by_hand(network, x)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)
    gradient, expected_gradient = (torch.autograd.grad(v.square().sum(), x)[0] for v in (z, expected))
    assert expected_gradient.abs().max() > 0.1
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4)
    assert z.is_contiguous()
    assert gradient.is_contiguous()


def test_scores_are_probabilities_without_gradient():
    model = wrap(Strided(), size={"multiple_of": 4})
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    scores = model.scores(x)
    assert not scores.requires_grad
    torch.testing.assert_close(scores, model.logits(x).softmax(1).detach())


def test_a_batch_gives_what_its_images_give():
    model = wrap(Strided(), size={"multiple_of": 4}, channels_last=True)
    x = torch.rand(4, 3, 8, 12)
    alone = torch.cat([model.logits(image[None]) for image in x])
    torch.testing.assert_close(model.logits(x), alone, rtol=0, atol=1e-5)


def test_reduced_precision_runs_the_network_low_and_returns_float32():
    seen = []
    network = Strided()
    network.conv[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    model = wrap(network, num_classes=5, size={"multiple_of": 4})
    x = torch.rand(2, 3, 8, 8)
    full, low = model.logits(x), model.logits(x, precision=torch.bfloat16)
    assert seen == [torch.float32, torch.bfloat16]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0.1, atol=0.05)
    assert torch.equal(model.logits(x, precision=torch.float32), full)
    with pytest.raises(InputError, match="precision torch"):
        model.logits(x, precision=torch.float64)


def test_types_of_network_and_image():
    x = torch.rand(1, 3, 8, 8)
    half = wrap(Strided().bfloat16(), size={"multiple_of": 4})
    assert (half.dtype, half.logits(x).dtype) == (torch.bfloat16, torch.float32)
    double = wrap(Strided().double(), size={"multiple_of": 4})
    assert double.logits(x.double()).dtype == torch.float64
    assert double.logits(x).dtype == torch.float32
    function = wrap(lambda x: x[:, :2], num_classes=2)
    assert (function.dtype, str(function.device)) == (torch.float32, "cpu")
    assert function.logits(x.double()).dtype == torch.float64


def test_classes_are_counted_or_taken_as_given():
    assert wrap(Strided(7), size={"multiple_of": 4}).num_classes == 7
    assert wrap(nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 8, 8))), num_classes=3).num_classes == 3
    with pytest.raises(InputError, match="Give num_classes"):
        wrap(lambda x: x.view(2, 5))
    with pytest.raises(InputError, match=r"its one channel.* give outputs="):
        wrap(nn.Conv2d(3, 1, 1))
    with pytest.raises(InputError, match=r"shape \(1, 128, 128\)"):
        wrap(lambda x: x.argmax(1))


def test_names_and_refusals_of_wrap():
    assert wrap(nn.Conv2d(3, 2, 1)).name == "Conv2d"
    with pytest.raises(InputError, match="got a str"):
        wrap("resnet")


def test_a_segmenter_passes_through_with_what_is_given():
    model = wrap(Strided(), size={"multiple_of": 4})
    assert wrap(model).network is model.network
    changed = wrap(model, normalisation="imagenet", name="mine")
    assert (changed.normalisation, changed.name, changed.size, changed.num_classes) == (
        Normalisation.imagenet(),
        "mine",
        model.size,
        5,
    )


def test_a_segmenter_can_be_sent_to_a_worker():
    model = wrap(Strided(), size={"multiple_of": 4}, outputs="logits")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(pickle.loads(pickle.dumps(model)).logits(x), model.logits(x))


def nan_in_second(x):
    z = torch.zeros(len(x), 3, *x.shape[2:])
    z[1, 0, 0, 0] = torch.nan
    return z


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (lambda x: x.softmax(1), {}, 'outputs="probabilities"'),
        (lambda x: x * 5, {"outputs": "probabilities"}, r"gives values in \[.*promises \[0, 1\]"),
        (lambda x: x / 2, {"outputs": "probabilities"}, "do not sum to one"),
        (nan_in_second, {}, "NaN or infinite logits for images 1 of"),
        (lambda x: x.long(), {}, "torch.int64"),
        (lambda x: x[:, :2], {}, r"shape \(2, 2, 6, 7\); expected floating logits \(2, 3, h, w\)"),
        (lambda x: x.permute(0, 2, 3, 1), {}, r"shape \(2, 6, 7, 3\)"),
        (lambda x: x.argmax(1).float(), {}, r"shape \(2, 6, 7\)"),
        (lambda x: x @ x, {}, "failed on images"),
        (lambda x: {"seg": x[0]}, {}, "a dict with 'seg'"),
    ],
)
def test_check_refuses_what_is_no_logits(network, options, message):
    with pytest.raises(InputError, match=message):
        wrap(network, num_classes=3, **options).check(torch.rand(2, 3, 6, 7))


def test_check_accepts_logits_and_declared_probabilities():
    x = torch.rand(2, 3, 6, 7)
    wrap(lambda x: x * 5 - 2, num_classes=3).check(x)
    wrap(lambda x: x.softmax(1), num_classes=3, outputs="probabilities").check(x)
    wrap(Segmenter(lambda x: x.log_softmax(1), 3)).check(x)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(3, 4, 4), r"expected \(N, B, H, W\)"),
        (torch.rand(1, 4, 4, 3), "takes 3 bands and the images have 4"),
        (torch.rand(1, 3, 2, 4, 4), "slice by slice"),
        (torch.rand(0, 3, 4, 4), "none of them 0"),
        (torch.rand(1, 3, 4, 4) * 255, r"values in \[.*divide 8-bit images"),
        (torch.rand(1, 3, 4, 4) - 0.5, r"values in \[-0"),
        (torch.tensor([0.0, torch.nan]).view(2, 1, 1, 1).expand(2, 3, 4, 4), "images 1 hold NaN"),
        ("image.png", "images are str"),
    ],
)
def test_check_refuses_what_is_no_image(images, message):
    with pytest.raises(InputError, match=message):
        wrap(nn.Conv2d(3, 3, 1)).check(images)
