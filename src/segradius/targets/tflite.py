"""A network in a TFLite file, run by LiteRT: a target of black-box attacks, as it gives no gradient."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.border import at_border, in_a_line
from segradius.core.declared import Count, Images, read
from segradius.core.errors import InputError, missing_extra
from segradius.models.file_kinds import kind_of
from segradius.models.weight_files import sha256_of
from segradius.targets.answers import Raw
from segradius.targets.exchange import Exchange
from segradius.targets.quantised import Quantised
from segradius.targets.served import BATCH, Served
from segradius.targets.signature import TensorSpec
from segradius.targets.target import TARGETS
from segradius.targets.told import Told

SIGNATURE = b"TFL3"


class TfliteTarget(Served):
    """A LiteRT interpreter with one input for images and one output for answers. `open_tflite` makes one.

    Args:
        interpreter: The interpreter, its tensors allocated.
        exchange: As `Served` takes it.
        **about: Likewise.
    """

    def __init__(self, interpreter: Any, exchange: Exchange, **about: Any) -> None:
        super().__init__(exchange, **about)
        self.interpreter, self._lock = interpreter, threading.Lock()
        self._inputs = _indices(interpreter.get_input_details())
        self._outputs = _indices(interpreter.get_output_details())

    def __repr__(self) -> str:
        return f"TfliteTarget({self.name!r}, {self.exchange})"

    def _ask(self, images: Tensor, real: int) -> Raw:
        signature = self.exchange.signature
        given = dict(self.exchange.constants) | {signature.input.name: self.exchange.encode(images)}
        # An interpreter holds its tensors, so that one question must end before the next begins.
        with at_border(f"model {self.name!r}", given[signature.input.name].shape), self._lock:
            self._set(given)
            self.interpreter.invoke()
            found = self.interpreter.get_tensor(self._outputs[signature.output.name])
        return Raw(torch.from_numpy(np.asarray(found)))

    def _set(self, given: Mapping[str, Tensor]) -> None:
        shapes = {each["index"]: tuple(each["shape"].tolist()) for each in self.interpreter.get_input_details()}
        other = {name: value for name, value in given.items() if shapes[self._inputs[name]] != tuple(value.shape)}
        for name, value in other.items():
            self.interpreter.resize_tensor_input(self._inputs[name], list(value.shape))
        if other:
            self.interpreter.allocate_tensors()
        for name, value in given.items():
            self.interpreter.set_tensor(self._inputs[name], value.numpy())


@TARGETS.register(
    "tflite", example="tflite:model.tflite,threads=2", extra="litert", asking=("batch", "threads"), options=Told
)
def open_tflite(
    address: str, device: torch.device, *, batch: int = BATCH, threads: int = 1, **told: Any
) -> TfliteTarget:
    """A network in a TFLite file; inputs, outputs and what their whole numbers stand for are found by inspection.

    Args:
        address: Path of the file.
        device: Where images are best held.
        batch: Images to run at once, at most, where the file does not fix it.
        threads: Threads of one operation.
        **told: What the file does not tell, as `Told` takes it.

    Returns:
        The target.

    Raises:
        InputError: If the file cannot be opened, or an option is missing or does not fit.
        MissingExtraError: If LiteRT is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise missing_extra("ai-edge-litert", "litert") from error
    path = Path(address)
    if not path.is_file():
        raise InputError(f"{address!r} is not a file; expected a TFLite model")
    batch, threads = read("batch", Images, batch), read("threads", Count, threads)
    with path.open("rb") as file:
        if file.read(8)[4:] != SIGNATURE:
            kind = kind_of(path)
            raise InputError(f"{address!r} cannot be opened as a TFLite model: it is {kind.what if kind else 'none'}")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{address!r} cannot be opened as a TFLite model: {in_a_line(error)}") from error
    inputs, outputs = (_specs(each()) for each in (interpreter.get_input_details, interpreter.get_output_details))
    try:
        exchange = Told(**told).exchange(inputs, outputs)
    except InputError as error:
        raise InputError(f"{address}: {error}") from error
    identity = f"{sha256_of(path)} {exchange.identity}"
    return TfliteTarget(interpreter, exchange, name=path.stem, batch=batch, device=device, identity=identity)


def _indices(details: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
    return {each["name"]: each["index"] for each in details}


def _specs(details: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [TensorSpec(each["name"], _dtype(each["dtype"]), _shape(each), _quantised(each)) for each in details]


def _shape(tensor: Mapping[str, Any]) -> tuple[int | None, ...]:
    sides = tensor["shape_signature"].tolist() or tensor["shape"].tolist()
    return tuple(side if side > 0 else None for side in sides)


def _dtype(kind: Any) -> torch.dtype:
    found = getattr(torch, np.dtype(kind).name, None) if kind is not None else None
    return found if isinstance(found, torch.dtype) else torch.complex64


def _quantised(tensor: Mapping[str, Any]) -> Quantised | None:
    scales, zero_points = (tensor["quantization_parameters"][name].tolist() for name in ("scales", "zero_points"))
    if len(scales) != 1 or not scales[0] or _dtype(tensor["dtype"]).is_floating_point:
        return None
    return Quantised(scales[0], zero_points[0] if zero_points else 0)
