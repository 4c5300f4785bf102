"""NIfTI volumes (.nii, .nii.gz) by slices, in the order in which they are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segradius.core.errors import InputError, missing_extra
from segradius.data.arrays import Streamed, part_of, slice_axis
from segradius.data.complaints import complaints, unheard
from segradius.data.listing import ending
from segradius.data.numbers import Numbers, refuse_kind, refuse_shape
from segradius.data.pixels import Pixels
from segradius.data.reading import Reading

_ACROSS = 2


def open_nifti(path: Path, reading: Reading) -> Numbers:
    """A volume (X, Y, Z) as slices along Z unless ``slices`` names another axis; slope and intercept are applied.

    Rows and columns of a slice are the two other axes in their order in the file: nothing is turned or resampled.

    Raises:
        InputError: It is no NIfTI file, has more than three axes, or is a volume and no slices are asked for.
        MissingExtraError: nibabel is not installed.
    """
    nibabel = _library()
    with unheard(), complaints("nibabel.global") as told:
        file: Any = nibabel.load(path)
        if not isinstance(file, nibabel.Nifti1Image | nibabel.Nifti2Image):
            raise InputError(f"the file is a {type(file).__name__}; expected one NIfTI file, .nii or .nii.gz")
        stored, axes = file.dataobj, "".join(nibabel.aff2axcodes(file.affine))
        codes = int(file.header["qform_code"]), int(file.header["sform_code"])
        unsaid = codes == (0, 0) or np.array_equal(file.affine, np.eye(4))
    for each in told:
        if (
            "sizeof_hdr" in each or "bitpix" in each
        ):  # others are of where a volume lies, and of tools that are stricter
            raise InputError(f"the header is damaged: {each}")
    shape = tuple(map(int, stored.shape))
    while len(shape) > 2 and shape[-1] == 1 and (len(shape) > 3 or reading.slices is None):
        shape = shape[:-1]
    _refuse_axes(shape, reading)
    refuse_kind(stored.dtype)
    axis = slice_axis(shape, reading, _ACROSS)
    height, width = (length for at, length in enumerate(shape) if at != axis)
    refuse_shape(height, width, 1)
    dtype, offset = np.dtype(stored.dtype), int(stored.offset)
    scale = float(stored.slope), float(stored.inter)
    if not np.isfinite(scale).all():
        raise InputError(f"the file's slope and intercept are {scale}; expected finite numbers")

    def read(place: int) -> Pixels:
        if ending(path) == ".nii.gz":
            return Streamed(path, "", offset, shape, dtype, columns=True).take(axis, place)[..., None]
        return part_of(np.memmap(path, dtype, "r", offset, shape, order="F"), axis, place)[..., None]

    return Numbers(read, None if axis is None else shape[axis], lambda _: scale, axes="" if unsaid else axes)


def _refuse_axes(shape: tuple[int, ...], reading: Reading) -> None:
    if len(shape) > 3:
        raise InputError(f"the volume has {len(shape)} axes, {shape}; expected three: store each part in a file")
    if len(shape) < 2 or (len(shape) == 2 and reading.slices is not None):
        raise InputError(f"the volume has shape {shape}; expected three axes")
    if len(shape) == 3 and reading.slices is None:
        raise InputError(
            f"the file holds a volume of shape {shape}: write slices: {{axis: {_ACROSS}}} into segradius.yaml to use "
            "each slice along that axis as an image"
        )


def _library() -> Any:
    try:
        import nibabel
    except ImportError:
        raise missing_extra("nibabel", "medical") from None
    return nibabel
