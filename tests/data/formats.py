"""Image files of every type, number of bands and container, by the formats' own libraries, with what they hold."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from segradius.core.errors import InputError
from segradius.data.readers import read_pixels
from segradius.data.reading import reading_of

DTYPES = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")
BANDS = (1, 3, 4)
DEPTH, HEIGHT, WIDTH = 3, 18, 21
RAMP = np.arange(12, dtype=np.uint16).reshape(1, 3, 4, 1)


@dataclass(frozen=True)
class Made:
    """A file.

    Args:
        path: Of it.
        truth: Slices (D, H, W, B) as the format's own library reads them back; one of a picture.
        keys: Of segradius.yaml that say how it is read, range apart.
    """

    path: Path
    truth: np.ndarray
    keys: dict


def numbers(dtype: str, bands: int, slices: int, seed: int = 0) -> np.ndarray:
    """Numbers over the whole range of a type, its ends among them; (D, H, W, B)."""
    random, shape = np.random.default_rng(seed), (slices, HEIGHT, WIDTH, bands)
    if np.dtype(dtype).kind == "f":
        found = (random.random(shape) * 4000 - 1000).astype(dtype)
    else:
        info = np.iinfo(dtype)
        found = random.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
        found[0, 0, 0], found[-1, -1, -1] = info.min, info.max
    return found


TIFFS = {
    "plain": {},
    "tiled": {"tile": (16, 16)},
    "LZW": {"compression": "lzw"},
    "deflate": {"compression": "zlib"},
    "deflate and predictor": {"compression": "zlib", "predictor": True},
    "tiled LZW": {"compression": "lzw", "tile": (16, 16)},
    "big-endian": {"byteorder": ">"},
    "big-endian deflate": {"byteorder": ">", "compression": "zlib"},
    "planes": {"planarconfig": "separate"},
    "BigTIFF": {"bigtiff": True},
    "strips": {"rowsperstrip": 5},
}


def tiffs(folder: Path, dtype: str, bands: int) -> Iterator[tuple[str, Made]]:
    for name, options in TIFFS.items():
        if bands == 1 and name == "planes":
            continue
        yield f"TIFF {name}", _tiff(folder / "a.tif", numbers(dtype, bands, 1)[0], bands, options, {})
    stack = numbers(dtype, bands, DEPTH)
    for name in ("plain", "deflate", "tiled LZW", "big-endian", "BigTIFF"):
        yield f"TIFF stack {name}", _tiff(folder / "s.tif", stack, bands, TIFFS[name], {"slices": {}})
    if bands == 1:
        yield (
            "TIFF stack of ImageJ",
            _tiff(folder / "s.tif", stack, bands, {"imagej": True, "metadata": {"axes": "ZYX"}}, {"slices": {}}),
        )
    else:
        pages = {"photometric": "minisblack", "metadata": None}
        planes = np.moveaxis(stack[0], -1, 0)
        tifffile.imwrite(folder / "p.tif", planes, **pages)
        yield "TIFF of pages that are bands", Made(folder / "p.tif", stack[:1], {"layout": "chw"})


def _tiff(path: Path, array: np.ndarray, bands: int, options: dict, keys: dict) -> Made | None:
    colour = {"photometric": "rgb" if bands == 3 else "minisblack"}
    stored = array[..., 0] if bands == 1 else array
    if options.get("planarconfig"):
        stored, options = np.moveaxis(stored, -1, 0), {**options, "metadata": None}
    elif bands > 1:
        colour["planarconfig"] = "contig"
    try:
        tifffile.imwrite(path, stored, **colour, **options)
    except (ValueError, KeyError, NotImplementedError):
        return None
    return Made(path, array if keys else array[None], keys)


def arrays(folder: Path, dtype: str, bands: int) -> Iterator[tuple[str, Made]]:
    one, stack = numbers(dtype, bands, 1), numbers(dtype, bands, DEPTH)
    for name, many, keys in (("", one, {}), (" stack", stack, {"slices": {}})):
        for layout in ("hwc", "chw"):
            axis = -1 if layout == "hwc" else -3
            array = many[..., 0] if bands == 1 else np.moveaxis(many, -1, axis)
            array = array if keys else array[0]
            said = keys if bands == 1 else {**keys, "layout": layout}
            for order, kind in (("C", "="), ("F", "="), ("C", ">")):
                kept = np.asarray(array, order=order)
                kept = kept.astype(kept.dtype.newbyteorder(kind))
                np.save(folder / "a.npy", kept)
                yield f"npy{name} {layout} {order} {kind}", Made(folder / "a.npy", many, said)
                if layout == "hwc":
                    np.savez_compressed(folder / "a.npz", image=kept, other=np.zeros(3))
                    yield f"npz{name} {order} {kind}", Made(folder / "a.npz", many, {**said, "array": "image"})
    if bands == 1:
        for axis in (1, 2):
            np.savez_compressed(folder / "a.npz", np.moveaxis(stack[..., 0], 0, axis))
            yield f"npz slices along {axis}", Made(folder / "a.npz", stack, {"slices": {"axis": axis}})


def volumes(folder: Path, dtype: str, bands: int) -> Iterator[tuple[str, Made]]:
    """NIfTI has no half floats and, here, no bands."""
    if dtype == "float16":
        return
    stack = numbers(dtype, bands, DEPTH)
    for ending in (".nii", ".nii.gz"):
        for axis, order in ((2, (1, 2, 0)), (0, (0, 1, 2)), (1, (1, 0, 2))):
            for scale in (None, (0.5, -3.0)) if axis == 2 else (None,):
                volume = np.transpose(stack[..., 0], order) if bands == 1 else np.moveaxis(stack, 0, 2)
                image = nibabel.Nifti1Image(volume, np.diag([-1, 2, 3, 1]), dtype=volume.dtype)
                path = folder / f"v{ending}"
                nibabel.save(image, path)
                if scale:
                    rewrite_scale(path, *scale)
                back = np.asarray(nibabel.load(path).dataobj)
                truth = np.transpose(back, np.argsort(order))[..., None] if bands == 1 else stack
                yield f"NIfTI {ending} {axis} {scale}", Made(path, truth, {"slices": {"axis": axis}})


def rewrite_scale(path: Path, slope: float, inter: float) -> None:
    """Write scl_slope and scl_inter into a file, as nibabel chooses its own."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    content[112:120] = struct.pack("<ff", slope, inter)
    with opened(path, "wb") as file:
        file.write(bytes(content))


