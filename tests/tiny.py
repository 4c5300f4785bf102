"""Models small enough for every test: a network with all that can go wrong, and linear models with known answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import segradius as sr
from segradius.core.contracts import ANSWERS, LABELS_ALONE

CLASSES = 4
VOID = 255


def network(seed: int = 0, dtype: torch.dtype = torch.float64, bands: int = 3) -> nn.Sequential:
    """A convolutional network with batch norm and dropout, *in training mode*, as users leave theirs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(bands, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Tanh(),
            nn.Dropout2d(0.5),
            nn.Conv2d(8, CLASSES, 3, padding=1),
        )
        nn.init.normal_(net[0].weight, std=1.0)
        nn.init.normal_(net[4].weight, std=1.0)
    return net.to(dtype).train()


def batch(
    count: int = 4, size: int = 8, dtype: torch.dtype = torch.float64, seed: int = 1, bands: int = 3
) -> tuple[Tensor, Tensor]:
    """Images with pixels on both borders of the box, and the network's own labels with some wrong and some void."""
    g = torch.Generator().manual_seed(seed)
    images = (torch.rand(count, bands, size, size, generator=g, dtype=torch.float64) * 1.2 - 0.1).clamp(0, 1).to(dtype)
    labels = sr.wrap(network(dtype=dtype, bands=bands), num_classes=CLASSES).logits(images).argmax(1).detach()
    labels[:, 0, :3] = (labels[:, 0, :3] + 1) % CLASSES
    labels[:, -1, :4] = VOID
    return images, labels


class Counting:
    """A segmenter that counts the images of its forward passes, and the backward passes through its output."""

    def __init__(self, model: sr.Segmenter) -> None:
        self.model, self.forward, self.backward = model, 0, 0
        self.walked = False  # whether the last pass was gone back through from its logits

    @property
    def offers(self) -> frozenset[str]:
        return self.model.offers

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def bands(self) -> int | None:
        return self.model.bands

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        self.forward += len(images)
        found = self.model.logits(images, precision=precision)
        self.walked = False
        if found.requires_grad:
            found.register_hook(self._back)
        return found

    @contextlib.contextmanager
    def watching(self, layer: str = "") -> Iterator[list[Tensor]]:
        with self.model.watching(layer) as maps:
            yield maps
        if maps[0].requires_grad:
            maps[0].register_hook(self._back_from_a_layer)

    def _back(self, grad: Tensor) -> None:
        self.walked, self.backward = True, self.backward + len(grad)

    def _back_from_a_layer(self, grad: Tensor) -> None:
        """A way back that began at the layer; one from the logits has been counted there."""
        self.backward += 0 if self.walked else len(grad)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        with self.model.frozen():
            yield


class ScoresOnly:
    """A target that returns nothing but scores (or one-hot labels), and counts the images that it is asked about."""

    def __init__(self, model: sr.Segmenter, *, labels_only: bool = False) -> None:
        self.model, self.labels_only, self.asked = model, labels_only, 0
        self.offers = LABELS_ALONE if labels_only else ANSWERS

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    def scores(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        found = self.model.scores(images)
        if self.labels_only:
            found = torch.zeros_like(found).scatter_(1, found.argmax(1, keepdim=True), 1.0)
        return found

    def frozen(self) -> contextlib.AbstractContextManager[None]:
        return self.model.frozen()


def linear(weights: Tensor, bias: Tensor | None = None) -> sr.Segmenter:
    """Two classes; the logit difference at every pixel of an image is ⟨weights, image⟩ + bias (H, W)."""

    def forward(images: Tensor) -> Tensor:
        total = (images * weights).flatten(1).sum(1).view(-1, 1, 1)
        score = total.expand(-1, *images.shape[2:]) + (0 if bias is None else bias)
        return torch.stack([torch.zeros_like(score), score], 1)

    return sr.wrap(forward, num_classes=2)
