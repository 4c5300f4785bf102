"""Images without masks: the model's own predictions stand for labels, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segradius as sr
from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.evaluation.job import DataChoice, Experiment, ModelChoice
from segradius.targets import open_target


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shots")
    (folder / "deeper").mkdir()
    for place, name in enumerate(("a.png", "deeper/b.png", "c.png")):
        scene = open_data("scenes:24x32")[place].image
        Image.fromarray((scene.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("none of them")
    return folder


def test_every_picture_below_a_folder_is_one_sample_without_labels(shots: Path) -> None:
    data = open_data(f"images:{shots}")
    assert data.ids == ("a", "c", "deeper/b")
    assert [left.path.name for left in getattr(data, "left_out", ())] == ["notes.txt"]
    assert data[0].image.shape == (3, 24, 32)
    assert data[0].label.unique().tolist() == [255]
    assert open_data(f"images:{shots}/*.png").ids == ("a", "c")
    assert open_data(f"images:{shots}", split="deeper").ids == ("b",)
    with pytest.raises(InputError, match="no picture found"):
        open_data(f"images:{shots}/*.jpg")


def test_figures_are_those_of_masks_that_hold_the_predictions(shots: Path) -> None:
    model, data = sr.load_model("demo"), open_data(f"images:{shots}")
    images = [data[place].image for place in range(3)]
    own = [model.logits(image[None]).argmax(1)[0] for image in images]
    options = {"attacks": "pgd", "eps": 1.5, "steps": 3, "quiet": True}
    by_hand = sr.evaluate(model, list(zip(images, own, strict=True)), **options)
    found = sr.evaluate(model, f"images:{shots}", labels="predicted", **options)
    assert found.summary.rows[0].pixacc.value == 1
    one, other = ([(row.pixacc.value, row.miou.value) for row in each.summary.rows] for each in (found, by_hand))
    assert one == other
    table = found.save(shots.parent / "saved") / "table.md"
    assert "labels: the model's own predictions, so that accuracy is stability" in table.read_text()
    assert not found.warnings


def test_masks_are_not_looked_at_where_labels_are_predicted() -> None:
    model = sr.load_model("demo")
    images = torch.stack([open_data("scenes:24x32")[place].image for place in range(2)])
    none = torch.full((2, 24, 32), 255)
    with pytest.raises(InputError, match="no pixel is labelled"):
        sr.evaluate(model, (images, none), (), quiet=True)
    assert sr.evaluate(model, (images, none), (), labels="predicted", quiet=True).summary.rows[0].images == 2


def test_without_masks_the_option_is_named(shots: Path) -> None:
    with pytest.raises(InputError, match=r"has no masks: with --labels predicted"):
        sr.evaluate(sr.load_model("demo"), f"images:{shots}", "pgd", quiet=True)


def test_a_target_is_asked_once_about_each_image(shots: Path) -> None:
    target = open_target("demo")
    sr.evaluate(target, f"images:{shots}", (), labels="predicted", quiet=True)
    assert target.answered == 3


def test_predicted_labels_make_another_experiment_and_given_ones_the_same_as_before() -> None:
    given, predicted = (
        Experiment(ModelChoice("demo"), DataChoice("scenes", labels=labels), ()) for labels in ("given", "predicted")
    )
    assert "labels" not in given.as_dict()["data"]
    assert predicted.extends(given.as_dict()) == 'data.labels is "predicted", and null in the earlier run'


def test_a_class_of_the_number_of_void_counts_where_it_is_predicted(shots: Path) -> None:
    levels = torch.arange(8).view(1, 8, 1, 1) / 16

    def bright(images: torch.Tensor) -> torch.Tensor:
        return 40 * (images.mean(1, keepdim=True) - levels - 0.03)

    model, data = sr.wrap(bright, num_classes=256, outputs="multilabel_logits"), open_data(f"images:{shots}")
    yes = torch.cat([bright(data[place].image[None]) > 0 for place in range(3)])
    assert yes.all(1).any()  # pixels with all eight structures, the set number 255
    found = sr.evaluate(model, data, "pgd", eps=1e-3, steps=2, labels="predicted", quiet=True)
    assert {row["pixels"] for row in found.per_image()} == {24 * 32}
    structures = found.summary.rows[0].foreground.structures
    assert [each.pixels for each in structures] == yes.sum((0, 2, 3)).tolist()


def test_an_attack_that_balances_classes_counts_no_masks_that_are_not_looked_at(shots: Path) -> None:
    model, options = sr.load_model("demo"), {"attacks": "sea", "eps": 1.5, "steps": 4, "labels": "predicted"}
    found = sr.evaluate(model, f"images:{shots}", **options, quiet=True)
    assert found.summary.rows[1].pixacc.value < 1
    masked = sr.evaluate(model, "scenes:24x32,2", **options, quiet=True)
    assert [plan.options["class_weights"] for plan in masked.run.experiment.attacks] == [None]
