"""What is asked with yes or no stands first: in tables, in results.json, in rows by image, and after certificates."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import binary_f1_score

import segradius as sr
from segradius.certification.certificate import Certificate, certified_counts
from segradius.cli import main
from segradius.core.label_sets import set_names
from segradius.data.sample import Classes, voc_palette
from segradius.evaluation.foreground import Named
from segradius.report import tables
from segradius.report.compare import certified_runs_table
from segradius.report.overlay import FILL, Painter
from segradius.report.overlay import STRUCTURES as STRUCTURE_COLOURS

VOID = 255


def cells(images: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright squares on dark ground, (N, 3, H, W), and masks with a void row."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(images, 16, 20, dtype=torch.int64)
    for n in range(images):
        masks[n, 3 : 8 + n, 4 : 9 + n] = 1
    pixels = 0.25 + 0.2 * masks.unsqueeze(1) + 0.3 * torch.rand(images, 3, 16, 20, generator=generator)
    masks[:, 0] = VOID
    return pixels, masks


def bright() -> sr.Segmenter:
    """Says cell where the mean of the bands is above 0.5."""
    network = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight.zero_()[1] = 10.0
        network.bias.zero_()[1] = -15.0
    return sr.wrap(network, num_classes=2, normalisation="none")


@pytest.fixture(scope="module")
def found() -> sr.Results:
    names = ["background", "cell"]
    return sr.evaluate(bright(), cells(), ["pgd", "fgsm"], eps=0.8, options={"pgd.steps": 3}, names=names, quiet=True)


def test_the_dice_of_the_foreground_is_that_of_torchmetrics_and_stands_first(found: sr.Results):
    images, masks = cells()
    predicted, clean = bright().logits(images).argmax(1), found.summary.rows[0]
    f1 = binary_f1_score(predicted, masks.masked_fill(masks == VOID, -1), ignore_index=-1)
    assert clean.foreground.dice.value == pytest.approx(float(f1), rel=1e-6)
    dice = clean.foreground.dice.value
    assert clean.foreground.iou.value == pytest.approx(dice / (2 - dice))
    assert clean.foreground.dice.low < dice < clean.foreground.dice.high
    table = tables(found.summary)[0]
    assert table.header[4:9] == ("Dice %", "IoU %", "Dice/image %", "PixAcc %", "MIoU %")
    assert table.title.endswith("; Dice and IoU: cell")


def test_rows_by_image_have_their_own_dice(found: sr.Results):
    rows = [row for row in found.per_image() if row["attack"] == "clean"]
    assert list(rows[0])[:7] == ["attack", "norm", "eps", "image", "valid", "dice", "iou"]
    mean = sum(row["dice"] for row in rows) / len(rows)
    assert mean == pytest.approx(found.summary.rows[0].foreground.dice_image.value)


def test_the_worst_of_attacks_has_no_more_dice_than_any_of_them(found: sr.Results):
    worst, attacks = found.summary.rows[-1], found.summary.rows[1:-1]
    assert worst.name == "worst of 2"
    assert worst.foreground.dice.value <= min(row.foreground.dice.value for row in attacks) + 1e-12


def test_files_and_comparisons_have_it_first(found: sr.Results, tmp_path: Path):
    found.save(tmp_path / "one")
    row = json.loads((tmp_path / "one" / "results.json").read_text())["rows"][0]
    assert list(row)[5:9] == ["foreground", "dice", "iou", "dice_image"]
    assert row["foreground"] == "cell"
    assert not (tmp_path / "one" / "structures.csv").exists()
    assert main(["compare", str(tmp_path / "one"), "--out", str(tmp_path / "both")]) == 0
    lines = list(csv.DictReader((tmp_path / "both" / "compare.csv").read_text().splitlines()))
    assert float(lines[0]["dice"]) == pytest.approx(found.summary.rows[0].foreground.dice.value)
    page = (tmp_path / "both" / "table.md").read_text()
    assert page.index("Dice: cell") < page.index("IoU: cell") < page.index("PixAcc")


def test_of_more_classes_nothing_is_asked_with_yes_or_no(tmp_path: Path):
    assert main(["evaluate", "--model=demo", "--data=scenes:24x32", "--limit=2", f"--out={tmp_path}"]) == 0
    report = json.loads((tmp_path / "results.json").read_text())
    assert not {"dice", "iou", "structures"} & set(report["rows"][0])
    assert "dice" not in (tmp_path / "per_image.csv").read_text().splitlines()[0]
    assert Named(("a", "b", "c")).columns == ()


STRUCTURES = ("organ", "vessel", "lesion")


def overlapping(images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images whose bands are three overlapping squares, and their yes/no masks (N, 3, H, W) with a void row."""
    generator = torch.Generator().manual_seed(1)
    masks = torch.zeros(images, 3, 16, 20, dtype=torch.int64)
    for n in range(images):
        for k, (top, left, side) in enumerate(((2, 3, 9), (6, 8, 7), (5, 6, 4))):
            masks[n, k, top : top + side, left + n : left + n + side] = 1
    masks[-1, 2] = 0  # no lesion in the last image
    pixels = 0.3 + 0.15 * masks + 0.25 * torch.rand(images, 3, 16, 20, generator=generator)
    masks[:, 0, 0] = VOID
    return pixels, masks


