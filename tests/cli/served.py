"""A tiny network behind a server, in an ONNX file and here, and images for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segradius.cli import main
from segradius.evaluation import AttackPlan, DataChoice, Experiment, ModelChoice, Store
from targets.oip_stub import Stub

NETWORK = '''
import torch
from torch import nn

def network():
    """Three classes, weights from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
        for layer in (net[0], net[2]):
            nn.init.normal_(layer.weight, std=0.8)
    return net.eval()
'''

IDS = ("a", "b", "c")
BOTH = ["--attack", "cr_pbgd,local_pbgd"]
BOTH += ["--options", "cr_pbgd.samples=2,cr_pbgd.every=4,cr_pbgd.step=steepest,local_pbgd.directions=tiles:4"]
COMMAND = [
    "attack",
    "--data",
    "folder:data",
    "--device",
    "cpu",
    "--batch-size",
    "2",
    "--queries",
    "24",
    "--eps",
    "linf=0.1",
]
LOCAL = ["--target", "small_net:network", "--num-classes", "3"]


def loaded(place: Path) -> torch.nn.Module:
    """The network."""
    found: dict = {}
    exec((place / "small_net.py").read_text(), found)
    return found["network"]()


def stub(place: Path, **options) -> Stub:
    """A server of the network."""
    network = loaded(place)

    def scores(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(images.copy())).softmax(1).numpy()

    return Stub(model=scores, **options)


def furnish(place: Path) -> None:
    """Write the network's module and three images, whose labels are mostly the network's own."""
    (place / "small_net.py").write_text(NETWORK)
    network, generator = loaded(place), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / "data" / kind).mkdir(parents=True)
    (place / "data" / "segradius.yaml").write_text("classes: [x, y, z]\n")
    for name in IDS:
        pixels = generator.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        with torch.no_grad():
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
            labels = network(x).argmax(1)[0].numpy().astype(np.uint8)
        labels[0, :3], labels[7, :2] = (labels[0, :3] + 1) % 3, 255
        Image.fromarray(pixels).save(place / "data" / "images" / f"{name}.png")
        Image.fromarray(labels).save(place / "data" / "masks" / f"{name}.png")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``small_net.py`` and the data set."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def attack(out: str, *words: str) -> int:
    """Run the command into a folder, with two attacks where no other is named."""
    return main([*COMMAND, *(() if "--attack" in words else BOTH), *words, "--out", out])


def server(url: str, options: str = "batch=2") -> list[str]:
    """The words that name a server as the target."""
    return ["--target", f"oip:{url},backoff=0,{options}"]


def text(folder: str, name: str) -> str:
    """A file of a report."""
    return Path(folder, name).read_text()


def report(folder: str) -> dict:
    """results.json without what changes no result."""
    found = json.loads(text(folder, "results.json"))
    for row in found["rows"]:
        del row["seconds"]
    return found


def queries(folder: str) -> int:
    """Queries that the ledgers of a report add up to, clean images included."""
    rows = [row for row in report(folder)["rows"] if not row["name"].startswith("worst")]
    return sum(book["forward"] for row in rows for book in row["ledger"].values())


def adversarial(folder: str) -> torch.Tensor:
    """Every adversarial image of a report, (attacks · images, 3, H, W), in the order of the experiment."""
    told = report(folder)["experiment"]
    plans = tuple(AttackPlan(**plan) for plan in told["attacks"])
    described = ModelChoice(**told["model"]), DataChoice(**told["data"])
    experiment = Experiment(*described, plans, told["target"], told["seed"])
    with Store(Path(folder, "results.sqlite")) as store:
        keys = [experiment.key(plan) for plan in plans]
        return torch.stack([store.example(key, image) for key in keys for image in sorted(store.kept(key))])
