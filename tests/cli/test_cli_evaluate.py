"""``segradius evaluate``: figures that follow elsewhere, and a folder in which ``attack`` goes on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import segradius as sr
from segradius.cli import main
from segradius.evaluation import DataChoice, Experiment, InProcess, ModelChoice, Run, Store, execute, work
from segradius.metrics import Counts, count, miou, pooled_accuracy
from segradius.models.demo import demo

SCENES = "scenes:24x32"
GIVEN = ("--model", "demo", "--data", SCENES)


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_accuracy_over_the_images_and_by_class_is_that_of_counted_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["evaluate", *GIVEN, "--limit", "6", "--batch-size", "2", "--out", str(tmp_path)]) == 0
    data = sr.open_data(SCENES, limit=6)
    images, labels = (torch.stack([getattr(data[i], part) for i in range(6)]) for part in ("image", "label"))
    counts = count(demo().logits(images).argmax(1), labels, 8)
    (row,) = results(tmp_path)["rows"]
    assert row["pixacc"]["value"] == pytest.approx(pooled_accuracy(counts))
    assert row["miou"]["value"] == pytest.approx(miou(counts))
    assert row["pixacc"]["low"] <= row["pixacc"]["value"] <= row["pixacc"]["high"]
    with (tmp_path / "classes.csv").open(newline="") as lines:
        classes = {line["class"]: line for line in csv.DictReader(lines)}
    total = Counts(*(part.sum(0) for part in (counts.intersection, counts.predicted, counts.labelled)))
    for c, name in enumerate(data.classes.names):
        if not total.union[c]:
            assert name not in classes
            continue
        line, right = classes[name], int(total.intersection[c])
        assert int(line["pixels"]) == int(total.labelled[c])
        assert float(line["iou"]) == pytest.approx(right / int(total.union[c]))
        twice = int(total.predicted[c] + total.labelled[c])
        assert float(line["dice"]) == pytest.approx(2 * right / twice)
        if line["iou_low"]:  # from five images on that have anything of it
            assert float(line["iou_low"]) <= float(line["iou"]) <= float(line["iou_high"])
        assert line["accuracy"] == "" or float(line["accuracy"]) == pytest.approx(right / int(total.labelled[c]))
    assert f"{100 * row['pixacc']['value']:.1f} [" in capsys.readouterr().out


def test_an_attack_goes_on_where_an_evaluation_was(tmp_path: Path):
    assert main(["evaluate", *GIVEN, "--limit", "2", "--out", str(tmp_path)]) == 0
    before = results(tmp_path)["rows"][0]
    attack = ["attack", *GIVEN, "--limit", "2", "--attack", "fgsm", "--figures", "0", "--out", str(tmp_path)]
    assert main(attack) == 0
    assert results(tmp_path)["rows"][0] == before
    assert main(["evaluate", *GIVEN, "--limit", "2", "--seed", "1", "--out", str(tmp_path)]) == 2


def test_a_target_is_asked_once_for_each_image(tmp_path: Path):
    given = ["evaluate", "--target", "demo", "--data", SCENES, "--limit", "2", "--budget", "2", "--out", str(tmp_path)]
    assert main(given) == main(given) == 0
    assert results(tmp_path)["runtime"]["target"]["answered"] == 2


def test_progress_counts_images_where_they_are_only_judged():
    told: list[tuple[str, int]] = []
    run = Run(Experiment(ModelChoice("demo"), DataChoice(SCENES), ()), demo(), sr.open_data(SCENES, limit=3), 2)
    run = replace(run, progress=lambda job, steps: told.append((job.task.title, steps)))
    with Store(":memory:") as store:
        assert work(run, store) == 3
        execute(run, store, InProcess(run.model, run.data))
        assert told == [("clean", 2), ("clean", 1)]
        assert work(run, store) == 0


def test_evaluations_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("one", "other"):
        assert main(["evaluate", *GIVEN, "--limit", "5", "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    folders = [str(tmp_path / name) for name in ("one", "other")]
    assert main(["compare", *folders, "--out", str(tmp_path / "both")]) == 0
    table = capsys.readouterr().out
    assert "| other − one | clean |  |  | +0.0 [+0.0, +0.0] | 1 |" in table
    assert table.count("| 5 |") == 2
    assert not (tmp_path / "both" / "compare.png").exists()
