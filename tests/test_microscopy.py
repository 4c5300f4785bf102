"""One yes/no channel and three, on folders of grey 16-bit images: trained, attacked, certified, hardened, exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.segmentation import dice_score

import microscopy
import segradius as sr
from segradius.cli import main
from segradius.core.label_sets import to_masks
from segradius.data import open_data
from segradius.targets import open_target
from targets.oip_stub import Stub, serving

CARD = "model: microscopy:UNet\noutputs: binary_logit\nnormalisation: none\nclasses: [background, cell]\n"
EPS = 0.05


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data in three parts, a trained network in ``clean`` and one hardened in ``hard``."""
    place = tmp_path_factory.mktemp("microscopy")
    microscopy.write(place / "cells", {"train": 16, "val": 4, "test": 6})
    (place / "net.yaml").write_text(CARD)
    common = ["--model", place / "net.yaml", "--data", f"folder:{place / 'cells'}", "--split", "train"]
    common += ["--held-out", "val", "--batch-size", 4, "--crop", "32x32", "--optimiser", "adamw", "--lr", 0.01]
    assert run("train", *common, "--epochs", 10, "--out", place / "clean") == 0
    weights, harder = place / "clean/best.safetensors", ("--adversary", "pgd_at", "--norm", "linf", "--eps", EPS)
    assert run("train", *common, "--epochs", 8, "--weights", weights, *harder, "--out", place / "hard") == 0
    return place


def run(*words: object) -> int:
    return main([str(word) for word in words])


def dice_of(prediction: torch.Tensor, label: torch.Tensor) -> float:
    """Of the foreground, all images pooled, by torchmetrics."""
    masks = ((each == 1).long().reshape(1, 1, -1) for each in (prediction, label))
    return dice_score(*masks, num_classes=1, include_background=True, input_format="one-hot").item()


def test_dice_of_the_foreground_is_torchmetrics_before_and_after_an_attack(trained: Path) -> None:
    out = trained / "attacked"
    words = ["--model", trained / "clean/best.yaml", "--data", f"folder:{trained / 'cells'}", "--split", "test"]
    assert run("attack", *words, "--attack", "pgd", "--eps", f"linf={EPS}", "--save-images", "--out", out) == 0
    model, data = (
        sr.load_model(str(trained / "clean/best.yaml")),
        open_data(f"folder:{trained / 'cells'}", split="test"),
    )
    images, labels = (torch.stack([getattr(sample, what) for sample in data]) for what in ("image", "label"))
    saved = [np.load(file)["adversarial"] for file in sorted((out / "adversarial").rglob("*.npz"))]
    adversarial = torch.from_numpy(np.stack(saved))
    assert adversarial.shape == images.shape == (6, 1, 32, 32)
    assert (adversarial - images).abs().max() <= EPS * (1 + 1e-6)
    rows = json.loads((out / "results.json").read_text())["rows"]
    for row, seen in zip(rows, (images, adversarial), strict=False):
        assert row["dice"]["value"] == pytest.approx(dice_of(model.logits(seen).argmax(1), labels), abs=1e-6)
    assert rows[0]["dice"]["value"] > 0.85
    assert rows[1]["dice"]["value"] < rows[0]["dice"]["value"]


def test_dice_of_certificates_is_the_worst_that_a_plain_count_allows(trained: Path) -> None:
    words = ["--model", trained / "clean/best.yaml", "--data", f"folder:{trained / 'cells'}", "--split", "test"]
    assert run("certify", *words, "--sigma", 0.05, "--n0", 8, "--n", 60, "--limit", 3, "--out", trained / "sure") == 0
    rows = {row["name"]: row for row in json.loads((trained / "sure/results.json").read_text())["rows"]}
    data = open_data(f"folder:{trained / 'cells'}", split="test")
    both = said = labelled = abstained = 0
    for sample in list(data)[:3]:
        found = np.load(trained / "sure/certificates" / f"{sample.id}.npz")["segcertify.class"]
        for answer, label in zip(found.flatten().tolist(), sample.label.flatten().tolist(), strict=True):
            assert label in (0, 1)
            worst = answer if answer in (0, 1) else 1 - label  # of an abstained pixel anything may become
            abstained += answer == -1
            said, labelled, both = said + worst, labelled + label, both + worst * label
    assert both > 0
    assert abstained > 0
    assert rows["segcertify"]["dice"]["value"] < rows["base"]["dice"]["value"]
    assert rows["segcertify"]["dice"]["value"] == pytest.approx(2 * both / (said + labelled), abs=1e-9)