def bands() -> torch.nn.Conv2d:
    """Says yes to structure k where band k is above 0.5."""
    network = torch.nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        network.weight.zero_()[range(3), range(3)] = 20.0
        network.bias.fill_(-10.0)
    return network


def sets(**options: object) -> sr.Segmenter:
    return sr.wrap(bands(), outputs="multilabel_logits", normalisation="none", **options)


def loop(images: torch.Tensor, masks: torch.Tensor, k: int) -> tuple[int, int, int]:
    """Pixels of a structure that are said, that are labelled, and both, by a loop over yes/no maps."""
    said = labelled = both = 0
    for image, mask in zip(images, masks, strict=True):
        yes = bands()(image)[k] > 0
        for row, column in torch.cartesian_prod(torch.arange(16), torch.arange(20)).tolist():
            if VOID not in mask[:, row, column].tolist():
                a, b = bool(yes[row, column]), bool(mask[k, row, column])
                said, labelled, both = said + a, labelled + b, both + (a and b)
    return said, labelled, both


def test_structures_are_as_a_plain_loop_over_the_channels_counts_them(tmp_path: Path):
    images, masks = overlapping()
    found = sr.evaluate(sets(), (images, masks), "pgd", eps=0.5, steps=2, structures=STRUCTURES, quiet=True)
    clean, attacked = found.summary.rows
    for k, row in enumerate(clean.foreground.structures):
        said, labelled, both = loop(images, masks, k)
        assert (row.name, row.pixels) == (STRUCTURES[k], labelled)
        assert row.dice.value == pytest.approx(2 * both / (said + labelled))
        assert row.iou.value == pytest.approx(both / (said + labelled - both))
    mean = sum(row.dice.value for row in clean.foreground.structures) / 3
    assert clean.foreground.dice.value == pytest.approx(mean)
    assert attacked.foreground.dice.value < mean
    yes = bands()(images) > 0
    right = (yes == masks.bool()).all(1)[masks[:, 0] != VOID].double().mean()
    assert clean.pixacc.value == pytest.approx(float(right))
    assert tables(found.summary)[0].header[4:8] == ("Dice %", "IoU %", "Dice/image %", "all structures right %")
    found.save(tmp_path)
    lines = list(csv.DictReader((tmp_path / "structures.csv").read_text().splitlines()))
    assert [(line["attack"], line["structure"]) for line in lines] == [
        (attack, name) for attack in ("clean", "pgd") for name in STRUCTURES
    ]
    assert float(lines[0]["dice"]) == pytest.approx(clean.foreground.structures[0].dice.value)
    report = json.loads((tmp_path / "results.json").read_text())
    assert [each["name"] for each in report["rows"][0]["structures"]] == list(STRUCTURES)
    assert (tmp_path / "table.md").read_text().count("| lesion |") == 2


def test_tables_and_pictures_of_structures_say_all_of_them_and_never_pixel_accuracy(tmp_path: Path, drawn: list[str]):
    images, masks = overlapping()
    options = {"eps": 0.5, "queries": 6, "steps": 2, "structures": STRUCTURES, "quiet": True}
    found = sr.evaluate(sets(), (images, masks), ("pgd", "fgsm", "square"), **options)
    found.save(tmp_path)
    assert "all structures right, %, mean over images" in drawn
    assert tables(found.summary)[1].header[4] == "all structures right difference, points"
    report = json.loads((tmp_path / "results.json").read_text())
    setting = {"smoothing": {"sigma": 0.1, "n": 9, "early_stop": None}, "data": {}}
    certified = certified_runs_table([("a", {**report, "images": 4, "experiment": setting, "structures": ["organ"]})])
    assert certified.header[5:9] == ("Dice %", "IoU %", "all structures right %", "abstained %")
    for text in (*drawn, *certified.header, (tmp_path / "table.md").read_text()):
        assert "PixAcc" not in text
        assert "pixel accuracy" not in text


