"""A network in an ONNX file, run by ONNX Runtime: a target of black-box attacks, as it gives no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.border import at_border, in_a_line
from segradius.core.errors import InputError, at_least, missing_extra, unknown_name
from segradius.models import Normalisation
from segradius.models.checkpoints import sha256_of
from segradius.models.file_kinds import ONNX, kind_of
from segradius.targets.answers import Raw
from segradius.targets.exchange import BATCH, Exchange, Served, TensorSpec, find_signature
from segradius.targets.onnx_files import files_beside
from segradius.targets.target import TARGETS

TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
    "tensor(int32)": torch.int32,
    "tensor(int64)": torch.int64,
}


class OnnxTarget(Served):
    """An ONNX Runtime session with one input for images and one output for answers. `open_onnx` makes one.

    Args:
        session: The session.
        exchange: As `Served` takes it.
        **about: Likewise.
    """

    def __init__(self, session: Any, exchange: Exchange, **about: Any) -> None:
        super().__init__(exchange, **about)
        self.session = session

    def __repr__(self) -> str:
        return f"OnnxTarget({self.name!r}, {self.exchange})"

    def _ask(self, images: Tensor, real: int) -> Raw:
        signature = self.exchange.signature
        given = self.exchange.encode(images).numpy()
        with at_border(f"model {self.name!r}", given.shape):
            (raw,) = self.session.run([signature.output.name], {signature.input.name: given})
        return Raw(torch.from_numpy(np.asarray(raw)))


@TARGETS.register(
    "onnx", example="onnx:model.onnx,threads=2", extra="onnx", asking=("batch", "threads"), files=files_beside
)
def open_onnx(
    address: str,
    device: torch.device,
    *,
    num_classes: int | None = None,
    normalisation: Normalisation | None = None,
    outputs: str = "probabilities",
    input_name: str | None = None,
    output_name: str | None = None,
    layout: str | None = None,
    batch: int = BATCH,
    threads: int = 0,
    provider: str = "CPUExecutionProvider",
) -> OnnxTarget:
    """A network in an ONNX file; inputs and outputs are found by inspection.

    Args:
        address: Path of the file.
        device: Where images are best held.
        num_classes: C, where the output's shape does not tell.
        normalisation: Done to the images before the network; None where that is inside.
        outputs: As `Exchange` takes it.
        input_name: The input for images, where there are several.
        output_name: The output for answers, where there are several.
        layout: ``"nchw"`` or ``"nhwc"``, where the shape of the input does not tell.
        batch: Images to run at once, at most, where the file does not fix it.
        threads: Threads of one operation; 0 for as many as there are cores.
        provider: What runs it, of those that the installed ONNX Runtime has.

    Returns:
        The target.

    Raises:
        InputError: If the file cannot be opened, or an option is missing or does not fit.
        MissingExtraError: If ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", "onnx") from error
    path = Path(address)
    if not path.is_file():
        raise InputError(f"{address!r} is not a file; expected an ONNX model")
    at_least(1, batch=batch)
    if provider not in (known := onnxruntime.get_available_providers()):
        raise unknown_name("provider", provider, known)
    session = _session(path, threads, provider)
    try:
        signature = find_signature(
            _specs(session.get_inputs()),
            _specs(session.get_outputs()),
            input_name=input_name,
            output_name=output_name,
            layout=layout,
            num_classes=num_classes,
        )
        exchange = Exchange(signature, outputs, normalisation)
    except InputError as error:
        raise InputError(f"{address}: {error}") from error
    identity = f"{_digest(path)} {exchange}"
    return OnnxTarget(session, exchange, name=path.stem, batch=batch, device=device, identity=identity)


def _session(path: Path, threads: int, provider: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors; warnings of a graph's making help nobody here
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # no public base class
        kind = kind_of(path)
        told = in_a_line(error) if kind in (None, ONNX) else f"it is {kind.what}"
        raise InputError(f"{str(path)!r} cannot be opened as an ONNX model: {told}") from error


def _specs(tensors: Sequence[Any]) -> list[TensorSpec]:
    return [
        TensorSpec(
            tensor.name,
            # What has no such type (a map, a sequence, text) is no image and no answer; its name and shape still tell.
            TYPES.get(tensor.type, torch.complex64),
            tuple(side if isinstance(side, int) and side > 0 else None for side in tensor.shape or ()),
        )
        for tensor in tensors
    ]


def _digest(path: Path) -> str:
    """Of the file and of the weights that exporters put beside it."""
    beside = path.with_name(path.name + ".data")
    return sha256_of(path) + (sha256_of(beside) if beside.is_file() else "")
