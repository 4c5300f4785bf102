"""What an ONNX file needs beside itself: its weights in other files, found by reading the file's own structure."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Fields of onnx.proto that lead to tensors and attributes, by message: number of the field → message inside.
WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {4: "text", 5: "tensor", 6: "graph", 9: "text", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "entry"},
    "entry": {2: "text"},
}
LONGEST = 1024


class Field(NamedTuple):
    """A field with a length: its number, and where its bytes begin and end."""

    number: int
    start: int
    end: int


def files_beside(path: Path) -> dict[str, Path]:
    """The files in the folder of an ONNX file that it names, by that name: external weights, compiled contexts.

    Whatever they are called: ``location`` of external data is followed, and every text among a node's attributes.

    Args:
        path: The file; one that is damaged names what can be read of it.
    """
    found: dict[str, Path] = {}
    with path.open("rb") as file:
        if not path.stat().st_size:
            return {}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            for field in _texts(content, "model", 0, len(content)):
                if field.end - field.start > LONGEST:
                    continue
                try:
                    name = content[field.start : field.end].decode()
                    if name and name not in found and (path.parent / name).is_file():
                        found[name] = path.parent / name
                except (ValueError, OSError):  # no name of a file: not UTF-8, a NUL, too long
                    continue
    return found


def _texts(content: mmap.mmap, message: str, start: int, end: int) -> Iterator[Field]:
    """Texts that may name a file, at any depth."""
    waiting = [(message, start, end)]
    while waiting:
        message, start, end = waiting.pop()
        for field in _fields(content, start, end):
            inner = WAYS[message].get(field.number)
            if inner == "text":
                yield field
            elif inner is not None:
                waiting.append((inner, field.start, field.end))


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields with a length of a message in protobuf's encoding, up to where it makes no sense."""
    while at < end:
        key, at = _varint(content, at, end)
        if at < 0 or key & 7 not in (0, 1, 2, 5):
            return
        if key & 7 == 2:
            length, at = _varint(content, at, end)
            if at < 0 or at + length > end:
                return
            yield Field(key >> 3, at, at + length)
            at += length
        elif key & 7 == 0:
            _, at = _varint(content, at, end)
            if at < 0:
                return
        else:
            at += 8 if key & 7 == 1 else 4


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number and where it ends; there −1 where it does not."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if not byte & 128:
            return value, at
    return 0, -1
