"""Checksums of what is stored, so that damage is noticed when it is read: of values, of tensors and of archives."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from segradius.core.errors import DamagedError, SegradiusError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Value = None | int | float | str | bytes

#: The entry of the metadata of a safetensors file that holds the checksum of its tensors.
SEAL = "checksum"


def seal(*values: Value) -> str:
    """A checksum of values in their order, 128 bits in hexadecimal; 1, 1.0, "1" and None are different values.

    Example:
        >>> seal("pgd", 1, None) == seal("pgd", 1, None), seal("pgd", 1) == seal("pgd", 1.0), len(seal())
        (True, False, 32)
    """
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        kind, content = _plain(value)
        found.update(kind + struct.pack("<q", len(content)))
        found.update(content)
    return found.hexdigest()


def seal_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """A checksum of tensors by name: their types, shapes and values, in whatever order they are.

    Example:
        >>> import torch
        >>> a, b = torch.zeros(2), torch.ones(1)
        >>> seal_of_tensors({"a": a, "b": b}) == seal_of_tensors({"b": b, "a": a}) != seal_of_tensors({"a": b, "b": a})
        True
    """
    from segradius.core.digests import tensor_digest  # brings torch

    return seal(*(part for name in sorted(tensors) for part in (name, tensor_digest(tensors[name]))))


def labelled(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata for a safetensors file of some tensors: their checksum.

    One entry and no more, as the library writes several in an order that differs from process to process.
    """
    return {SEAL: seal_of_tensors(tensors)}


def check_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], source: str | Path) -> None:
    """Raise `DamagedError` where the metadata of a safetensors file has the checksum of other tensors.

    Example:
        >>> import torch
        >>> check_tensors({"w": torch.ones(1)}, labelled({"w": torch.zeros(1)}), "best.safetensors")
        Traceback (most recent call last):
        segradius.core.errors.DamagedError: best.safetensors is damaged: its tensors have another checksum than ...
    """
    if SEAL in metadata and metadata[SEAL] != seal_of_tensors(tensors):
        raise DamagedError(f"{source} is damaged: its tensors have another checksum than when they were written")


def read_json(path: Path, content: bytes | None = None) -> dict[str, Any]:
    """The JSON object in a file that segradius wrote.

    Args:
        path: The file.
        content: Its content, where it was read already.

    Raises:
        DamagedError: It holds none.
    """
    found = readable(lambda: json.loads(path.read_bytes() if content is None else content), path, "a JSON report")
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is damaged; expected a JSON report: it holds a {type(found).__name__}")
    return found


def check_archive(file: Path | IO[bytes], source: str | Path) -> None:
    """Raise `DamagedError` unless a zip archive, as ``torch.save`` and ``numpy.savez`` write them, is whole.

    The archive holds a checksum of every member, which neither of the two looks at when it reads one.

    Args:
        file: The archive, which is read once.
        source: For the message.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    while content.read(2**20):
                        pass
    except OSError:
        raise
    except Exception as error:  # BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error …
        raise DamagedError(f"{source} is damaged: {error or type(error).__name__}") from error


def readable(read: Callable[[], T], source: str | Path, what: str) -> T:
    """What ``read`` gives; whatever goes wrong in it is a `DamagedError` that names the file.

    Args:
        read: Reads and parses.
        source: The file.
        what: What was expected, as in "a report".

    Example:
        >>> readable(lambda: json.loads('{"a'), "results.json", "a report")
        Traceback (most recent call last):
        segradius.core.errors.DamagedError: results.json is damaged; expected a report: Unterminated string starting ...
    """
    try:
        return read()
    except (OSError, SegradiusError, MemoryError):
        raise
    except Exception as error:
        told = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(f"{source} is damaged; expected {what}: {told}") from error


def _plain(value: Value) -> tuple[bytes, bytes]:
    if value is None:
        return b"n", b""
    if isinstance(value, bytes):
        return b"b", value
    if isinstance(value, str):
        return b"s", value.encode("utf-8", "surrogatepass")
    return (b"f", struct.pack("<d", value)) if isinstance(value, float) else (b"i", str(int(value)).encode())
