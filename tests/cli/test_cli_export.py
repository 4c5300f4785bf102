"""``segradius export``: a file with the network's numbers, and what it says when it cannot write one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import segradius as sr
from segradius.cli import main
from segradius.targets import open_target


def test_the_file_answers_as_the_network_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxscript")
    path = tmp_path / "demo.onnx"
    assert main(["export", "--model", "demo", "--size", "48x64", "--out", str(path)]) == 0
    assert f"demo.onnx: 8 classes, 48x64, {path.stat().st_size:,} bytes" in capsys.readouterr().out
    file = pytest.importorskip("onnx").load(path)
    for value in (*file.graph.input, *file.graph.output):
        batch, *rest = value.type.tensor_type.shape.dim
        assert (batch.dim_param, batch.dim_value) == ("batch", 0)
        assert all(each.dim_value for each in rest)
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    answered = open_target(f"onnx:{path}").scores(images)
    torch.testing.assert_close(answered, sr.load_model("demo").scores(images), atol=1e-5, rtol=0)


def test_the_file_of_yes_no_channels_says_that_its_classes_are_their_sets(tmp_path: Path):
    pytest.importorskip("onnxscript")
    model = sr.wrap(torch.nn.Conv2d(3, 3, 3, padding=1), outputs="multilabel_logits", threshold=0.4, channels=[2, 0])
    sr.models.export_onnx(model, tmp_path / "net.onnx", 8, 8)
    about = {each.key: each.value for each in pytest.importorskip("onnx").load(tmp_path / "net.onnx").metadata_props}
    told = {"outputs": "probabilities", "classes": "4", "structures": "2"}
    assert {name: about[f"segradius.{name}"] for name in told} == told
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    answered = open_target(f"onnx:{tmp_path / 'net.onnx'}").scores(images)
    torch.testing.assert_close(answered, model.scores(images), atol=1e-5, rtol=0)


def test_a_model_is_as_good_after_its_export(tmp_path: Path):
    """What the model caches at its first pass are tensors, not the tracer's."""
    pytest.importorskip("onnxscript")
    model = sr.wrap(torch.nn.Conv2d(3, 2, 1), normalisation=([0.11, 0.22, 0.33], [0.5, 0.5, 0.5]))
    sr.models.export_onnx(model, tmp_path / "net.onnx", 8, 8)
    assert type(model.scores(torch.rand(1, 3, 8, 8))) is torch.Tensor
    assert model.network.training


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_program_is_refused_with_what_can_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("onnxscript")
    torch.jit.trace(torch.nn.Conv2d(3, 2, 3, padding=1).eval(), torch.rand(1, 3, 8, 8)).save(str(tmp_path / "net.pt"))
    words = [
        "export",
        "--model",
        f"torchscript:{tmp_path / 'net.pt'}",
        "--size",
        "8x8",
        "--out",
        str(tmp_path / "net.onnx"),
    ]
    assert main(words) == 2
    assert "it is a TorchScript program: name the code that it was made from, as --model" in capsys.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "--model", "demo", "--size", "48x64", "--out", "no.onnx"]) == 2
    assert "pip install 'segradius[export]'" in capsys.readouterr().err
