"""DICOM files (.dcm) of one frame or several, in output units: nothing but what is needed for that is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segradius.core.errors import InputError, missing_extra
from segradius.data.complaints import unheard
from segradius.data.numbers import Numbers, refuse_shape
from segradius.data.pixels import Pixels
from segradius.data.reading import Reading

_DEFLATED = "1.2.840.10008.1.2.1.99"
_TAGS = (
    "Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsStored BitsAllocated "
    "PixelRepresentation "
    "RescaleSlope RescaleIntercept ModalityLUTSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
)
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_GREYS = ("MONOCHROME1", "MONOCHROME2")


def open_dicom(path: Path, reading: Reading) -> Numbers:
    """The frames of a file, with the rescale slope and intercept of each; in MONOCHROME1, low numbers are bright.

    Raises:
        InputError: It is no DICOM file, holds several frames and no slices are asked for, a palette, or a look-up
            table in place of slope and intercept; or pydicom cannot decode it.
        MissingExtraError: pydicom is not installed.
    """
    pydicom = _library()
    with unheard():
        syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID", ""))
        if syntax == _DEFLATED:
            raise InputError("the DICOM file is deflated as a whole; expected another transfer syntax")
        head = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS.split())
        frames = int(head.get("NumberOfFrames") or 1)
        several, scales = frames > 1 or reading.slices is not None, _scales(head, frames)
    photometric, samples = str(head.get("PhotometricInterpretation", "")), int(head.get("SamplesPerPixel", 1))
    _refuse(head, photometric, samples, frames, reading)
    refuse_shape(int(head.get("Rows", 0)), int(head.get("Columns", 0)), samples)

    def read(place: int) -> Pixels:
        with unheard():
            found = np.asarray(pydicom.pixels.pixel_array(path, index=place))
        return found if samples > 1 else found[..., None]

    return Numbers(
        read,
        frames if several else None,
        lambda place: scales[min(place, len(scales) - 1)],
        _largest(head),
        photometric == "MONOCHROME1",
    )


def _refuse(head: Any, photometric: str, samples: int, frames: int, reading: Reading) -> None:
    told = f"the DICOM file has {samples} samples a pixel, {photometric or 'of an unknown kind'}"
    if (samples, photometric) not in [*((1, kind) for kind in _GREYS), *((3, kind) for kind in _COLOURS)]:
        raise InputError(f"{told}; expected MONOCHROME1, MONOCHROME2 or RGB")
    if head.get("ModalityLUTSequence"):
        raise InputError("the DICOM file has a modality look-up table; expected a rescale slope and intercept")
    if frames > 1 and reading.slices is None:
        raise InputError(
            f"the DICOM file holds {frames} frames: write slices: {{}} into segradius.yaml to use each as an image"
        )
    if reading.slices is not None and reading.slices.axis not in (None, 0):
        raise InputError(f"axis in slices is {reading.slices.axis}; expected 0 for DICOM, the frames")


def _scales(head: Any, frames: int) -> list[tuple[float, float]]:
    """Slope and intercept: of each frame, of all, or of the file."""
    shared = _group(head.get("SharedFunctionalGroupsSequence"), 0)
    each = head.get("PerFrameFunctionalGroupsSequence")
    if each is not None and len(each) == frames:
        own = [_group(each, place) or shared for place in range(frames)]
        return [_scale(group or head) for group in own]
    return [_scale(shared or head)]


def _group(groups: Any, place: int) -> Any:
    """The pixel value transformation of a functional group."""
    found = groups[place].get("PixelValueTransformationSequence") if groups else None
    return found[0] if found else None


def _scale(told: Any) -> tuple[float, float]:
    slope, intercept = told.get("RescaleSlope"), told.get("RescaleIntercept")
    scale = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not np.isfinite(scale).all() or scale[0] == 0:
        raise InputError(f"the rescale slope and intercept are {scale}; expected finite numbers, and a slope but 0")
    return scale


def _largest(head: Any) -> int | None:
    """Of fewer bits than the type has, what the numbers reach as they are stored."""
    stored, allocated = int(head.get("BitsStored") or 0), int(head.get("BitsAllocated") or 0)
    fewer = 0 < stored < max(allocated, 8) and not head.get("PixelRepresentation")
    return 2**stored - 1 if fewer else None


def _library() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise missing_extra("pydicom", "medical") from None
    return pydicom