def test_a_hardened_network_keeps_more(trained: Path) -> None:
    data, left = f"folder:{trained / 'cells'}", []
    for name in ("clean", "hard"):
        model = sr.load_model(str(trained / name / "best.yaml"))
        found = sr.evaluate(model, open_data(data, split="test"), "pgd", norm="linf", eps=EPS, quiet=True)
        left.append(found.summary.rows[1].pixacc.value)
    assert left[1] > left[0]


def test_a_file_and_a_server_of_the_network_are_attacked_as_the_network_is(trained: Path) -> None:
    pytest.importorskip("onnxscript")
    data = open_data(f"folder:{trained / 'cells'}", split="test", limit=2)
    card, bare = str(trained / "clean/best.yaml"), trained / "bare.onnx"
    network = sr.load_model(card).network
    torch.onnx.export(network, (torch.rand(2, 1, 32, 32),), bare, dynamo=True, verbose=False,
                      dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))  # fmt: skip

    def served(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(images.copy())).numpy()

    shapes = {"shape": (-1, 1, 32, 32), "output_shape": (-1, 1, 32, 32)}
    attacks = {"attacks": "local_search", "norm": "linf", "eps": EPS, "queries": 12, "batch_size": 2, "quiet": True}
    found = {}
    with serving(Stub(model=served, **shapes)) as stub:
        for spec in (card, f"onnx:{bare},outputs=binary_logit", f"oip:{stub.url},outputs=binary_logit"):
            results = sr.evaluate(open_target(spec), data, **attacks, save_images=True)
            key = results.run.experiment.jobs[0].key
            found[spec] = torch.stack([results.store.example(key, image) for image in data.ids])
    images = torch.stack([sample.image for sample in data])
    (one, *others) = found.values()
    assert (one - images).abs().max() > EPS / 2
    for other in others:
        torch.testing.assert_close(other, one, atol=1e-6, rtol=0)


def test_three_structures_that_overlap_are_counted_one_by_one(tmp_path: Path) -> None:
    data = microscopy.write_structures(tmp_path / "three", {"train": 16, "val": 4, "test": 3})
    (tmp_path / "net.yaml").write_text(
        "model: microscopy:UNet\narguments: {outputs: 3}\noutputs: multilabel_logits\nnormalisation: none\n"
    )
    common = ["--model", tmp_path / "net.yaml", "--data", f"folder:{data}", "--split", "train", "--held-out", "val"]
    common += ["--batch-size", 4, "--crop", "32x32", "--optimiser", "adamw", "--lr", 0.01, "--epochs", 8]
    assert run("train", *common, "--out", tmp_path / "net") == 0
    model, images = sr.load_model(str(tmp_path / "net/best.yaml")), open_data(f"folder:{data}", split="test")
    found = sr.evaluate(model, images, "pgd", norm="linf", eps=EPS, save_images=True, quiet=True)
    key = found.run.experiment.jobs[0].key
    for row, seen in zip(found.summary.rows, (None, key), strict=True):
        for k, structure in enumerate(row.foreground.structures):
            both = said = labelled = 0
            for sample in images:
                image = sample.image if seen is None else found.store.example(seen, sample.id)
                z = model.network(image[None])[0]  # the plain network: channel k says yes where it is above zero
                yes, is_there = z[k] > 0, to_masks(sample.label, 3)[k]
                both, said = both + int((yes & is_there).sum()), said + int(yes.sum())
                labelled += int(is_there.sum())
            assert structure.name == microscopy.STRUCTURES[k]
            assert structure.dice.value == pytest.approx(2 * both / (said + labelled), abs=1e-9)
            assert structure.iou.value == pytest.approx(both / (said + labelled - both), abs=1e-9)
    assert found.summary.rows[0].foreground.structures[0].dice.value > 0.6
