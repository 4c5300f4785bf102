"""Weights from a file: safetensors, or PyTorch's format without code; never a silent fallback; and their conversion."""

from __future__ import annotations

import hashlib
import pickle
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.core.locking import owned
from segradius.core.screen import warn
from segradius.core.seal import check_tensors
from segradius.core.storage import replacing
from segradius.models.file_kinds import PYTORCH, SAFETENSORS, FileKind, is_damaged, kind_of

SUFFIX = ".safetensors"
PYTORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
ENVELOPES = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.")  # DataParallel and DistributedDataParallel; Lightning
PREFIXED = re.compile(f"^({'|'.join(map(re.escape, PREFIXES))})+")
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
        InputError: If the file is missing, of another kind (a pointer of git-lfs, a page, an archive…; the message says
            which), truncated or corrupt, holds Python objects that could run code, or holds no tensors.
    """
    path = Path(path)
    if check_kind(path) is SAFETENSORS:
        return _read_safetensors(path)
    return _tensors_in(read_pytorch(path), path)


def check_kind(path: Path) -> FileKind:
    """`SAFETENSORS` or `PYTORCH`; `InputError` for anything else, or one under the other's name, with what it is."""
    if re.search(r"(^|/)(https?|s3|gs|ftp):/", str(path)):
        raise InputError(f"weights {str(path)!r} are an address; download the file and give its path")
    if path.is_dir():
        raise InputError(f"weights {str(path)!r} are a folder; expected a file, .safetensors or a checkpoint")
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
        raise InputError(f"{told} is {kind.what}: {kind.advice}")
    suffixes = (SUFFIX,) if kind is SAFETENSORS else PYTORCH_SUFFIXES
    if path.suffix not in suffixes:
        right = f"{path.stem}{SUFFIX if kind is SAFETENSORS else '.pth'}"
        raise InputError(f"{told} is {kind.what} under another name: rename it to {right}")
    return kind


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str | Path = "the weights") -> None:
    """Copy a state into a network, strictly, in the network's dtypes.

    ``module.`` and ``model.`` in front of every name are dropped, in any order, where the network has no such names. A
    network can declare two tuples of name prefixes: entries under ``IGNORED`` (a training wrapper's) are left out; what
    is under one of ``OPTIONAL`` (an auxiliary head) may be absent as a whole from the file, and then stays as it was
    initialised, or from the network.

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
    given = strip_prefixes(without_ignored(state, getattr(network, "IGNORED", ())), wanted)
    given = match_optional(given, wanted, getattr(network, "OPTIONAL", ()))
    try:
        network.load_state_dict(given, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{str(source)!r} does not fit {type(network).__name__}: {_differences(given, wanted) or error}"
        ) from error


def strip_prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> dict[str, Tensor]:
    """A copy of ``state`` without the prefixes that all its names have and those in ``wanted`` have not.

    Example:
        >>> list(strip_prefixes({"module.model.w": torch.zeros(1)}, {"w": None}))
        ['w']
    """
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if _all_start(stripped, p) and not _all_start(wanted, p)), None):
        stripped = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
    return stripped


def without_ignored(state: Mapping[str, Tensor], ignored: tuple[str, ...]) -> dict[str, Tensor]:
    """A copy of ``state`` without the entries whose names start with one of ``ignored``, before or after prefixes.

    Example:
        >>> state = {"model.w": torch.zeros(1), "module.loss.weight": torch.zeros(1)}
        >>> list(without_ignored(state, ("loss.",)))
        ['model.w']
    """
    return {name: tensor for name, tensor in state.items() if not PREFIXED.sub("", name).startswith(ignored)}


def match_optional(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: tuple[str, ...]
) -> dict[str, Tensor]:
    """A copy of ``state`` in which the optional groups are there that ``wanted`` has, and no others.

    Args:
        state: Names and tensors of the file.
        wanted: Those of the network.
        optional: Name prefixes. The names under one are a group: only a group that one side lacks altogether is filled
            from ``wanted`` or dropped, so that a half of one remains a difference.

    Example:
        >>> state, network = {"w": torch.ones(1)}, {"w": torch.zeros(1), "aux.w": torch.zeros(1)}
        >>> match_optional(state, network, ("aux.",))
        {'w': tensor([1.]), 'aux.w': tensor([0.])}
    """
    matched = dict(state)
    for prefix in optional:
        group = {name: tensor for name, tensor in wanted.items() if name.startswith(prefix)}
        found = [name for name in matched if name.startswith(prefix)]
        if not found:
            matched |= group
        elif not group:
            matched = {name: tensor for name, tensor in matched.items() if name not in found}
    return matched


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; raises `InputError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
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


def open_envelopes(content: Any) -> Any:
    """What is inside ``state_dict``, ``model_state_dict`` or ``model``, where there are such.

    Example:
        >>> open_envelopes({"epoch": 3, "state_dict": {"w": 1}})
        {'w': 1}
    """
    for envelope in ENVELOPES:
        if isinstance(content, Mapping) and isinstance(content.get(envelope), Mapping):
            content = content[envelope]
    return content


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    content = open_envelopes(content)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{str(path)!r} holds a {type(content).__name__}; expected names and tensors (a state_dict)")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{str(path)!r} holds a {type(value).__name__} under {name!r}; expected only tensors")
    return dict(content)


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return bool(names) and all(name.startswith(prefix) for name in names)


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> str:
    shapes = [
        f"{name} ({tuple(tensor.shape)} in the file, {tuple(wanted[name].shape)} in the network)"
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    lists = {
        # Counters of batches came with PyTorch 0.4.1; torch supplies them where a file is older.
        "missing": [name for name in wanted if name not in given and not name.endswith(".num_batches_tracked")],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in lists.items() if names)


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


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
    if check_kind(source) is SAFETENSORS:
        raise InputError(f"{str(source)!r} is a safetensors file already; there is nothing to convert")
    _check_target(target, overwrite)
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
