"""What is asked with yes or no stands first: in tables, in results.json, in rows by image, and after certificates."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.classification import binary_f1_score

import segradius as sr
from segradius.cli import main
from segradius.evaluation.foreground import Named
from segradius.report import tables

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
    assert table.title.endswith("; Dice and IoU of cell")


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
    assert page.index("Dice of cell") < page.index("IoU of cell") < page.index("PixAcc")


def test_of_more_classes_nothing_is_asked_with_yes_or_no(tmp_path: Path):
    assert main(["evaluate", "--model=demo", "--data=scenes:24x32", "--limit=2", f"--out={tmp_path}"]) == 0
    report = json.loads((tmp_path / "results.json").read_text())
    assert not {"dice", "iou", "structures"} & set(report["rows"][0])
    assert "dice" not in (tmp_path / "per_image.csv").read_text().splitlines()[0]
    assert Named(("a", "b", "c")).columns == ()
