"""Where the model's own predictions are the labels, a reader is told of stability: tables and pictures say kept."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segradius.cli import main
from segradius.data import open_data
from segradius.metrics.intervals import Interval, without_ends

ACCURACY = ("PixAcc", "% right", "accuracy", "Accuracy", "pixel accuracy")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures without masks: enough for intervals over images."""
    folder = tmp_path_factory.mktemp("shots")
    for n in range(6):
        scene = open_data("scenes:24x32")[n].image
        Image.fromarray((scene.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(folder / f"{n}.png")
    return folder


COMMANDS = {
    "attack": ("attack", "--attack", "pgd,fgsm", "--eps", 1.5, "--steps", 2),
    "evaluate": ("evaluate",),
    "certify": ("certify", "--sigma", 0.1, "--n0", 4, "--n", 40, "--radii", "one"),
    "curve": ("attack", "--attack", "square", "--eps", 1.5, "--queries", 6),
}


def run(shots: Path, out: Path, *words: object, labels: str = "predicted") -> None:
    data = f"images:{shots}" if labels == "predicted" else "scenes:24x32"
    told = ["--model", "demo", "--data", data, "--labels", labels, "--limit", 6, "--out", out]
    assert main([str(word) for word in (*words, *told)]) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_no_table_and_no_picture_speaks_of_accuracy(name: str, shots: Path, tmp_path: Path, drawn: list[str]):
    run(shots, tmp_path / "own", *COMMANDS[name])
    page = (tmp_path / "own" / "table.md").read_text()
    assert "| kept % |" in page
    lines = [line for line in page.splitlines() if line.startswith(("|", "**"))]
    for text in (*lines, *drawn):
        assert not any(word in text for word in ACCURACY), text
        assert text not in ("label", "right, now wrong", "certified, right")
    if name != "evaluate":
        assert any(text == "own prediction" for text in drawn)
        assert any("kept" in text for text in drawn)
    assert "pixacc" in json.loads((tmp_path / "own" / "results.json").read_text())["rows"][0]


@pytest.mark.parametrize("name", COMMANDS)
def test_with_labels_of_the_data_the_words_are_as_before(name: str, shots: Path, tmp_path: Path, drawn: list[str]):
    run(shots, tmp_path / "given", *COMMANDS[name], labels="given")
    page = (tmp_path / "given" / "table.md").read_text()
    assert "| PixAcc % |" in page
    assert "kept" not in "".join([page.split("Made ")[0], *drawn])
    if name != "evaluate":
        assert "label" in drawn


@pytest.mark.parametrize("name", ["attack", "evaluate", "certify"])
def test_what_is_100_by_definition_has_no_interval(name: str, shots: Path, tmp_path: Path):
    run(shots, tmp_path, *COMMANDS[name])
    first, *others = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert first["pixacc"] == {"value": 1.0, "low": None, "high": None}
    assert all(row["pixacc"]["low"] is not None for row in others)
    line = next(row for row in (tmp_path / "table.md").read_text().splitlines() if "100.0" in row)
    assert "100.0 [" not in line


def test_runs_side_by_side_say_kept_and_only_with_their_like(
    shots: Path, tmp_path: Path, drawn: list[str], capsys: pytest.CaptureFixture[str]
):
    for name, labels in (("one", "predicted"), ("two", "predicted"), ("other", "given")):
        run(shots, tmp_path / name, *COMMANDS["attack"], labels=labels)
    drawn.clear()
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "two"), f"--out={tmp_path / 'both'}"]) == 0
    page = (tmp_path / "both" / "table.md").read_text()
    assert "kept: pixels that keep the model's own prediction, per cent" in page
    assert "| kept difference, points |" in page
    assert not any(word in text for text in (page, *drawn) for word in ACCURACY)
    assert "clean kept (%)" in drawn
    lines = list(csv.DictReader((tmp_path / "both" / "compare.csv").read_text().splitlines()))
    assert float(lines[0]["pixacc"]) == 1
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "one"), str(tmp_path / "other")]) == 2
    assert "data.labels is predicted for one and given for other" in capsys.readouterr().err


def test_certificates_side_by_side_say_what_their_labels_are(shots: Path, tmp_path: Path):
    for labels in ("predicted", "given"):
        run(shots, tmp_path / labels, *COMMANDS["certify"], labels=labels)
    for runs, told in (
        (["predicted"], "kept %"),
        (["given"], "PixAcc %"),
        (["predicted", "given"], "PixAcc or kept %"),
    ):
        assert main(["compare", *(str(tmp_path / each) for each in runs), f"--out={tmp_path / 'all'}"]) == 0
        assert f"| {told} | MIoU % |" in (tmp_path / "all" / "table.md").read_text()


def test_figures_without_ends_keep_their_values():
    found = without_ends((Interval(0.5, 0.25, 0.75), ("name", 3, None)))
    assert found[0].value == 0.5
    assert math.isnan(found[0].low)
    assert math.isnan(found[0].high)
    assert found[1] == ("name", 3, None)
