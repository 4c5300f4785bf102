"""Targets of one yes/no channel and of several: attacked, certified, evaluated as the network that they came of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from served import adversarial, attack

from segradius.cli import main
from targets.oip_stub import Stub, serving

NETWORK = """
import torch
from torch import nn

def network(channels):
    bands = 1 if channels == 1 else 3
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = nn.Conv2d(bands, channels, 3, padding=1)
        nn.init.normal_(net.weight, std=0.8)
    return net.eval()
"""
KINDS = {1: "binary_logit", 2: "multilabel_logits"}
BANDS = {1: 1, 2: 3}  # one channel of grey images, two of colour images
SIZE = (18, 20)


def network(channels: int) -> torch.nn.Conv2d:
    found: dict = {}
    exec(NETWORK, found)
    return found["network"](channels)


def furnish(place: Path, channels: int) -> None:
    """The network's module, its file, and three images whose masks are mostly its own; two structures in files each."""
    (place / "net.py").write_text(NETWORK)
    layer, rng = network(channels), np.random.default_rng(0)
    masks = ("masks",) if channels == 1 else ("masks/left", "masks/right")
    for kind in ("images", *masks):
        (place / "data" / kind).mkdir(parents=True)
    card = "classes: [background, foreground]\nvalues: [0, 255]\nbands: 1\n"
    if channels == 2:
        card = "structures: [left, right]\nmasks: masks/{structure}/*.png\n"
    (place / "data" / "segradius.yaml").write_text(card)
    for name in "abc":
        pixels = rng.integers(0, 256, (*SIZE, BANDS[channels]), dtype=np.uint8)
        with torch.no_grad():
            yes = layer(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)[0] > 0
        yes[:, 0, :3] ^= True
        Image.fromarray(pixels.squeeze()).save(place / "data" / "images" / f"{name}.png")
        for folder, mask in zip(masks, yes, strict=True):
            Image.fromarray((mask * 255).byte().numpy()).save(place / "data" / folder / f"{name}.png")
    nodes = [helper.make_node("Conv", ["image", "weight", "bias"], ["z"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in layer.named_parameters()]
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", BANDS[channels], "h", "w"])
    given = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", channels, "h", "w"])
    graph = helper.make_graph(nodes, "net", [taken], [given], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), place / "net.onnx")


@pytest.fixture(params=[1, 2])
def channels(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    furnish(tmp_path, request.param)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return request.param


def stub(channels: int) -> Stub:
    layer = network(channels)

    def logits(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return layer(torch.from_numpy(images.copy())).numpy()

    return Stub(logits, shape=(-1, BANDS[channels], -1, -1), output_shape=(-1, channels, -1, -1))


def results(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text())


def test_network_file_and_server_give_the_same_perturbation(channels: int):
    outputs = f"outputs={KINDS[channels]}"
    words = ["--attack", "square", "--eps", "linf=0.05", "--queries", "30", "--figures", "0"]
    here = ["--target", f"net:network,channels={channels}", "--outputs", KINDS[channels]]
    assert attack("here", *here, *words) == 0
    assert attack("file", "--target", f"onnx:net.onnx,{outputs}", *words) == 0
    with serving(stub(channels)) as served:
        assert attack("served", "--target", f"oip:{served.url},backoff=0,{outputs}", *words) == 0
    assert adversarial("here").ndim == 4
    assert torch.equal(adversarial("file"), adversarial("here"))
    assert torch.equal(adversarial("served"), adversarial("here"))


def test_votes_and_metrics_of_a_file_are_those_of_the_network(channels: int):
    outputs = ["--outputs", KINDS[channels]]
    both = {"here": ["--model", f"net:network,channels={channels}"], "file": ["--target", "onnx:net.onnx"]}
    data = ["--data", "folder:data", "--device", "cpu"]
    for name, which in both.items():
        noise = ["--sigma", "0.1", "--n0", "4", "--n", "50"]
        assert main(["certify", *data, *noise, *which, *outputs, "--out", f"{name} certified"]) == 0
        assert main(["evaluate", *data, *which, *outputs, "--out", f"{name} evaluated"]) == 0
    for kind in ("certified", "evaluated"):
        here, file = results(f"here {kind}"), results(f"file {kind}")
        assert len(here["rows"]) >= 1
        for found in (here, file):
            for row in found["rows"]:
                row.pop("seconds", None), row.pop("ledger", None)
        assert here["rows"] == file["rows"]
