"""`segradius models convert`: what it writes, prints and refuses."""

from __future__ import annotations

import argparse
import os
import re

import pytest
import torch
import yaml
from torch import nn

from segradius.cli import main
from segradius.models import load_model, load_state
from segradius.models.weight_files import sha256_of


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_what_was_written_and_left_out(place, capsys):
    state = nn.Conv2d(3, 2, 1).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, "net.pth")
    assert main(["models", "convert", "net.pth", "net.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert f"net.safetensors: 2 tensors, SHA-256 {sha256_of('net.safetensors')}\n" in shown
    assert "Left out, not tensors of the network: epoch\n" in shown
    torch.testing.assert_close(load_state("net.safetensors"), dict(state), rtol=0, atol=0)


def test_the_printed_card_works(place, capsys):
    model = load_model("pspnet_light,num_classes=3")
    torch.save({f"module.{name}": tensor for name, tensor in model.network.state_dict().items()}, "net.pth")
    assert main(["models", "convert", "net.pth", "net.safetensors"]) == 0
    card = "\n".join(re.findall(r"^  (\w+: .*)$", capsys.readouterr().out, re.M))
    assert yaml.safe_load(card) == {"model": "NETWORK", "weights": "net.safetensors"}
    (place / "card.yaml").write_text(card.replace("NETWORK", "pspnet_light,num_classes=3"))
    x = torch.rand(1, 3, 17, 25)
    assert torch.equal(load_model("card.yaml").logits(x), model.logits(x))


def test_unsafe_files_are_refused_with_the_way_out_and_do_not_run(place, capsys):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": Malicious()}, "bad.pth")
    assert main(["models", "convert", "bad.pth", "bad.safetensors"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("segradius: error: 'bad.pth' is refused")
    assert "posix.mkdir" in message
    assert "segradius models convert bad.pth bad.safetensors --allow-unsafe-pickle" in message
    assert not (place / "ran").exists()
    assert not (place / "bad.safetensors").exists()


def test_the_command_of_the_refusal_converts(place, capsys):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, "old net.pth")
    assert main(["models", "convert", "old net.pth", "new.safetensors"]) == 2
    told = re.search(r"segradius models convert 'old net\.pth' '(.*)' --allow-unsafe-pickle", capsys.readouterr().err)
    assert told is not None
    assert main(["models", "convert", "old net.pth", told[1], "--allow-unsafe-pickle"]) == 0
    assert list(load_state("old net.safetensors")) == ["w"]


def test_an_existing_target_needs_overwrite(place, capsys):
    torch.save({"w": torch.ones(1)}, "net.pth")
    command = ["models", "convert", "net.pth", "net.safetensors"]
    assert main(command) == 0
    assert main(command) == 2
    assert "'net.safetensors' exists" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_an_unknown_action_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["models", "konvert", "a.pth", "b.safetensors"])
    assert stop.value.code == 2
    assert "convert" in capsys.readouterr().err
