"""Data sets of the library ``datasets`` on the disk: what it gives is what is read, or there is a line."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import socket
import sys
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, Sequence, Value
from datasets import Image as Picture
from PIL import Image
from torch.utils.data import DataLoader

from segradius.core.errors import InputError, MissingExtraError
from segradius.data import BadSampleError, counted, open_data

CLASSES = ",classes=[background, cell, wall]"
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
MASKS = RNG.integers(0, 3, (5, 4, 6), dtype=np.uint8)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whatever goes out fails; and the library's own bars are off."""
    datasets.disable_progress_bars()

    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX, "something went out"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def made(rows=range(5), image="image", mask="mask", **more):
    """A data set as the library makes it of pictures."""
    content = {image: [Image.fromarray(IMAGES[i]) for i in rows], mask: [Image.fromarray(MASKS[i]) for i in rows]}
    told = {image: Picture(), mask: Picture()} | {name: Value("string") for name in more}
    return Dataset.from_dict(content | more, features=Features(told))


def right(data, rows=range(5)):
    return len(data) == len(rows) and all(
        data[place].label.tolist() == MASKS[i].tolist()
        and (data[place].image * 255).round().byte().permute(1, 2, 0).tolist() == IMAGES[i].tolist()
        for place, i in enumerate(rows)
    )


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def table(**columns):
    return pa.table(columns)


def test_what_save_to_disk_wrote_is_read(tmp_path):
    made().save_to_disk(tmp_path / "d", num_shards=2)
    data = open_data(f"hfdata:{tmp_path / 'd'}{CLASSES}")
    assert right(data)
    assert data.ids == ("00000", "00001", "00002", "00003", "00004")
    assert (data.name, data.classes.names) == ("hfdata d", ("background", "cell", "wall"))
    assert counted(data) == "hfdata d: 5 images to read; 0 files left out"


def test_rows_that_were_chosen_and_shuffled_are_those_that_the_library_gives(tmp_path):
    shuffled = made().shuffle(seed=3).select([4, 1, 2])
    shuffled.save_to_disk(tmp_path / "d")
    data = open_data(f"hfdata:{tmp_path / 'd'}{CLASSES}")
    theirs = datasets.load_from_disk(str(tmp_path / "d"))
    assert [sample.label.tolist() for sample in data] == [np.array(row["mask"]).tolist() for row in theirs]


