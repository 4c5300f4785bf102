from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from segradius.core.errors import InputError
from segradius.data import masks
from segradius.data.masks import MaskKey, translate
from segradius.data.readers import read_pixels

TEN = MaskKey(tuple((i, i) for i in range(10)))
RED, BLUE = (200, 10, 10), (10, 10, 200)
COLOURED = MaskKey(((0, 0), (1, 1)), ((RED, 0), (BLUE, 1)))
NEAREST = replace(COLOURED, nearest=True)


def read_image(path):
    return np.rint(read_pixels(path)[0] * 255).astype(np.uint8)


def read_labels(path, key):
    return masks.read_labels(path, key)[0]


def grey_png(bits: int, width: int, row: bytes) -> bytes:
    """A grey PNG of one row at less than 8 bits, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )


@given(arrays.arrays(np.int64, (3, 5), elements=st.integers(0, 7)), st.permutations(range(8)))
def test_translate_is_the_table_it_was_given(raw, labels):
    table = np.array(labels)
    np.testing.assert_array_equal(translate(raw, tuple(enumerate(labels))), table[raw])


def test_translate_names_the_first_bad_pixel_and_what_was_expected():
    with pytest.raises(InputError, match=r"value 9 in the mask at pixel \(row 1, column 2\); expected 0–2, 255"):
        translate(np.array([[0, 1, 2], [255, 0, 9], [9, 9, 9]]), ((0, 0), (1, 1), (2, 2), (255, 255)))


def test_rgb_image_is_read_exactly(tmp_path, write, photo):
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", photo())), photo())


def test_grey_alpha_and_palette_images_become_rgb(tmp_path, write, photo):
    grey, alpha = photo()[..., 0], np.dstack([photo(), np.full((4, 6), 255, np.uint8)])
    np.testing.assert_array_equal(read_image(write(tmp_path / "l.png", grey)), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", alpha)), photo())
    indexed = write(tmp_path / "p.png", np.array([[0, 3]], np.uint8), "P", transparency=b"\xff\0\x80\xff")
    np.testing.assert_array_equal(read_image(indexed), [[[0, 255, 7], [3, 252, 7]]])


def test_exif_orientation_turns_the_image_upright(tmp_path, write, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = write(tmp_path / "a.png", photo(), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(photo(), -1))


def test_sixteen_bit_images_are_refused(tmp_path, write):
    path = write(tmp_path / "a.png", np.full((2, 2), 300, np.uint16))
    with pytest.raises(InputError, match="expected 8 bits a channel"):
        read_image(path)


@pytest.mark.parametrize("mode", [None, "P"])
def test_index_masks_are_their_numbers_whatever_the_palette(tmp_path, write, mode):
    labels = np.array([[0, 1, 2], [9, 8, 7]], np.uint8)
    np.testing.assert_array_equal(read_labels(write(tmp_path / "m.png", labels, mode), TEN), labels)


def test_sixteen_bit_and_one_bit_masks(tmp_path, write):
    wide = write(tmp_path / "w.png", np.array([[300, 1000]], np.uint16))
    assert read_labels(wide, MaskKey(((300, 0), (1000, 1)))).tolist() == [[0, 1]]
    bits = write(tmp_path / "b.png", np.array([[True, False]]))
    assert read_labels(bits, TEN).tolist() == [[1, 0]]


def test_low_bit_grey_masks_keep_their_numbers(tmp_path):
    (tmp_path / "4.png").write_bytes(grey_png(4, 4, bytes([0x01, 0x29])))
    (tmp_path / "2.png").write_bytes(grey_png(2, 4, bytes([0b00011011])))
    assert read_labels(tmp_path / "4.png", TEN).tolist() == [[0, 1, 2, 9]]
    assert read_labels(tmp_path / "2.png", TEN).tolist() == [[0, 1, 2, 3]]


def test_rgb_masks_are_matched_exactly(tmp_path, write):
    path = write(tmp_path / "m.png", np.array([[RED, BLUE, BLUE]], np.uint8))
    assert read_labels(path, COLOURED).tolist() == [[0, 1, 1]]
    near = write(tmp_path / "n.png", np.array([[RED, (10, 10, 201)]], np.uint8))
    with pytest.raises(InputError, match=r"colour \(10, 10, 201\) in the mask at pixel \(row 0, column 1\)"):
        read_labels(near, COLOURED)
    with pytest.raises(InputError, match="no palette says"):
        read_labels(path, TEN)


def test_jpeg_masks_are_matched_nearest_and_never_gain_a_class(tmp_path, write):
    label = np.zeros((32, 32), int)
    label[:, 16:] = 1
    path = write(tmp_path / "m.jpg", np.array([RED, BLUE], np.uint8)[label], quality=75)
    read = read_labels(path, NEAREST)
    np.testing.assert_array_equal(read[:, :8], 0)
    np.testing.assert_array_equal(read[:, 24:], 1)
    assert ((read == label) | (read == 255)).all()


def test_jpeg_masks_without_palette_or_of_other_colours_are_refused(tmp_path, write):
    path = write(tmp_path / "m.jpg", np.full((16, 16, 3), 120, np.uint8))
    for key in (TEN, COLOURED, replace(TEN, nearest=True)):
        with pytest.raises(InputError, match="store masks as PNG"):
            read_labels(path, key)
    with pytest.raises(InputError, match="100% of the pixels of the mask lie more than 32 from every colour"):
        read_labels(path, NEAREST)


def test_grey_jpeg_masks_go_by_the_palette(tmp_path, write):
    path = write(tmp_path / "m.jpg", np.full((8, 8), 250, np.uint8))
    key = MaskKey(((0, 0), (1, 1)), (((0, 0, 0), 0), ((255, 255, 255), 1)), nearest=True)
    assert (read_labels(path, key) == 1).all()


def test_stride_keeps_every_so_many_samples_and_limit_counts_those() -> None:
    from segradius.data import open_data

    data = open_data("scenes:24x32,10", split="test", stride=4)
    assert list(data.ids) == ["test-00000", "test-00004", "test-00008"]
    assert data[2].id == "test-00008"
    assert list(open_data("scenes:24x32,10", split="test", stride=4, limit=2).ids) == ["test-00000", "test-00004"]
