"""Lists of pairs, as spreadsheets and programs write them: every pair is the one of the line, or there is a line."""

from __future__ import annotations

import csv
import io
import json
import pickle
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from segradius.core.errors import InputError
from segradius.data import BadSampleError, counted, open_data
from segradius.data.list import parse

CLASSES = ",classes=[background, cell]"
NAMES = ("a", "b")


def mask_of(name):
    return np.arange(6).reshape(2, 3) % 2 if name == "a" else 1 - np.arange(6).reshape(2, 3) % 2


@pytest.fixture
def make(tmp_path, write, photo):
    """A list of the given text beside pictures a and b with their masks."""

    def maker(text, name="pairs.csv", options=CLASSES, **more):
        for each in NAMES:
            write(tmp_path / "shots" / f"{each}.png", photo(2, 3))
            write(tmp_path / "truth" / f"{each}.png", mask_of(each).astype(np.uint8))
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return open_data(f"list:{tmp_path / name}{options}", **more)

    return maker


def rows(*names, columns=("image", "mask"), extra=()):
    return [{"image": f"shots/{n}.png", "mask": f"truth/{n}.png", **dict(extra)} for n in names]


def as_csv(entries, separator=",", end="\n", quoting=csv.QUOTE_MINIMAL):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(entries[0]), delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writeheader()
    writer.writerows(entries)
    return stream.getvalue()


WRITERS = {
    "pairs.csv": as_csv,
    "pairs.tsv": lambda entries: as_csv(entries, "\t"),
    "pairs.json": json.dumps,
    "pairs.jsonl": lambda entries: "\n".join(map(json.dumps, entries)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_image_has_the_mask_of_its_entry(make, name):
    data = make(WRITERS[name](rows("b", "a")), name)
    assert data.ids == ("shots/b", "shots/a")
    assert data[0].label.tolist() == mask_of("b").tolist()
    assert data[1].label.tolist() == mask_of("a").tolist()
    assert data.classes.names == ("background", "cell")
    assert data.name == "list pairs"


def test_every_way_of_writing_a_csv_is_read_alike(make):
    """The sweep: separators × ends of lines × byte order mark × quotes × case and blanks of the columns."""
    counts: Counter[str] = Counter()
    for separator in ",;\t":
        for end in ("\n", "\r\n", "\r"):
            for mark in (b"", b"\xef\xbb\xbf"):
                for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
                    for columns in (("image", "mask"), ("Image", " MASK "), ("image", "mask", "note")):
                        entries = [
                            {
                                columns[0]: f"shots/{n}.png",
                                columns[1]: f"truth/{n}.png",
                                **dict.fromkeys(columns[2:], "=1+1, he said"),
                            }
                            for n in NAMES
                        ]
                        text = as_csv(entries, separator, end, quoting) + end
                        data = make(mark + text.encode())
                        right = [data[i].label.tolist() == mask_of(n).tolist() for i, n in enumerate(NAMES)]
                        counts["right" if all(right) and len(data) == 2 else "wrong"] += 1
    print(dict(counts))
    assert set(counts) == {"right"}


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)] * 2)),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_was_written_is_what_is_read(pairs, separator, end):
    entries = [{"image": image, "mask": mask} for image, mask in pairs if image.strip() or mask.strip()]
    if not entries:
        return
    text = as_csv(entries, separator, end, csv.QUOTE_ALL)
    assert [dict(row.cells) for row in parse(text, "csv")] == entries
    assert [dict(row.cells) for row in parse(json.dumps(entries), "json")] == entries


@settings(deadline=None, max_examples=150)
@given(st.text(), st.sampled_from(["csv", "json", "jsonl"]))
def test_any_text_is_a_list_or_refused_in_a_line(text, kind):
    told = ""
    try:
        parse(f"image,mask\n{text}" if kind == "csv" else text, kind)
    except InputError as error:
        told = str(error)
    assert "\n" not in told


def test_names_that_a_spreadsheet_takes_for_formulas_or_numbers(make, tmp_path, write, photo):
    names = ["=1+1", "007", "a,b", 'say "so"', "März", " blank"]
    for name in names:
        write(tmp_path / "shots" / f"{name}.png", photo(2, 3))
        write(tmp_path / "truth" / f"{name}.png", mask_of("a").astype(np.uint8))
    data = make(as_csv(rows(*names)))
    assert data.ids == tuple(f"shots/{name}" for name in names)
    assert all(data[place].label.tolist() == mask_of("a").tolist() for place in range(len(names)))
    assert make(as_csv([{**rows("a")[0], "id": "=1+1"}])).ids == ("=1+1",)


def test_slashes_of_windows_and_blanks_around(make):
    data = make("image, mask\r\nshots\\a.png, truth\\a.png\r\n")
    assert data.ids == ("shots/a",)
    assert data[0].label.tolist() == mask_of("a").tolist()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_whatever_unicode_form(make, tmp_path, write, photo, form):
    name = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "Münze é")
    write(tmp_path / name / f"{name}.png", photo(2, 3))
    write(tmp_path / "truth" / f"{name}.png", mask_of("a").astype(np.uint8))
    told = unicodedata.normalize(form, name)
    assert make(f"image,mask\n{told}/{told}.png,truth/{told}.png")[0].label.tolist() == mask_of("a").tolist()


