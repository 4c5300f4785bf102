"""Requests and responses of the Open Inference Protocol v2 over HTTP, with its binary tensor extension.

A message is a JSON object, or, with the header ``Inference-Header-Content-Length``, a JSON object of that many bytes
followed by the tensors' bytes: row-major, little-endian, in the order in which the object names them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.errors import AnswerError, InputError, is_whole

LENGTH_HEADER = "Inference-Header-Content-Length"
DTYPES = {
    "FP16": torch.float16,
    "BF16": torch.bfloat16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BINARY_ONLY = ("FP16", "BF16")


def pack(tensor: Tensor) -> bytes:
    """The bytes of a tensor: row-major, little-endian.

    Example:
        >>> pack(torch.tensor([1.0, -2.0], dtype=torch.bfloat16)).hex()
        '803f00c0'
    """
    plain = tensor.contiguous().reshape(-1)
    array = (plain.view(torch.int16) if tensor.dtype == torch.bfloat16 else plain).numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def unpack(raw: bytes, datatype: str, shape: Sequence[int]) -> Tensor:
    """The tensor of a datatype and shape in ``raw``; raises `AnswerError` where they do not fit.

    Example:
        >>> unpack(bytes.fromhex("803f00c0"), "BF16", [2])
        tensor([ 1., -2.], dtype=torch.bfloat16)
    """
    dtype = _dtype(datatype)
    if len(raw) != (size := math.prod(shape) * dtype.itemsize):
        raise AnswerError(f"{len(raw)} bytes of {datatype} for shape {tuple(shape)}; expected {size}")
    whole = {torch.bfloat16: torch.int16, torch.bool: torch.uint8}.get(dtype, dtype)
    kind = np.dtype(str(whole).removeprefix("torch."))
    array = np.frombuffer(raw, kind.newbyteorder("<")).astype(kind)
    found = torch.from_numpy(array)
    return (found.bool() if dtype == torch.bool else found.view(dtype)).reshape(tuple(shape))


def write_request(
    request_id: str, inputs: Mapping[str, Tensor], output: str | None, *, binary: bool
) -> tuple[dict[str, str], bytes]:
    """Headers and body of an infer request.

    Args:
        request_id: Its id.
        inputs: Tensors on the CPU, by name.
        output: The output to ask for; None for all.
        binary: Whether to send, and to ask for, bytes instead of numbers in JSON.

    Returns:
        The headers and the body.

    Raises:
        InputError: For FP16 and BF16 in JSON, which the protocol does not have.
    """
    described: list[dict[str, Any]] = [
        {"name": name, "shape": list(tensor.shape), "datatype": NAMES[tensor.dtype]} for name, tensor in inputs.items()
    ]
    message: dict[str, Any] = {"id": request_id, "inputs": described}
    if output is not None:
        message["outputs"] = [{"name": output}]
    if not binary:
        for each, tensor in zip(described, inputs.values(), strict=True):
            if each["datatype"] in BINARY_ONLY:
                raise InputError(f"{each['datatype']} cannot be sent as JSON; expected wire=binary, or datatype=FP32")
            each["data"] = tensor.flatten().tolist()
        return {"Content-Type": "application/json"}, json.dumps(message).encode()
    packed = [pack(tensor) for tensor in inputs.values()]
    for each, data in zip(described, packed, strict=True):
        each["parameters"] = {"binary_data_size": len(data)}
    if output is None:
        message["parameters"] = {"binary_data_output": True}
    else:
        message["outputs"][0]["parameters"] = {"binary_data": True}
    head = json.dumps(message).encode()
    return {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(head))}, b"".join([head, *packed])


#: Bytes of a number in JSON, with what parts it from the next, and of the largest binary one.
IN_JSON, IN_BINARY = 32, 8
#: Bytes of all of a message but its numbers.
HEAD = 2**16


def largest_response(values: int, *, binary: bool) -> int:
    """Bytes that a response with so many values has at most.

    Example:
        >>> largest_response(100, binary=True) - largest_response(0, binary=True)
        800
    """
    return HEAD + (IN_BINARY if binary else IN_JSON) * values


@dataclass(frozen=True)
class Response:
    """An answer to an infer request.

    Args:
        outputs: Tensors by name.
        said: What else it says of itself: ``id``, ``model_name`` and ``model_version``, where it has them.
    """

    outputs: Mapping[str, Tensor]
    said: Mapping[str, str] = field(default_factory=dict)


def read_response(header_length: str | None, body: bytes) -> Response:
    """What stands in a response.

    Args:
        header_length: Value of the header ``Inference-Header-Content-Length``; None where there is none.
        body: All of it.

    Returns:
        The output tensors, and what it says of itself.

    Raises:
        AnswerError: If it is not such a response.
    """
    length = len(body) if header_length is None else _length(header_length)
    message = _message(body[:length])
    rest, found = body[length:], {}
    try:
        for output in message["outputs"]:
            size = (output.get("parameters") or {}).get("binary_data_size")
            if not (size is None or is_whole(size)):
                raise AnswerError(f"binary_data_size is {size!r}; expected a number of bytes")
            raw, rest = (None, rest) if size is None else (rest[:size], rest[size:])
            if output["name"] in found:
                raise AnswerError(f"there are two outputs {output['name']!r}; expected one")
            found[output["name"]] = _tensor(output, raw)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise AnswerError(f"an output is malformed: {type(error).__name__}: {error}") from error
    if rest:
        raise AnswerError(f"{len(rest)} bytes are left over after the last output")
    said = {name: str(message[name]) for name in ("id", "model_name", "model_version") if message.get(name)}
    return Response(found, said)


def request_id(prefix: str, name: str, tensor: Tensor) -> str:
    """An id that repeats if and only if the query does: a hash of its content.

    Args:
        prefix: In front of it, as the name of a run.
        name: Of the input.
        tensor: What is sent.
    """
    digest = hashlib.sha256(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(pack(tensor))
    return prefix + digest.hexdigest()[:32]


def _length(header: str) -> int:
    # Python reads no number of thousands of digits; eighteen are more bytes than there are.
    if not (header.isascii() and header.strip().isdigit() and len(header) <= 18):
        raise AnswerError(f"{LENGTH_HEADER} is {header[:40]!r}; expected a number of bytes")
    return int(header)


def _message(head: bytes) -> Mapping[str, Any]:
    try:
        message: Any = json.loads(head)
    except (ValueError, RecursionError) as error:
        raise AnswerError("no JSON object is where one is expected") from error
    if not isinstance(message, Mapping) or not isinstance(message.get("outputs"), list) or not message["outputs"]:
        raise AnswerError("the response has no outputs")
    return message


def _tensor(output: Mapping[str, Any], raw: bytes | None) -> Tensor:
    if not (isinstance(output["shape"], list) and all(map(is_whole, output["shape"]))):
        raise ValueError(f"the shape is {output['shape']!r}"[:100])
    if raw is not None:
        return unpack(raw, output["datatype"], output["shape"])
    # NumPy reads nested lists as well as the flat one that the protocol prefers.
    data = np.asarray(output["data"])
    if data.dtype.kind not in "fiub":
        raise TypeError(f"the data of {output['name']!r} are not numbers")
    return torch.from_numpy(data).to(_dtype(output["datatype"])).reshape(tuple(output["shape"]))


def _dtype(datatype: str) -> torch.dtype:
    if datatype not in DTYPES:
        raise AnswerError(f"datatype {datatype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[datatype]