def test_splits_of_a_dictionary(tmp_path):
    DatasetDict({"train": made(range(3)), "test": made([4, 3])}).save_to_disk(tmp_path)
    assert right(open_data(f"hfdata:{tmp_path}{CLASSES}", split="test"), [4, 3])
    with pytest.raises(InputError, match="hfdata needs a split; found: train, test"):
        open_data(f"hfdata:{tmp_path}{CLASSES}")
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean 'test'"):
        open_data(f"hfdata:{tmp_path}{CLASSES}", split="tset")


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("one.parquet",), None),
        (("part-0.parquet", "part-1.parquet"), None),
        (("data/val-00000-of-00002.parquet", "data/val-00001-of-00002.parquet"), "val"),
        (("val-00000-of-00001-0123456789abcdef.parquet",), "val"),
        (("plain/val/0000.parquet", "plain/val/0001.parquet"), "val"),
    ],
)
def test_parquet_below_a_folder_by_the_names_of_the_hub(tmp_path, names, split):
    parts = np.array_split(np.arange(5), len(names))
    for name, rows in zip(names, parts, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made(rows.tolist()).to_parquet(tmp_path / name, batch_size=2)
    (tmp_path / "README.md").write_text("about")
    data = open_data(f"hfdata:{tmp_path}{CLASSES}", split=split)
    assert right(data)
    assert "1 no table" in counted(data)
    assert right(open_data(f"hfdata:{tmp_path}{CLASSES}"))


def test_of_several_splits_one_is_chosen(tmp_path):
    for split, rows in (("train", range(3)), ("test", [3, 4])):
        made(rows).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    assert right(open_data(f"hfdata:{tmp_path}{CLASSES}", split="test"), [3, 4])
    assert right(open_data(f"hfdata:{tmp_path}/{{split}}-00000-of-00001.parquet{CLASSES}", split="train"), range(3))
    with pytest.raises(InputError, match="needs a split; found: test, train"):
        open_data(f"hfdata:{tmp_path}{CLASSES}")
    shutil.copytree(tmp_path, tmp_path / "other" / "test")
    (tmp_path / "test-00000-of-00001.parquet").rename(tmp_path / "test.parquet")
    with pytest.raises(InputError, match="the split 'test' is in several folders"):
        open_data(f"hfdata:{tmp_path}{CLASSES}", split="test")


def test_a_part_that_is_missing_is_told(tmp_path):
    made().to_parquet(tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(InputError, match="of 2 parts of train there are 1"):
        open_data(f"hfdata:{tmp_path}{CLASSES}")


ROWS = [mask.tolist() for mask in MASKS]
NAMED = {"names": ["background", "cell", "wall"]}
BYTES = pa.array([png(mask) for mask in MASKS])
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
STRUCT = pa.array([{"bytes": png(image), "path": None} for image in IMAGES], CELL)


def test_every_way_of_holding_pictures_and_masks_is_read_alike(tmp_path):
    """The sweep: kinds of image × kinds of mask × container × compression."""
    counts: Counter[str] = Counter()
    for number, (image, mask) in enumerate(zip(IMAGES, MASKS, strict=True)):
        Image.fromarray(image).save(tmp_path / f"i{number}.png")
        Image.fromarray(mask).save(tmp_path / f"m{number}.png")
    images = {
        "struct": STRUCT,
        "bytes": pa.array([png(image) for image in IMAGES]),
        "large bytes": pa.array([png(image) for image in IMAGES], pa.large_binary()),
        "path": pa.array([{"bytes": None, "path": f"i{n}.png"} for n in range(5)], CELL),
        "whole path": pa.array([{"bytes": None, "path": str(tmp_path / f"i{n}.png")} for n in range(5)], CELL),
    }
    masks = {
        "struct": pa.array([{"bytes": png(mask), "path": "x.png"} for mask in MASKS]),
        "bytes": BYTES,
        "path": pa.array([{"path": f"m{n}.png", "bytes": None} for n in range(5)], CELL),
        "rows": pa.array(ROWS),
        "small rows": pa.array(ROWS, pa.list_(pa.list_(pa.uint8()))),
        "large rows": pa.array(ROWS, pa.large_list(pa.large_list(pa.int32()))),
        "fixed rows": pa.array(ROWS, pa.list_(pa.list_(pa.int64(), 6), 4)),
    }
    for image in images.values():
        for mask in masks.values():
            whole = table(image=image, label=mask)
            for kind in ("snappy", "zstd", "none", "groups", "stream", "file"):
                path = tmp_path / ("x.arrow" if kind in ("stream", "file") else "x.parquet")
                if path.suffix == ".arrow":
                    maker = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
                    with maker(path, whole.schema) as writer:
                        writer.write_table(whole, max_chunksize=2)
                else:
                    groups = {"row_group_size": 2} if kind == "groups" else {"compression": kind}
                    pq.write_table(whole, path, **groups)
                counts["right" if right(open_data(f"hfdata:{path}{CLASSES}")) else "wrong"] += 1
    print(dict(counts))
    assert set(counts) == {"right"}


@pytest.mark.parametrize("feature", [Sequence(Sequence(ClassLabel(**NAMED))), Array2D((4, 6), "uint8")])
def test_masks_as_numbers_and_classes_by_the_features(tmp_path, feature):
    content = {"image": [Image.fromarray(image) for image in IMAGES], "mask": ROWS}
    made = Dataset.from_dict(content, features=Features({"image": Picture(), "mask": feature}))
    made.to_parquet(tmp_path / "x.parquet")
    made.save_to_disk(tmp_path / "d")
    for place in (tmp_path / "x.parquet", tmp_path / "d"):
        if isinstance(feature, Array2D):
            with pytest.raises(InputError, match=r"the column 'mask' does not name its classes: write ,classes=\[…\]"):
                open_data(f"hfdata:{place}")
            assert right(open_data(f"hfdata:{place}{CLASSES}"))
        else:
            data = open_data(f"hfdata:{place}")
            assert data.classes.names == ("background", "cell", "wall")
            assert right(data)


def test_columns_are_found_or_named(tmp_path):
    path = tmp_path / "x.parquet"
    made(image="photo", mask="truth", name=list("abcde")).to_parquet(path)
    data = open_data(f"hfdata:{path},image=photo,mask=truth,id=name{CLASSES}")
    assert right(data)
    assert data.ids == tuple("abcde")
    with pytest.raises(InputError, match=r"which column holds the images\? Write ,image=COLUMN; found: 'photo' \(pict"):
        open_data(f"hfdata:{path}{CLASSES}")
    with pytest.raises(InputError, match=r"which column holds the masks\? Write ,mask=COLUMN"):
        open_data(f"hfdata:{path},image=photo{CLASSES}")
    with pytest.raises(InputError, match="unknown column 'foto'; did you mean 'photo'"):
        open_data(f"hfdata:{path},image=foto{CLASSES}")
    with pytest.raises(InputError, match=r"the column 'name' of x\.parquet does not hold pictures"):
        open_data(f"hfdata:{path},image=name,mask=truth{CLASSES}")
    made(mask="label", name=["a", "b", "a", "c", "d"]).to_parquet(path)
    with pytest.raises(InputError, match="rows 0 and 2 have the same name, 'a'"):
        open_data(f"hfdata:{path},id=name{CLASSES}")
    pq.write_table(table(image=STRUCT, label=BYTES, annotation=BYTES), path)
    with pytest.raises(InputError, match="which column holds the masks"):
        open_data(f"hfdata:{path}{CLASSES}")
    # A class of the whole image is no mask.
    pq.write_table(table(image=STRUCT, label=[1] * 5, annotation=BYTES), path)
    assert right(open_data(f"hfdata:{path}{CLASSES}"))


def test_structures_are_columns(tmp_path):
    organ, vessel = MASKS > 0, MASKS == 2
    columns = {
        name: pa.array([png(mask.astype(np.uint8) * 255) for mask in masks])
        for name, masks in (("organ", organ), ("vessel", vessel))
    }
    pq.write_table(table(image=STRUCT, **columns), tmp_path / "x.parquet")
    data = open_data(f"hfdata:{tmp_path / 'x.parquet'},structures=[organ, vessel]")
    assert data[3].label.tolist() == (organ[3] + 2 * vessel[3]).tolist()
    assert sorted(data.parts(3)) == ["image", "mask organ", "mask vessel"]


def test_each_column_of_a_group_of_rows_is_read_once_however_many_structures_there_are(tmp_path, monkeypatch):
    names = [f"s{number}" for number in range(8)]
    yes = pa.array([png((mask > 0).astype(np.uint8) * 255) for mask in MASKS])
    pq.write_table(table(image=STRUCT, **dict.fromkeys(names, yes)), tmp_path / "x.parquet", row_group_size=3)
    data, read, groups = open_data(f"hfdata:{tmp_path / 'x.parquet'},structures=[{', '.join(names)}]"), [], 2
    read_group = pq.ParquetFile.read_row_group

    def counted_read(file, group, columns):
        read.append((group, *columns))
        return read_group(file, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted_read)
    for row, sample in enumerate(data[place] for place in range(5)):
        assert (sample.label == 255).tolist() == (MASKS[row] > 0).tolist()
    assert len(read) == len(set(read)) == groups * 9


def test_what_masks_mean_and_all_refusals_are_those_of_files(tmp_path):
    path = tmp_path / "x.parquet"
    binary = [png((mask > 0).astype(np.uint8) * 255) for mask in MASKS]
    pq.write_table(table(image=STRUCT, mask=pa.array(binary)), path)
    with pytest.raises(BadSampleError, match="the mask holds 255 and beside it at most 0"):
        open_data(f"hfdata:{path},classes=[background, cell]")[0]
    data = open_data(f"hfdata:{path},classes=[background, cell],values=[0, 255]")
    assert data[0].label.tolist() == (MASKS[0] > 0).astype(int).tolist()
    deep = png(RNG.integers(0, 4096, (4, 6)).astype(np.uint16))
    pq.write_table(table(image=pa.array([deep]), mask=BYTES[:1]), path)
    with pytest.raises(BadSampleError, match="range"):
        open_data(f"hfdata:{path}{CLASSES}")[0]
    image = open_data(f"hfdata:{path},bands=1,range=[0, 4096]{CLASSES}")[0].image
    assert (image * 4096).round().int()[0].tolist() == np.array(Image.open(io.BytesIO(deep))).tolist()


BAD_CELLS = {
    "empty": (None, BYTES[0].as_py(), "the cell is empty"),
    "no picture": (b"abc", BYTES[0].as_py(), "the file cannot be read"),
    "cut off": (png(IMAGES[0])[:50], BYTES[0].as_py(), "the file cannot be read"),
    "no bytes": (b"", BYTES[0].as_py(), "it is empty"),
    "mask is none": (png(IMAGES[0]), None, "the cell is empty"),
    "mask of another size": (png(IMAGES[0]), png(MASKS[0][:3]), "the mask is 3×6 and the image 4×6"),
    "mask of another value": (png(IMAGES[0]), png(MASKS[0] + np.uint8(9)), "value .* in the mask at pixel"),
}


@pytest.mark.parametrize("kind", BAD_CELLS)
def test_a_cell_that_cannot_be_used_is_set_aside_naming_it(tmp_path, kind):
    image, mask, message = BAD_CELLS[kind]
    images, masks = pa.array([image, png(IMAGES[1])], pa.binary()), pa.array([mask, png(MASKS[1])], pa.binary())
    pq.write_table(table(image=images, mask=masks), tmp_path / "x.parquet")
    data = open_data(f"hfdata:{tmp_path / 'x.parquet'}{CLASSES}")
    with pytest.raises(BadSampleError, match=message) as caught:
        data[0]
    assert "x.parquet, row 0, column" in str(caught.value)
    assert data[1].label.tolist() == MASKS[1].tolist()
    assert set(data.parts(0)) == {"image", "mask"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2], [1]], "the rows of the mask differ in length"),
        ([], r"expected whole numbers of shape \(height, width\)"),
        (None, "expected whole numbers"),
        ([[0, None], [1, 1]], "expected whole numbers"),
        ([[0, 9], [1, 1]], r"value 9 in the mask at pixel \(row 0, column 1\)"),
    ],
)
def test_rows_of_numbers_that_are_no_mask_are_refused(tmp_path, rows, message):
    masks = pa.array([rows], pa.list_(pa.list_(pa.int64())))
    pq.write_table(table(image=STRUCT[:1], mask=masks), tmp_path / "x.parquet")
    with pytest.raises(BadSampleError, match=message):
        open_data(f"hfdata:{tmp_path / 'x.parquet'}{CLASSES}")[0]


