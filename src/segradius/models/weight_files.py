"""One file of weights: what it is, and its content; a pickle is never let run."""

from __future__ import annotations

import hashlib
import pickle
import re
import shlex
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.seal import check_tensors
from segradius.models.file_kinds import PYTORCH, SAFETENSORS, FileKind, folder_kind, is_damaged, kind_of

SUFFIX = ".safetensors"
PYTORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def check_kind(path: Path) -> FileKind:
    """`SAFETENSORS` or `PYTORCH`; `InputError` for anything else, or one under the other's name, with what it is."""
    if re.search(r"(^|/)(https?|s3|gs|ftp):/", str(path)):
        raise InputError(f"weights {str(path)!r} are an address; download the file and give its path")
    if path.is_dir():
        held = folder_kind(path)
        raise InputError(f"weights {str(path)!r} are a folder{f', {held.what}' if held.what else ''}: {held.advice}")
    if not path.is_file():
        raise InputError(f"weights file {str(path)!r} does not exist or is not a file")
    try:
        kind = kind_of(path)
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error
    told = f"weights file {str(path)!r}"
    if kind is None:
        known = path.suffix == SUFFIX or path.suffix in PYTORCH_SUFFIXES
        if not known:
            raise InputError(f"{told}: expected .safetensors or one of {', '.join(PYTORCH_SUFFIXES)}")
        raise InputError(
            f"{told} is no checkpoint (truncated, corrupt or another format): get it again from its source"
        )
    if kind not in (SAFETENSORS, PYTORCH):
        raise InputError(f"{told} is {kind.what}: {kind.advice.replace('FILE', str(path))}")
    suffixes = (SUFFIX,) if kind is SAFETENSORS else PYTORCH_SUFFIXES
    if path.suffix not in suffixes:
        right = f"{path.stem}{SUFFIX if kind is SAFETENSORS else '.pth'}"
        raise InputError(f"{told} is {kind.what} under another name: rename it to {right}")
    return kind


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU; `InputError` if it is damaged."""
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            check_tensors(tensors, file.metadata() or {}, path)
        return tensors
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{str(path)!r} is not a readable safetensors file (truncated, corrupt or another format): {error}"
        ) from error


def read_pytorch(path: Path, *, allow_unsafe: bool = False) -> Any:
    """The content of a file that ``torch.save`` wrote, on the CPU.

    Args:
        path: The file.
        allow_unsafe: Rebuild Python objects in it as well, which runs whatever code the file names.

    Raises:
        InputError: If it is damaged, cannot be rebuilt, or holds Python objects while ``allow_unsafe`` is false.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if is_damaged(path):
            raise InputError(_damage(path, error)) from error
        if not allow_unsafe:
            raise InputError(_refusal(path, error)) from error
    except Exception as error:
        raise InputError(_damage(path, error)) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise InputError(_damage(path, error)) from error


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises `InputError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _refusal(path: Path, error: Exception) -> str:
    return (
        f"{str(path)!r} is refused: it holds {_objects_in(path, error)}. To rebuild them runs whatever code the file "
        "names, with your rights: it could read, change or send away anything that you can. Only for a file whose "
        "origin you trust, convert it once, which runs its code now and keeps nothing but the tensors: "
        + shlex.join(["segradius", "models", "convert", str(path), f"{path.stem}.safetensors", "--allow-unsafe-pickle"])
    )


def _objects_in(path: Path, error: Exception) -> str:
    """All that a refused file asks for, not only the first, behind which a worse one may stand."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the scan does not know PyTorch's format before 1.6, nor later pickle protocols
        names = [f"{name}, and perhaps others" for name in re.findall(r"GLOBAL (\S+)", str(error))[:1]]
    return f"Python objects ({', '.join(names)})" if names else "something other than tensors"


def _damage(path: Path, error: Exception) -> str:
    # Whatever a damaged file makes of the reader: RuntimeError, EOFError, struct.error, KeyError
    return (
        f"{str(path)!r} is not a readable PyTorch checkpoint (truncated, corrupt or another format): "
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more data'}"
    )
