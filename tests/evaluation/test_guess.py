"""What `segradius init` guesses of a network's normalisation."""

import sys

import pytest
import torch

from segradius.data.sample import Classes, Sample
from segradius.evaluation.guess import guess_model

NETWORKS = """
from torch import nn
import torch


class Compares(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data[:] = 0
        self.conv.weight.data[1, order[0]], self.conv.weight.data[1, order[1]] = 1, -1

    def forward(self, x):
        return self.conv(x)


rgb, bgr = Compares((0, 2)), Compares((2, 0))
"""


@pytest.mark.parametrize(
    ("name", "expected"), [("rgb", "none"), ("bgr", {"mean": [0.0] * 3, "std": [1.0] * 3, "order": [2, 1, 0]})]
)
def test_bgr_is_guessed_and_of_normalisations_as_good_the_plainest(tmp_path, monkeypatch, name, expected):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nets_compared.py").write_text(NETWORKS)
    monkeypatch.delitem(sys.modules, "nets_compared", raising=False)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    samples = [Sample(str(at), image, (image[0] > image[2]).long()) for at, image in enumerate(images)]
    found = guess_model(f"nets_compared:{name}", samples, Classes(("less", "more"), ((0, 0, 0), (255, 255, 255))))
    monkeypatch.delitem(sys.modules, "nets_compared", raising=False)
    assert (found.outputs, found.normalisation) == ("logits", expected)
