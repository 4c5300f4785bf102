"""What a black-box attack may ask of a model: class probabilities of images, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from segradius.registry import Registry


class Target(Protocol):
    """A model that answers queries: a `segradius.models.Segmenter`, a file, a server, or a wrapper around one of these.

    A wrapper has what it wraps in ``target``; `layers` walks down.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        ...

    @property
    def labels_only(self) -> bool:
        """Whether the answers are one-hot labels, of which an attack cannot take a margin or a loss."""
        ...

    @property
    def device(self) -> torch.device:
        """Where images are best held."""
        ...

    def scores(self, images: Tensor) -> Tensor:
        """Answer one query for each of N images.

        Args:
            images: (N, 3, H, W) in [0, 1].

        Returns:
            Class probabilities (N, C, H, W), float, at the size and on the device of the images, without gradient.
        """
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """Context in which the model stays as it is between queries; left as found."""
        ...


def layers(target: Target) -> Iterator[Target]:
    """The target, what it wraps, what that wraps, and so on."""
    layer: Target | None = target
    while layer is not None:
        yield layer
        layer = getattr(layer, "target", None)


#: Served models by the word before the colon: a function of the address, the device and keyword options.
TARGETS: Registry[Callable[..., Target]] = Registry("target")