@pytest.mark.parametrize("name", ["x" * 3000, "shots/a.png/b.png", "~nobody-of-this-name/a.png", "shots", "ä" * 500])
def test_a_name_of_no_file_is_missing(make, name):
    with pytest.raises(InputError, match="1 of its files are missing"):
        make(f"image,mask\n{name},truth/a.png")


def test_paths_from_the_root_or_upwards_give_short_ids(make, tmp_path):
    there = [{"image": str(tmp_path / "shots" / f"{n}.png"), "mask": f"truth/{n}.png"} for n in NAMES]
    assert make(as_csv(there)).ids == ("a", "b")
    (tmp_path / "lists").mkdir()
    up = [{"image": f"../shots/{n}.png", "mask": f"../truth/{n}.png"} for n in NAMES]
    assert make(as_csv(up), "lists/x.csv").ids == ("a", "b")


def test_splits_by_a_column_or_by_the_name_of_the_file(make, tmp_path):
    entries = [{**rows("a")[0], "split": "train"}, {**rows("b")[0], "split": "val"}]
    assert make(as_csv(entries), split="val").ids == ("shots/b",)
    assert "0 files left out" in counted(make(as_csv(entries), split="val"))
    with pytest.raises(InputError, match="it needs a split; found: train, val"):
        make(as_csv(entries))
    with pytest.raises(InputError, match="unknown split 'vall'; did you mean 'val'"):
        make(as_csv(entries), split="vall")
    with pytest.raises(InputError, match="no column 'split', so the split 'val' means nothing"):
        make(as_csv(rows("a")), split="val")
    make(as_csv(rows("b")), "x_val.csv")
    assert open_data(f"list:{tmp_path}/x_{{split}}.csv{CLASSES}", split="val").ids == ("shots/b",)


def test_what_lies_beside_and_is_not_listed_is_left_out(make):
    assert "2 not in pairs.csv (shots/b.png, truth/b.png)" in counted(make(as_csv(rows("a"))))


def test_a_yaml_says_what_masks_are(make, tmp_path):
    (tmp_path / "about.yaml").write_text("classes: [cell, background]\nvalues: [1, 0]")
    data = make(as_csv(rows("a")), options=",about=about.yaml")
    assert data[0].label.tolist() == (1 - mask_of("a")).tolist()
    assert data.told_by == tmp_path / "about.yaml"
    with pytest.raises(InputError, match="classes is given in the text of the data set and in"):
        make(as_csv(rows("a")), options=f",about=about.yaml{CLASSES}")
    (tmp_path / "segradius.yaml").write_text("classes: [x, y]")
    assert make(as_csv(rows("a")), options="").classes.names == ("x", "y")
    (tmp_path / "segradius.yaml").write_text("classes: [x, y]\nimages: shots")
    assert make(as_csv(rows("a")), options="").classes.names == ("x", "y")  # a folder's own, which a list says itself
    (tmp_path / "about.yaml").write_text("classes: [x, y]\nimages: shots")
    with pytest.raises(InputError, match="the key 'images' means nothing for list: give another YAML"):
        make(as_csv(rows("a")), options=",about=about.yaml")


def test_structures_are_columns_or_bands(make, tmp_path, write):
    other = np.array([[0, 1, 1], [0, 0, 1]])
    write(tmp_path / "truth" / "vessel.png", other.astype(np.uint8))
    options = ",structures=[organ, vessel]"
    entries = [{"image": "shots/a.png", "organ": "truth/a.png", "vessel": "truth/vessel.png"}]
    expected = (mask_of("a") + 2 * other).tolist()
    data = make(as_csv(entries), options=options)
    assert data[0].label.tolist() == expected
    assert data.classes.structures == ("organ", "vessel")
    np.save(tmp_path / "both.npy", np.stack([mask_of("a"), other]))
    assert make("image,mask\nshots/a.png,both.npy", options=options)[0].label.tolist() == expected
    entries.append({"image": "shots/b.png", "organ": "truth/b.png", "vessel": ""})
    with pytest.raises(InputError, match="line 3 has no vessel; write missing: empty"):
        make(as_csv(entries), options=options)
    sparse = make(as_csv(entries), options=f"{options},missing=empty")
    assert sparse[1].label.tolist() == mask_of("b").tolist()


def test_it_goes_to_worker_processes(make):
    data = make(as_csv(rows("a", "b")))
    assert pickle.loads(pickle.dumps(data))[0].label.equal(data[0].label)
    (batch,) = DataLoader(data, batch_size=2, num_workers=1)
    assert batch.labels[1].tolist() == mask_of("b").tolist()
    assert sorted(data.parts(0)) == ["image", "mask"]