def test_nothing_is_downloaded(tmp_path):
    images = pa.array([{"bytes": None, "path": path} for path in ("https://a.b/c.png", "no.png")], CELL)
    pq.write_table(table(image=images, mask=BYTES[:2]), tmp_path / "x.parquet")
    data = open_data(f"hfdata:{tmp_path / 'x.parquet'}{CLASSES}")
    with pytest.raises(BadSampleError, match=r"names 'https://a.b/c.png', and nothing is downloaded"):
        data[0]
    with pytest.raises(BadSampleError, match=r"the cell names the file 'no\.png', which is missing"):
        data[1]


def test_it_goes_to_worker_processes_and_changes_are_seen_row_by_row(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(table(image=STRUCT, mask=BYTES), path, row_group_size=2)
    data = open_data(f"hfdata:{path}{CLASSES}")
    assert pickle.loads(pickle.dumps(data))[3].label.equal(data[3].label)
    (batch,) = DataLoader(data, batch_size=5, num_workers=1)
    assert batch.labels.tolist() == MASKS.tolist()
    before = [data.parts(row)["mask"].tolist() for row in range(5)]
    changed = [png(MASKS[n] if n != 2 else MASKS[2] * 0) for n in range(5)]
    pq.write_table(table(image=STRUCT, mask=pa.array(changed)), path)
    assert [data.parts(row)["mask"].tolist() == before[row] for row in range(5)] == [True, True, False, True, True]
    assert not data[2].label.any()
    pq.write_table(table(image=STRUCT[:1], mask=BYTES[:1]), path)
    with pytest.raises(BadSampleError, match="the table has no row 4 any more"):
        data[4]
    path.unlink()
    with pytest.raises(BadSampleError, match="the file is missing"):
        data[0]


@pytest.mark.parametrize("kind", ["x.parquet", "x.arrow"])
def test_a_file_that_is_cut_off_or_damaged_is_right_or_told_in_a_line(tmp_path, kind):
    path, whole = tmp_path / kind, table(image=STRUCT, mask=BYTES)
    if kind == "x.parquet":
        pq.write_table(whole, path, write_page_checksum=True)
    else:
        with pa.ipc.new_stream(path, whole.schema) as writer:
            writer.write_table(whole)
    content, counts = path.read_bytes(), Counter()
    variants = [content[:end] for end in np.linspace(0, len(content) - 1, 25).astype(int)]
    for place in np.linspace(0, len(content) - 1, 60).astype(int):
        variants.append(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
    for number, variant in enumerate(variants):
        file = tmp_path / f"{number}{path.suffix}"
        file.write_bytes(variant)
        try:
            data = open_data(f"hfdata:{file}{CLASSES}")
        except InputError as error:
            counts["refused" if "\n" not in str(error) else "in several lines"] += 1
            continue
        for row in range(len(data)):
            try:
                sample = data[row]
            except BadSampleError as error:
                counts["set aside" if "\n" not in str(error) else "in several lines"] += 1
                continue
            counts["right" if sample.label.tolist() == MASKS[row].tolist() else "wrong"] += 1
    print(kind, dict(counts))
    assert not {"wrong", "in several lines"} & set(counts)


def test_without_pyarrow_its_extra_is_named(tmp_path, monkeypatch):
    made(range(2)).to_parquet(tmp_path / "x.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow, .*segradius\[datasets\]"):
        open_data(f"hfdata:{tmp_path / 'x.parquet'}{CLASSES}")


def test_folders_that_are_none_are_told_in_a_line(tmp_path):
    made(range(2)).save_to_disk(tmp_path / "d")
    state = tmp_path / "d" / "state.json"
    told = json.loads(state.read_text())
    cases = [
        ("{", "no valid JSON"),
        ("[]", r"_data_files is None; expected a list"),
        (json.dumps(told | {"_data_files": []}), "expected a list, as save_to_disk writes it"),
        (json.dumps(told | {"_data_files": [{"filename": "x.arrow"}]}), "it names 'x.arrow', which is missing"),
        (json.dumps(told | {"_data_files": [{"filename": "../x.arrow"}]}), "which is missing"),
        (json.dumps(told | {"_indices_data_files": [{"filename": "i.arrow"}]}), "chosen by a table of their own"),
    ]
    for text, message in cases:
        state.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            open_data(f"hfdata:{tmp_path / 'd'}{CLASSES}")
        assert "\n" not in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"there is no .parquet or .arrow file, and no state.json, below"):
        open_data(f"hfdata:{tmp_path / 'empty'}{CLASSES}")
    with pytest.raises(InputError, match="is no folder, and does not end on"):
        open_data(f"hfdata:{state}{CLASSES}")
    made(range(0)).to_parquet(tmp_path / "none.parquet")
    with pytest.raises(InputError, match="it has no rows"):
        open_data(f"hfdata:{tmp_path / 'none.parquet'}{CLASSES}")
