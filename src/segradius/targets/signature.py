"""What a served network takes and gives, found by looking at its declared tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from segradius.errors import InputError, unknown_name

LAYOUTS = ("nchw", "nhwc")
CHANNELS = {"nchw": 1, "nhwc": 3}
TAKEN = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8)
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
    """A declared input or output.

    Args:
        name: Its name.
        dtype: Type of its values.
        shape: Its dimensions, None where they are free.
    """

    name: str
    dtype: torch.dtype
    shape: Shape

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name!r} {str(self.dtype).removeprefix('torch.')} ({sides})"


@dataclass(frozen=True)
class Signature:
    """The input for images and the output for answers.

    Args:
        input: The input.
        output: The output; its shape is empty where nothing is known of it.
        layout: ``"nchw"`` or ``"nhwc"``, of the input.
        output_layout: Of the output.
        num_classes: C.
    """

    input: TensorSpec
    output: TensorSpec
    layout: str
    output_layout: str
    num_classes: int

    @property
    def batch(self) -> int | None:
        """Images that a query must hold; None where that is free."""
        return self.input.shape[0]

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Height and width that images must have; None where free."""
        _, *sides, _ = self.input.shape if self.layout == "nhwc" else (*self.input.shape[:1], *self.input.shape[2:], 0)
        return sides[0], sides[1]


def find_signature(
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    layout: str | None = None,
    num_classes: int | None = None,
) -> Signature:
    """The signature of a network with these inputs and outputs.

    Args:
        inputs: All inputs.
        outputs: All outputs.
        input_name: The one for images, where there are several.
        output_name: The one for answers, where there are several.
        layout: Of the input, ``"nchw"`` or ``"nhwc"``, where its shape does not tell.
        num_classes: C, where the output's shape does not tell.

    Returns:
        The signature.

    Raises:
        InputError: If it cannot be told, or does not fit what was given; the message says which option tells it.

    Example:
        >>> image = TensorSpec("image", torch.uint8, (None, 240, 320, 3))
        >>> found = find_signature([image], [TensorSpec("p", torch.float32, (None, 60, 80, 11))])
        >>> found.layout, found.size, found.num_classes
        ('nhwc', (240, 320), 11)
    """
    taken, given = _pick("input", inputs, input_name), _pick("output", outputs, output_name)
    layout = _layout(taken, layout)
    if taken.dtype not in TAKEN:
        raise InputError(f"the input {taken} cannot hold images; expected float32, float16, bfloat16, float64 or uint8")
    output_layout, classes = _classes(given, layout, num_classes)
    return Signature(taken, given, layout, output_layout, classes)


def _pick(kind: str, tensors: Sequence[TensorSpec], name: str | None) -> TensorSpec:
    if name is not None:
        found = next((tensor for tensor in tensors if tensor.name == name), None)
        if found is None:
            raise unknown_name(kind, name, (tensor.name for tensor in tensors))
        return found
    if len(tensors) != 1:
        listed = ", ".join(map(str, tensors)) or "none"
        raise InputError(f"the model has {len(tensors)} {kind}s ({listed}): name one with {kind}_name=…")
    return tensors[0]


def _layout(image: TensorSpec, layout: str | None) -> str:
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if len(image.shape) != 4:
        raise InputError(f"the input {image} has {len(image.shape)} dimensions; expected 4, as (N, 3, H, W)")
    fitting = [name for name in LAYOUTS if image.shape[CHANNELS[name]] in (3, None)]
    exact = [name for name in fitting if image.shape[CHANNELS[name]] == 3]
    if layout is not None:
        if layout not in (exact or fitting):
            raise InputError(f"the input {image} does not have 3 channels in layout {layout}")
        return layout
    if not fitting:
        raise InputError(f"the input {image} does not take colour images; expected (N, 3, H, W) or (N, H, W, 3)")
    return (exact or fitting)[0]


def _classes(answer: TensorSpec, layout: str, num_classes: int | None) -> tuple[str, int]:
    """Layout of the output, and C."""
    if num_classes is None:
        found = answer.shape[CHANNELS[layout]] if len(answer.shape) == 4 else None
        if found is None:
            raise InputError(f"the output {answer} does not tell the number of classes: give num_classes")
        if found < 2:
            raise InputError(f"the output {answer} has {found} channel; expected one for each of at least 2 classes")
        return layout, found
    if len(answer.shape) != 4:
        return layout, num_classes
    exact = [name for name in (layout, *LAYOUTS) if answer.shape[CHANNELS[name]] == num_classes]
    if not exact and answer.shape[CHANNELS[layout]] not in (1, None):  # a map of labels may have one channel
        raise InputError(f"the output {answer} has no dimension of num_classes={num_classes}: is the number right?")
    return (exact or [layout])[0], num_classes
