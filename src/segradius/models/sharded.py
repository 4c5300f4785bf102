"""Weights in several files, with a list of which tensor is in which, as transformers saves large networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.safe_json import read_json
from segradius.core.sums import sum_of
from segradius.models.file_kinds import INDEX, SAFETENSORS, kind_of
from segradius.models.weight_files import check_kind, read_pytorch, read_safetensors, sha256_of

INDEXES = ("*.safetensors.index.json", "*.bin.index.json")
SHOWN = 3


def index_in(path: Path) -> Path | None:
    """The list of shards that a path is, or that a folder holds, of safetensors where there are two; None for neither.

    Raises:
        InputError: A folder holds several of a kind.
    """
    if path.is_dir():
        for pattern in INDEXES:
            found = sorted(path.glob(pattern))
            if len(found) > 1:
                raise InputError(f"weights {str(path)!r} hold {_listed([it.name for it in found])}: give one of them")
            if found:
                return found[0]
        return None
    try:
        return path if path.is_file() and kind_of(path) is INDEX else None
    except OSError as error:
        raise InputError(f"cannot read {str(path)!r}: {error.strerror}") from error


def shards_of(index: Path) -> dict[str, list[str]]:
    """Names of tensors by the file that they are in.

    Raises:
        InputError: The list cannot be read, names a tensor twice, or a file that is not beside it.
    """
    try:
        listed = read_json(index)["weight_map"]
    except InputError:
        raise
    except (KeyError, TypeError) as error:
        raise InputError(f"{str(index)!r} is no list of weight files: {type(error).__name__}: {error}") from error
    if not isinstance(listed, Mapping) or not listed:
        raise InputError(f"{str(index)!r} lists no weights")
    found: dict[str, list[str]] = {}
    for name, file in listed.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InputError(f"{str(index)!r} names {file!r} for {name!r}; expected a file in the same folder")
        found.setdefault(file, []).append(name)
    missing = [file for file in sorted(found) if not (index.parent / file).is_file()]
    if missing:
        raise InputError(
            f"{str(index)!r} is a list of weight files, of which {len(missing)} of {len(found)} are missing: "
            f"{_listed(missing)}; put them beside it"
        )
    return found


def read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors of a list's shards, on the CPU.

    Raises:
        InputError: A shard is missing, damaged or of another kind, lacks a tensor that it should have, or has one that
            is in another shard or in no list.
    """
    found: dict[str, Tensor] = {}
    home: dict[str, str] = {}
    for file, names in sorted(shards_of(index).items()):
        held = _read(index.parent / file)
        lacking = [name for name in names if name not in held]
        if lacking:
            raise InputError(f"{str(index.parent / file)!r} lacks {_listed(lacking)}, which {index.name} says is in it")
        for name in held:
            if name in home:
                raise InputError(f"{str(index.parent / file)!r} and {home[name]!r} both hold {name!r}")
            if name not in names:
                raise InputError(
                    f"{str(index.parent / file)!r} holds {name!r}, which {index.name} does not say is in it"
                )
        home |= dict.fromkeys(held, file)
        found |= held
    return found


def digest_of(weights: Path) -> str:
    """SHA-256 of weights, as a card states it; of shards that of the lines which ``sha256sum`` gives of them.

    The lines are in the order of the names, the list's own among them.

    Raises:
        InputError: A file cannot be read.
    """
    if (index := index_in(weights)) is None:
        return sha256_of(weights)
    names = sorted([index.name, *shards_of(index)])
    return sum_of("".join(f"{sha256_of(index.parent / name)}  {name}\n" for name in names))


def _read(shard: Path) -> dict[str, Tensor]:
    if check_kind(shard) is SAFETENSORS:
        return read_safetensors(shard)
    content = read_pytorch(shard)
    if not isinstance(content, Mapping) or not all(isinstance(each, Tensor) for each in content.values()):
        raise InputError(f"{str(shard)!r} holds more than names and tensors; expected a shard of weights")
    return dict(content)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
