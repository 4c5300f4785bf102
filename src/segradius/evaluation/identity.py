"""Descriptions of experiments as plain data: their hash, and what keeps one from going on with another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from segradius.core.errors import InputError


def plain(value: Any) -> Any:
    """``value`` made of dicts, lists, strings, numbers, booleans and None only, as JSON holds it.

    Functions become their qualified names. Raises `InputError` for what has no lasting description.

    Example:
        >>> plain({"weights": (1.0, 2.0), "loss": max})
        {'weights': [1.0, 2.0], 'loss': 'builtins.max'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, torch.dtype | PurePath):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    raise InputError(f"{value!r} cannot be part of an experiment: give a number, a string, or a list or dict of those")


def fingerprint_of(described: Mapping[str, Any]) -> str:
    """A short hash of a description, equal on every machine."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def conflict(described: Mapping[str, Any], earlier: Mapping[str, Any]) -> str | None:
    """What keeps an experiment from going on with an earlier one; None where nothing does.

    Nothing may differ, save that there may be more images, and weights under another name that are the same.

    Args:
        described: The experiment, with ``model`` and ``data`` as `ModelChoice` and `DataChoice` have them.
        earlier: The earlier one.

    Example:
        >>> conflict({"seed": 1, "data": {"limit": None}}, {"seed": 0, "data": {"limit": 3}})
        'seed is 1, and 0 in the earlier run'
        >>> conflict({"seed": 0, "data": {"limit": None}}, {"seed": 0, "data": {"limit": 3}})
    """
    mine, theirs = _flat(described), _flat(earlier)
    if mine.get("model.fingerprint") and mine["model.fingerprint"] == theirs.get("model.fingerprint"):
        mine.pop("model.weights", None), theirs.pop("model.weights", None)
    limit, floor = mine.pop("data.limit", None), theirs.pop("data.limit", None)
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            return f"{name} is {json.dumps(mine.get(name))}, and {json.dumps(theirs.get(name))} in the earlier run"
    if limit is not None and (floor is None or limit < floor):
        return f"data.limit is {json.dumps(limit)}, and {json.dumps(floor)} in the earlier run"
    return None


def _flat(described: Mapping[str, Any]) -> dict[str, Any]:
    """One level: ``{"data": {"limit": 3}}`` becomes ``{"data.limit": 3}``."""
    flat: dict[str, Any] = {}
    for name, value in described.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": part for inner, part in value.items()}
        else:
            flat[name] = value
    return flat
