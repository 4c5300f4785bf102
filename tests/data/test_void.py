"""What void counts as: nothing, or the background, by option or by protocol."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from segradius.cli import main
from segradius.core.errors import InputError
from segradius.core.label_sets import set_names
from segradius.data import PROTOCOLS, Classes, Sample, open_data
from segradius.data.marks import meaning_of
from segradius.data.prepared import Prepared
from segradius.data.protocols import void_of
from segradius.data.sample import voc_palette
from segradius.data.void import filled
from segradius.evaluation import DataChoice, ModelChoice, results_schema
from segradius.evaluation.job import described


class Two:
    """One image of two pixels a class and two of void."""

    name, ids = "two", ("a",)

    def __init__(self, *names):
        self.classes = Classes(names, tuple((0, 0, place + 1) for place in range(len(names))))

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return Sample("a", torch.zeros(3, 3, 2), torch.tensor([[0, 0], [1, 1], [255, 255]]))


@pytest.fixture
def voc(tmp_path):
    """One image of VOC in its layout: 40 × 60, left third background, middle a cow, right third void."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    label = np.repeat(np.array([0, 10, 255], np.uint8), 20)[None].repeat(40, 0)
    mask = Image.fromarray(label)
    mask.putpalette([value for colour in voc_palette(256) for value in colour])
    mask.save(root / "SegmentationClass" / "a.png")
    Image.new("RGB", (60, 40), (90, 120, 30)).save(root / "JPEGImages" / "a.jpg")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    return root


@pytest.fixture
def ade20k(tmp_path):
    """One image of ADE20K: mask values 0 (without class), 1 (wall) and 150 (flag), 16 columns each."""
    for kind, mode in (("images", "RGB"), ("annotations", "L")):
        folder = tmp_path / "ADEChallengeData2016" / kind / "validation"
        folder.mkdir(parents=True)
        label = np.repeat(np.array([0, 1, 150], np.uint8), 16)[None].repeat(32, 0)
        Image.fromarray(label).convert(mode).save(folder / ("a.jpg" if mode == "RGB" else "a.png"))
    return tmp_path


def test_void_joins_the_background_where_there_is_one():
    data = Prepared(Two("background", "cow"), [0], void="background")
    assert data.classes == Two("background", "cow").classes
    assert data[0].label.tolist() == [[0, 0], [1, 1], [0, 0]]


def test_void_becomes_the_first_class_where_there_is_no_background():
    data = Prepared(Two("sky", "tree"), [0], void="background")
    assert data.classes.names == ("background", "sky", "tree")
    assert len(data.classes.palette) == 3
    assert data[0].label.tolist() == [[1, 1], [2, 2], [0, 0]]
    assert meaning_of(data)["classes"] == ["background", "sky", "tree"]
    assert meaning_of(data)["void"] == "background"


def test_void_is_left_out_unless_it_is_said():
    data = Prepared(Two("sky", "tree"), [0])
    assert data[0].label.tolist() == [[0, 0], [1, 1], [255, 255]]
    assert "void" not in meaning_of(data)


def test_what_has_no_background_is_refused():
    with pytest.raises(InputError, match="void background is for data with masks"):
        filled(Two().classes)
    sets = Classes(set_names(("cell",)), ((0, 0, 0), (1, 1, 1)), structures=("cell",))
    with pytest.raises(InputError, match="sets of the structures cell; expected void ignore"):
        filled(sets)
    full = Classes(tuple(f"c{n}" for n in range(255)), tuple((n, 0, 0) for n in range(255)))
    with pytest.raises(InputError, match="ignore_index 255 is the class"):
        filled(full)


def test_seas_voc_is_a_crop_of_473_where_void_counts_as_class_0(voc):
    data = open_data(f"voc:{voc}", protocol="sea-voc")
    sample = data[0]
    assert (len(data.classes), tuple(sample.image.shape), tuple(sample.label.shape)) == (21, (3, 473, 473), (473, 473))
    assert set(sample.label.unique().tolist()) == {0, 10}
    counted, left_out = (
        open_data(f"voc:{voc}", void=void)[0].label.eq(0).sum().item() for void in ("background", None)
    )
    assert (counted, left_out) == (1600, 800)
    ours = open_data(f"voc:{voc}", protocol="paper-voc")[0]
    assert torch.equal(ours.image, sample.image)
    assert torch.equal(sample.label, ours.label.masked_fill(ours.label == 255, 0))


def test_seas_ade20k_has_the_numbers_of_its_masks_as_classes(ade20k):
    data = open_data(f"ade20k:{ade20k}", protocol="sea-ade20k")
    sample = data[0]
    assert (len(data.classes), tuple(sample.label.shape)) == (151, (512, 512))
    assert [data.classes.names[n] for n in (0, 1, 150)] == ["background", "wall", "flag"]
    native = open_data(f"ade20k:{ade20k}", void="background")[0].label
    stored = Image.open(ade20k / "ADEChallengeData2016" / "annotations" / "validation" / "a.png")
    assert native.tolist() == np.asarray(stored).tolist()
    assert open_data(f"ade20k:{ade20k}")[0].label.unique().tolist() == [0, 149, 255]


def test_an_option_wins_over_the_protocol(voc):
    label = open_data(f"voc:{voc}", protocol="sea-voc", void="ignore")[0].label
    assert 255 in label
    with pytest.raises(InputError, match="void is 'class'; expected ignore or background"):
        open_data(f"voc:{voc}", void="class")


@pytest.mark.parametrize(("name", "size"), [("segcertify-cityscapes", (1024, 2048)), ("segcertify-pascal", (480, 480))])
def test_sizes_of_segcertify(name, size):
    _, label = PROTOCOLS[name](torch.zeros(3, 50, 80), torch.zeros(50, 80, dtype=torch.int64))
    assert tuple(label.shape) == size
    assert void_of(name) == "ignore"


def test_a_choice_says_what_void_counts_as_and_is_described_as_before_where_it_is_nothing():
    assert DataChoice("voc:x", protocol="sea-voc").void == "background"
    assert DataChoice("voc:x", protocol="sea-voc", void="ignore").void == "ignore"
    model = ModelChoice("demo")
    assert "void" not in described(model, DataChoice("voc:x"))["data"]
    assert described(model, DataChoice("voc:x", protocol="sea-voc"))["data"]["void"] == "background"


def test_a_run_counts_all_pixels_and_says_so(tmp_path):
    command = ["evaluate", "--model", "pspnet_light,num_classes=9", "--data", "scenes:24x32", "--limit", "2"]
    assert main([*command, "--void", "background", "--out", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "results.json").read_text())
    assert report["experiment"]["data"]["void"] == "background"
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(report, results_schema())
    assert "2 images, void counts as background" in (tmp_path / "run" / "table.md").read_text()
    with (tmp_path / "run" / "classes.csv").open() as file:
        pixels = {row["class"]: int(row["pixels"]) for row in csv.DictReader(file)}
    assert sum(pixels.values()) == 2 * 24 * 32
    assert pixels["background"] == sum(
        int((sample.label == 255).sum()) for sample in open_data("scenes:24x32", limit=2)
    )
