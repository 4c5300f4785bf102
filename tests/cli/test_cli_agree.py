"""`segradius agree`: a shift, a renaming, swapped colours and a file are told for what they are; queries count."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from served import loaded, stub
from torch.nn import functional

import segradius as sr
from segradius.cli import main
from segradius.evaluation.agree_causes import VERDICTS
from segradius.metrics import count, miou, pooled_accuracy
from targets.oip_stub import serving

MODULE = '''
import torch
from torch import nn

class Net(nn.Module):
    """Four classes by colour and its neighbourhood; its answers moved, renamed, or of swapped colours."""

    def __init__(self, shift=(0, 0), order=(0, 1, 2, 3), swapped=False, without=None, noise=0.0):
        super().__init__()
        self.shift, self.order, self.swapped, self.without, self.noise = shift, order, swapped, without, noise
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.net = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 4, 1))
            nn.init.normal_(self.net[0].weight, std=1.0)
            nn.init.normal_(self.net[2].weight, std=1.0)
            nn.init.zeros_(self.net[2].bias)

    def forward(self, x):
        y = self.net(x.flip(1) if self.swapped else x)
        y = y.roll(self.shift, (2, 3))[:, list(self.order)]
        if self.without is not None:
            y = torch.cat([y[:, : self.without], torch.full_like(y[:, :1], -50.0), y[:, self.without + 1 :]], 1)
        if self.noise:
            y = y + self.noise * torch.sin(1e3 * y)
        return y

def network(): return Net()
def moved(): return Net(shift=(2, -3))
def renamed(): return Net(order=(1, 2, 3, 0))
def swapped(): return Net(swapped=True)
def without(): return Net(without=2)
def noisy(): return Net(noise=0.02)
def strange():
    net = Net()
    nn.init.normal_(net.net[2].weight, std=1.0)
    return net
'''
IDS = tuple("abcdef")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with networks and six images without masks."""
    (tmp_path / "agreed_nets.py").write_text(MODULE)
    (tmp_path / "images").mkdir()
    generator = torch.Generator().manual_seed(0)
    for name in IDS:
        coarse = torch.rand(1, 3, 8, 10, generator=generator)
        pixels = functional.interpolate(coarse, size=(40, 48), mode="bilinear")[0].permute(1, 2, 0)
        Image.fromarray((255 * pixels).byte().numpy()).save(tmp_path / "images" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "agreed_nets", raising=False)
    return tmp_path


def agree(first: str, second: str, *words: str, out: str = "out") -> int:
    return main(["agree", first, second, "--data", "images:images", "--device", "cpu", *words, "--out", out])


def net(name: str) -> str:
    return f"agreed_nets:{name}"


def told(out: str = "out") -> dict:
    found: dict = json.loads(Path(out, "results.json").read_text())
    return found


def test_a_network_that_is_moved_is_said_to_be_moved_and_by_how_much(place):
    assert agree(net("network"), net("moved")) == 6
    found = told()
    assert found["verdict"] == "shifted"
    assert found["rows"][0]["shift"] == {
        "by": [2, -3],
        "agree": 1.0,
        "unshifted": pytest.approx(0.5, abs=0.5),
        "reach": 8,
    }
    assert found["causes"][0]["value"] == 1.0
    rows = list(csv.DictReader(Path("out/per_image.csv").read_text().splitlines()))
    assert [(row["image"], row["shift_y"], row["shift_x"]) for row in rows] == [(name, "2", "-3") for name in IDS]
    with Image.open("out/figure.png") as picture:
        assert picture.size[0] > 500


def test_the_figures_are_those_of_the_two_predictions(place):
    agree(net("network"), net("moved"))
    namespace: dict = {}
    exec(MODULE, namespace)
    with torch.no_grad():
        images = torch.stack([sr.open_data("images:images")[k].image for k in range(6)])
        first, second = (namespace[name]().eval()(images).argmax(1) for name in ("network", "moved"))
    counts = count(second, first, 4)
    row = told()["rows"][0]
    assert row["pixacc"]["value"] == pytest.approx(pooled_accuracy(counts))
    assert row["miou"]["value"] == pytest.approx(miou(counts))
    assert row["pixacc"]["low"] < row["pixacc"]["value"] < row["pixacc"]["high"]
    pairs = {
        (int(r["first"][-1]), int(r["second"][-1])): int(r["pixels"])
        for r in csv.DictReader(Path("out/confusion.csv").read_text().splitlines())
    }
    assert all(pixels == int(((first == a) & (second == b)).sum()) for (a, b), pixels in pairs.items())
    assert sum(pairs.values()) == first.numel()


def test_other_numbers_of_the_classes_are_told_one_by_one(place):
    assert agree(net("network"), net("renamed")) == 6
    found = told()
    assert found["verdict"] == "renamed"
    assert found["rows"][0]["renamed"] == {"order": [3, 0, 1, 2], "agree": 1.0}
    assert found["causes"][0]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize("normalisation", ["none", "imagenet"])
