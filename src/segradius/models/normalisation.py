"""What a network wants done to the colours of an image in [0, 1], inside the differentiable path."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from segradius.errors import InputError, unknown_name

NormalisationLike: TypeAlias = "Normalisation | str | Mapping[str, Any] | Sequence[Sequence[float]] | None"
RGB = (0, 1, 2)


@dataclass(frozen=True)
class Normalisation:
    """Channel order, then ``(x - mean) / std`` for each channel.

    Args:
        mean: Three numbers in pixel units of [0, 1], in the network's channel order.
        std: Three positive numbers, likewise.
        order: Which channel of the RGB image each channel of the network is; (2, 1, 0) for a network that takes BGR.

    Raises:
        InputError: If there are not three finite numbers each, or a ``std`` is not positive.

    Example:
        >>> Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).apply(torch.ones(1, 3, 1, 1)).flatten().tolist()
        [2.0, 2.0, 2.0]
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: tuple[int, int, int] = RGB

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise InputError(f"normalisation std {self.std} must be positive")
        object.__setattr__(self, "order", tuple(self.order))
        if sorted(self.order) != [0, 1, 2]:
            raise InputError(f"normalisation order {self.order} must be a permutation of (0, 1, 2)")

    @classmethod
    def imagenet(cls) -> Normalisation:
        """Mean and standard deviation of ImageNet, as torchvision's and smp's encoders were trained with."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @classmethod
    def none(cls) -> Normalisation:
        """The identity: the network takes [0, 1] as it is."""
        return cls((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def apply(self, x: Tensor) -> Tensor:
        """Normalised images.

        Args:
            x: Images (N, 3, H, W) in [0, 1].

        Returns:
            A tensor like ``x``, differentiable in ``x``.
        """
        if self.order != RGB:
            x = torch.stack([x[:, channel] for channel in self.order], dim=1)
        if self == Normalisation.none():
            return x
        return (x - _column(self.mean, x.dtype, x.device)) / _column(self.std, x.dtype, x.device)


def as_normalisation(value: NormalisationLike) -> Normalisation | None:
    """A `Normalisation` from what users write.

    Args:
        value: A `Normalisation`, ``"imagenet"``, ``"none"``, a pair (mean, std), a mapping with ``mean``, ``std`` and
            perhaps ``order``, or None.

    Returns:
        The normalisation; None for None.

    Raises:
        InputError: If it is none of these.

    Example:
        >>> as_normalisation("imagenet") == as_normalisation(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        True
    """
    named = {"imagenet": Normalisation.imagenet, "none": Normalisation.none}
    if value is None or isinstance(value, Normalisation):
        return value
    if isinstance(value, str):
        if value not in named:
            raise unknown_name("normalisation", value, named)
        return named[value]()
    if isinstance(value, Mapping) and {"mean", "std"} <= set(value) <= {"mean", "std", "order"}:
        return Normalisation(**value)
    if isinstance(value, Sequence) and len(value) == 2:
        return Normalisation(*value)
    raise InputError(f"normalisation {value!r}: expected imagenet, none, (mean, std) or {{mean: [r, g, b], std: […]}}")


def _three_numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InputError(f"normalisation {name} {values!r}: expected three finite numbers, one a channel")
    return numbers


@functools.lru_cache(maxsize=32)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, as a copy to a GPU at every step would wait for it; never an inference tensor, which autograd refuses.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
