"""Weights from a file, in one piece or in shards; never a silent fallback; and their conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.core.locking import owned
from segradius.core.screen import warn
from segradius.core.storage import replacing
from segradius.models.file_kinds import DEEPSPEED, SAFETENSORS
from segradius.models.sharded import index_in, read_shards
from segradius.models.weight_files import SUFFIX, check_kind, read_pytorch, read_safetensors, sha256_of
from segradius.models.weight_sets import choose, parted, under


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU.

    Args:
        path: A ``.safetensors`` file; one of PyTorch's (``.pt``, ``.pth``, ``.bin``, ``.ckpt``, ``.tar``), which is
            read with ``weights_only=True``; or a list of shards, ``….index.json``, or a folder that holds one. What is
            inside ``state_dict``, ``model_state_dict``, ``model``… is taken out. Of several sets of weights the
            network's own is taken, which is told; ``FILE,key=NAME`` says which, or which beginning of the names.

    Returns:
        Names and tensors, in the dtypes of the file.

    Raises:
        InputError: If a file is missing, of another kind (a pointer of git-lfs, a page, an archive…; the message says
            which), truncated or corrupt, holds Python objects that could run code, holds no tensors, or several sets
            without saying which is the network's.
    """
    file, key = parted(path)
    if (index := index_in(file)) is not None:
        state = read_shards(index)
    elif check_kind(file) is SAFETENSORS:
        state = read_safetensors(file)
    else:
        chosen = choose(_without_deepspeed(read_pytorch(file), file), file, key)
        if told := chosen.told(file):
            warn(told)
        return _tensors_in(chosen.weights, file)
    return state if key is None else under(state, key, file)


def _without_deepspeed(content: Any, path: Path) -> Any:
    if isinstance(content, Mapping) and {"ds_version", "ds_config"} & {*content}:
        raise InputError(f"{str(path)!r} is a part of a DeepSpeed checkpoint: {DEEPSPEED}")
    return content


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{str(path)!r} holds a {type(content).__name__}; expected names and tensors (a state_dict)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{str(path)!r} holds a {type(value).__name__} under {name!r}; expected only tensors")
    return dict(content)


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
        source: ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or ``.tar``, read without running code where that is possible;
            with ``,key=NAME`` as in `load_state`; or a list of shards.
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
    (source, key), target = parted(source), Path(target)
    index = index_in(source)
    if index is None and check_kind(source) is SAFETENSORS:
        raise InputError(f"{str(source)!r} is a safetensors file already; there is nothing to convert")
    _check_target(target, overwrite)
    content = read_pytorch(source, allow_unsafe=allow_unsafe) if index is None else read_shards(index)
    tensors, dropped = split_tensors(_without_deepspeed(content, source), source, key)
    if not tensors:
        held = f"a {type(content).__name__}" + (f" of {', '.join(dropped[:5])}" if dropped else "")
        raise InputError(f"{str(source)!r} holds {held}; expected names and tensors (a state_dict)")
    _write(unshared(tensors), target)
    return Conversion(target, len(tensors), dropped, sha256_of(target))


def split_tensors(
    content: Any, path: str | Path = "the checkpoint", key: str | None = None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The named tensors of a checkpoint's content, and the names of all else, outside and inside its envelope.

    Args:
        content: Of a file.
        path: Of the file, for messages.
        key: Which of its sets of weights; see `choose`.

    Example:
        >>> split_tensors({"model": {"w": torch.zeros(1), "classes": 3}, "epoch": 7})
        ({'w': tensor([0.])}, ('epoch', 'classes'))
    """
    content = _states(content)
    chosen = choose(content, path, key)
    if told := chosen.told(path):
        warn(told)
    inside = chosen.weights
    if not isinstance(inside, Mapping):
        return {}, ()
    first = chosen.name.partition(".")[0]
    outside = (str(name) for name in content if name != first) if chosen.name else ()
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


def _check_target(target: Path, overwrite: bool) -> None:
    if target.suffix != SUFFIX:
        raise InputError(f"target {str(target)!r}: expected a name that ends in {SUFFIX}")
    if not target.parent.is_dir():
        raise InputError(f"target {str(target)!r}: the folder {str(target.parent)!r} does not exist")
    if target.is_dir() or (target.exists() and not overwrite):
        raise InputError(f"target {str(target)!r} exists; it is replaced only with overwrite (--overwrite)")


def _write(tensors: dict[str, Tensor], target: Path) -> None:
    try:
        with owned(target, warn=warn), replacing(target) as new:
            save_file(tensors, new, metadata={"format": "pt"})
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"cannot write {str(target)!r}: {type(error).__name__}: {error}") from error
