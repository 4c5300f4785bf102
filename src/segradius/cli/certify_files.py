"""Files that ``segradius certify`` is given: groups of classes, a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from segradius.core.errors import InputError


def read_hierarchy(given: str | Sequence[Any] | Mapping[str, Any] | None) -> tuple[dict[str, list[str]], ...]:
    """Groupings of classes, from a YAML file or as such a file holds them.

    Raises:
        InputError: The file cannot be read, or is not as said.

    Example:
        >>> read_hierarchy({"ground": ["road", "pavement"]})
        ({'ground': ['road', 'pavement']},)
    """
    if given is None:
        return ()
    where = "hierarchy"
    if isinstance(given, str):
        where = given
        try:
            given = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"the hierarchy {where} cannot be read: {error}") from error
    levels: list[Any] = given if isinstance(given, list) else [given]
    for level in levels:
        if not isinstance(level, Mapping) or not all(isinstance(names, list) and names for names in level.values()):
            raise InputError(
                f"{where}: expected a mapping from each group to a list of its classes, or a list of such mappings "
                f"from fine to coarse; found {level!r}"
            )
    return tuple({str(group): [str(name) for name in names] for group, names in level.items()} for level in levels)


def read_region(path: str | None) -> Tensor | None:
    """A mask (h, w) bool from an image file, true where a pixel is not 0.

    Raises:
        InputError: It cannot be read, or no pixel is true.
    """
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            pixels = np.array(image if image.mode in ("1", "L", "P", "I;16") else image.convert("L"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"the region {path} cannot be read: {error}") from error
    mask = torch.from_numpy(pixels != 0)
    if not bool(mask.any()):
        raise InputError(f"the region {path} is empty: every pixel of it is 0")
    return mask
