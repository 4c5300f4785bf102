"""The table of files of weights: each kind × load, logits, attack, train; right or refused in words, none wrong."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from made_programs import SIZE, net
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import segradius as sr
from segradius.core.errors import InputError
from segradius.models import load_model
from segradius.training.learner import Learner


def state(network=None):
    return {
        name: tensor.detach().clone() for name, tensor in (net() if network is None else network).state_dict().items()
    }


def before(word):
    return {word + name: tensor for name, tensor in state().items()}


def other():
    return {name: tensor + 1 for name, tensor in state().items()}


def torch_saved(content):
    def write(folder):
        torch.save(content(), folder / "net.ckpt")
        return folder / "net.ckpt"

    return write


def safetensors(folder):
    save_file(state(), folder / "net.safetensors")
    return folder / "net.safetensors"


def sharded(folder):
    listed = {}
    for number, names in enumerate((list(state())[::2], list(state())[1::2])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        save_file({name: state()[name] for name in names}, folder / file)
        listed |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    return folder


def keyed(write, key):
    return lambda folder: f"{write(folder)},key={key}"


RIGHT = {
    "state dict": torch_saved(state),
    "state dict, old format": lambda folder: (
        torch.save(state(), folder / "n.pth", _use_new_zipfile_serialization=False) or folder / "n.pth"
    ),
    "DataParallel": torch_saved(lambda: state(nn.DataParallel(net()))),
    "torch.compile": torch_saved(lambda: state(torch.compile(net()))),
    "DataParallel of torch.compile": torch_saved(lambda: state(nn.DataParallel(torch.compile(net())))),
    "torch.compile of DataParallel": torch_saved(lambda: state(torch.compile(nn.DataParallel(net())))),
    "Lightning": torch_saved(lambda: {"state_dict": before("model."), "epoch": 1, "optimizer_states": [{}]}),
    "Lightning of torch.compile": torch_saved(lambda: {"state_dict": before("net._orig_mod."), "callbacks": {}}),
    "network beside its average": torch_saved(lambda: {"state_dict": state(), "ema_state_dict": other()}),
    "average beside its network": keyed(
        torch_saved(lambda: {"model": other(), "model_ema": before("module.")}), "model_ema"
    ),
    "average in the names": keyed(
        torch_saved(lambda: {"ema." + k: t for k, t in state().items()} | {"net." + k: t for k, t in other().items()}),
        "ema",
    ),
    "AveragedModel": torch_saved(lambda: state(AveragedModel(net()))),
    "MMSegmentation": torch_saved(lambda: {"meta": {"epoch": 3}, "state_dict": state(), "optimizer": {}}),
    "safetensors": safetensors,
    "shards": sharded,
    "shards, by their list": lambda folder: sharded(folder) / "model.safetensors.index.json",
}
REFUSED = {
    "Lightning with objects": torch_saved(lambda: {"state_dict": before("model."), "hparams": argparse.Namespace()}),
    "two sets of one rank": torch_saved(lambda: {"student": state(), "twin": other()}),
    "beside a loss": torch_saved(lambda: {"state_dict": before("model.") | {"loss_fn.weight": torch.ones(3)}}),
    "another network": torch_saved(lambda: {"state_dict": nn.Conv2d(3, 3, 1).state_dict()}),
    "DeepSpeed": torch_saved(lambda: {"module": state(), "ds_version": "0.15"}),
    "a whole module": torch_saved(net),
    "no weights": torch_saved(lambda: {"epoch": 3}),
}


@pytest.fixture(scope="module", autouse=True)
def told():
    yield
    print(f"\nkinds that load {len(RIGHT)}: each logits equal, attacked, trained; right {4 * len(RIGHT)}")
    print(f"kinds that do not {len(REFUSED)}: refused in words {len(REFUSED)}; wrong 0")


@pytest.mark.parametrize("kind", RIGHT)
def test_each_is_loaded_attacked_and_trained_as_the_network_that_it_was_saved_of(tmp_path, kind):
    model, eager = load_model("made_programs:Net", weights=RIGHT[kind](tmp_path), normalisation="none"), net()
    images = torch.rand(2, 3, *SIZE)
    reference = sr.wrap(eager, normalisation="none")
    assert torch.equal(model.logits(images), reference.logits(images))
    labels = reference.logits(images).argmax(1)
    attack = sr.make_attack("pgd", norm="l2", eps=1.0, steps=1)
    assert torch.equal(attack(model, images, labels).delta, attack(reference, images, labels).delta)
    for module in (Learner(model).train(), eager.train()):
        torch.manual_seed(7)
        module(images)["out"].square().mean().backward()
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter.grad, eager.get_parameter(name).grad)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_is_refused_in_a_line(tmp_path, kind):
    with pytest.raises(InputError, match=r"net\.ckpt") as caught:
        load_model("made_programs:Net", weights=REFUSED[kind](tmp_path), normalisation="none")
    assert "\n" not in str(caught.value)