def test_swapped_colours_are_found_by_preparing_the_first_otherwise(place, normalisation):
    words = ["--normalisation", normalisation, "--other-normalisation", normalisation]
    assert agree(net("network"), net("swapped"), *words) == 6
    found = told()
    assert found["verdict"] == "prepared"
    assert found["preparations"]["of"] == "first"
    best = max(found["preparations"]["shares"].items(), key=lambda pair: pair[1])
    assert best[1] == 1.0
    assert "order" in found["preparations"]["written"][best[0]]


def test_a_forgotten_normalisation_is_found_whichever_side_forgot_it(place):
    for words in (["--normalisation", "imagenet"], ["--other-normalisation", "imagenet"]):
        assert agree(net("network"), net("network"), *words, "--overwrite") == 6
        found = told()
        assert found["verdict"] == "prepared"
        assert max(found["preparations"]["shares"].values()) == 1.0


def test_a_class_that_is_left_out_is_named(place):
    assert agree(net("network"), net("without")) == 6
    assert told()["verdict"] == "left out"
    assert "class 2" in told()["causes"][0]["text"]


def test_one_that_says_the_same_everywhere_is_asked_for_its_weights(place, capsys):
    Path("flat.py").write_text(
        "import torch\n\n\ndef net():\n    return Flat()\n\n\nclass Flat(torch.nn.Module):\n"
        "    def forward(self, x):\n        scores = torch.arange(5.0, 0, -1)[:, None, None]\n"
        "        return scores.expand(len(x), 5, *x.shape[2:])\n"
    )
    assert agree(net("network"), "flat:net") == 6
    assert told()["causes"][0]["advice"] == "it says class 0 everywhere: has it the weights of the first?"
    said = " ".join(capsys.readouterr().out.split())
    assert "The first has 4 classes and the second 5: on other images one may say what the other cannot." in said
    assert "?." not in said


def test_what_nothing_explains_is_said_to_be_unexplained(place, capsys):
    assert agree(net("network"), net("strange")) == 6
    assert told()["verdict"] == "differ"
    assert VERDICTS["differ"] in capsys.readouterr().out


def test_small_differences_are_at_boundaries_only(place):
    assert agree(net("network"), net("noisy"), "--least", "0.9999") == 6
    row = told()["rows"][0]
    assert told()["verdict"] == "boundary"
    assert row["boundary"]["value"] < row["interior"]["value"]
    assert agree(net("network"), net("noisy"), "--least", "0.9") == 0


def test_the_same_network_as_a_file_agrees_and_its_scores_are_as_near_as_float32_is(place):
    sr.models.export_onnx(sr.load_model(net("network")), place / "net.onnx", 40, 48)
    assert agree(net("network"), "onnx:net.onnx") == 0
    row = told()["rows"][0]
    assert row["pixacc"]["value"] > 0.999
    assert 0 <= row["scores"]["median"] <= row["scores"]["largest"] < 1e-4
    assert row["asked"]["second"] == 6
    assert agree("onnx:net.onnx", net("swapped"), out="file") == 6  # the network is tried, as it has no price
    assert told("file")["verdict"] == "prepared"
    assert told("file")["preparations"]["of"] == "second"


def test_a_server_is_asked_each_image_once_and_no_more_when_the_command_is_run_again(place, capsys):
    (place / "small_net.py").write_text(__import__("served").NETWORK)
    local = ["small_net:network", "--num-classes", "3"]
    with serving(stub(place)) as served:
        other = f"oip:{served.url},backoff=0,batch=2"
        again = ["agree", local[0], other, *local[1:], "--data", "images:images", "--batch-size", "2", "--out", "out"]
        assert main([*again, "--other-budget", "5"]) == 2
        assert "with a larger --budget" in capsys.readouterr().err
        assert sum(served.images) == 4
        assert main([*again, "--other-budget", "6"]) == 0
        assert sum(served.images) == 6
        assert main([*again, "--other-budget", "6"]) == 0
        assert sum(served.images) == 6
    assert told()["rows"][0]["asked"] == {"first": 12, "second": 6}
    assert told()["rows"][0]["scores"]["largest"] < 1e-4
    assert not Path("out/second").exists()
    assert not Path("out/checkpoints").exists()
    assert np.isclose(told()["rows"][0]["pixacc"]["value"], 1.0, atol=1e-3)
    assert loaded(place) is not None


def test_two_that_cannot_be_compared_are_refused_in_a_line(place, capsys):
    assert agree(net("network"), "no_such:thing") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("segradius: error: ")
    assert agree(net("network"), net("network")) == 0
    assert "they agree by definition" in capsys.readouterr().err
    assert main(["evaluate", "--model", net("network"), "--data", "images:images", "--out", "out"]) == 2
