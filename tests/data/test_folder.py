from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.kinds import TURNS
from segradius.core.errors import InputError
from segradius.data import BadSampleError, open_data

MASK = np.array([[0, 1, 1], [1, 0, 255]], np.uint8)


@pytest.fixture
def make(tmp_path, write, photo):
    """A folder with one image and one mask, and a YAML of the given text."""

    def maker(yaml="classes: [no wound, wound]", image="images/a.jpg", mask="masks/a.png", labels=MASK):
        write(tmp_path / image, photo(2, 3))
        write(tmp_path / mask, labels)
        (tmp_path / "segradius.yaml").write_text(yaml)
        return tmp_path

    return maker


def first(folder, **options):
    return open_data(f"folder:{folder}", **options)[0]


def test_names_alone_are_enough(make):
    sample = first(make())
    assert sample.id == "a"
    assert sample.label.tolist() == MASK.tolist()


def test_the_yaml_may_be_named_itself(make):
    assert first(make() / "segradius.yaml").id == "a"


def test_values_and_ignored_values(make):
    labels = np.array([[0, 255, 255], [0, 7, 8]], np.uint8)
    folder = make("classes: [no, wound]\nvalues: [0, 255]\nignore_index: [7, 8]".replace("no,", "none,"), labels=labels)
    assert first(folder).label.tolist() == [[0, 1, 1], [0, 255, 255]]


def test_palette_masks_and_an_ignored_colour(make):
    palette = np.array([(255, 0, 0), (0, 0, 255), (0, 0, 0)], np.uint8)
    yaml = "classes: [red, blue]\npalette: [[255, 0, 0], [0, 0, 255]]\nignore_color: [0, 0, 0]"
    data = open_data(f"folder:{make(yaml, labels=palette[[[0, 1, 2], [1, 0, 0]]])}")
    assert data[0].label.tolist() == [[0, 1, 255], [1, 0, 0]]
    assert data.classes.palette == ((255, 0, 0), (0, 0, 255))


def test_patterns_with_split_tree_and_suffix(make, write, photo, tmp_path):
    folder = make(
        "classes: [a, b]\nimages: 'img/{split}/**/*_rgb.png'\nmasks: 'gt/{split}/**/*_mask.png'",
        image="img/val/clip1/007_rgb.png",
        mask="gt/val/clip1/007_mask.png",
    )
    write(tmp_path / "img/val/clip2/007_rgb.png", photo(2, 3))
    write(tmp_path / "gt/val/clip2/007_mask.png", MASK)
    data = open_data(f"folder:{folder}", split="val")
    assert data.ids == ("clip1/007", "clip2/007")
    with pytest.raises(InputError, match="needs a split; sub-folders found: val"):
        open_data(f"folder:{folder}")
    with pytest.raises(InputError, match="no images found"):
        open_data(f"folder:{folder}", split="train")


def test_split_is_a_sub_folder_by_default(make):
    assert first(make(image="images/val/a.png", mask="masks/val/a.png"), split="val").id == "a"


def test_a_split_without_place_is_refused(make):
    with pytest.raises(InputError, match=r"images: images has no \{split\}, so the split 'val' means nothing"):
        open_data(f"folder:{make('classes: [a, b]' + chr(10) + 'images: images')}", split="val")


def test_three_hundred_classes_need_sixteen_bits(make):
    yaml = f"classes: [{', '.join(f'c{i}' for i in range(300))}]"
    data = open_data(f"folder:{make(yaml, labels=np.array([[0, 255, 299], [1, 2, 3]], np.uint16))}")
    assert data[0].label.tolist() == [[0, 255, 299], [1, 2, 3]]
    assert data.classes.ignore_index == 65535


def test_an_image_without_mask_is_named(make, write, photo):
    folder = make()
    write(folder / "images" / "lonely.png", photo(2, 3))
    with pytest.raises(InputError, match="no mask found for 'lonely'"):
        open_data(f"folder:{folder}")


def test_two_images_of_one_name_are_refused(make, write, photo):
    folder = make()
    write(folder / "images" / "a.png", photo(2, 3))
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png would both be the sample 'a'"):
        open_data(f"folder:{folder}")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="names the classes"):
        open_data(f"folder:{tmp_path}")
    (tmp_path / "segradius.yaml").write_text("classes: [a, b]")
    with pytest.raises(InputError, match="no images found"):
        open_data(f"folder:{tmp_path}")


