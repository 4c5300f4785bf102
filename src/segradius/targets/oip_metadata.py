"""What a server says of its model: names, types and shapes of inputs and outputs, and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from segradius.errors import TargetError
from segradius.targets.oip_http import Line
from segradius.targets.oip_wire import DTYPES
from segradius.targets.signature import TensorSpec


def read_metadata(line: Line) -> Mapping[str, Any]:
    """What the server says of the model; raises `TargetError` where that is not a JSON object."""
    body = line.get().body
    try:
        metadata = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TargetError(
            f"{line.url} answered with no JSON; expected the metadata of a model at http://HOST:PORT/v2/models/NAME"
        ) from error
    if not isinstance(metadata, Mapping):
        raise TargetError(f"{line.url} answered with {type(metadata).__name__}; expected the metadata of a model")
    return metadata


def declared(
    metadata: Mapping[str, Any], key: str, name: str | None, datatype: str | None, shape: tuple[None, ...]
) -> Sequence[TensorSpec]:
    """The inputs or outputs that the metadata declare, or else one tensor.

    Args:
        metadata: From `read_metadata`.
        key: ``"inputs"`` or ``"outputs"``.
        name: Of the tensor where nothing is declared; None for no such tensor.
        datatype: Of all of them, in place of the declared.
        shape: Of the tensor where nothing is declared.

    Returns:
        The tensors, float32 where no datatype is said.

    Raises:
        TargetError: If the metadata are malformed.
    """
    tensors = metadata.get(key) or ([] if name is None else [{"name": name, "shape": shape}])
    try:
        return [
            TensorSpec(
                tensor["name"],
                DTYPES.get(datatype or tensor.get("datatype") or "FP32", torch.complex64),
                tuple(side if isinstance(side, int) and side > 0 else None for side in tensor["shape"]),
            )
            for tensor in tensors
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise TargetError(f"the server's metadata have malformed {key}: {error!r}") from error
