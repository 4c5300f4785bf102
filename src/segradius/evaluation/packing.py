"""From what is stored to the columns of a row, and back: JSON, and compressed values of arrays."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from segradius.evaluation.rows import Kept
from segradius.evaluation.trace import pack
from segradius.metrics.counts import Pixels

T = TypeVar("T")


def column(value: Any) -> Any:
    """JSON for lists and dicts; SQLite has no NaN of its own, so it becomes NULL."""
    if isinstance(value, Pixels):
        value = value.plain
    if isinstance(value, Mapping):
        value = {name: inner.plain if isinstance(inner, Pixels) else inner for name, inner in value.items()}
    if isinstance(value, list | tuple | dict):
        return json.dumps(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def packed(tensor: Tensor, kind: str) -> tuple[str, bytes]:
    """Shape and compressed values of a tensor, as a NumPy type of this name."""
    values = tensor.detach().cpu().contiguous().numpy().astype(kind)
    return json.dumps(tensor.shape), zlib.compress(values.tobytes(), 1)


def unpacked(row: Sequence[Any], kind: str) -> Tensor:
    """The tensor that `packed` was given, of a NumPy type."""
    shape, content = row
    return torch.from_numpy(np.frombuffer(zlib.decompress(content), dtype=kind).reshape(json.loads(shape)).copy())


def tables(attack: str, kept: Kept) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of the tables of a store beside that of results."""

    def rows(parts: Mapping[str, T], columns: Callable[[T], Sequence[Any]]) -> list[tuple[Any, ...]]:
        return [(attack, image, *columns(part)) for image, part in parts.items()]

    return {
        "examples": rows(kept.adversarial, lambda image: packed(image, "<f4")),
        "predictions": rows(kept.predictions, lambda seen: packed(seen, "<i2")),
        "traces": rows(kept.traces, lambda trace: (pack(trace),)),
        "records": rows(kept.records, lambda record: (record,)),
        "confusions": rows(kept.confusions, lambda cells: packed(cells, "<i4")),
        "rounded": rows(kept.rounded, lambda it: [column(getattr(it, f.name)) for f in fields(it)]),
        "gallery": rows(kept.gallery, lambda it: (it.remaining, *packed(it.before, "<i2"))),
    }