def test_a_folder_name_with_glob_characters(make, tmp_path, write, photo):
    odd = tmp_path / "run [1]"
    write(odd / "images" / "a.png", photo(2, 3))
    write(odd / "masks" / "a.png", MASK)
    (odd / "segradius.yaml").write_text("classes: [a, b]")
    assert first(odd).id == "a"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("[1, 2]", "the key 'classes' is needed"),
        ("classes: [a, b", "no valid YAML"),
        ("classes: [a, b]\npallete: []", "did you mean 'palette'"),
        ("classes: [no, wound]", "quote it"),
        ("classes: []", "expected a list of names"),
        ("classes: [a, b]\npalette: [[0, 0, 0]]", "1 given for 2 classes"),
        ("classes: [a, b]\npalette: [[0, 0, 0], [0, 0, 0]]", "two classes have the same"),
        ("classes: [a, b]\npalette: [[0, 0, 0], [0, 0, 256]]", "expected numbers in 0–255"),
        ("classes: [a, b]\npalette: red", "expected a list"),
        ("classes: [a, b]\nignore_index: 1", "1 is the mask value of a class"),
        ("classes: [a, b]\nignore_index: -1", "expected a whole number in 0–65535"),
        ("classes: [a, b]\nimages: 3", "expected a folder or a pattern"),
        ("classes: [a, b]\nvalues: {0: a}", "the class 'b' has no mask value"),
        ("classes: [a, b]\nvalues: {0: a, 1: c}", "unknown class in values 'c'"),
        ("classes: [a, b]\nvalues: {x: a, 1: b}", "values: 'x'; expected a whole number in 0–65535"),
        ("classes: [a, b]\nvalues: {0: a, 0: b}", "the key '0' twice"),
        ("classes: [a, b]\nvalues: 3", "expected a list, or a mapping from each mask value to its class"),
        ("classes: [a, b]\nvalues: {0: a, 3: b}\nignore_index: 3", "3 is the mask value of a class"),
        ("classes: [a, b]\nread: both", "read is 'both'; expected numbers or colours"),
        ("classes: [a, b]\nlossy_masks: yes", "lossy_masks is True; expected nearest"),
        ("classes: [a, b]\nexif: 6", "exif is 6; expected shown or stored"),
        ("classes: [a, b]\nclasses: [a]", "has the key 'classes' twice, in lines 1 and 2"),
        ("classes: &x [*x]", "contains itself"),
    ],
)
def test_mistakes_in_the_yaml_are_named(make, yaml, message):
    with pytest.raises(InputError, match=message):
        open_data(f"folder:{make(yaml)}")


def test_label_out_of_range_names_sample_file_value_and_pixel(make):
    with pytest.raises(BadSampleError, match=r"value 9 in the mask at pixel \(row 0, column 2\)") as caught:
        first(make(labels=np.array([[0, 1, 9], [0, 0, 0]], np.uint8)))
    assert caught.value.sample_id == "a"
    assert caught.value.path.name == "a.png"


def test_mask_of_another_size(make):
    with pytest.raises(BadSampleError, match="the mask is 3×3 and the image 2×3"):
        first(make(labels=np.zeros((3, 3), np.uint8)))


def test_truncated_image_and_the_rest_still_read(make, write, photo):
    folder = make()
    path = write(folder / "images" / "b.jpg", photo(64, 64))
    path.write_bytes(path.read_bytes()[:-900])
    write(folder / "masks" / "b.png", np.zeros((64, 64), np.uint8))
    data = open_data(f"folder:{folder}")
    assert data[0].id == "a"
    with pytest.raises(BadSampleError, match=r"cannot be read: .*truncated") as caught:
        data[1]
    assert (caught.value.sample_id, caught.value.path.name) == ("b", "b.jpg")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_files_that_are_no_images(make, content):
    folder = make()
    (folder / "masks" / "a.png").write_bytes(content)
    with pytest.raises(BadSampleError, match="cannot be read"):
        first(folder)


def test_a_mask_that_vanished_after_opening(make):
    folder = make()
    data = open_data(f"folder:{folder}")
    (folder / "masks" / "a.png").unlink()
    with pytest.raises(BadSampleError, match="the file is missing"):
        data[0]


