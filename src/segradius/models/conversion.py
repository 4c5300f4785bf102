"""From PyTorch's checkpoints to safetensors, which hold tensors and nothing that could run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from segradius.errors import InputError
from segradius.models.checkpoints import PYTORCH_SUFFIXES, open_envelopes, read_pytorch, sha256_of
from segradius.storage import replacing

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote, and what it left out.

    Args:
        target: The file.
        tensors: Number of tensors in it.
        dropped: Names of what the source holds beside them: epoch, optimiser, arguments.
        sha256: Of the file, in hexadecimal, as a card states it.
    """

    target: Path
    tensors: int
    dropped: tuple[str, ...]
    sha256: str


def convert(
    source: str | Path, target: str | Path, *, allow_unsafe: bool = False, overwrite: bool = False
) -> Conversion:
    """Write the tensors of a PyTorch checkpoint into a safetensors file, whole or not at all.

    The names stay as `load_state` gives them: envelopes such as ``state_dict`` are opened, prefixes such as ``module.``
    are kept, as `load_into` sees to them. A whole `nn.Module` counts as its ``state_dict``.

    Args:
        source: ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or ``.tar``, read without running code where that is possible.
        target: A ``.safetensors`` file, in a folder that exists.
        allow_unsafe: If the file holds Python objects, rebuild them, which runs whatever code it names, now. Only for a
            file whose origin you trust.
        overwrite: Replace a target that exists.

    Returns:
        What was written.

    Raises:
        InputError: If the source is missing, of another kind or damaged, holds no tensors, or holds Python objects
            without ``allow_unsafe`` (the message names them); if the target exists or cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"w": torch.ones(2, 3).T}, "epoch": 7}, f"{folder}/net.pth")
        ...     done = convert(f"{folder}/net.pth", f"{folder}/net.safetensors")
        >>> done.tensors, done.dropped
        (1, ('epoch',))
    """
    source, target = Path(source), Path(target)
    _check_paths(source, target, overwrite)
    content = read_pytorch(source, allow_unsafe=allow_unsafe)
    tensors, dropped = split_tensors(content)
    if not tensors:
        held = f"a {type(content).__name__}" + (f" of {', '.join(dropped[:5])}" if dropped else "")
        raise InputError(f"{str(source)!r} holds {held}; expected names and tensors (a state_dict)")
    _write(unshared(tensors), target)
    return Conversion(target, len(tensors), dropped, sha256_of(target))


def split_tensors(content: Any) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The named tensors of a checkpoint's content, and the names of all else, outside and inside its envelope.

    Example:
        >>> split_tensors({"model": {"w": torch.zeros(1), "classes": 3}, "epoch": 7})
        ({'w': tensor([0.])}, ('epoch', 'classes'))
    """
    content = _states(content)
    inside = open_envelopes(content)
    if not isinstance(inside, Mapping):
        return {}, ()
    outside = () if inside is content else (str(name) for name, value in content.items() if value is not inside)
    tensors = {name: value for name, value in inside.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return tensors, (*outside, *(str(name) for name in inside if name not in tensors))


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values, each contiguous in memory of its own, as safetensors files need them.

    Example:
        >>> w = torch.arange(6.0).view(2, 3)
        >>> own = unshared({"w": w, "tied": w, "turned": w.T})
        >>> own["w"] is own["tied"], own["turned"].is_contiguous(), own["turned"].equal(w.T)
        (False, True, True)
    """
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach()
        place = plain.untyped_storage().data_ptr()
        alone = place not in taken and plain.is_contiguous()
        found[name] = plain if alone else plain.clone(memory_format=torch.contiguous_format)
        taken.add(place)
    return found


def _states(content: Any) -> Any:
    """Modules replaced by their ``state_dict``, at the top and one level below."""
    if isinstance(content, nn.Module):
        return content.state_dict()
    if isinstance(content, Mapping) and any(isinstance(value, nn.Module) for value in content.values()):
        return {name: value.state_dict() if isinstance(value, nn.Module) else value for name, value in content.items()}
    return content


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    if not source.is_file():
        raise InputError(f"weights file {str(source)!r} does not exist or is not a file")
    if source.suffix not in PYTORCH_SUFFIXES:
        raise InputError(f"weights file {str(source)!r}: expected one of {', '.join(PYTORCH_SUFFIXES)}")
    if target.suffix != SUFFIX:
        raise InputError(f"target {str(target)!r}: expected a name that ends in {SUFFIX}")
    if not target.parent.is_dir():
        raise InputError(f"target {str(target)!r}: the folder {str(target.parent)!r} does not exist")
    if target.is_dir() or (target.exists() and not overwrite):
        raise InputError(f"target {str(target)!r} exists; it is replaced only with overwrite (--overwrite)")


def _write(tensors: dict[str, Tensor], target: Path) -> None:
    try:
        with replacing(target) as new:
            save_file(tensors, new, metadata={"format": "pt"})
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"cannot write {str(target)!r}: {type(error).__name__}: {error}") from error
