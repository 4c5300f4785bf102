"""COCO's JSON: pixels are those of pycocotools, labels those of a plain loop, and the rest is refused in a line."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from segradius.core.errors import InputError, MissingExtraError
from segradius.data import BadSampleError, counted, open_data
from segradius.data.annotations import Tables
from segradius.data.shapes import pixels_of, runs_of, unpacked

# Of pycocotools' own decoder, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 12, 17
SQUARE = [[2, 2, 8, 2, 8, 7, 2, 7]]
OTHER = [[6, 5, 14, 4.5, 15, 11, 7.2, 10.1]]


def compressed(mask):
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": code["counts"].decode()}


def plain_runs(mask):
    flat = mask.flatten(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": runs if not flat[0] else [0, *runs]}


def blob(seed=0):
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) < 0.4


def theirs(segmentation):
    """The pixels by pycocotools alone."""
    code = segmentation
    if isinstance(segmentation, list):
        code = coco_mask.merge(coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH))
    elif isinstance(segmentation["counts"], list):
        code = coco_mask.frPyObjects(segmentation, HEIGHT, WIDTH)
    return coco_mask.decode(code).astype(bool)


def annotation(number, category, segmentation, image=1, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def content(*annotations, images=1):
    return {
        "images": [
            {"id": i, "file_name": f"{'abc'[i - 1]}.png", "height": HEIGHT, "width": WIDTH}
            for i in range(1, images + 1)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": list(annotations),
    }


@pytest.fixture
def make(tmp_path, write, photo):
    def maker(told, options=""):
        for each in told.get("images", ()) if isinstance(told, dict) else ():
            if not (tmp_path / "images" / each["file_name"]).exists():
                write(tmp_path / "images" / each["file_name"], photo(HEIGHT, WIDTH))
        (tmp_path / "all.json").write_text(told if isinstance(told, str) else json.dumps(told))
        return open_data(f"coco:{tmp_path / 'all.json'}{options}")

    return maker


def test_classes_are_categories_in_order_of_their_ids(make):
    data = make(content(annotation(1, 7, SQUARE), images=2))
    assert data.classes.names == ("background", "cat", "dog")
    assert data.ids == ("a", "b")
    assert sorted(data[0].label.unique().tolist()) == [0, 2]
    assert not data[1].label.any()
    assert data.name == "coco/all"


@pytest.mark.parametrize("segmentation", [SQUARE, [*SQUARE, *OTHER], plain_runs(blob()), compressed(blob())])
def test_pixels_are_those_of_pycocotools(make, tmp_path, segmentation):
    label = make(content(annotation(1, 3, segmentation)))[0].label.numpy()
    theirs = COCO(str(tmp_path / "all.json"))
    assert label.tolist() == theirs.annToMask(theirs.loadAnns([1])[0]).tolist()


@settings(deadline=None, max_examples=60)
@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 70))))
def test_run_lengths_of_any_mask_are_read_as_pycocotools_writes_them(mask):
    told = compressed(mask)
    assert runs_of(told["counts"], *mask.shape).tolist() == mask.tolist()
    assert pixels_of(plain_runs(mask), *mask.shape).tolist() == mask.tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-1, WIDTH + 1), st.floats(-1, HEIGHT + 1)), min_size=3, max_size=7))
def test_polygons_are_filled_as_pycocotools_fills_them(corners):
    polygon = [value for corner in corners for value in corner]
    theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], HEIGHT, WIDTH)))
    assert pixels_of([polygon], HEIGHT, WIDTH).tolist() == theirs.astype(bool).tolist()


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_text_is_run_lengths_that_fill_the_image_or_refused(text):
    told = ""
    try:
        assert unpacked(text).min() >= 0
        assert runs_of(text, 3, 5).shape == (3, 5)
    except InputError as error:
        told = str(error)
    assert "\n" not in told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TABLE_KEYS = ["images", "categories", "annotations"]
ENTRY_KEYS = ["id", "name", "file_name", "image_id", "category_id", "iscrowd", "segmentation"]
entries = st.lists(st.dictionaries(st.sampled_from(ENTRY_KEYS), json_values))


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.sampled_from(TABLE_KEYS), st.lists(st.dictionaries(st.sampled_from(ENTRY_KEYS), json_values)))
)
def test_tables_of_anything_are_read_or_refused_in_a_line(told):
    said = ""
    try:
        assert Tables.of(told).images
    except InputError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("overlap", ["last", "first", "structures"])
@pytest.mark.parametrize("turned", [False, True])
def test_where_categories_overlap_the_option_says_what_holds(make, overlap, turned):
    shapes = [annotation(1, 3, SQUARE), annotation(2, 7, OTHER)]
    data = make(content(*(reversed(shapes) if turned else shapes)), f",overlap={overlap}")
    maps = {3: pixels_of(SQUARE, HEIGHT, WIDTH), 7: pixels_of(OTHER, HEIGHT, WIDTH)}
    assert (maps[3] & maps[7]).any()
    cat_holds = (overlap == "first") != turned
    expected = np.zeros((HEIGHT, WIDTH), int)
    for row, column in np.ndindex(HEIGHT, WIDTH):
        cat, dog = bool(maps[3][row, column]), bool(maps[7][row, column])
        one = (1 if cat_holds else 2) if cat and dog else cat + 2 * dog
        expected[row, column] = cat + 2 * dog if overlap == "structures" else one
    assert data[0].label.tolist() == expected.tolist()
    assert data.classes.structures == (("cat", "dog") if overlap == "structures" else ())


def test_an_overlap_is_refused_by_default_naming_image_and_categories(make):
    data = make(content(annotation(1, 3, SQUARE), annotation(2, 7, OTHER)))
    both = (pixels_of(SQUARE, HEIGHT, WIDTH) & pixels_of(OTHER, HEIGHT, WIDTH)).sum()
    with pytest.raises(
        BadSampleError, match=rf"'a': annotation 1 \('cat'\) and annotation 2 \('dog'\) overlap in {both}"
    ):
        data[0]
    alike = make(content(annotation(1, 3, SQUARE), annotation(2, 3, OTHER)))
    assert alike[0].label.sum() == (pixels_of(SQUARE, HEIGHT, WIDTH) | pixels_of(OTHER, HEIGHT, WIDTH)).sum()


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("overlap", ["refuse", "structures"])
def test_crowds_are_void_whatever_lies_in_them(make, key, overlap):
    crowd = blob()
    told = content(annotation(1, 3, SQUARE), annotation(2, 7, plain_runs(crowd), **{key: 1}))
    label = make(told, f",overlap={overlap}")[0].label.numpy()
    assert label.tolist() == np.where(crowd, 255, pixels_of(SQUARE, HEIGHT, WIDTH)).tolist()


def test_chosen_categories_in_the_order_given_and_the_others_are_told(make):
    told = content(annotation(1, 3, SQUARE), annotation(2, 7, OTHER))
    data = make(told, ",classes=[dog]")
    assert data.classes.names == ("background", "dog")
    assert data[0].label.tolist() == pixels_of(OTHER, HEIGHT, WIDTH).astype(int).tolist()
    assert "1 not among classes (1 of 'cat')" in counted(data)
    assert make(told, ",classes=[dog, cat],overlap=last").classes.names == ("background", "dog", "cat")
    with pytest.raises(InputError, match="unknown category 'dogg'; did you mean 'dog'"):
        make(told, ",classes=[dogg]")


def test_a_category_called_background_is_the_background(make):
    told = content(annotation(1, 3, SQUARE), annotation(2, 0, OTHER))
    told["categories"].append({"id": 0, "name": "Background"})
    data = make(told, ",overlap=last")
    assert data.classes.names == ("Background", "cat", "dog")
    expected = pixels_of(SQUARE, HEIGHT, WIDTH) & ~pixels_of(OTHER, HEIGHT, WIDTH)
    assert data[0].label.tolist() == expected.astype(int).tolist()


def test_images_lie_beside_or_where_it_is_said(tmp_path, write, photo):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann" / "val.json").write_text(json.dumps(content(annotation(1, 3, SQUARE))))
    write(tmp_path / "shots" / "val" / "a.png", photo(HEIGHT, WIDTH))
    write(tmp_path / "shots" / "val" / "z.png", photo(HEIGHT, WIDTH))
    with pytest.raises(InputError, match=r"1 of its 1 images are missing in .*ann, first 'a.png'; say where they are"):
        open_data(f"coco:{tmp_path}/ann/val.json")
    data = open_data(f"coco:{tmp_path}/ann/{{split}}.json,images=../shots/{{split}}", split="val")
    assert data[0].label.any()
    assert "1 not in val.json (val/z.png)" in counted(data)
    with pytest.raises(InputError, match=r"needs a split, which \{split\} in it stands for"):
        open_data(f"coco:{tmp_path}/ann/{{split}}.json")
    with pytest.raises(InputError, match=r"the split 'val' means nothing without \{split\}"):
        open_data(f"coco:{tmp_path}/ann/val.json,images=../shots/val", split="val")


def test_slashes_of_windows_and_alike_names(make, tmp_path, write, photo):
    told = content(images=2)
    told["images"][0]["file_name"], told["images"][1]["file_name"] = "x\\a.png", "x/a.tif"
    write(tmp_path / "images" / "x" / "a.png", photo(HEIGHT, WIDTH))
    data = make(told)
    assert data.ids == ("x/a.png", "x/a.tif")
    assert data[0].image.shape == (3, HEIGHT, WIDTH)


def test_it_goes_to_worker_processes_and_changes_are_seen(make):
    told = content(annotation(1, 3, SQUARE), images=2)
    data = make(told)
    assert pickle.loads(pickle.dumps(data))[0].label.equal(data[0].label)
    (batch,) = DataLoader(data, batch_size=2, num_workers=1)
    assert batch.labels[0].equal(data[0].label)
    before = [data.parts(index)["annotations"].tolist() for index in range(2)]
    told["annotations"][0]["segmentation"] = OTHER
    now = [make(told).parts(index)["annotations"].tolist() for index in range(2)]
    assert [old == new for old, new in zip(before, now, strict=True)] == [False, True]


def test_a_picture_of_another_size_or_turned_is_refused(make, tmp_path, write, photo):
    data = make(content(annotation(1, 3, SQUARE)))
    write(tmp_path / "images" / "a.png", photo(WIDTH, HEIGHT))
    with pytest.raises(BadSampleError, match=r"the mask is 12×17 and the image 17×12 \(height × width\)"):
        data[0]
    exif = Image.Exif()
    exif[0x0112] = 3
    write(tmp_path / "images" / "a.png", photo(HEIGHT, WIDTH), exif=exif)
    with pytest.raises(BadSampleError, match="EXIF orientation 3"):
        data[0]
    stored = open_data(f"coco:{tmp_path / 'all.json'},exif=stored")[0]
    assert stored.label.tolist() == pixels_of(SQUARE, HEIGHT, WIDTH).astype(int).tolist()


def changed(change):
    told = content(annotation(1, 3, SQUARE), annotation(2, 7, [[9, 8, 16, 8, 16, 11, 9, 11]]), images=2)
    told = copy.deepcopy(told)
    change(told)
    return told


def first(told):
    return told["annotations"][0]


def shape(value):
    return lambda told: first(told).update(segmentation=value)


RUNS = plain_runs(blob())
#: What is wrong, how it is made, and the words of the line.
BAD = {
    "no images": (lambda t: t.pop("images"), "images: it is missing"),
    "no categories": (lambda t: t.pop("categories"), "categories: it is missing"),
    "no annotations": (lambda t: t.pop("annotations"), "annotations: it is missing"),
    "images are none": (lambda t: t.update(images=[]), "images: there is none"),
    "a table is a mapping": (lambda t: t.update(annotations={}), r"annotations: it is \{\}"),
    "an entry is a number": (lambda t: t["images"].append(3), "images: it is"),
    "no category": (lambda t: t.update(categories=[], annotations=[]), "there is none beside the background"),
    "image id twice": (lambda t: t["images"][1].update(id=1), "images: the id 1 stands twice"),
    "image id is none": (lambda t: t["images"][1].update(id=None), "id in images is None"),
    "image id is true": (lambda t: t["images"][1].update(id=True), "id in images is True"),
    "file twice": (lambda t: t["images"][1].update(file_name="a.png"), "images: the file_name 'a.png' stands twice"),
    "no file": (lambda t: t["images"][1].pop("file_name"), "file_name of image 2 is None"),
    "file is missing": (lambda t: t["images"][1].update(file_name="q.png"), "1 of its 2 images are missing"),
    "category id twice": (lambda t: t["categories"][1].update(id=7), "categories: the id 7 stands twice"),
    "category name twice": (lambda t: t["categories"][1].update(name="dog"), "the name 'dog' stands twice"),
    "category without name": (lambda t: t["categories"][1].pop("name"), "name of category 3 is None"),
    "annotation id twice": (lambda t: t["annotations"][1].update(id=1), "annotations: the id 1 stands twice"),
    "no such image": (lambda t: first(t).update(image_id=9), "annotation 1 has image_id 9, which is"),
    "no such category": (lambda t: first(t).update(category_id=9), "annotation 1 has category_id 9, which is"),
    "category id is a list": (lambda t: first(t).update(category_id=[3]), r"annotation 1 has category_id \[3\]"),
    "category is missing": (lambda t: first(t).pop("category_id"), "annotation 1 has category_id None"),
    "image is missing": (lambda t: first(t).pop("image_id"), "annotation 1 has image_id None"),
    "panoptic": (lambda t: first(t).update(segments_info=[]), "panoptic"),
    "crowd is text": (lambda t: first(t).update(iscrowd="0"), "iscrowd of annotation 1 is '0'; expected 0 or 1"),
    "no height": (lambda t: t["images"][0].pop("height"), "its height in the JSON is None"),
    "width is text": (lambda t: t["images"][0].update(width="17"), "its width in the JSON is '17'"),
    "width is huge": (lambda t: t["images"][0].update(width=10**9), "pixels; at most"),
    "height is immense": (lambda t: t["images"][0].update(height=10**30), "pixels; at most"),
    "half a character": (shape({**RUNS, "counts": chr(0xD800)}), "none of COCO's characters"),
    "another size": (lambda t: t["images"][0].update(height=13), "the mask is 13×17 and the image 12×17"),
    "no segmentation": (lambda t: first(t).pop("segmentation"), r"annotation 1 \('cat'\): its segmentation is None"),
    "empty": (shape([]), "its segmentation is empty"),
    "empty polygon": (shape([[]]), r"a polygon of it is \[\]; expected"),
    "a box": (shape([[1, 2, 3, 4]]), "a polygon of it is"),
    "flat": (shape([1, 2, 3, 4, 5, 6]), "a polygon of it is 1; expected"),
    "odd": (shape([[1, 2, 3, 4, 5, 6, 7]]), "a polygon of it is"),
    "text in it": (shape([[1, 2, 3, 4, 5, "6"]]), "a polygon of it is"),
    "true in it": (shape([[1, 2, 3, 4, 5, True]]), "a polygon of it is"),
    "outside": (shape([[1, 2, 30, 4, 5, 6]]), "a corner of it, x 30 and y 4, lies outside the image of 12×17"),
    "far outside": (shape([[1, 2, 3, 10**400, 5, 6]]), "a corner of it, x 3 and y 1000"),
    "negative": (shape([[1, -2, 3, 4, 5, 6]]), "a corner of it, x 1 and y -2, lies outside"),
    "a number": (shape(5), "its segmentation is 5"),
    "runs without size": (shape({"counts": RUNS["counts"]}), "expected a list of polygons, or size and counts"),
    "runs of another size": (shape({**RUNS, "size": [17, 12]}), r"for size \[17, 12\]; the image has \[12, 17\]"),
    "too few runs": (shape({**RUNS, "counts": RUNS["counts"][:-1]}), "the image has 12×17 = 204"),
    "too many runs": (shape({**RUNS, "counts": [*RUNS["counts"], 9]}), "the image has 12×17 = 204"),
    "negative run": (shape({**RUNS, "counts": [-4, 208]}), "expected whole numbers"),
    "runs are text": (shape({**RUNS, "counts": ["a"]}), "expected whole numbers"),
    "runs are none": (shape({**RUNS, "counts": None}), "expected whole numbers"),
    "cut off": (shape({**compressed(blob()), "counts": compressed(blob())["counts"][:-9]}), "run lengths"),
    "no code": (shape({**RUNS, "counts": "!!"}), "none of COCO's characters"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_told_in_a_line(make, kind):
    change, message = BAD[kind]
    told = changed(lambda t: None)
    make(told)
    change(told)
    with pytest.raises(InputError, match=message) as caught:
        make(json.dumps(told))[0]  # as text, so that no picture is written that the change took away
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid JSON"),
        ("[]", "expected a mapping with images"),
        ("null", "expected a mapping with images"),
        ('{"images": [], "images": []}', "the key 'images' stands twice"),
        ('{"images": [{"id": NaN}]}', "NaN is no number"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 10_000, "no valid JSON"),
    ],
)
def test_what_is_no_json_of_coco_is_told_in_a_line(make, text, message):
    with pytest.raises(InputError, match=message) as caught:
        make(text)
    assert "\n" not in str(caught.value)


def test_a_json_that_is_cut_off_anywhere_is_refused(make):
    told = content(annotation(1, 3, SQUARE))
    make(told)
    whole = json.dumps(told)
    for end in range(0, len(whole), 7):
        with pytest.raises(InputError, match="no valid JSON"):
            make(whole[:end])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",overlap=both", "overlap is 'both'; expected refuse or last or first or structures"),
        (",images=nowhere", "there is no nowhere, in"),
        (",imags=x", "unknown option of coco 'imags'; did you mean 'images'"),
        (",values=[0]", "unknown option of coco 'values'"),
        (",classes=cat", "expected a list of categories"),
        (",classes=[cat, cat]", "expected a list of categories, each once"),
        (",images=a,images=b", "gives 'images' twice"),
        (",about=3", "about is 3; expected a YAML file"),
    ],
)
def test_options_that_are_none_are_refused(make, options, message):
    with pytest.raises(InputError, match=message):
        make(content(annotation(1, 3, SQUARE)), options)


def test_only_polygons_need_pycocotools(make, monkeypatch):
    for name in ("pycocotools", "pycocotools.mask"):
        monkeypatch.setitem(sys.modules, name, None)
    assert make(content(annotation(1, 3, compressed(blob()))))[0].label.tolist() == blob().astype(int).tolist()
    with pytest.raises(MissingExtraError, match=r"needs pycocotools, .*segradius\[coco\]"):
        make(content(annotation(1, 3, SQUARE)))


def test_more_structures_than_there_can_be_are_refused(make):
    told = content()
    told["categories"] = [{"id": k, "name": f"c{k}"} for k in range(9)]
    with pytest.raises(InputError, match=r"overlap=structures takes at most 8 categories, not 9: give classes=\[…\]"):
        make(told, ",overlap=structures")


def test_every_variant_of_a_json_is_right_or_refused(make):
    """The sweep: kinds of segmentation × overlap × crowd × image, against a plain loop with pycocotools' pixels."""
    counts: Counter[str] = Counter()
    kinds = [SQUARE, OTHER, [*SQUARE, *OTHER], plain_runs(blob(1)), compressed(blob(2)), compressed(blob(3) & False)]
    masks = [theirs(kind) for kind in kinds]
    for one in range(len(kinds)):
        for two in range(len(kinds)):
            for crowd in (0, 1):
                for overlap in ("refuse", "last", "first", "structures"):
                    shapes = annotation(1, 3, kinds[one]), annotation(2, 7, kinds[two], iscrowd=crowd)
                    cat, dog = masks[one], masks[two]
                    both = cat & dog
                    expected = cat + 2 * dog.astype(int)
                    if overlap != "structures":
                        expected[both] = 1 if overlap == "first" else 2
                    if crowd:
                        expected = np.where(dog, 255, cat)
                    try:
                        right = make(content(*shapes), f",overlap={overlap}")[0].label.tolist() == expected.tolist()
                        counts["right" if right else "wrong"] += 1
                    except BadSampleError:
                        fine = overlap == "refuse" and not crowd and both.any()
                        counts["refused" if fine else "refused wrongly"] += 1
    print(dict(counts))
    assert set(counts) == {"right", "refused"}
