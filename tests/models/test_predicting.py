"""The class of each pixel without all logits at the size of the image: the same to the bit, in bounded memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import segradius as sr
from segradius.certification import Noise, Sampling, vote
from segradius.core.prediction import predict, predicted
from segradius.core.randomness import Randomness
from segradius.models import predicting
from segradius.models.preprocessing import SizeRule
from segradius.models.tiling import TiledNetwork, Tiling

RULES = [SizeRule(), SizeRule(32), SizeRule(exact=(160, 192)), SizeRule(exact=(100, 110), mode="resize")]


class Largest(TorchDispatchMode):
    """Sees the most bytes that any result has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor):
                self.most = max(self.most, each.untyped_storage().nbytes())
        return found


class Coarse(nn.Module):
    """Logits from averages over 8×8 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, classes, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("classes", [2, 16, 18, 19, 20, 35, 150])
def test_a_slice_of_classes_at_a_time_is_the_same_to_the_bit(monkeypatch, rule, layout, classes):
    monkeypatch.setattr(predicting, "_AT_ONCE", 2**12)
    for coarse, dtype in (((13, 17), torch.float32), ((96, 110), torch.float64)):
        raw = torch.randn((2, classes, *coarse), dtype=dtype, generator=torch.Generator().manual_seed(classes))
        raw = raw.mul_(4).round_().div_(4).contiguous(memory_format=layout)  # so that there are ties
        raw[0, classes // 2, 3, 4], raw[1, 0, 0, 0], raw[1, -1, 5, 5] = torch.nan, torch.inf, -torch.inf
        top, found = predicting.predict_undone(raw, rule, 96, 110)
        expected = predict(rule.undo(raw, 96, 110).contiguous())
        assert torch.equal(found, expected[1])
        assert torch.equal(top.nan_to_num(7.5), expected[0].nan_to_num(7.5))
        assert torch.equal(top.isnan(), expected[0].isnan())


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_of_a_network_it_is_the_class_of_its_logits(monkeypatch, precision):
    monkeypatch.setattr(predicting, "_AT_ONCE", 2**12)
    images = torch.rand(2, 3, 88, 93, generator=torch.Generator().manual_seed(0))
    model = sr.wrap(Coarse(24), size={"multiple_of": 8}, num_classes=24)
    tiled = sr.wrap(TiledNetwork(model, Tiling((40, 48))), outputs="probabilities", num_classes=24)
    for each in (model, tiled):
        for top, other in zip(each.top_class(images, precision), predict(each.logits(images, precision)), strict=True):
            assert torch.equal(top, other)
            assert not top.requires_grad


def test_what_has_logits_alone_is_asked_for_those():
    class Plain:
        def logits(self, images, precision=None):
            return torch.cat([images, 1 - images], 1)

    images = torch.rand(1, 2, 3, 4)
    assert torch.equal(predicted(Plain(), images)[1], Plain().logits(images).argmax(1))


def test_votes_on_150_classes_never_hold_the_logits_of_a_copy():
    height, width, classes = 256, 320, 150
    model = sr.wrap(Coarse(classes), num_classes=classes)
    image, sampling = torch.rand(3, height, width), Sampling(Noise(0.25), 2, 4, 2)
    with model.frozen(), Largest() as seen:
        votes = vote(model.top_class, image, classes, sampling, Randomness(0, ("a",)))
        assert votes.guess.shape == votes.majority.shape == votes.rival.shape == (height, width)
    counts = 2 * classes * height * width  # int16
    assert seen.most == counts
    assert seen.most < 4 * classes * height * width
