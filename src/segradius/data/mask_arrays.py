"""Masks that are arrays of numbers: NumPy's, slices of stacks and volumes, those of MATLAB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import InputError
from segradius.data.pixels import unreadable
from segradius.data.readers import Place, read_numbers
from segradius.data.reading import Reading

Ints = NDArray[np.int64]


def read_whole(path: Path, reading: Reading, place: Place | None) -> Ints:
    """An array of whole numbers, or a slice of one; shape (H, W).

    Args:
        path: A .npy, .npz, .nii, .nii.gz, .dcm or TIFF file.
        reading: Its slices count, and which array of an .npz is the mask.
        place: The slice; None of a mask that has no others.

    Raises:
        InputError: The file cannot be read, is no array of whole numbers of shape (H, W), or has another number of
            slices than the image.
    """
    told = Reading(slices=reading.slices, array=reading.mask_array)
    with unreadable():
        numbers, source = read_numbers(path, told, place)
        if source.white_low:
            raise InputError("the mask is stored with low numbers for bright; store 0 as black")
        if numbers.shape[2] != 1:
            raise InputError(f"the mask has {numbers.shape[2]} bands; expected one whole number a pixel")
        found = numbers[..., 0]
        return whole(found) if found.dtype.kind == "f" else found.astype(np.int64)


def whole(values: NDArray[Any]) -> Ints:
    """Floating-point numbers (H, W) as whole ones.

    Raises:
        InputError: One is not whole; the message names its pixel.
    """
    bad = ~(np.isfinite(values) & (np.abs(values) < 2**31) & (values == np.rint(values)))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(f"value {values[row, column]} in the mask at pixel (row {row}, column {column}) is not whole")
    return values.astype(np.int64)


def read_sbd(path: Path) -> Ints:
    """The class mask of a MATLAB file of the Semantic Boundaries Dataset."""
    from scipy.io import loadmat

    with unreadable():
        contents: dict[str, Any] = loadmat(path)
        mask: NDArray[Any] = contents["GTcls"][0]["Segmentation"][0]
        return mask.astype(np.int64)
