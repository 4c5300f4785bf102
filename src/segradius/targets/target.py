"""What a black-box attack may ask of a model: class probabilities of images, nothing else; a network here as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from segradius.core.contracts import LOGITS
from segradius.core.errors import unknown_name
from segradius.core.registry import Registry
from segradius.models import Segmenter


class Target(Protocol):
    """A model that answers queries: a `segradius.models.Segmenter`, a file, a server, or a wrapper around one of these.

    A wrapper has what it wraps in ``target``; `layers` walks down. Any of them may have an ``identity``, a text that
    changes with whatever changes the answers (see `segradius.targets.fingerprint`), and one behind a wire the
    ``traffic`` that went over it.
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
    def offers(self) -> frozenset[str]:
        """Scores, or labels alone, which have no margin; see `segradius.core.contracts`."""
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


#: Served models by the word before the colon: a function of the address, the device and keyword options. Facts:
#: ``example`` of what a user writes, the ``extra`` that brings its library, and the options that say how it is asked,
#: not what it answers (``asking``).
TARGETS: Registry[Callable[..., Target]] = Registry("target", "segradius.targets")


class Wrapper:
    """What lies around a target and is that target in all but its answers."""

    target: Target

    @property
    def name(self) -> str:
        """That of the target."""
        return self.target.name

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.target.num_classes

    @property
    def offers(self) -> frozenset[str]:
        """As the target, save that the answers bring no gradients."""
        return self.target.offers - {LOGITS}

    @property
    def device(self) -> torch.device:
        """As of the target."""
        return self.target.device

    def frozen(self) -> AbstractContextManager[None]:
        """As that of the target."""
        return self.target.frozen()


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Local(Wrapper):
    """A `Segmenter` whose network runs in ``precision``. In full precision a `Segmenter` is a target as it is.

    Args:
        target: The network.
        precision: ``"bfloat16"``, ``"float16"`` or ``"float32"``.

    Raises:
        InputError: For another precision.

    Example:
        >>> from segradius.models import load_model
        >>> Local(load_model("demo"), "bfloat16").scores(torch.rand(1, 3, 24, 32)).dtype
        torch.float32
    """

    target: Segmenter
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)

    @property
    def identity(self) -> str:
        """The precision."""
        return self.precision

    def scores(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W), float32, of images (N, 3, H, W) in [0, 1]."""
        return self.target.scores(images, PRECISIONS[self.precision])
