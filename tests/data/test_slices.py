"""Folders whose images are stacks and volumes: each slice is a sample, with the same slice of its mask."""

from __future__ import annotations

import sys
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import tifffile
import yaml

import segradius.core.digests as digests
from data.formats import dicom, mapped
from segradius.core.errors import InputError, MissingExtraError
from segradius.data import BadSampleError, open_data
from segradius.data.arrays import Streamed
from segradius.data.marks import changed_meaning, look, meaning_of
from segradius.data.opening import counted
from segradius.data.structures import MaskBands

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 4096, (5, 6, 7), dtype=np.uint16)
LABELS = RNG.integers(0, 3, (5, 6, 7), dtype=np.uint8)
SAID = {"classes": ["a", "b", "c"], "bands": 1, "range": [0, 4095], "slices": {}}


@pytest.fixture
def folder(tmp_path):
    """A function that writes a segradius.yaml beside the folders images and masks."""

    def described(**keys):
        told = {key: value for key, value in (SAID | keys).items() if value is not None}
        (tmp_path / "segradius.yaml").write_text(yaml.safe_dump(told))
        return lambda: open_data(f"folder:{tmp_path}")

    described.root = tmp_path
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return described


def nifti(path, volume, affine=None):
    nibabel.save(
        nibabel.Nifti1Image(np.moveaxis(volume, 0, 2), np.diag([1, 1, 2, 1]) if affine is None else affine), path
    )


def tiff(path, volume):
    tifffile.imwrite(path, volume, photometric="minisblack")


WRITERS = {
    "a.tif": tiff,
    "a.npy": np.save,
    "a.npz": lambda path, volume: np.savez_compressed(path, volume),
    "a.dcm": lambda path, volume: path.write_bytes(dicom(volume[..., None])),
}


@pytest.mark.parametrize("image", WRITERS)
@pytest.mark.parametrize("mask", WRITERS)
def test_a_slice_of_the_image_comes_with_that_of_the_mask(folder, image, mask):
    WRITERS[image](folder.root / "images" / image, STACK)
    WRITERS[mask](folder.root / "masks" / mask, LABELS)
    data = folder(slices={"every": 2})()
    assert data.ids == ("a#000", "a#002", "a#004")
    for place, number in enumerate((0, 2, 4)):
        sample = data[place]
        np.testing.assert_array_equal(sample.image[0], mapped(STACK[number], 0, 4095))
        np.testing.assert_array_equal(sample.label, LABELS[number])


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_volume_is_cut_along_any_axis(folder, ending, axis):
    for kind, volume in (("images", STACK), ("masks", LABELS)):
        nifti(folder.root / kind / f"p1.{ending}", volume)
    data = folder(slices={} if axis is None else {"axis": axis})()
    stored, labels = np.moveaxis(STACK, 0, 2), np.moveaxis(LABELS, 0, 2)
    assert len(data) == stored.shape[2 if axis is None else axis]
    for number in range(len(data)):
        assert data.ids[number] == f"p1#{number:03d}"
        expected = mapped(stored.take(number, 2 if axis is None else axis), 0, 4095)
        np.testing.assert_array_equal(data[number].image[0], expected)
        np.testing.assert_array_equal(data[number].label, labels.take(number, 2 if axis is None else axis))


def test_a_mask_turned_otherwise_than_its_image_is_refused(folder):
    nifti(folder.root / "images" / "p.nii", STACK, np.diag([-1, -1, 2, 1]))
    nifti(folder.root / "masks" / "p.nii", LABELS, np.diag([1, 1, 2, 1]))
    data = folder()()
    with pytest.raises(BadSampleError, match="the axes of the mask lead to RAS and those of the image to LPS"):
        data[0]
    nifti(folder.root / "masks" / "p.nii", LABELS, np.eye(4))  # which says nothing
    np.testing.assert_array_equal(folder()()[1].label, LABELS[1])


