"""Structures that may overlap, in a folder: the labels are those of a plain loop over pixels, or there is a line."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torch.utils.data import DataLoader

from segradius.core.errors import InputError
from segradius.core.label_sets import set_names
from segradius.data import BadSampleError, open_data
from segradius.data.masks import MaskKey, Stored
from segradius.data.structures import overlaid

NAMES = ("organ", "vessel", "lesion")
YAML = "structures: [organ, vessel, lesion]\nmasks: 'masks/{structure}'\n"
RNG = np.random.default_rng(0)
MAPS = RNG.random((3, 4, 6)) < 0.5
FULL = MAPS.astype(np.uint8) * 255


def looped(maps, void=None, ignore=255):
    """Numbers of sets, pixel by pixel."""
    found = np.zeros(maps.shape[1:], int)
    for row, column in np.ndindex(*found.shape):
        if void is not None and void[:, row, column].any():
            found[row, column] = ignore
        else:
            found[row, column] = sum(2**k for k in range(len(maps)) if maps[k, row, column])
    return found


@pytest.fixture
def make(tmp_path, write, photo):
    """A folder with an image, a mask file a structure, and a YAML."""

    def maker(yaml=YAML, masks=FULL, names=NAMES, ending="png"):
        write(tmp_path / "images" / "a.png", photo(4, 6))
        for name, mask in zip(names, masks, strict=True):
            write(tmp_path / "masks" / name / f"a.{ending}", mask)
        (tmp_path / "segradius.yaml").write_text(yaml)
        return open_data(f"folder:{tmp_path}")

    return maker


@pytest.mark.parametrize("yes", [1, 128, 255])
def test_labels_are_the_sets_of_a_plain_loop(make, yes):
    data = make(masks=MAPS.astype(np.uint8) * yes)
    assert data.classes.structures == NAMES
    assert data.classes.names == set_names(NAMES)
    assert len(set(data.classes.palette)) == 8
    assert data[0].label.tolist() == looped(MAPS).tolist()


def test_a_pixel_is_void_where_any_mask_is(make):
    void = np.random.default_rng(1).random((3, 4, 6)) < 0.2
    masks = np.where(void, 255, MAPS * 7).astype(np.uint8)
    assert make(f"{YAML}ignore_index: 255", masks)[0].label.tolist() == looped(MAPS, void).tolist()
    told = make(f"{YAML}ignore_index: 255\nvalues: [7, 0]", masks)[0].label
    assert told.tolist() == looped(~MAPS, void).tolist()


def test_eight_structures_have_a_wider_void(make):
    names = [f"s{k}" for k in range(8)]
    maps, void = RNG.random((8, 4, 6)) < 0.5, RNG.random((8, 4, 6)) < 0.1
    yaml = f"structures: [{', '.join(names)}]\nmasks: 'masks/{{structure}}'\nignore_index: 9"
    data = make(yaml, np.where(void, 9, maps).astype(np.uint8), names)
    assert data.classes.ignore_index == 65535
    assert data[0].label.tolist() == looped(maps, void, 65535).tolist()


@settings(deadline=None, max_examples=40)
@given(arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))), st.integers(1, 65535))
def test_any_masks_come_to_the_sets_of_a_plain_loop(maps, yes):
    stored = [(str(k), Stored(mask.astype(np.int64) * yes)) for k, mask in enumerate(maps)]
    assert overlaid(stored, MaskKey(((0, 0),), ignore_index=999)).tolist() == looped(maps).tolist()


def test_masks_may_be_bands_of_one_file(tmp_path, write, photo):
    (tmp_path / "masks").mkdir()
    write(tmp_path / "images" / "a.png", photo(4, 6))
    np.save(tmp_path / "masks" / "a.npy", MAPS)
    (tmp_path / "segradius.yaml").write_text("structures: [organ, vessel, lesion]")
    assert open_data(f"folder:{tmp_path}")[0].label.tolist() == looped(MAPS).tolist()
    (tmp_path / "masks" / "a.npy").unlink()
    write(tmp_path / "masks" / "a.png", np.moveaxis(MAPS, 0, -1).astype(np.uint8) * 255)
    assert open_data(f"folder:{tmp_path}")[0].label.tolist() == looped(MAPS).tolist()


@pytest.mark.parametrize("maps", [MAPS, RNG.random((4, 5, 6)) < 0.5, RNG.random((2, 4, 6)) < 0.5])
@pytest.mark.parametrize("how", ["tifffile", "ImageJ", "Pillow"])
def test_masks_may_be_pages_of_a_tiff(tmp_path, write, photo, maps, how):
    write(tmp_path / "images" / "a.png", photo(*maps.shape[1:]))
    (tmp_path / "masks").mkdir()
    (tmp_path / "segradius.yaml").write_text(f"structures: [{', '.join('abcd'[: len(maps)])}]")
    pages, file = maps.astype(np.uint8) * 255, tmp_path / "masks" / "a.tif"
    if how == "Pillow":
        first, *others = map(Image.fromarray, pages)
        first.save(file, save_all=True, append_images=others)
    else:
        tifffile.imwrite(file, pages, photometric="minisblack", imagej=how == "ImageJ")
    assert open_data(f"folder:{tmp_path}")[0].label.tolist() == looped(maps).tolist()
    (tmp_path / "segradius.yaml").write_text("structures: [a]")
    with pytest.raises(BadSampleError, match=f"{len(maps)} bands or pages'; expected whole numbers in 1"):
        open_data(f"folder:{tmp_path}")[0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (MAPS[:2], r"the mask is 'bool of shape \(2, 4, 6\)'; expected whole numbers \(3, height, width\)"),
        (np.moveaxis(MAPS, 0, -1), "expected whole numbers"),
        (MAPS[:, :, :3], r"the mask has the shape \(3, 4, 3\), in which the bands may be first or last"),
        (MAPS[0], "expected whole numbers"),
        (MAPS.astype(np.float32), "expected whole numbers"),
        (np.where(MAPS, 2, np.arange(6)), "the mask of 'organ': it holds 5 values beside 0: 1, 2, 3, 4, 5; expected"),
    ],
)
def test_bands_that_are_not_told_apart_are_refused(tmp_path, write, photo, array, message):
    write(tmp_path / "images" / "a.png", photo(4, 6))
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "a.npy", array)
    (tmp_path / "segradius.yaml").write_text("structures: [organ, vessel, lesion]")
    with pytest.raises(BadSampleError, match=message):
        open_data(f"folder:{tmp_path}")[0]


def test_two_channels_or_four_in_a_picture_are_refused(tmp_path, write, photo):
    write(tmp_path / "images" / "a.png", photo(4, 6))
    write(tmp_path / "masks" / "a.png", np.full((4, 6, 4), 255, np.uint8))
    for names in ("a, b, c, d", "a, b", "a, b, c"):
        (tmp_path / "segradius.yaml").write_text(f"structures: [{names}]")
        with pytest.raises(BadSampleError, match="mode 'RGBA'; expected a band for each of"):
            open_data(f"folder:{tmp_path}")[0]


def test_a_structure_without_a_file_is_refused_or_nowhere(make, tmp_path, write, photo):
    make()
    for name in "bc":
        write(tmp_path / "images" / f"{name}.png", photo(4, 6))
        write(tmp_path / "masks" / "organ" / f"{name}.png", MAPS[0])
    with pytest.raises(InputError, match=r"no mask of 'vessel' found for 'b' and 1 more; write missing: empty"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "segradius.yaml").write_text(f"{YAML}missing: empty")
    (tmp_path / "masks" / "organ" / "c.png").unlink()
    data = open_data(f"folder:{tmp_path}")
    assert data[1].label.tolist() == MAPS[0].astype(int).tolist()
    assert not data[2].label.any()
    assert sorted(data.parts(1)) == ["image", "mask organ"]


def test_a_structure_of_which_no_file_fits_is_refused_whatever_may_be_missing(make, tmp_path):
    make()
    (tmp_path / "masks" / "vessel" / "a.png").rename(tmp_path / "masks" / "vessel" / "a_mask.png")
    (tmp_path / "segradius.yaml").write_text(f"{YAML}missing: empty")
    with pytest.raises(InputError, match="no mask of 'vessel' found for 'a'"):
        open_data(f"folder:{tmp_path}")


def test_it_goes_to_worker_processes(make):
    data = make()
    assert pickle.loads(pickle.dumps(data))[0].label.equal(data[0].label)
    (batch,) = DataLoader(data, batch_size=1, num_workers=1)
    assert batch.labels[0].equal(data[0].label)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([*MAPS[:2] * 255, MAPS[2]], "the mask of 'lesion' holds 0 and 1, that of 'organ' 0 and 255: write values"),
        ([*MAPS[:2], MAPS[2] * 2 + 1], "the mask of 'lesion': it holds 2 values beside 0: 1, 3; expected one"),
        ([*MAPS[:2], np.ones((3, 6))], r"the masks of 'organ' and 'lesion' are 4×6 and 3×6 \(height × width\)"),
        (np.ones((3, 5, 6)), "the mask is 5×6 and the image 4×6"),
    ],
)
def test_masks_that_are_not_yes_and_no_are_refused(make, masks, message):
    with pytest.raises(BadSampleError, match=message):
        make(masks=[np.asarray(mask, np.uint8) for mask in masks])[0]


@pytest.mark.parametrize("maps", [MAPS, MAPS & False, MAPS | True])
@pytest.mark.parametrize("palette", ["black, red", "black, white", "white, black", "by Pillow"])
def test_a_palette_that_may_have_turned_no_into_yes_is_refused_and_no_other(make, tmp_path, maps, palette):
    make()
    for name, mask in zip(NAMES, maps, strict=True):
        file = tmp_path / "masks" / name / "a.png"
        if palette == "by Pillow":
            Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB").quantize(2).save(file)
            continue
        image = Image.fromarray(mask.astype(np.uint8), "L").convert("P")
        colours = {"black": (0, 0, 0), "red": (255, 0, 0), "white": (255, 255, 255)}
        image.putpalette([value for each in palette.split(", ") for value in colours[each]])
        image.save(file)
    data = open_data(f"folder:{tmp_path}")
    told = ""
    try:
        assert data[0].label.tolist() == looped(maps).tolist()
    except BadSampleError as error:
        told = str(error)
    assert not told or palette in ("white, black", "by Pillow"), told
    assert "number colours anew" in told or palette != "white, black"


def test_a_mask_with_lossy_compression_is_refused(make):
    with pytest.raises(BadSampleError, match="lossy compression"):
        make(ending="jpg")[0]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("structures: organ", "expected a list of names"),
        ("structures: []", "expected a list of names"),
        ("structures: [a, a]", "expected each name once"),
        ("structures: [a, no]", "quote them"),
        ("structures: [a, background]", "no structure may be called background"),
        ("structures: [a, b, 'a + b']", "two sets of them would have one name"),
        (f"structures: [{', '.join(f's{k}' for k in range(9))}]", r"9 yes/no channels make 2\^9 sets"),
        ("structures: [a]\nclasses: [b]", "classes: it means nothing beside structures"),
        ("structures: [a]\npalette: [[0, 0, 0]]", "palette: it means nothing beside structures"),
        ("structures: [a]\nmasks: {b: x}", "unknown structure in masks 'b'"),
        ("structures: [a, b]\nmasks: {a: x}", "the structure 'b' has None; expected its folder"),
        ("structures: [a]\nvalues: {0: a}", r"expected \[no, yes\]"),
        ("structures: [a]\nvalues: [0, 0]", r"expected \[no, yes\]"),
        ("structures: [a]\nignore_index: 0", "0 is a value of the masks of structures"),
        ("structures: [a]\nvalues: [1, 2]\nignore_index: 2", "2 is a value of the masks of structures"),
        ("structures: [a]\nmissing: full", "missing is 'full'; expected empty"),
        ("classes: [a, b]\nmissing: empty", "missing: it means nothing without structures"),
    ],
)
def test_a_wrong_key_is_told_in_one_line(make, yaml, message):
    with pytest.raises(InputError, match=message) as caught:
        make(yaml)
    assert "\n" not in str(caught.value)
