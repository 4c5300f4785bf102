"""What NIfTI, DICOM, NumPy and TIFF files say of their numbers: scale, axes, what is bright, how many there are."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
import zipfile
from collections import OrderedDict

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile

from data.formats import DTYPES, RAMP, Made, dicom, mapped, numbers, read, refused, tiffs
from data.kinds import EXIF, png
from data.test_formats import outcome
from segradius.core.errors import InputError
from segradius.data import arrays
from segradius.data.readers import Place, places_of, read_pixels
from segradius.data.reading import PLAIN, Reading, reading_of


def test_low_numbers_are_bright_where_the_file_says_so(tmp_path):
    (tmp_path / "x.dcm").write_bytes(dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    tifffile.imwrite(tmp_path / "x.tif", RAMP[0, ..., 0], photometric="miniswhite")
    for name in ("x.dcm", "x.tif"):
        np.testing.assert_array_equal(
            read(tmp_path / name, bands=1, range=[0, 16]), mapped(16 - RAMP[0].astype(float), 0, 16)
        )


def test_full_range_is_that_of_the_stored_type(tmp_path):
    for dtype in ("uint8", "uint16", "int16", "int32"):
        array, info = numbers(dtype, 1, 1)[0], np.iinfo(dtype)
        np.save(tmp_path / "a.npy", array[..., 0])
        found = read(tmp_path / "a.npy", bands=1, range="dtype")
        np.testing.assert_array_equal(found, mapped(array, info.min, info.max))
        assert (found.min(), found.max()) == (0, 1)
    for dtype in ("float32", "bool"):
        np.save(tmp_path / "a.npy", np.zeros((3, 4), dtype))
        assert f"range: dtype means nothing for {dtype} numbers" in refused(tmp_path / "a.npy", range="dtype")


@pytest.mark.parametrize("keys", [{}, {"clip": True}])
def test_numbers_that_are_none_are_refused_with_their_pixel(tmp_path, keys):
    values = np.ones((3, 4, 2), np.float32)
    values[2, 1, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    said = {"layout": "hwc", "bands": 2, "range": [0, 2]}
    told = refused(tmp_path / "a.npy", **said, **keys)
    assert told.startswith("value nan at pixel (row 2, column 1), band 1, is no number, and clip: true does not")
    values[2, 1, 1] = np.inf
    np.save(tmp_path / "a.npy", values)
    if keys:
        assert read(tmp_path / "a.npy", **said, **keys)[2, 1, 1] == 1
    else:
        told = refused(tmp_path / "a.npy", **said)
        assert told == (
            "value inf at pixel (row 2, column 1), band 1, lies outside range: [0, 2]; the image has 1.0 to inf: write "
            "clip: true to cut such values to the range, or another range"
        )


def test_a_volume_of_more_axes_or_without_slices_is_refused(tmp_path):
    path = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 2), np.int16), np.eye(4)), path)
    assert "the volume has 4 axes, (3, 4, 5, 2); expected three" in refused(path, slices={}, range=[0, 1])
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 1), np.int16), np.eye(4)), path)
    assert "a volume of shape (3, 4, 5): write slices: {axis: 2}" in refused(path, range=[0, 1])
    assert len(places_of(path, reading_of({"slices": {}}))) == 5
    assert len(places_of(path, reading_of({"slices": {"axis": 0, "every": 2}}))) == 2
    assert "axis 7 in slices" in refused(path, Place(0, 3), slices={"axis": 7}, range=[0, 1])
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), path)
    assert "the file holds complex64 values" in refused(path, Place(0, 5), slices={}, range=[0, 1])


def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "v.nii")
    content = bytearray((tmp_path / "v.nii").read_bytes())
    for sides, message in (((30000, 30000, 9), "30000×30000 = 900000000"), ((3, 4, 30000), "the file cannot be read")):
        content[42:48] = struct.pack("<3h", *sides)
        for name, packed in (("w.nii", bytes(content)), ("w.nii.gz", gzip.compress(bytes(content)))):
            (tmp_path / name).write_bytes(packed)
            assert message in refused(tmp_path / name, Place(sides[2] - 1, sides[2]), slices={}, range=[0, 1], bands=1)
    head = f"{{'descr': '<i2', 'fortran_order': False, 'shape': (9, {30000}, {30000}), }}".ljust(117) + "\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + head.encode() + b"\0" * 64)
    assert refused(tmp_path / "a.npy", Place(0, 9), slices={}, range=[0, 1])
    np.savez_compressed(tmp_path / "a.npz", np.zeros((2000, 2000), np.int16))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    assert "2000×2000 = 4000000 pixels; at most 1000000" in small_limit(tmp_path / "a.npz")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2000, 2000), np.float64), compression="zlib")
    assert "2000×2000 = 4000000 pixels; at most 1000000" in small_limit(tmp_path / "a.tif")
    np.save(tmp_path / "b.npy", np.zeros((100, 100, 500), np.uint8))
    assert "100×100 pixels of 500 bands; at most 4000000 numbers" in small_limit(tmp_path / "b.npy", layout="hwc")


def small_limit(path, **keys) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGRADIUS_MAX_PIXELS", "1000000")
        return refused(path, range=[0, 1], bands=1, **keys)


def test_an_array_of_several_or_of_pickles_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((3, 4)), label=np.zeros((3, 4)))
    said = {"range": [0, 1], "bands": 1}
    assert "holds 2 arrays (image, label); write array: NAME" in refused(tmp_path / "a.npz", **said)
    assert "no array 'depth' (array in segradius.yaml); it holds image, label" in refused(
        tmp_path / "a.npz", array="depth", **said
    )
    np.savez(tmp_path / "b.npz", np.array([[object()]], dtype=object), allow_pickle=True)
    assert "the file holds object values" in refused(tmp_path / "b.npz", **said)
    np.save(tmp_path / "b.npy", np.array([[object()]], dtype=object), allow_pickle=True)
    assert "Python objects" in refused(tmp_path / "b.npy", **said)
    np.save(tmp_path / "c.npy", np.zeros((3, 4, 5)))
    told = refused(tmp_path / "c.npy", **said)
    assert "shape (3, 4, 5); write layout: hwc or layout: chw into segradius.yaml if it has bands; or slices" in told
    np.save(tmp_path / "d.npy", np.full((2, 2), 2**53 + 1))
    assert "9007199254740993 at pixel (row 0, column 0) is too large to be read exactly" in refused(
        tmp_path / "d.npy", bands=1, range=[0, 1e17]
    )


@pytest.mark.parametrize("kind", ["npz", "nii.gz", "dcm", "tif", "nii", "npy"])
def test_a_damaged_file_is_right_or_refused(tmp_path, kind):
    """A bit of a compressed file, or an end that is missing."""
    stack, path, keys = numbers("int16", 1, 2)[..., 0], tmp_path / f"a.{kind}", {"slices": {}, "bands": 1}
    if kind == "npz":
        np.savez_compressed(path, stack)
    elif kind == "npy":
        np.save(path, stack)
    elif kind == "dcm":
        path.write_bytes(dicom(stack[..., None], pydicom.uid.RLELossless))
    elif kind == "tif":
        tifffile.imwrite(path, stack, compression="zlib", photometric="minisblack")
    else:
        nibabel.save(nibabel.Nifti1Image(np.moveaxis(stack, 0, 2), np.diag([2, 2, 2, 1])), path)
    content, truth = path.read_bytes(), mapped(stack[1][..., None], -32768, 32767)
    np.testing.assert_array_equal(read(path, Place(1, 2), range=[-32768, 32767], **keys), truth)
    for length in np.linspace(0, len(content) - 1, 30).astype(int):
        path.write_bytes(content[:length])
        assert end(path, keys, truth) != "wrong", length
    for place in range(0, len(content), 7) if kind in ("npz", "nii.gz") else ():
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        assert end(path, keys, truth) != "wrong", place


def end(path, keys, truth) -> str:
    try:
        found = read(path, Place(1, 2), range=[-32768, 32767], **keys)
    except InputError:
        return "refused"
    return "right" if np.array_equal(found, truth) else "wrong"


def test_without_tifffile_a_tiff_is_right_or_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    found: dict[str, set[str]] = {}
    for dtype in DTYPES:
        for bands in (1, 3):
            for name, made in tiffs_before(tmp_path, dtype, bands):
                low, high = float(made.truth.min()), float(made.truth.max())
                keys = {"bands": bands, "range": [low, high]}
                ends = outcome(made, keys, mapped(made.truth, low, high))
                found.setdefault(ends, set()).add(f"{dtype} {bands}")
                if ends == "refused":
                    assert "pip install 'segradius[tiff]'" in refused(made.path, **made.keys, **keys), name
    assert set(found) == {"right", "refused"}
    assert found["right"] >= {"uint8 1", "uint8 3", "uint16 1", "int16 1", "int32 1", "float32 1"}


def tiffs_before(folder, dtype, bands):
    """Pictures, written while tifffile is there."""
    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", tifffile)
        for name, made in tiffs(folder, dtype, bands):
            if made and not made.keys:
                path = folder / f"{len(written)}.tif"
                path.write_bytes(made.path.read_bytes())
                written.append((name, Made(path, made.truth, {})))
    return written


def test_a_grey_picture_has_the_bands_that_are_asked_for(tmp_path, write, photo):
    grey = photo()[..., 0]
    path, colour = write(tmp_path / "g.png", grey), write(tmp_path / "c.png", photo())
    assert read(path).shape == (4, 6, 3)
    np.testing.assert_array_equal(read(path, bands=1)[..., 0], mapped(grey, 0, 255))
    np.testing.assert_array_equal(read(path, bands=3), np.repeat(mapped(grey, 0, 255)[..., None], 3, -1))
    assert refused(colour, bands=1) == "the image has 3 bands; expected 1 (bands: 1)"
    equal = write(tmp_path / "e.png", np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(read(equal, bands=1)[..., 0], mapped(grey, 0, 255))
    four = np.dstack([photo(), grey])
    np.testing.assert_array_equal(read(write(tmp_path / "a.png", four), bands=4), mapped(four, 0, 255))
    assert "transparent" in refused(tmp_path / "a.png", bands=3)


def test_sixteen_bits_of_a_png_arrive(tmp_path, write):
    deep = numbers("uint16", 1, 1)[0]
    path = write(tmp_path / "a.png", deep[..., 0])
    np.testing.assert_array_equal(read(path, bands=1, range="dtype"), mapped(deep, 0, 65535))
    assert refused(path) == (
        "the image has uint16 numbers from 0 to 65535; expected 8 bits a channel, or in segradius.yaml range: "
        "[low, high], the numbers that become 0 and 1 (range: dtype for 0 to 65535), and bands: 1 (or bands: 3 for "
        "three equal ones)"
    )
    assert Reading().plain
    assert PLAIN.told["slices"] is None


def test_four_bits_of_a_png_and_any_largest_number_of_a_pgm_stay_what_they_are(tmp_path):
    small = np.arange(12).reshape(3, 4)
    (tmp_path / "a.png").write_bytes(png(small, 4, 0))
    (tmp_path / "a.pgm").write_bytes(b"P5 4 3 100\n" + small.astype(np.uint8).tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P5 4 3 4095\n" + (small * 300).astype(">u2").tobytes())
    for name, factor, largest in (("a.png", 1, 15), ("a.pgm", 1, 100), ("b.pgm", 300, 4095)):
        expected = mapped(small * factor, 0, 4095)[..., None]
        np.testing.assert_array_equal(read(tmp_path / name, bands=1, range=[0, 4095]), expected)
        assert f"reach {largest}; write range: [0, {largest}]" in refused(tmp_path / name, bands=1, range="dtype")


def test_stored_numbers_of_a_tiff_arrive_whatever_it_says_of_white_and_alpha(tmp_path):
    grey = numbers("uint8", 1, 1)[0]
    tifffile.imwrite(tmp_path / "w.tif", grey[..., 0], photometric="miniswhite")
    shown = mapped(255 - grey.astype(float), 0, 255)
    for keys in ({"bands": 1}, {"bands": 1, "range": [0, 255]}, {"bands": 1, "range": "dtype"}):
        np.testing.assert_array_equal(read(tmp_path / "w.tif", **keys), shown)
    four = numbers("uint8", 4, 1)[0]
    for kind in ("assocalpha", "unassalpha", "unspecified"):
        tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=[kind])
        np.testing.assert_array_equal(read(tmp_path / "a.tif", bands=4), mapped(four, 0, 255))
    turned = numbers("float64", 1, 1)[0]
    for orientation in range(1, 9):
        for array in (turned, four):
            tifffile.imwrite(tmp_path / "t.tif", np.squeeze(array), extratags=[(274, 3, 1, orientation, True)])
            said = {"range": [-1000, 3000]} if array is turned else {}
            found, told = read_pixels(tmp_path / "t.tif", reading_of({"bands": array.shape[2]} | said))
            shown = mapped(array, *((-1000, 3000) if said else (0, 255)))
            shown = shown.swapaxes(0, 1) if orientation > 4 else shown
            rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(
                orientation, (1, 1)
            )
            np.testing.assert_array_equal(found, shown[::rows, ::columns])
            assert told == orientation


def test_a_number_is_compared_with_the_range_as_it_is_and_not_as_the_type_would_round_it(tmp_path):
    values = np.array([[0.1, 1]], np.float16)  # 0.0999755859375
    np.save(tmp_path / "a.npy", values)
    assert "value 0.0999755859375 " in refused(tmp_path / "a.npy", bands=1, range=[0.1, 1]).replace(
        str(values[0, 0]), "0.0999755859375"
    )
    np.save(tmp_path / "a.npy", np.array([[60000]], np.float16))
    np.testing.assert_array_equal(
        read(tmp_path / "a.npy", bands=1, range=[0, 1e6]), mapped(np.float16([[[6e4]]]), 0, 1e6)
    )


@pytest.mark.parametrize("colour", [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_of_a_png_arrive(tmp_path, monkeypatch, colour):
    kind, bands = colour
    deep, path = numbers("uint16", bands, 1)[0], tmp_path / "a.png"
    for orientation in range(1, 9):
        chunks = [] if orientation == 1 else [(b"eXIf", EXIF[orientation].tobytes()[6:])]
        path.write_bytes(png(deep, 16, kind, *chunks))
        turned = [deep, deep[:, ::-1], deep[::-1, ::-1], deep[::-1]]
        turned += [np.swapaxes(each, 0, 1) for each in (deep, deep[::-1], deep[::-1, ::-1], deep[:, ::-1])]
        found, told = read_pixels(path, reading_of({"bands": bands, "range": "dtype"}))
        np.testing.assert_array_equal(found, mapped(turned[orientation - 1], 0, 65535))
        assert told == orientation
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert "pip install 'segradius[tiff]'" in refused(path, bands=bands, range="dtype")


def test_a_file_that_says_it_has_millions_of_slices_is_not_listed(tmp_path):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**12}, 1, 1), }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00" + head.encode() + b"\0" * 64)
    with pytest.raises(InputError, match="it has 1000000000000 slices; expected 1 to 100000"):
        places_of(tmp_path / "a.npz", reading_of({"slices": {}}))


def test_a_volume_larger_than_what_is_kept_is_read_slice_by_slice(tmp_path, monkeypatch):
    stack, path = numbers("int16", 1, 5)[..., 0], tmp_path / "a.npz"
    np.savez_compressed(path, stack)
    whole = {
        (axis, number): read(path, Place(number, size), bands=1, range="dtype", slices={"axis": axis})
        for axis, size in enumerate(stack.shape)
        for number in range(size)
    }
    monkeypatch.setattr(arrays, "KEPT", 0)
    monkeypatch.setattr(arrays, "_whole", None)
    for lot in (1, 64, 1 << 22):
        monkeypatch.setattr(arrays, "_LOT", lot)
        for (axis, number), kept in whole.items():
            said = {"bands": 1, "range": "dtype", "slices": {"axis": axis}}
            np.testing.assert_array_equal(read(path, Place(number, stack.shape[axis]), **said), kept)
            np.testing.assert_array_equal(kept[..., 0], mapped(stack.take(number, axis), -32768, 32767))


def test_two_threads_may_read_volumes_that_are_kept(tmp_path, monkeypatch):
    """The second comes while the first looks through those that are kept, where the hash of a name is asked for."""
    others = []

    class Meeting(arrays.Streamed):
        def __hash__(self) -> int:
            if threading.current_thread() is threading.main_thread() and len(arrays._wholes) == 2 and not others:
                others.append(threading.Thread(target=kept[2].take, args=(0, 1)))
                others[0].start()
                others[0].join(0.2)  # for which it need not wait
            return super().__hash__()

    kept = []
    for number in range(3):
        path, kind = tmp_path / f"{number}.gz", arrays.Streamed if number else Meeting
        path.write_bytes(gzip.compress(bytes([number] * 6)))
        kept.append(kind(path, "", 0, (2, 3), np.dtype(np.uint8)))
    monkeypatch.setattr(arrays, "_wholes", OrderedDict())
    for number in (0, 1):
        np.testing.assert_array_equal(kept[number].take(0, 1), [number] * 3)
    others[0].join()
    assert len(arrays._wholes) == 3


def test_a_volume_that_is_kept_is_read_again_when_it_changes(tmp_path):
    path, said = tmp_path / "a.npz", {"bands": 1, "range": "dtype", "slices": {}}
    for seed in range(3):
        stack = numbers("int16", 1, 2, seed)[..., 0]
        np.savez(path, stack)
        os.utime(path, ns=(seed, seed))
        np.testing.assert_array_equal(read(path, Place(1, 2), **said)[..., 0], mapped(stack[1], -32768, 32767))


def test_a_nan_that_signals_is_refused_like_any_other(tmp_path):
    values = np.ones((2, 3), np.float32)
    values.view(np.uint32)[1, 2] = 0x7F800001
    np.save(tmp_path / "a.npy", values)
    assert refused(tmp_path / "a.npy", bands=1, range=[0, 1]).startswith("value nan at pixel (row 1, column 2)")
    assert "from 1.0 to 1.0" in refused(tmp_path / "a.npy", bands=1)


def test_a_header_that_a_library_would_mend_is_refused_and_nothing_is_printed(tmp_path, capfd):
    path = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[0] = 0
    path.write_bytes(bytes(content))
    assert "the header is damaged: sizeof_hdr should be 348" in refused(path, Place(0, 5), slices={}, range=[0, 1])
    assert capfd.readouterr() == ("", "")