def test_a_mask_of_other_slices_is_refused_and_a_damaged_file_is_one_sample(folder):
    tiff(folder.root / "images" / "a.tif", STACK)
    tiff(folder.root / "masks" / "a.tif", LABELS[:4])
    (folder.root / "images" / "b.npy").write_bytes(b"nothing")
    np.save(folder.root / "masks" / "b.npy", LABELS)
    np.save(folder.root / "images" / "c.npy", STACK)
    np.save(folder.root / "masks" / "c.npy", LABELS[0])
    data = folder()()
    assert data.ids == (*(f"a#{n:03d}" for n in range(5)), "b", *(f"c#{n:03d}" for n in range(5)))
    with pytest.raises(BadSampleError, match=r"'a#000': the file has 4 slices; expected 5 .*masks"):
        data[0]
    with pytest.raises(BadSampleError, match=r"'b': the file cannot be read"):
        data[5]
    with pytest.raises(BadSampleError, match=r"'c#000': axis 0 in slices: the array has shape \(6, 7\)"):
        data[6]


def test_a_mask_that_is_no_file_of_slices_is_not_taken_for_each(folder):
    np.save(folder.root / "images" / "a.npy", STACK)
    np.save(folder.root / "masks" / "a.npy", LABELS)
    data = folder()().source
    pair = replace(data.pairs[0], mask=MaskBands(("a", "b"), folder.root / "masks" / "a.npy"))
    with pytest.raises(BadSampleError, match="the image is a slice of 5; expected a mask file of as many slices"):
        replace(data, pairs=(pair,))[0]


def test_the_line_at_the_start_counts_slices_and_files(folder):
    for name in "ab":
        tiff(folder.root / "images" / f"{name}.tif", STACK)
        tiff(folder.root / "masks" / f"{name}.tif", LABELS)
    (folder.root / "images" / "notes.txt").touch()
    told = counted(folder()())
    assert ": 10 images (10 slices of 2 files) to read; 1 files or folders left out" in told


def test_a_changed_file_is_seen_in_its_slices_and_read_once_for_all(folder, monkeypatch):
    for kind, volume in (("images", STACK), ("masks", LABELS)):
        np.save(folder.root / kind / "a.npy", volume)
    monkeypatch.setattr(digests, "FRESH", -1 << 62)
    read, real = [], digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path.parent.name) or real(path))
    data = folder()()
    before, told = look(data, {}, data.ids)
    assert (told, sorted(read)) == ([], ["images", "masks"])
    assert look(data, before, data.ids)[1] == []
    np.save(folder.root / "images" / "a.npy", STACK[::-1])
    assert look(data, before, data.ids)[1][0] == f"image a#000: {folder.root / 'images' / 'a.npy'} changed"


def test_another_range_is_another_meaning(folder):
    np.save(folder.root / "images" / "a.npy", STACK)
    np.save(folder.root / "masks" / "a.npy", LABELS)
    before = meaning_of(folder()())
    assert changed_meaning(folder()(), before) is None
    assert "segradius.yaml changed (range)" in changed_meaning(folder(range=[0, 5000])(), before)
    assert "segradius.yaml changed (slices)" in changed_meaning(folder(slices={"axis": 1})(), before)


def test_images_and_masks_may_lie_in_one_npz(folder):
    np.savez(folder.root / "images" / "a.npz", image=STACK, label=LABELS)
    data = folder(masks="images", array={"images": "image", "masks": "label"})()
    np.testing.assert_array_equal(data[3].image[0], mapped(STACK[3], 0, 4095))
    np.testing.assert_array_equal(data[3].label, LABELS[3])


def test_a_series_of_dicom_files_is_sorted_by_name_and_its_patient_is_nowhere(folder):
    for number in (10, 2, 1):
        (folder.root / "images" / f"{number:02d}.dcm").write_bytes(dicom(STACK[number % 5, None, :, :, None]))
        np.save(folder.root / "masks" / f"{number:02d}.npy", LABELS[number % 5])
    data = folder(slices=None)()
    assert data.ids == ("01", "02", "10")
    np.testing.assert_array_equal(data[2].image[0], mapped(STACK[0], 0, 4095))
    assert "Doe" not in repr([data[place] for place in range(3)])
    (folder.root / "images" / "02.dcm").write_bytes(dicom(STACK[:1, :, :, None], RescaleSlope="0"))
    with pytest.raises(BadSampleError) as error:
        data[1]
    assert "Doe" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"bands": 0}, "bands is 0; expected 1 to 1024"),
        ({"bands": True}, "bands is True; expected 1 to 1024"),
        (
            {"range": [1]},
            r"range is \[1\]; expected \[low, high\], two numbers of which the first is sm",
        ),
        ({"range": [3, 3]}, "range is"),
        ({"range": [0, float("inf")]}, "range is"),
        ({"range": ["0", "1"]}, "range is"),
        ({"range": "full"}, "range is 'full'"),
        ({"range": [-1.7e308, 1.7e308]}, "range is .*a span"),
        ({"clip": 1}, "clip is 1; expected true or false"),
        ({"clip": True, "range": "dtype"}, r"clip: true cuts numbers to a range: \[low, high\], which is not given"),
        ({"slices": True}, "slices is True; expected a mapping"),
        ({"slices": {"axes": 1}}, "unknown key in slices 'axes'; did you mean 'axis'"),
        ({"slices": {"axis": -1}}, "axis in slices is -1"),
        ({"slices": {"every": 0}}, "every in slices is 0"),
        ({"layout": "HWC"}, "layout is 'HWC'; expected hwc or chw"),
        ({"array": 3}, "array is 3"),
        ({"array": {"image": "x"}}, "unknown key in array 'image'; did you mean 'images'"),
    ],
)
def test_a_key_that_is_not_as_expected_is_refused(folder, keys, message):
    with pytest.raises(InputError, match=message):
        folder(**keys)()


def test_two_samples_of_one_name_are_refused(folder):
    np.save(folder.root / "images" / "a.npy", STACK)
    np.save(folder.root / "masks" / "a.npy", LABELS)
    for kind in ("images", "masks"):
        (folder.root / kind / "a#000.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="another sample is called 'a#000' too"):
        folder()()


def test_images_without_masks_are_read_by_the_same_keys(folder):
    tiff(folder.root / "images" / "a.tif", STACK)
    np.save(folder.root / "images" / "b.npy", STACK[:2])
    data = open_data(f"images:{folder.root / 'images'},bands=1,range=[0, 4095],slices={{every: 2}}")
    assert data.ids == ("a#000", "a#002", "a#004", "b#000")
    np.testing.assert_array_equal(data[1].image[0], mapped(STACK[2], 0, 4095))
    assert (data[1].label == 255).all()
    assert "4 images (4 slices of 2 files) to read" in counted(data)
    assert meaning_of(data)["range"] == [0, 4095]
    assert open_data(f"images:{folder.root / 'images'}").ids == ("a",)
    with pytest.raises(InputError, match="unknown option of images 'band'"):
        open_data(f"images:{folder.root / 'images'},band=1,range=[0, 4095]")


def test_a_listed_stack_is_cut_as_that_of_a_folder(folder):
    tiff(folder.root / "images" / "a.tif", STACK)
    np.save(folder.root / "masks" / "a.npy", LABELS)
    (folder.root / "all.csv").write_text("image,mask\nimages/a.tif,masks/a.npy\n")
    data = open_data(f"list:{folder.root / 'all.csv'},classes=[a, b, c],bands=1,range=[0, 4095],slices={{}}")
    assert data.ids == tuple(f"images/a#{number:03d}" for number in range(5))
    np.testing.assert_array_equal(data[4].image[0], mapped(STACK[4], 0, 4095))
    np.testing.assert_array_equal(data[4].label, LABELS[4])


def test_volumes_as_nnunet_names_them_are_paired(folder):
    nifti(folder.root / "images" / "case_01_0000.nii.gz", STACK)
    nifti(folder.root / "images" / "case_02_0000.nii.gz", STACK)
    for name in ("case_01.nii.gz", "case_02.nii.gz"):
        nifti(folder.root / "masks" / name, LABELS)
    (folder.root / "images" / "case_02_0000.nii.gz").rename(folder.root / "images" / "case_02_0000.NII.GZ")
    data = folder(images="images/*_0000.nii.gz", slices={"every": 3})()
    assert data.ids == ("case_01#000", "case_01#003", "case_02#000", "case_02#003")


def test_structures_that_overlap_are_cut_as_their_image(folder):
    nifti(folder.root / "images" / "p.nii.gz", STACK)
    yes = {"organ": LABELS > 0, "vessel": LABELS == 2}
    for name, volume in yes.items():
        (folder.root / "masks" / name).mkdir()
        nifti(folder.root / "masks" / name / "p.nii.gz", volume.astype(np.uint8))
    data = folder(classes=None, structures=list(yes), masks="masks/{structure}")()
    assert data.ids == tuple(f"p#{number:03d}" for number in range(5))
    for number in range(5):
        np.testing.assert_array_equal(data[number].label, yes["organ"][number] + 2 * yes["vessel"][number])
        assert list(data.parts(number)) == ["image", "mask organ", "mask vessel"]
    nifti(folder.root / "masks" / "vessel" / "p.nii.gz", yes["vessel"][:4].astype(np.uint8))
    with pytest.raises(BadSampleError, match=r"the file has 4 slices; expected 5 \(the mask of 'vessel'"):
        data[0]
    nifti(folder.root / "masks" / "vessel" / "p.nii.gz", yes["vessel"].astype(np.uint8), np.diag([-1, 1, 2, 1]))
    with pytest.raises(BadSampleError, match="the axes of the mask lead to LAS and those of the image to RAS"):
        data[0]
    with pytest.raises(InputError, match=r"slices: expected masks of each structure, as masks/\{structure\}"):
        folder(classes=None, structures=list(yes), masks="masks/organ")()


def test_each_compressed_volume_of_an_image_and_its_structures_is_read_once(folder, monkeypatch):
    names = [f"s{number}" for number in range(8)]
    nifti(folder.root / "images" / "p.nii.gz", STACK)
    for number, name in enumerate(names):
        (folder.root / "masks" / name).mkdir()
        nifti(folder.root / "masks" / name / "p.nii.gz", np.greater(LABELS, number % 2).astype(np.uint8))
    data, read, stream = folder(classes=None, structures=names, masks="masks/{structure}")(), [], Streamed.stream

    def counted_stream(array, axis, number):
        read.append(array.file)
        return stream(array, axis, number)

    monkeypatch.setattr(Streamed, "stream", counted_stream)
    for number in range(5):
        np.testing.assert_array_equal(data[number].label & 1, LABELS[number] > 0)
    assert len(data) == 5
    assert len(read) == len(set(read)) == 9


@pytest.mark.parametrize(("library", "name"), [("nibabel", "a.nii"), ("pydicom", "a.dcm"), ("tifffile", "a.tif")])
def test_a_library_that_is_not_there_ends_the_opening_with_its_extra(folder, monkeypatch, library, name):
    (folder.root / "masks" / "a.npy").write_bytes(b"")
    {"nibabel": nifti, "pydicom": WRITERS["a.dcm"], "tifffile": tiff}[library](folder.root / "images" / name, STACK)
    monkeypatch.setitem(sys.modules, library, None)
    extra = "tiff" if library == "tifffile" else "medical"
    with pytest.raises(MissingExtraError, match=rf"needs {library}, which is not installed: .*segradius\[{extra}\]"):
        folder()()
