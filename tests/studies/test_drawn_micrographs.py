"""Drawn micrographs: the same by seed, part and number; void where bodies touch and nowhere else; a folder to read."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

import segradius as sr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies"))
study = importlib.import_module("draw_micrographs")


def test_an_image_depends_on_seed_part_and_number_alone() -> None:
    one, again = (study.micrograph(3, "test", 5, 48, 64) for _ in range(2))
    for first, second in zip(one, again, strict=True):
        assert first.dtype == np.uint8
        assert np.array_equal(first, second)
    for other in ((4, "test", 5), (3, "val", 5), (3, "test", 6)):
        assert not np.array_equal(one[0], study.micrograph(*other, 48, 64)[0])


def test_void_is_where_two_bodies_touch() -> None:
    """Bodies of cells 0 and 1 side by side, and one of cell 2 apart from them."""
    owner, body = np.repeat([[0, 0, 1, 1, 2, 2]], 4, 0), np.repeat([[1, 1, 1, 1, 0, 1]], 4, 0).astype(bool)
    rim = study.touching(owner, body)
    assert rim.any(0).tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize("number", range(3))
def test_dividing_cells_are_brighter_in_blue_and_void_is_rare(number: int) -> None:
    image, mask = study.micrograph(0, "val", number)
    blue = image[..., 2].astype(float)
    assert blue[mask == 3].mean() > blue[mask == 2].mean() > blue[mask == 1].mean() > blue[mask == 0].mean()
    assert 0 < (mask == 255).mean() < 0.05
    assert not (binary_dilation(mask == 3) & (mask == 2)).any()  # plates lie in bodies, not in nuclei


def test_the_folder_is_read_and_is_not_written_over(tmp_path: Path) -> None:
    study.write(tmp_path / "cells", {"train": 1, "val": 2}, seed=7, height=48, width=64)
    data = sr.open_data(f"folder:{tmp_path / 'cells'}", split="val")
    assert data.classes.names == study.CLASSES
    assert len(data) == 2
    image, mask = study.micrograph(7, "val", 1, 48, 64)
    assert np.array_equal((data[1].image.permute(1, 2, 0) * 255).round().numpy(), image)
    assert np.array_equal(data[1].label.numpy(), mask)
    with pytest.raises(sr.InputError, match="not empty"):
        study.write(tmp_path / "cells", {"train": 1})
