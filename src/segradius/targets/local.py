"""A network in this process as a target, in reduced precision where asked."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.errors import unknown_name
from segradius.models import Segmenter

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Local:
    """A `Segmenter` whose network runs in ``precision``. In full precision a `Segmenter` is a target as it is.

    Args:
        model: The network.
        precision: ``"bfloat16"``, ``"float16"`` or ``"float32"``.

    Raises:
        InputError: For another precision.

    Example:
        >>> from segradius.models import load_model
        >>> Local(load_model("demo"), "bfloat16").scores(torch.rand(1, 3, 24, 32)).dtype
        torch.float32
    """

    model: Segmenter
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)

    @property
    def name(self) -> str:
        """That of the network."""
        return self.model.name

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.model.num_classes

    @property
    def labels_only(self) -> bool:
        """False."""
        return False

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.device

    def scores(self, images: Tensor) -> Tensor:
        """Probabilities (N, C, H, W), float32, of images (N, 3, H, W) in [0, 1]."""
        return self.model.scores(images, PRECISIONS[self.precision])

    def frozen(self) -> AbstractContextManager[None]:
        """As that of the network."""
        return self.model.frozen()
