"""A writer of small image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write():
    """Write an array (or an image) to a path, making its folder; gives the path."""

    def writer(path: Path, pixels, mode: str | None = None, **options) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
        if mode == "P":
            indexed = Image.new("P", image.size)
            indexed.putpalette([channel for i in range(256) for channel in (i, 255 - i, 7)])
            indexed.putdata(image.tobytes())
            image = indexed
        image.save(path, **options)
        return path

    return writer


@pytest.fixture
def photo():
    """A random RGB picture, (H, W, 3) uint8."""
    return lambda height=4, width=6, seed=0: np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )
