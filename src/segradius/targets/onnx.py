"""A network in an ONNX file, run by ONNX Runtime: a target of black-box attacks, as it gives no gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.border import at_border, in_a_line
from segradius.core.declared import Images, Whole, read
from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.models.file_kinds import ONNX, kind_of
from segradius.models.weight_files import sha256_of
from segradius.targets.answers import Raw
from segradius.targets.exchange import Exchange
from segradius.targets.onnx_files import files_beside
from segradius.targets.served import BATCH, Served
from segradius.targets.signature import TensorSpec
from segradius.targets.target import TARGETS
from segradius.targets.told import Told

#: Its number in onnx.proto.
BFLOAT16 = 16
TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(bfloat16)": torch.bfloat16,
    "tensor(bool)": torch.bool,
    "tensor(uint8)": torch.uint8,
    "tensor(int8)": torch.int8,
    "tensor(uint16)": torch.uint16,
    "tensor(int16)": torch.int16,
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
        given = dict(self.exchange.constants) | {signature.input.name: self.exchange.encode(images)}
        with at_border(f"model {self.name!r}", given[signature.input.name].shape):
            return Raw(_run(self.session, signature.output.name, given, plain=self._plain))

    @property
    def _plain(self) -> bool:
        """Whether NumPy has the types of all that goes in and comes out."""
        signature = self.exchange.signature
        types = {signature.output.dtype, signature.input.dtype, *(each.dtype for _, each in self.exchange.constants)}
        return torch.bfloat16 not in types


def _run(session: Any, output: str, given: Mapping[str, Tensor], *, plain: bool) -> Tensor:
    """One output of a session."""
    if plain:
        (raw,) = session.run([output], {name: value.numpy() for name, value in given.items()})
        return torch.from_numpy(np.asarray(raw))
    from onnxruntime import OrtValue

    values = {
        name: OrtValue.ortvalue_from_numpy_with_onnx_type(value.view(torch.uint16).numpy(), BFLOAT16)
        if value.dtype == torch.bfloat16
        else OrtValue.ortvalue_from_numpy(value.numpy())
        for name, value in given.items()
    }
    (raw,) = session.run_with_ort_values([output], values)
    return torch.utils.dlpack.from_dlpack(raw).clone()


@TARGETS.register(
    "onnx",
    example="onnx:model.onnx,threads=2",
    extra="onnx",
    asking=("batch", "threads"),
    files=files_beside,
    options=Told,
)
def open_onnx(
    address: str,
    device: torch.device,
    *,
    batch: int = BATCH,
    threads: int = 0,
    provider: str = "CPUExecutionProvider",
    **told: Any,
) -> OnnxTarget:
    """A network in an ONNX file; inputs and outputs are found by inspection.

    Args:
        address: Path of the file.
        device: Where images are best held.
        batch: Images to run at once, at most, where the file does not fix it.
        threads: Threads of one operation; 0 for as many as there are cores.
        provider: What runs it, of those that the installed ONNX Runtime has.
        **told: What the file does not tell, as `Told` takes it.

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
    batch, threads = read("batch", Images, batch), read("threads", Whole, threads)
    if provider not in (known := onnxruntime.get_available_providers()):
        raise unknown_name("provider", provider, known)
    session = _session(path, threads, provider)
    try:
        told = told if "outputs" in told else _said(session) | told
        exchange = Told(**told).exchange(_specs(session.get_inputs()), _specs(session.get_outputs()))
    except InputError as error:
        raise InputError(f"{address}: {error}") from error
    identity = f"{_digest(path)} {exchange.identity}"
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


def _said(session: Any) -> dict[str, Any]:
    """What ``segradius export`` wrote into the file of its answers."""
    about = session.get_modelmeta().custom_metadata_map
    structures = about.get("segradius.structures", "0")
    return {"structures": int(structures)} if structures.isdecimal() else {}


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