def test_opening_reads_no_image(make):
    folder = make()
    for file in (folder / "images" / "a.jpg", folder / "masks" / "a.png"):
        file.write_bytes(b"")
    assert open_data(f"folder:{folder}").ids == ("a",)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_image_and_mask_are_turned_alike_or_it_must_be_said(tmp_path, photo, orientation):
    """Orientations 5 to 8 exchange the sides, so that sizes tell; 2 to 4 do not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, labels = photo(2, 3), np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    shown, shown_labels = (np.asarray(Image.fromarray(a).transpose(TURNS[orientation])) for a in (pixels, labels))
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png", exif=exif)

    def read(mask, yaml="", **options):
        Image.fromarray(mask).save(tmp_path / "masks" / "a.png", **options)
        (tmp_path / "segradius.yaml").write_text(f"classes: [no wound, wound]\n{yaml}")
        sample = first(tmp_path)
        return (sample.image * 255).byte().permute(1, 2, 0).numpy(), sample.label.numpy()

    def same(found, expected):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)

    same(read(labels, exif=exif), (shown, shown_labels))  # both say so
    same(read(shown_labels, "exif: shown"), (shown, shown_labels))
    same(read(labels, "exif: stored"), (pixels, labels))
    if orientation >= 5:
        same(read(shown_labels), (shown, shown_labels))
        with pytest.raises(BadSampleError, match=r"the mask is 2×3 and the image 3×2 .* see exif: stored"):
            read(labels)
    else:
        for mask in (labels, shown_labels):
            with pytest.raises(BadSampleError, match=rf"EXIF orientation {orientation} and the mask 1, .*exif: shown"):
                read(mask)


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        ("[0, 255]", [0, 255]),
        ("{0: none, 255: wound}", [0, 255]),
        ("{255: wound, 0: none}", [0, 255]),
        ("{0: none, 7: wound, 8: wound, 9: none}", [0, 7]),
        ("{9: none, 8: wound}", [9, 8]),
    ],
)
def test_values_map_what_is_stored_to_classes(make, values, stored):
    labels = np.array(stored, np.uint8)[[[0, 1, 1], [1, 0, 0]]]
    folder = make(f"classes: [none, wound]\nvalues: {values}", labels=labels)
    assert first(folder).label.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_a_class_that_is_called_as_a_number_need_not_be_quoted_twice(make):
    folder = make('classes: ["10", "20"]\nvalues: {0: 10, 7: 20}', labels=np.array([[0, 7, 7], [7, 0, 0]], np.uint8))
    assert first(folder).label.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_several_values_may_be_one_class(make):
    yaml = "classes: [none, wound]\nvalues: {0: none, 7: wound, 8: wound, 9: none}"
    folder = make(yaml, labels=np.array([[0, 7, 8], [9, 255, 0]], np.uint8))
    assert first(folder).label.tolist() == [[0, 1, 1], [0, 255, 0]]


def test_zero_and_255_need_a_word(make):
    labels = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    with pytest.raises(
        BadSampleError, match=r"write values: {0: no wound, 255: wound}, or, if it is no class, ignore_"
    ):
        first(make(labels=labels))
    void = first(make("classes: [no wound, wound]\nignore_index: 255", labels=labels))
    assert void.label.tolist() == labels.tolist()


def test_camera_photo_and_mask_as_seen(make, write, photo, tmp_path):
    folder = make(labels=np.zeros((3, 2), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "images" / "a.jpg", photo(2, 3), exif=exif)
    assert first(folder).image.shape == (3, 3, 2)


def test_a_folder_without_the_name_of_its_layout_is_told_what_to_write(make):
    folder = make()
    for spec in (str(folder), f"{folder}/"):
        with pytest.raises(InputError, match=f"which is a folder: write folder:{spec},"):
            open_data(spec)
    for name, advice in (
        ("a.csv", "list:"),
        ("a.json", "coco:, or list: of a list of pairs,"),
        ("a.parquet", "hfdata:"),
    ):
        (folder / name).touch()
        with pytest.raises(InputError, match=f"which is a file: write {advice} before it"):
            open_data(f"{folder / name},classes=[a, b]")
    for spec in ("", "nowhere", "x" * 5000, "a\0b"):
        with pytest.raises(InputError) as caught:
            open_data(spec)
        assert "folder:" not in str(caught.value)
