"""The demo network: a small PSPNet, with weights in the package, that labels the drawn scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.models.checkpoints import load_state
from segradius.models.fitting import load_into
from segradius.models.preprocessing import resize
from segradius.models.segmenter import Segmenter, Weights
from segradius.models.sources import MODELS
from segradius.models.wrapping import wrap

WEIGHTS = Path(__file__).with_name("demo.safetensors")
NUM_CLASSES = 8
BINS = (1, 2, 3, 6)


class DemoNetwork(nn.Module):
    """Strided stem, dilated residual convolutions, pyramid pooling (Zhao et al., CVPR 2017), one-fourth resolution.

    Takes normalised images (N, 3, H, W), H and W at least 24; gives logits (N, num_classes, H, W).

    Args:
        num_classes: Number of classes.
        width: Channels of the trunk; about 70,000 parameters at the default.

    Example:
        >>> DemoNetwork().eval()(torch.zeros(2, 3, 30, 41)).shape
        torch.Size([2, 8, 30, 41])
    """

    def __init__(self, num_classes: int = NUM_CLASSES, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, 16, stride=2), _convolution(16, width, stride=2))
        self.trunk = nn.ModuleList(_convolution(width, width, dilation=d) for d in (1, 2, 4, 8))
        self.pyramid = nn.ModuleList(_convolution(width, width // 4, kernel=1) for _ in BINS)
        self.head = nn.Sequential(_convolution(3 * width, width), nn.Conv2d(width, num_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input."""
        early = deep = self.stem(x)
        for convolution in self.trunk:
            deep = deep + convolution(deep)
        pooled = (branch(functional.adaptive_avg_pool2d(deep, n)) for branch, n in zip(self.pyramid, BINS, strict=True))
        context = [resize(p, (deep.shape[-2], deep.shape[-1])) for p in pooled]
        return resize(self.head(torch.cat([early, deep, *context], 1)), (x.shape[-2], x.shape[-1]))


@MODELS.register("demo")
def demo() -> Segmenter:
    """A small PSPNet for the drawn scenes (data set ``scenes``), weights included.

    Trained by ``studies/train_demo.py``; the weights are stored in half precision and run in single precision.

    Example:
        >>> demo().logits(torch.rand(1, 3, 96, 128)).shape
        torch.Size([1, 8, 96, 128])
    """
    network = DemoNetwork()
    load_into(network, load_state(WEIGHTS), WEIGHTS)
    made = wrap(network.eval(), num_classes=NUM_CLASSES, normalisation="imagenet", name="demo")
    return replace(made, weights=Weights(WEIGHTS.name, whole=True))


def _convolution(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
