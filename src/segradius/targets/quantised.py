"""Whole numbers that stand for real ones: q for scale · (q − zero_point), as ONNX and TFLite have them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.errors import InputError, is_whole, shown


@dataclass(frozen=True)
class Quantised:
    """What the whole numbers of a tensor stand for, r = scale · (q − zero_point).

    Args:
        scale: Above 0.
        zero_point: Which q stands for 0.

    Raises:
        InputError: They are no such numbers.

    Example:
        >>> bytes_of_a_pixel = Quantised(1 / 255, -128)
        >>> q = bytes_of_a_pixel.of(torch.tensor([0.0, 0.5, 1.0]), torch.int8)
        >>> q.tolist(), bytes_of_a_pixel.undo(q).tolist()
        ([-128, 0, 127], [0.0, 0.5020, 1.0])
    """

    scale: float
    zero_point: int = 0

    def __post_init__(self) -> None:
        number = isinstance(self.scale, float | int) and not isinstance(self.scale, bool)
        if not number or not 0 < self.scale < float("inf"):
            raise InputError(f"scale is {shown(self.scale)}; expected a number above 0, what one step is worth")
        if not is_whole(self.zero_point, -(2**31)):
            raise InputError(f"zero_point is {shown(self.zero_point)}; expected a whole number, which stands for 0")

    def of(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Whole numbers of a type for real ones, to the nearest and halves to even; what is beyond becomes its end."""
        ends = torch.iinfo(dtype)
        steps = values.double().div(self.scale).round_().add_(self.zero_point)
        return steps.clamp_(ends.min, ends.max).to(dtype)

    def undo(self, numbers: Tensor) -> Tensor:
        """Real numbers, float32, for whole ones."""
        return numbers.double().sub_(self.zero_point).mul_(self.scale).float()