def test_a_model_and_data_that_do_not_agree_on_structures_are_refused_in_words():
    images, masks = overlapping(2)
    eight = sr.wrap(torch.nn.Conv2d(3, 8, 1), num_classes=8, normalisation="none")
    with pytest.raises(sr.InputError, match=r"3 structures that may overlap \(organ, .* gives one of 8 classes"):
        sr.evaluate(eight, (images, masks), (), structures=STRUCTURES, quiet=True)
    with pytest.raises(sr.InputError, match=r"2 structures .* says yes or no to 3"):
        sr.evaluate(sets(), (images, masks[:, :2]), (), structures=STRUCTURES[:2], quiet=True)
    with pytest.raises(sr.InputError, match=r"yes or no to 3 structures .* 8 classes of which each pixel has one"):
        sr.evaluate(sets(), (images, masks[:, 0]), (), quiet=True)
    two = sets(channels=[0, 1])
    assert (
        sr.evaluate(two, (images, masks[:, :2]), (), structures=STRUCTURES[:2], quiet=True).summary.rows[0].images == 2
    )


def test_predictions_that_stand_for_masks_are_of_the_structures_of_the_model(tmp_path: Path):
    images, _ = overlapping(3)
    for n, image in enumerate(images):
        Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / f"{n}.png")
    found = sr.evaluate(sets(), f"images:{tmp_path}", "pgd", eps=0.5, steps=2, labels="predicted", quiet=True)
    clean, attacked = found.summary.rows
    assert [row.name for row in clean.foreground.structures] == ["structure 0", "structure 1", "structure 2"]
    assert clean.foreground.dice.value == 1
    assert tables(found.summary)[0].header[4:8] == ("Dice %", "IoU %", "Dice/image %", "all structures kept %")
    assert tables(found.summary)[0].rows[0][4:8] == ["100.0"] * 4
    assert attacked.foreground.dice.value < 1
    two = sr.evaluate(bright(), f"images:{tmp_path}", (), labels="predicted", quiet=True)
    assert two.summary.rows[0].foreground.dice.value == 1


def test_masks_of_structures_that_are_no_yes_or_no_are_set_aside_by_pixel():
    images, masks = overlapping(2)
    masks[1, 2, 4, 5] = 7
    found = sr.evaluate(sets(), (images, masks), (), structures=STRUCTURES, quiet=True)
    told = "the mask of lesion is 7 at row 4, column 5; expected 0, 1 or 255 for void"
    assert told in found.summary.set_aside["00001"]
    assert found.summary.rows[0].images == 1


def test_a_certificate_counts_an_abstained_pixel_as_wrong_in_every_structure():
    labels, guess = torch.tensor([[3, 3, 1, 0, VOID]]), torch.tensor([[3, 1, 1, 2, 3]])
    certified = torch.tensor([[True, True, False, True, True]])
    radius = torch.where(certified, 0.5, 0.0)
    one = Certificate(guess, certified, radius, 0.25, 0.001, "image", None)
    found = certified_counts(one, labels, 4, VOID, -1.0, structures=2)
    assert found.foreground.images[0].plain == [[2, 1], [2, 3], [3, 2]]


def test_a_painter_lays_structures_over_the_image_and_mixes_where_they_overlap():
    classes = Classes(set_names(["a", "b"]), voc_palette(4), VOID, ("a", "b"))
    grey, found = torch.full((1, 9, 9), 0.5), torch.zeros(9, 9, dtype=torch.int64)
    found[:, :6] += 1
    found[:, 3:] += 2
    found[0, 0] = VOID
    painted = Painter.of(classes, [found]).paint(grey, found)
    first, second = (np.array(colour) for colour in STRUCTURE_COLOURS[:2])
    ground = 0.5 * 255 * (1 - FILL)
    np.testing.assert_allclose(painted[4, 1], ground + FILL * first, atol=1)
    np.testing.assert_allclose(painted[4, 4], ground + FILL * (first + second) / 2, atol=1)
    assert painted[4, 5].tolist() == first.tolist()  # the outline of the first, inside the second
    assert painted[4, 3].tolist() == second.tolist()
    assert painted[0, 0].tolist() == [255, 255, 255]


def test_more_classes_than_the_data_have_get_colours_of_their_own():
    classes = Classes(("background", "cell"), ((0, 0, 0), (255, 0, 0)))
    painter = Painter.of(classes, [torch.tensor([[0, 1, 2]])])
    assert painter.asked == ()
    assert painter.paint(torch.zeros(3, 1, 3), torch.tensor([[0, 1, 2]]))[0, 1].tolist() == [255, 0, 0]
