"""``segradius data check``: what it says is what lies there, and what cannot be used is told with exit status 3."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segradius.cli import main
from segradius.data import open_data, readers
from segradius.data.sample import Classes, Sample, voc_palette
from segradius.data.stored import Held
from segradius.evaluation.check import check_data, looked
from segradius.report.check import check_files, small


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five 16-bit images with masks of 0 and 255: one empty, one cut short, one that is there twice."""
    root, rng = tmp_path_factory.mktemp("data") / "cells", np.random.default_rng(0)
    for kind in ("images/test", "images/train", "masks/test", "masks/train"):
        (root / kind).mkdir(parents=True)
    for n in range(5):
        mask = np.zeros((16, 20), np.uint8)
        mask[2 : 4 + n, 3:9] = 255 * (n != 1)
        image = Image.fromarray(rng.integers(100 * n, 1000, (16, 20)).astype(np.uint16))
        for split in ("test",) if n < 4 else ("train",):
            image.save(root / "images" / split / f"c{n}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"c{n}.png")
    for kind in ("images", "masks"):
        (root / kind / "train" / "again.png").write_bytes((root / kind / "test" / "c0.png").read_bytes())
        (root / kind / "test" / "twin.png").write_bytes((root / kind / "test" / "c2.png").read_bytes())
    cut = root / "images" / "test" / "c3.png"
    cut.write_bytes(cut.read_bytes()[:-100])
    (root / "segradius.yaml").write_text("classes: [background, cell]\nvalues: [0, 255]\nbands: 1\nrange: [0, 1000]\n")
    return root


def test_an_image_file_is_decoded_once_whatever_the_data_set_is(cells: Path, monkeypatch: pytest.MonkeyPatch):
    read, opened = readers.open_picture, list[Path]()
    monkeypatch.setattr(readers, "open_picture", lambda path: opened.append(path) or read(path))
    keys = "bands=1,range=[0, 1000]"
    for spec, split in ((f"folder:{cells}", "test"), (f"images:{cells}/images/test,{keys}", None)):
        data = open_data(spec, split=split, size=(8, 10))
        opened.clear()
        found = [looked(data, place) for place in range(len(data))]
        assert sorted(opened) == sorted((cells / "images" / "test").iterdir())
        assert [each.file is None for each in found] == [each.fault is not None for each in found]
        numbers = np.asarray(Image.open(cells / "images" / "test" / "c0.png"))
        assert found[0].file == Held("uint16", numbers.min(), numbers.max(), 16, 20, 1)


def test_the_numbers_of_a_file_are_told_where_they_are_why_it_cannot_be_used(cells: Path):
    found = looked(open_data(f"images:{cells}/images/test,bands=1,range=[0, 50]"), 0)
    assert found.fault is not None
    assert "lies outside range" in found.fault
    assert found.file is not None
    assert found.file.high > 50


def test_numbers_that_are_none_leave_the_others_their_range(tmp_path: Path):
    for name, values in (("a", [np.nan, 3]), ("b", [1, 2]), ("c", [np.nan, np.nan])):
        np.save(tmp_path / f"{name}.npy", np.array([values] * 2, np.float32))
    found = check_data(open_data(f"images:{tmp_path},bands=1,range=[0, 4]"))
    assert list(found.faults) == ["a", "c"]
    assert found.types == {"float32": (3, 1, 3)}


def test_it_tells_what_lies_there(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [f"folder:{cells}", "--split=test", "--against-split=train", f"--out={tmp_path}"]
    assert main(["data", "check", *words]) == 3
    report = json.loads((tmp_path / "check.json").read_text())
    assert (report["images"], report["usable"], list(report["faults"])) == (5, 4, ["c3"])
    assert report["sizes"] == {"16×20×1": 4}
    assert report["empty"] == ["c1"]
    assert report["twins"] == [["c2", "twin"]]
    assert report["torn"] == []
    assert report["also"] == [["again", "c0"]]
    numbers = [np.asarray(Image.open(cells / "images" / "test" / f"c{n}.png")) for n in range(3)]
    low, high = (float(f([f(each) for each in numbers])) for f in (np.min, np.max))
    assert report["files"]["uint16"] == {"files": 4, "low": low, "high": high}
    marked = [int((np.asarray(Image.open(cells / "masks" / "test" / f"{n}.png")) > 0).sum()) for n in ("c0", "c2")]
    assert report["classes"][1] == {"name": "cell", "pixels": marked[0] + 2 * marked[1], "images": 3}
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO((tmp_path / "check.csv").read_text()))}
    assert rows["c0"]["pixels cell"] == str(marked[0])
    assert "cannot be read" in rows["c3"]["fault"]
    said = capsys.readouterr()
    assert "1 image(s) cannot be used, c3: exit status 3" in said.err
    assert "1 image(s) of cells/train are in cells/test too (again = c0)" in " ".join(said.out.split())


def test_a_good_data_set_ends_with_0_and_the_same_files_twice(tmp_path: Path):
    for name in ("one", "two"):
        assert main(["data", "check", "scenes:24x32", "--limit=3", f"--out={tmp_path / name}"]) == 0
    for file in ("check.json", "check.csv", "sheet.png", "check.md", "SHA256SUMS"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert main(["verify", str(tmp_path / "one")]) == 0


def test_an_undeclared_range_is_told_with_the_numbers_of_the_file(cells: Path, tmp_path: Path):
    yaml = cells / "plain.yaml"
    yaml.write_text("classes: [background, cell]\nvalues: [0, 255]\nbands: 1\n")
    assert main(["data", "check", f"folder:{yaml}", "--split=train", f"--out={tmp_path}"]) == 3
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["usable"] == 0
    assert all("range" in reason for reason in report["faults"].values())
    assert report["files"]["uint16"]["files"] == 2
    assert not (tmp_path / "sheet.png").exists()


class Overlapping:
    """Two samples of two structures, of which the second has only the first."""

    name = "overlapping"
    classes = Classes(("background", "organ", "vessel", "organ + vessel"), voc_palette(4), 255, ("organ", "vessel"))
    ids = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> Sample:
        label = torch.tensor([[[0, 1, 2, 3]], [[1, 1, 0, 255]]])[place].repeat(4, 1)
        return Sample(self.ids[place], torch.full((3, 4, 4), 0.25 + place / 2), label)


def test_structures_are_counted_each_by_itself():
    found = check_data(Overlapping())
    assert [(part.name, part.pixels, part.images) for part in found.parts] == [("organ", 16, 2), ("vessel", 8, 1)]
    assert found.empty == ()
    assert found.void == 4 / 32
    files = dict(check_files(found, Overlapping(), "two"))
    assert "| organ | 16 | 57.14 | 2 | 100.0 |" in files["check.md"]
    with Image.open(io.BytesIO(files["sheet.png"])) as sheet:
        seen = {tuple(colour) for colour in np.array(sheet.convert("RGB")).reshape(-1, 3).tolist()}
    assert (0, 158, 115) in seen  # the outline of the first structure


@pytest.mark.parametrize("size", [(700, 40), (30, 1000), (8, 9)])
def test_what_the_sheet_shows_is_no_larger_than_it_shows(size: tuple[int, int]):
    shown = small(Sample("a", torch.rand(2, *size), torch.randint(4, size)))
    assert max(shown.label.shape) <= 320
    assert shown.image.shape[1:] == shown.label.shape
    assert shown.label.dtype == torch.int64
