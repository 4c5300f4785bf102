"""Weights from a file: safetensors, or PyTorch's format without code; never a silent fallback."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from segradius.errors import InputError

PYTORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
ENVELOPES = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")  # DataParallel and DistributedDataParallel; Lightning
SHOWN = 5


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU.

    Args:
        path: A ``.safetensors`` file, or one of PyTorch's (``.pt``, ``.pth``, ``.bin``, ``.ckpt``, ``.tar``), which is
            read with ``weights_only=True``. A dictionary inside ``state_dict``, ``model_state_dict`` or ``model`` is
            taken out.

    Returns:
        Names and tensors, in the dtypes of the file.

    Raises:
        InputError: If the file is missing, of another kind, truncated or corrupt, holds Python objects that could run
            code, or holds no tensors; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights file {str(path)!r} does not exist or is not a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PYTORCH_SUFFIXES:
        return _tensors_in(_read_pytorch(path), path)
    raise InputError(f"weights file {str(path)!r}: expected .safetensors or one of {', '.join(PYTORCH_SUFFIXES)}")


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Copy a state into a network, strictly, in the network's dtypes.

    ``module.`` and ``model.`` in front of every name are dropped where the network has no such names.

    Args:
        network: The network; after an error it may hold a part of the state.
        state: Names and tensors, as `load_state` gives.
        source: Where they come from, for the message.

    Raises:
        InputError: If names are missing or unexpected, or shapes differ; the message lists them.

    Example:
        >>> network = nn.Conv2d(3, 2, 1)
        >>> load_into(network, {"module.weight": torch.ones(2, 3, 1, 1).bfloat16(), "module.bias": torch.zeros(2)})
        >>> network.weight.dtype, network.weight.sum().item()
        (torch.float32, 6.0)
    """
    wanted = network.state_dict()
    given = strip_prefixes(state, wanted)
    try:
        network.load_state_dict(given, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{str(source)!r} does not fit {type(network).__name__}: {_differences(given, wanted) or error}"
        ) from error


def strip_prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """A copy of ``state`` without a prefix that all its names have and those in ``wanted`` have not.

    Example:
        >>> list(strip_prefixes({"module.model.w": torch.zeros(1)}, {"w": None}))
        ['w']
    """
    stripped = dict(state)
    for prefix in PREFIXES:
        if stripped and _all_start(stripped, prefix) and not _all_start(wanted, prefix):
            stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises `InputError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{str(path)!r} is not a readable safetensors file (truncated, corrupt or another format): {error}"
        ) from error


def _read_pytorch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        objects = f"Python objects ({found[1]})" if found else "something other than tensors"
        raise InputError(
            f"{str(path)!r} is refused: it holds {objects}, which can run code on loading. If you trust its "
            "origin, convert it once, in a place of your own: state = torch.load(FILE, weights_only=False), take its "
            "tensors, and safetensors.torch.save_file({name: tensor.contiguous(), …}, 'weights.safetensors')"
        ) from error
    except (
        Exception
    ) as error:  # whatever a damaged file makes of the reader: RuntimeError, EOFError, struct.error, KeyError
        raise InputError(
            f"{str(path)!r} is not a readable PyTorch checkpoint (truncated, corrupt or another format): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more data'}"
        ) from error


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    for envelope in ENVELOPES:
        if isinstance(content, Mapping) and isinstance(content.get(envelope), Mapping):
            content = content[envelope]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{str(path)!r} holds a {type(content).__name__}; expected names and tensors (a state_dict)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{str(path)!r} holds a {type(value).__name__} under {name!r}; expected only tensors")
    return dict(content)


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return all(name.startswith(prefix) for name in names)


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    shapes = [
        f"{name} ({tuple(tensor.shape)} in the file, {tuple(wanted[name].shape)} in the network)"
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    lists = {
        "missing": [name for name in wanted if name not in given],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in lists.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
