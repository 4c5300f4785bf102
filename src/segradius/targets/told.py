"""What a user tells of a served network where its tensors do not: options of every protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.core.declared import Classes, Whole, check_fields
from segradius.core.errors import InputError, shown, unknown_name
from segradius.models.preprocessing import MODES, SizeRule, as_normalisation, as_size_rule
from segradius.targets.exchange import Exchange
from segradius.targets.heads import Head
from segradius.targets.quantised import Quantised
from segradius.targets.signature import Signature, TensorSpec, find_signature


@dataclass(frozen=True)
class Told:
    """Options that every served network has.

    Args:
        num_classes: C, where the output's shape does not tell.
        normalisation: Done to the images before the network, as `as_normalisation` takes it; None where that is inside.
        outputs: What the values of an answer are, one of `segradius.targets.heads.KINDS`.
        threshold: Of yes/no channels: yes where the probability exceeds it.
        channels: Which channels of the answer are meant, in this order; None for all.
        values: Of labels: the number that stands for each class, as [0, 255].
        structures: K where the answer has a class for each set of K structures, as ``segradius export`` writes it.
        input_name: The input for images, where there are several.
        output: The output for answers, its name or number from 0, where there are several.
        output_name: The same.
        inputs: What other inputs are given, by name.
        layout: ``"nchw"`` or ``"nhwc"``, where the shape of the input does not tell.
        output_layout: ``"nchw"``, ``"nhwc"``, ``"nhw"``, ``"chw"``, ``"hwc"`` or ``"hw"``, where that of the output
            does not tell.
        bands: B, of the images, where the shape of the input does not tell.
        size: ``"resize"`` or ``"pad"`` for a network of one size that is given images of others, or a `SizeRule`.
        scale: What one step of an input of whole numbers is worth.
        zero_point: Which of its numbers stands for 0.
        output_scale: What one step of an output of whole numbers is worth.
        output_zero_point: Which of its numbers stands for 0.
    """

    num_classes: Classes | None = None
    normalisation: Any = None
    outputs: str = "probabilities"
    threshold: float = 0.5
    channels: Sequence[int] | int | str | None = None
    values: Sequence[float] | None = None
    structures: Whole = 0
    input_name: str | int | None = None
    output: str | int | None = None
    output_name: str | int | None = None
    inputs: Mapping[str, Any] | None = None
    layout: str | None = None
    output_layout: str | None = None
    bands: Classes | None = None
    size: str | SizeRule | Mapping[str, Any] | None = None
    scale: float | None = None
    zero_point: int | None = None
    output_scale: float | None = None
    output_zero_point: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def answer(self) -> str | int | None:
        """The output for answers, as it was called.

        Raises:
            InputError: It was called in two ways.
        """
        if self.output is not None and self.output_name is not None:
            raise InputError(f"output={self.output} and output_name={self.output_name} are the same option: give one")
        return self.output_name if self.output is None else self.output

    def exchange(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Exchange:
        """How images go to a network with these inputs and outputs, and how its answers are read.

        Raises:
            InputError: If it cannot be told, or does not fit; the message says which option tells it.

        Example:
            >>> image = TensorSpec("image", torch.float32, (1, 3, 320, 320))
            >>> many = [TensorSpec(f"d{i}", torch.float32, (1, 1, 320, 320)) for i in range(7)]
            >>> found = Told(outputs="sigmoid", output=0, size="resize").exchange([image], many)
            >>> found.signature.num_classes, found.size.exact
            (2, (320, 320))
        """
        constants = dict(self._constants(inputs))
        listed: dict[str, Any] = {"values": self.values, "channels": () if self.channels is None else self.channels}
        head = Head(self.outputs, self.threshold, structures=self.structures, **listed)
        channels, classes = head.of(self.num_classes)
        signature = find_signature(
            [tensor for tensor in inputs if tensor.name not in constants],
            outputs,
            input_name=self.input_name,
            output_name=self.answer,
            layout=self.layout,
            output_layout=self.output_layout,
            num_classes=classes,
            bands=self.bands,
            channels=channels,
        )
        signature = replace(
            signature,
            input=_quantised(signature.input, "", self.scale, self.zero_point),
            output=_quantised(signature.output, "output_", self.output_scale, self.output_zero_point),
        )
        size = self._size(signature)
        return Exchange(signature, head, as_normalisation(self.normalisation), size, tuple(constants.items()))

    def _constants(self, inputs: Sequence[TensorSpec]) -> Mapping[str, Tensor]:
        given = self.inputs or {}
        if not isinstance(given, Mapping):
            raise InputError(
                f"inputs is {shown(given)}; expected values of other inputs by name, as {{threshold: 0.5}}"
            )
        found, known = {}, {tensor.name: tensor for tensor in inputs}
        for name, value in given.items():
            if name not in known:
                raise unknown_name("input", str(name), known)
            found[name] = constant(known[name], value)
        return found

    def _size(self, signature: Signature) -> SizeRule:
        if self.size is None or isinstance(self.size, SizeRule):
            return as_size_rule(self.size)
        if isinstance(self.size, str) and self.size not in MODES:
            raise unknown_name("size", self.size, MODES)
        if not isinstance(self.size, str | Mapping):
            raise InputError(f"size is {shown(self.size)}; expected resize, pad or a mapping as {{multiple_of: 32}}")
        given: dict[str, Any] = {"mode": self.size} if isinstance(self.size, str) else dict(self.size)
        if set(given) == {"mode"}:
            height, width = signature.size
            if height is None or width is None:
                told = f"{height or '?'}x{width or '?'}"
                raise InputError(
                    f"size={given['mode']} is for a network of one size, and the input {signature.input} takes {told}: "
                    f"give size={{exact: [{height or 'H'}, {width or 'W'}], mode: {given['mode']}}}"
                )
            given["exact"] = (height, width)
        return as_size_rule(given)


def constant(tensor: TensorSpec, value: Any) -> Tensor:
    """What an input that is no image is given: the value in the input's type and shape, one number for all of it.

    Raises:
        InputError: It does not fit.

    Example:
        >>> constant(TensorSpec("size", torch.int64, (2,)), [240, 320])
        tensor([240, 320])
    """
    try:
        given = torch.as_tensor(value)
        if given.is_complex() or (given.is_floating_point() and tensor.hard):
            raise TypeError(f"it is in {given.dtype}")
        given = given.to(tensor.dtype)
        if given.numel() == 1:
            return given.reshape(()).expand(tuple(side or 1 for side in tensor.shape)).clone()
        fits = len(given.shape) == len(tensor.shape) and all(
            side in (None, found) for side, found in zip(tensor.shape, given.shape, strict=True)
        )
        return given if fits else given.reshape(tuple(-1 if side is None else side for side in tensor.shape))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"inputs: {shown(value)} does not fit the input {tensor}") from error


def _quantised(tensor: TensorSpec, prefix: str, scale: float | None, zero_point: int | None) -> TensorSpec:
    """The tensor with what was said of its numbers, in place of what its file says."""
    if scale is None and zero_point is None:
        return tensor
    if not tensor.hard and tensor.dtype != torch.complex64:
        raise InputError(f"{prefix}scale and {prefix}zero_point are for whole numbers, and {tensor} has none")
    if scale is None:
        raise InputError(f"{prefix}zero_point is given without {prefix}scale; expected both")
    try:
        return replace(tensor, quantised=Quantised(scale, 0 if zero_point is None else zero_point))
    except InputError as error:
        raise InputError(f"{prefix}{error}") from error