def test_a_file_that_went_is_set_aside(make, tmp_path):
    data = make(as_csv(rows("a", "b")))
    (tmp_path / "truth" / "a.png").unlink()
    with pytest.raises(BadSampleError, match="sample 'shots/a': the file is missing"):
        data[0]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "pairs.csv", "expected the names of the columns, as in image,mask"),
        ("shots/a.png,truth/a.png", "pairs.csv", "its first line is 'shots/a.png,truth/a.png'; expected the names"),
        ("image,mask", "pairs.csv", "it has no entry"),
        ("image,msk\nshots/a.png,truth/a.png", "pairs.csv", "it has no 'mask'; found: 'image', 'msk'"),
        ("image\nshots/a.png", "pairs.csv", "it has no 'mask'; found: 'image'"),
        ("image,mask,Mask\na,b,c", "pairs.csv", "the column 'mask' stands twice"),
        ("image,mask\nshots/a.png", "pairs.csv", "line 2 has 1 cells, the first line 2"),
        ("image,mask\n\nshots/a.png,truth/a.png,", "pairs.csv", "line 3 has 3 cells"),
        ("image,mask\nshots/a.png,", "pairs.csv", "line 2 has no mask"),
        ("image,mask\n,truth/a.png", "pairs.csv", "line 2 has no image"),
        ('image,mask\n"shots/a.png,truth/a.png', "pairs.csv", "no valid CSV: unexpected end of data"),
        ('image,mask\n"shots/a.png"x,truth/a.png', "pairs.csv", "no valid CSV"),
        (b"image,mask\nshots/\xff.png,x", "pairs.csv", "is not UTF-8: byte 0xff at 17"),
        ("image,mask".encode("utf-16"), "pairs.csv", "is UTF-16; expected UTF-8"),
        (b"image,mask\n\0,x", "pairs.csv", "it holds a NUL"),
        (
            "image,mask\nx.png,y.png\nshots/a.png,z.png",
            "pairs.csv",
            "3 of its files are missing: 'x.png', 'y.png',",
        ),
        (as_csv(rows("a", "a")), "pairs.csv", "line 2 and line 3 have the same image and mask, 'shots/a.png'"),
        (
            "image,mask\nshots/a.png,truth/a.png\nshots/a.png,truth/b.png",
            "pairs.csv",
            "both be 'shots/a.png': give",
        ),
        (as_csv([{**row, "id": "x"} for row in rows("a", "b")]), "pairs.csv", "line 2 and line 3 would both be 'x'"),
        (as_csv([{**rows("a")[0], "id": ""}]), "pairs.csv", "line 2 has no id"),
        ("image,mask,split\nshots/a.png,truth/a.png,", "pairs.csv", "line 2 has no split"),
        ("{}", "pairs.json", r"the JSON is \{\}; expected a list of mappings"),
        ("[3]", "pairs.json", "entry 0 is 3; expected a mapping with image and mask"),
        ("[]", "pairs.json", "it has no entry"),
        ('[{"image": 3, "mask": "x"}]', "pairs.json", "entry 0: image is 3; expected a text"),
        ('[{"image": "x", "mask": null}]', "pairs.json", "entry 0 has no mask"),
        ('[{"image": "x"}]', "pairs.json", "it has no 'mask'; found: 'image'"),
        ('[{"image": "x", "image": "y"}]', "pairs.json", "the key 'image' stands twice"),
        ('[{"image": "x", "Image": "y"}]', "pairs.json", "entry 0 has 'image' twice"),
        ('[{"image": "x"', "pairs.json", "no valid JSON"),
        ('{"image": "x", "mask": "y"}\n{"image"', "pairs.jsonl", "line 2 is no valid JSON"),
        (
            '[{"image": "shots/a.png", "mask": "truth/a.png", "id": 7}, {"image": "x"}]',
            "pairs.json",
            "entry 1 has no mask",
        ),
        ("image,mask", "pairs.xlsx", "list is 'pairs.xlsx'; expected a file that ends on"),
    ],
)
def test_what_is_no_list_is_told_in_a_line(make, text, name, message):
    with pytest.raises(InputError, match=message) as caught:
        make(text, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "needs the names of the classes: write ,classes=\\[…\\] or ,about=FILE.yaml"),
        (",classes=[a, no]", "quote it"),
        (",classes=[a,\nb]", "expected no control characters"),
        (",clases=[a, b]", "unknown option of list 'clases'; did you mean 'classes'"),
        (",images=x", "unknown option of list 'images'"),
        (",classes", "'classes' is not key=value"),
        (",about=nowhere.yaml", "there is no nowhere.yaml"),
    ],
)
def test_options_that_are_none_are_refused(make, options, message):
    with pytest.raises(InputError, match=message):
        make(as_csv(rows("a")), options=options)
    with pytest.raises(InputError, match=r"list: there is no file or folder nowhere\.csv"):
        open_data("list:nowhere.csv,classes=[a, b]")
    with pytest.raises(InputError, match="needs the file or folder it lies in: list:PATH"):
        open_data("list:")
