"""No file and no line of a run holds a secret; what a trained network saw of images stands in its card."""

from __future__ import annotations

import sqlite3

import pytest
import torch
import yaml

from segradius.cli import main
from segradius.models import load_model

SECRET = "s3cr3tValue0123456789"
SMALL = "hidden_sizes=[8,8,16,16],depths=[1,1,1,1],num_attention_heads=[1,1,2,2],decoder_hidden_size=16"
HERE = ["--data", "scenes:32x32", "--device", "cpu"]
QUICK = ["--attack", "fgsm", "--limit", "1", "--eps", "linf=0.1", "--figures", "0"]
TRAIN = ["--epochs", "1", "--batch-size", "4", "--held-out-limit", "1", "--scale", "null"]


@pytest.fixture
def saved(tmp_path):
    """A folder of transformers with a normalisation of its own, and a processor."""
    transformers = pytest.importorskip("transformers")
    load_model(f"hf:segformer,num_labels=8,{SMALL}").network.save_pretrained(tmp_path / "net")
    transformers.SegformerImageProcessor(image_mean=[0.3, 0.4, 0.5], image_std=[0.2, 0.3, 0.25]).save_pretrained(
        tmp_path / "net"
    )
    return f"hf:{tmp_path / 'net'}"


def written(folder):
    """The content of every file below a folder, and of what SQLite has in its tables."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".sqlite":
            yield path.name, "\n".join(sqlite3.connect(path).iterdump()).encode()


def test_a_token_is_in_no_file_and_no_line_of_a_run(saved, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(["attack", "--model", f"{saved},token={SECRET}", *HERE, *QUICK, "--out", str(out)]) == 0
    assert main(["attack", "--model", f"{saved},token=other{SECRET}", *HERE, *QUICK, "--out", str(out)]) == 0
    said = capfd.readouterr()
    assert "were there from an earlier run" in said.out  # another token is no other experiment
    assert SECRET not in said.out + said.err
    found = dict(written(out))
    assert [name for name, content in found.items() if SECRET.encode() in content] == []
    assert b"token=***" in found["results.json"]


@pytest.mark.parametrize(
    "model",
    [
        "hf:nobody/no-such-network,token={}",
        "torchvision:fcn_resnet50,token={}",
        "their_module:net,password={}",
        "https://me:{}@host.example/net",
        "hf:a,token={},token={}",
    ],
)
def test_no_error_of_a_command_tells_one(model, tmp_path, capfd):
    text = model.replace("{}", SECRET)
    assert main(["attack", "--model", text, *HERE, *QUICK, "--out", str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        main(["attack", "--model", text, *HERE, f"--no-such-option=hf:x,token={SECRET}"])
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    assert not [name for name, content in written(tmp_path) if SECRET.encode() in content]


def test_a_trained_network_sees_the_same_when_its_card_is_loaded(saved, tmp_path):
    command = ["train", "--model", f"{saved},token={SECRET}", *HERE, *TRAIN, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    card = yaml.safe_load((tmp_path / "out" / "last.yaml").read_text())
    assert card["normalisation"] == {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.25], "order": [0, 1, 2]}
    assert not [name for name, content in written(tmp_path / "out") if SECRET.encode() in content]
    x = torch.rand(1, 3, 32, 32)
    expected = load_model(saved, weights=tmp_path / "out" / "last.safetensors").logits(x)
    (tmp_path / "net" / "preprocessor_config.json").unlink()  # what the source says does not matter any more
    found = load_model(str(tmp_path / "out" / "last.yaml"))
    assert torch.equal(found.logits(x), expected)
    assert found.weights.whole


OWN = """
import torch
from segradius.models import wrap

def bare():
    return torch.nn.Conv2d(3, 8, 1)

def ready():
    return wrap(bare(), normalisation=([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]), size={"multiple_of": 3})
"""


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("bare", [], "none"),
        ("bare", ["--normalisation", "imagenet"], "imagenet"),
        ("ready", [], {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "order": [0, 1, 2]}),
    ],
)
def test_a_card_states_what_a_network_of_ones_own_saw(name, given, expected, tmp_path, monkeypatch, capfd):
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--model", f"own_nets:{name}", *given, *HERE, *TRAIN, "--out", "out"]) == 0
    assert ("declares no normalisation" in capfd.readouterr().err) is (name == "bare" and not given)
    card = yaml.safe_load((tmp_path / "out" / "last.yaml").read_text())
    assert card["normalisation"] == expected
    assert card.get("size") == ({"multiple_of": 3} if name == "ready" else None)
    model, x = load_model("out/last.yaml"), torch.rand(1, 3, 32, 32)
    assert model.normalisation is not None
    again = load_model(f"own_nets:{name}", weights="out/last.safetensors", normalisation=given[-1] if given else None)
    assert torch.equal(model.logits(x), again.logits(x))
    # Trained once more from its card, it still sees the same.
    assert main(["train", "--model", "out/last.yaml", *HERE, *TRAIN, "--out", "more"]) == 0
    assert yaml.safe_load((tmp_path / "more" / "last.yaml").read_text())["normalisation"] == expected
    assert load_model("more/last.yaml").normalisation == model.normalisation