def dicoms(folder: Path, dtype: str, bands: int) -> Iterator[tuple[str, Made]]:
    """DICOM has whole numbers of 8 and 16 bits in one band, and 8 bits in three."""
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless):
        for frames in (1, DEPTH):
            stack = numbers(dtype, bands, frames)
            path = folder / "d.dcm"
            content = dicom(stack, syntax)
            if content is None:
                return
            path.write_bytes(content)
            back = pydicom.dcmread(path).pixel_array
            truth = back.reshape(stack.shape)
            yield f"DICOM {syntax.name} {frames}", Made(path, truth, {"slices": {}} if frames > 1 else {})


def dicom(stack: np.ndarray, syntax=ExplicitVRLittleEndian, **more) -> bytes | None:
    """A DICOM file of frames (D, H, W, B), with a patient's name; None where the format has no such numbers."""
    frames, rows, columns, bands = stack.shape
    size = stack.dtype.itemsize
    if stack.dtype.kind == "f" or size > 2 or bands == 4 or (bands == 3 and size > 1):
        return None
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax if syntax != RLELossless else ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid(entropy_srcs=["a"])
    data.PatientName, data.PatientID = "Doe^Jane", "4711"
    data.Rows, data.Columns, data.SamplesPerPixel = rows, columns, bands
    data.PhotometricInterpretation = "RGB" if bands == 3 else "MONOCHROME2"
    if bands == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * size
    data.HighBit = 8 * size - 1
    data.PixelRepresentation = int(stack.dtype.kind == "i")
    if frames > 1:
        data.NumberOfFrames = frames
    content = stack.tobytes()
    data.add_new("PixelData", "OW" if size > 1 else "OB", content + b"\0" * (len(content) % 2))
    for name, value in more.items():
        setattr(data, name, value)
    if syntax == RLELossless:
        data.compress(RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


CONTAINERS = (tiffs, arrays, volumes, dicoms)


def mapped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)


def read(path, place=None, **keys):
    return read_pixels(path, reading_of(keys), place)[0]


def refused(path, place=None, **keys) -> str:
    with pytest.raises(InputError) as error:
        read(path, place, **keys)
    assert "\n" not in str(error.value)
    return str(error.value)
