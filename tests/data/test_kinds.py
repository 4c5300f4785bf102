"""The sweep: masks and images in every kind of file come to the stored numbers, or are refused in one line."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.kinds import CLASSES, FLAT, Kind, bmp, indexed, large_png, masks, png, saved, tiff
from segradius.core.errors import InputError
from segradius.data.masks import MaskKey, read_labels
from segradius.data.readers import read_pixels

RNG = np.random.default_rng(0)
MASKS = {
    "all of three": RNG.integers(0, 3, (9, 13)).astype(np.uint8),
    "the middle one absent": (RNG.integers(0, 2, (9, 13)) * 2).astype(np.uint8),
    "two": RNG.integers(0, 2, (9, 13)).astype(np.uint8),
    "an odd size": RNG.integers(0, 3, (1, 7)).astype(np.uint8),
}
KEY = MaskKey((*((i, i) for i in range(3)), (255, 255)), assumed=255, names=("a", "b", "c"))
WIDE = MaskKey(tuple((i, i) for i in range(4096)))


def outcome(kind: Kind, folder, key: MaskKey) -> str:
    path = folder / f"m{kind.ending}"
    path.write_bytes(kind.content)
    try:
        found, _ = read_labels(path, key)
    except InputError as error:
        return "refused" if "\n" not in str(error) else "in several lines"
    right = kind.truth is not None and found.dtype == np.int64 and np.array_equal(found, kind.truth)
    return "right" if right else "wrong"


@pytest.mark.parametrize("key", [KEY, WIDE], ids=["three classes", "all numbers"])
def test_every_kind_of_mask_is_right_or_refused(tmp_path, key):
    counts: Counter[str] = Counter()
    unlike = []
    for name, mask in MASKS.items():
        for kind in masks(mask):
            found = outcome(kind, tmp_path, key)
            counts[found] += 1
            # A palette of greys that are classes themselves cannot be told from a renumbered mask.
            if found != ("refused" if kind.truth is None else "right"):
                unlike.append((name, kind.name, found))
    print(dict(counts))
    assert unlike == []
    assert counts["wrong"] == 0


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "LAB", "HSV", "YCbCr"]
)
def test_no_mode_that_pillow_writes_to_any_container_is_read_wrongly(tmp_path, mode):
    containers = {
        "PNG": [{}, {"bits": 2}, {"optimize": True}, {"transparency": 0}],
        "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "group4"}, {"compression": "jpeg"}],
        "BMP": [{}],
        "GIF": [{}, {"optimize": False}, {"interlace": 0}],
        "WEBP": [{}, {"lossless": True}],
        "JPEG": [{"quality": 100, "subsampling": 0}],
        "PPM": [{}],
        "TGA": [{}],
        "JPEG2000": [{}],
    }
    for mask in MASKS.values():
        image, truth = as_mode(mask, mode)
        for container, options in ((name, each) for name, tried in containers.items() for each in tried):
            try:
                content = saved(image, container, **options)
            except (OSError, ValueError, KeyError, RuntimeError, SystemError):
                continue
            kind = Kind("", ".tif", content, truth)
            assert outcome(kind, tmp_path, KEY) != "wrong", (container, options)


def as_mode(mask, mode):
    grey = Image.fromarray(mask)
    if mode == "1":
        return Image.fromarray(mask > 0), (mask > 0).astype(np.int64)
    if mode in ("P", "PA"):
        return indexed(mask).convert(mode), mask
    if mode in ("I;16", "I", "F"):
        return Image.fromarray(mask.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])), mask
    if mode in ("LAB", "HSV", "YCbCr"):
        return Image.merge(mode, [grey] * 3), mask
    return grey.convert(mode), mask


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_a_file_that_was_cut_off_is_whole_or_refused(tmp_path, kind):
    mask = RNG.integers(0, 3, (40, 50)).astype(np.uint8)
    image = Image.fromarray(mask).convert("RGB") if kind == "WEBP" else Image.fromarray(mask)
    content = saved(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    for length in {*range(0, 60, 7), *np.linspace(60, len(content) - 1, 25).astype(int)}:
        assert outcome(Kind("", ".png", content[:length], mask), tmp_path, WIDE) != "wrong", length


def test_a_png_with_a_flipped_bit_is_right_or_refused(tmp_path):
    mask = MASKS["all of three"]
    content = saved(Image.fromarray(mask), "PNG")
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        assert outcome(Kind("", ".png", bytes(damaged), mask), tmp_path, WIDE) != "wrong", place


GREYS = MaskKey(((0, 0), (1, 1), (2, 2)), (((0, 0, 0), 0), ((2, 2, 2), 1), ((1, 1, 1), 2)), names=("a", "b", "c"))
COLOURS = MaskKey(KEY.values, tuple(zip(CLASSES, range(3), strict=True)), assumed=255, names=("a", "b", "c"))
M = MASKS["all of three"]
SWAPPED = [*FLAT[:3], *FLAT[6:], *FLAT[3:6]]


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            saved(indexed(M, SWAPPED), "PNG"),
            COLOURS,
            r"number 1 of the mask is shown as \(30, 200, 30\): by its number",
        ),
        (
            saved(indexed(M, SWAPPED), "PNG"),
            COLOURS,
            "it is class 1 'b', by its colour class 2 'c'; write read: numbers or",
        ),
        (saved(indexed(M, [9, 9, 9, *FLAT[3:]]), "PNG"), COLOURS, "number it is class 0 'a', by its colour nothing"),
        (
            saved(Image.fromarray(M), "PNG"),
            GREYS,
            r"shown as \(1, 1, 1\): by its number it is class 1 'b', by its colour cl",
        ),
        (png(M, 8, 3, (b"PLTE", bytes((0, 0, 0, 2, 2, 2, 1, 1, 1)))), KEY, "such files number colours anew"),
        (
            saved(Image.fromarray(M + np.uint8(98)), "PNG"),
            KEY,
            r"value 100 in the mask at pixel \(row 0, column 0\); expec",
        ),
        (png(np.dstack([M, M * 0 + 9]), 8, 4), KEY, r"transparent: alpha is 9 at pixel \(row 0, column 0\)"),
        (saved(Image.fromarray(M), "JPEG"), KEY, r"lossy compression .* store masks as PNG"),
        (saved(Image.fromarray(M), "JPEG"), COLOURS, r"give palette and lossy_masks: nearest in segradius\.yaml"),
        (tiff(M, pages=3), KEY, r"holds 3 pictures \(pages or frames\); expected one"),
        (b"", KEY, "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", KEY, "a Git LFS pointer"),
        (b"<html>", KEY, "it is no PNG, JPEG, TIFF, BMP, GIF, WEBP or PPM"),
    ],
)
def test_a_refusal_says_what_is_there_and_what_to_do(tmp_path, content, key, message):
    (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "m.png", key)


def test_numbers_or_colours_are_read_as_the_yaml_says(tmp_path):
    (tmp_path / "m.png").write_bytes(saved(indexed(M, SWAPPED), "PNG"))
    by_colour = np.array([0, 2, 1])[M]
    keys = {way: MaskKey(COLOURS.values, COLOURS.colours, read=way) for way in ("numbers", "colours")}
    read = {way: read_labels(tmp_path / "m.png", key)[0] for way, key in keys.items()}
    np.testing.assert_array_equal(read["numbers"], M)
    np.testing.assert_array_equal(read["colours"], by_colour)
    (tmp_path / "n.png").write_bytes(saved(indexed(M), "PNG"))
    np.testing.assert_array_equal(read_labels(tmp_path / "n.png", COLOURS)[0], M)
    (tmp_path / "g.gif").write_bytes(saved(indexed(M, SWAPPED), "GIF"))
    np.testing.assert_array_equal(read_labels(tmp_path / "g.gif", keys["colours"])[0], by_colour)


@pytest.mark.parametrize(
    ("values", "names", "remedy"),
    [
        ([0, 255], ("no", "yes"), "write values: {0: no, 255: yes}, or, if it is no class, ignore_index: 255"),
        ([255], ("no", "yes"), "write values"),
        ([0, 255], ("a", "b", "c"), "does not say what 255 means: write ignore_index: 255"),
    ],
)
@pytest.mark.parametrize("kind", ["grey", "three channels", "array"])
def test_nothing_but_zero_and_255_is_not_taken_for_void(tmp_path, values, names, remedy, kind):
    mask = np.array(values, np.uint8)[RNG.integers(0, len(values), (4, 5))]
    mask[0, 0] = 255
    key = MaskKey((*((i, i) for i in range(len(names))), (255, 255)), assumed=255, names=names)
    path = tmp_path / ("m.npy" if kind == "array" else "m.png")
    if kind == "array":
        np.save(path, mask)
    else:
        Image.fromarray(mask).convert("RGB" if kind == "three channels" else "L").save(path)
    with pytest.raises(InputError, match=remedy):
        read_labels(path, key)
    told = MaskKey(key.values, names=names)  # the YAML says that 255 is void
    np.testing.assert_array_equal(read_labels(path, told)[0], mask)
    mask[1, 1] = 1  # another class is there, so that 255 is no class
    np.save(tmp_path / "n.npy", mask)
    np.testing.assert_array_equal(read_labels(tmp_path / "n.npy", key)[0], mask)


PHOTO = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = np.stack([PHOTO[..., 0]] * 3, -1)
SOLID = np.full((5, 7, 1), 255, np.uint8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(PHOTO, 8, 2), PHOTO),
        (png(PHOTO, 8, 2, interlace=True), PHOTO),
        (png(PHOTO[..., 0], 8, 0), GREY),
        (png(PHOTO[..., 0] >> 4, 4, 0), (GREY >> 4) * 17),
        (png(PHOTO[..., 0] >> 6, 2, 0), (GREY >> 6) * 85),
        (png(PHOTO[..., 0] >> 7, 1, 0), (GREY >> 7) * 255),
        (png(np.dstack([PHOTO, SOLID]), 8, 6), PHOTO),
        (png(np.dstack([PHOTO, SOLID - 1]), 8, 6), None),
        (png(PHOTO.astype(int) * 257, 16, 2), None),
        (png(PHOTO[..., 0].astype(int) * 257, 16, 0), None),
        (png(np.dstack([PHOTO[..., 0], SOLID]).astype(int) * 257, 16, 4), None),
        (png(PHOTO, 8, 2, (b"tRNS", b"".join(bytes((0, v)) for v in PHOTO[2, 2]))), None),
        (saved(Image.fromarray(PHOTO), "TIFF"), PHOTO),
        (saved(Image.fromarray(PHOTO), "BMP"), PHOTO),
        (saved(Image.fromarray(PHOTO), "PPM"), PHOTO),
        (saved(Image.fromarray(PHOTO), "WEBP", lossless=True), PHOTO),
        (saved(indexed(PHOTO[..., 0] % 3), "GIF"), np.array(CLASSES)[PHOTO[..., 0] % 3]),
        (tiff(PHOTO, 8, t262=2, pages=2), None),
        (tiff(PHOTO[..., 0], 8, t262=0), 255 - GREY),
        (tiff(PHOTO, 16, t262=2), None),
        (tiff(PHOTO[..., 0].astype(np.float32).view(np.int32), 32, t339=3), None),
        (tiff(np.dstack([PHOTO, SOLID]), 8, t262=2, t338=0), None),
        (tiff(np.dstack([PHOTO, SOLID]), 8, t262=5), None),
        (tiff(PHOTO, 8, t262=8), None),
        (bmp(PHOTO[..., 0] >> 4, 4, [(i,) * 3 for i in range(16)]), None),
        (saved(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"), None),
        (saved(Image.fromarray(PHOTO), "GIF", save_all=True, append_images=[Image.fromarray(255 - PHOTO)]), None),
    ],
)
def test_every_kind_of_image_is_right_or_refused(tmp_path, content, expected):
    (tmp_path / "i.png").write_bytes(content)
    if expected is None:
        with pytest.raises(InputError):
            read_pixels(tmp_path / "i.png")
    else:
        np.testing.assert_array_equal(np.rint(read_pixels(tmp_path / "i.png")[0] * 255), expected)


def test_a_photograph_with_further_pictures_is_its_first(tmp_path):
    first, second = (Image.fromarray(np.full((16, 16, 3), grey, np.uint8)) for grey in (40, 200))
    (tmp_path / "p.jpg").write_bytes(saved(first, "MPO", save_all=True, append_images=[second]))
    assert (read_pixels(tmp_path / "p.jpg")[0] == np.float32(40 / 255)).all()
    with pytest.raises(InputError, match="lossy compression"):
        read_labels(tmp_path / "p.jpg", KEY)


@pytest.mark.parametrize("ending", [".png", ".npy", ".tif", ".bmp", ".gif", ".webp", ".pgm"])
def test_a_picture_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch, ending):
    path, side = tmp_path / f"m{ending}", 13000
    if ending == ".npy":
        head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({side}, {side}), }}".ljust(117) + "\n"
        path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + head.encode() + b"\0" * 64)
    elif ending == ".png":
        path.write_bytes(large_png())
        assert path.stat().st_size < 30_000
    else:
        monkeypatch.setattr("segradius.data.pixels.MAX_PIXELS", 20)
        kind = {".tif": "TIFF", ".pgm": "PPM"}.get(ending, ending[1:].upper())
        Image.fromarray(np.zeros((3, 7), np.uint8)).save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
        side = 0
    size = "13000×13000 = 169000000" if side else "3×7 = 21"
    with pytest.raises(InputError, match=rf"{size} pixels; at most [0-9]+ are .*SEGRADIUS_MAX_PIXELS|cannot be read"):
        read_labels(path, KEY)


def test_the_limit_can_be_raised(tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    Image.fromarray(np.zeros((3, 7), np.uint8)).save(path)
    monkeypatch.setenv("SEGRADIUS_MAX_PIXELS", "20")
    with pytest.raises(InputError, match="3×7 = 21 pixels; at most 20"):
        read_pixels(path)
    monkeypatch.setenv("SEGRADIUS_MAX_PIXELS", "21")
    assert read_pixels(path)[0].shape == (3, 7, 3)
    for bad in ("0", "-1", "many", ""):
        monkeypatch.setenv("SEGRADIUS_MAX_PIXELS", bad)
        with pytest.raises(InputError, match=r"SEGRADIUS_MAX_PIXELS is .*expected a whole number of pixels above 0"):
            read_pixels(path)
