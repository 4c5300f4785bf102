"""What DICOM files say of their numbers, and that they name nobody."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from data.formats import RAMP, dicom, mapped, read, refused
from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.data.readers import Place, places_of, read_numbers
from segradius.data.reading import reading_of


def enhanced(slope: float, intercept: float) -> pydicom.Dataset:
    values = pydicom.Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "HU"
    group = pydicom.Dataset()
    group.PixelValueTransformationSequence = pydicom.Sequence([values])
    return group


def test_a_range_is_in_the_units_after_slope_and_intercept_of_a_dicom_file(tmp_path):
    path = tmp_path / "ct.dcm"
    path.write_bytes(dicom(RAMP, RescaleSlope="2", RescaleIntercept="-1024"))
    houndsfield = RAMP[0].astype(float) * 2 - 1024
    np.testing.assert_array_equal(read(path, bands=1, range=[-1024, -1000]), mapped(houndsfield, -1024, -1000))
    assert "float64 numbers from -1024.0 to -1002.0" in refused(path, bands=1)
    assert "range: dtype means nothing for float64 numbers" in refused(path, bands=1, range="dtype")


def test_each_frame_of_an_enhanced_dicom_file_has_its_own_slope(tmp_path):
    stack, path = np.repeat(RAMP, 3, axis=0), tmp_path / "pet.dcm"
    scales = [(1, 0), (2, -5), (0.5, 1)]
    path.write_bytes(
        dicom(stack, PerFrameFunctionalGroupsSequence=pydicom.Sequence([enhanced(*scale) for scale in scales]))
    )
    for number, (slope, intercept) in enumerate(scales):
        found = read(path, Place(number, 3), bands=1, range=[-10, 30], slices={})
        np.testing.assert_array_equal(found, mapped(stack[number].astype(float) * slope + intercept, -10, 30))
    path.write_bytes(dicom(stack, SharedFunctionalGroupsSequence=pydicom.Sequence([enhanced(3, -7)])))
    found = read(path, Place(2, 3), bands=1, range=[-10, 30], slices={})
    np.testing.assert_array_equal(found, mapped(stack[2].astype(float) * 3 - 7, -10, 30))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "1 samples a pixel, PALETTE COLOR; expected MONOCHROME1"),
        ({"ModalityLUTSequence": pydicom.Sequence([pydicom.Dataset()])}, "a modality look-up table"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, r"rescale slope and intercept are \(0\.0, 0\.0\)"),
        ({"NumberOfFrames": 2}, "holds 2 frames: write slices: {}"),
        ({"Rows": 0}, "the size is '0×4'"),
        ({"Rows": 60000, "Columns": 60000}, "60000×60000 = 3600000000 pixels; at most"),
        ({"Rows": 30}, "cannot be read"),
    ],
)
def test_a_dicom_file_that_is_not_understood_is_refused(tmp_path, more, message):
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom(RAMP, **more))
    with pytest.raises(InputError, match=message):
        read(path, bands=1, range=[0, 65535])


def test_a_transfer_syntax_that_pydicom_cannot_decode_is_refused_in_its_words(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom(RAMP))
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 60])
    data.save_as(path)
    told = refused(path, bands=1, range=[0, 65535])
    assert told.startswith("the file cannot be read: ")
    assert "Doe" not in told
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.PixelData = RAMP.tobytes()
    data["PixelData"].is_undefined_length = False
    data.save_as(path)
    assert "deflated as a whole" in refused(path, bands=1, range=[0, 65535])


def test_twelve_bits_in_a_type_of_sixteen_are_no_full_range(tmp_path):
    path = tmp_path / "x.dcm"
    path.write_bytes(dicom(RAMP, BitsStored=12, HighBit=11))
    assert "numbers that the file says reach 4095; write range: [0, 4095]" in refused(path, bands=1, range="dtype")
    np.testing.assert_array_equal(read(path, bands=1, range=[0, 4095]), mapped(RAMP[0], 0, 4095))


@pytest.mark.parametrize(("dtype", "held"), [("uint16", 904), ("int16", 904), ("int16", -3)])
def test_bits_that_pixels_do_not_have_do_not_count(tmp_path, dtype, held):
    """What an overlay put beside twelve stored bits, and the sign of negative numbers."""
    stack = np.full((1, 3, 4, 1), held & 4095 | 4096, dtype)
    (tmp_path / "x.dcm").write_bytes(dicom(stack, BitsStored=12, HighBit=11))
    found = read(tmp_path / "x.dcm", bands=1, range=[-2048, 4095])
    np.testing.assert_array_equal(found, mapped(np.full((3, 4, 1), held), -2048, 4095))


def test_files_that_pydicom_brings_are_as_it_reads_them_or_refused_without_a_name():
    folder = Path(pydicom.__file__).parent / "data"
    ends = Counter()
    for path in sorted(path for path in folder.rglob("*.dcm") if path.stat().st_size < 150_000):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data = pydicom.dcmread(path)
                expected = pydicom.pixels.apply_modality_lut(data.pixel_array, data)
            except Exception:  # what pydicom cannot decode without a plug-in
                expected = None
            patient = str(data.get("PatientName", "")) or "no name"
        reading = reading_of({"slices": {}})
        try:
            places = places_of(path, reading)
            found = np.stack([read_numbers(path, reading, place)[0] for place in places])
        except InputError as error:
            ends[f"named {path.name}" if patient in str(error) else "refused"] += 1
        else:
            right = expected is not None and np.array_equal(found.ravel(), expected.ravel())
            ends["right" if right else f"wrong {path.name}"] += 1
    print(dict(ends))
    assert set(ends) == {"right", "refused"}
    assert ends["right"] > 20


def test_dicom_files_without_an_ending_are_known_by_their_content(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("IM0001", "1.2.840.17", "1.2.840.9")):
        (tmp_path / "images" / name).write_bytes(dicom(RAMP + number))
        np.save(tmp_path / "masks" / f"{name}.npy", (RAMP[0, ..., 0] + number) % 2)
    (tmp_path / "images" / "DICOMDIR.txt").write_bytes(b"no DICOM")
    (tmp_path / "segradius.yaml").write_text("classes: [even, odd]\nbands: 1\nrange: [0, 16]\n")
    data = open_data(f"folder:{tmp_path}")
    assert data.ids == ("1.2.840.17", "1.2.840.9", "IM0001")
    for sample, number in zip((data[0], data[1], data[2]), (1, 2, 0), strict=True):
        np.testing.assert_array_equal(sample.image[0], mapped(RAMP[0, ..., 0] + number, 0, 16))
        np.testing.assert_array_equal(sample.label, (RAMP[0, ..., 0] + number) % 2)
    assert [left.path.name for left in data.left_out] == ["DICOMDIR.txt"]
