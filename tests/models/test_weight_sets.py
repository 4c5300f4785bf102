"""Checkpoints as training leaves them: prefixes, several sets of weights, parts in folders, other frameworks."""

from __future__ import annotations

import argparse
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from segradius.core.errors import InputError
from segradius.models import convert, load_into, load_model, load_state
from segradius.models.fitting import PREFIXES
from segradius.models.weight_sets import parted


def net(value=None):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 2, 1)))
    for parameter in network.parameters() if value is not None else ():
        nn.init.constant_(parameter, value)
    return network


def state(value=None, before=""):
    return {before + name: tensor for name, tensor in net(value).state_dict().items()}


def into(path):
    network = net()
    load_into(network, load_state(path), path)
    return network


def holds(network, value):
    return all((parameter == value).all() for parameter in network.parameters())


@given(st.lists(st.sampled_from(PREFIXES), max_size=4))
def test_what_wrapped_a_network_is_dropped_in_any_order(prefixes):
    network = net()
    load_into(network, state(5.0, "".join(prefixes)))
    assert holds(network, 5.0)


@given(st.lists(st.sampled_from(PREFIXES), max_size=3))
def test_a_prefix_that_the_network_has_itself_stays(prefixes):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.net = nn.Conv2d(3, 2, 1), nn.ModuleDict({"module": nn.Conv2d(2, 2, 1)})

    network = Own()
    given_ = {"".join(prefixes) + name: torch.full_like(t, 5.0) for name, t in network.state_dict().items()}
    load_into(network, given_)
    assert holds(network, 5.0)


def test_names_of_the_libraries_themselves():
    for wrapped in (
        nn.DataParallel(net(5.0)),
        torch.compile(net(5.0)),
        nn.DataParallel(torch.compile(net(5.0))),
        torch.compile(nn.DataParallel(net(5.0))),
        AveragedModel(net(5.0)),
    ):
        network = net()
        load_into(network, wrapped.state_dict())
        assert holds(network, 5.0)


def test_a_part_that_was_wrapped_alone_loses_that_too():
    inner = {f"2.{word}.0.{name}": t for word in ("_orig_mod",) for name, t in net(5.0)[2][0].state_dict().items()}
    outer = {name: t for name, t in state(5.0).items() if not name.startswith("2.")}
    for word in ("_orig_mod", "module"):
        network = net()
        load_into(network, outer | {name.replace("_orig_mod", word): t for name, t in inner.items()})
        assert holds(network, 5.0)


def lightning(**more):
    """As Lightning's Trainer writes it."""
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state(5.0, "model."),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'iou'}": {"best_model_score": torch.tensor(0.7), "kth_value": None}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"base_lrs": [0.1]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "classes": 2, "class_weights": torch.ones(2, 2)},
        **more,
    }


def test_a_checkpoint_of_lightning(tmp_path, capsys):
    torch.save(lightning(), tmp_path / "last.ckpt")
    assert holds(into(tmp_path / "last.ckpt"), 5.0)
    assert capsys.readouterr().err == ""
    torch.save(lightning(hyper_parameters=argparse.Namespace(lr=0.1)), tmp_path / "last.ckpt")
    with pytest.raises(
        InputError, match=r"argparse\.Namespace.*segradius models convert .*last\.ckpt last\.safetensors"
    ):
        into(tmp_path / "last.ckpt")
    convert(tmp_path / "last.ckpt", tmp_path / "last.safetensors", allow_unsafe=True)
    assert holds(into(tmp_path / "last.safetensors"), 5.0)


#: Files with two sets: names of the own and of the average, and what the file is.
TWO = {
    "state_dict, ema_state_dict": {"state_dict": state(5.0), "ema_state_dict": state(7.0), "epoch": 1},
    "state_dict, state_dict_ema": {"state_dict": state(5.0), "state_dict_ema": state(7.0), "arch": "net"},
    "model, model_ema": {"model": state(5.0), "model_ema": state(7.0, "module."), "optimizer": {"state": {}}},
    "model, ema_model": {"ema_model": state(7.0), "model": state(5.0)},
    "params, params_ema": {"params": state(5.0), "params_ema": state(7.0)},
    "model.net, model.net_ema": {"model": {"net": state(5.0), "net_ema": state(7.0)}},
    "state_dict, ema.state_dict": {"state_dict": state(5.0), "ema": {"decay": 0.9, "state_dict": state(7.0)}},
    "model, ema_model in the names": {"state_dict": state(5.0, "model.") | state(7.0, "ema_model.")},
    "net, model_ema in the names": state(7.0, "model_ema.module.") | state(5.0, "net."),
    "online_model, ema_model with counters": state(5.0, "online_model.")
    | state(7.0, "ema_model.")
    | {"initted": torch.tensor(True), "step": torch.tensor(3)},
}


@pytest.mark.parametrize("case", TWO)
def test_of_two_sets_the_networks_own_is_taken_which_is_told_with_the_way_to_the_other(tmp_path, capsys, case):
    path = tmp_path / "two.pth"
    torch.save(TWO[case], path)
    assert holds(into(path), 5.0)
    said = capsys.readouterr().err
    assert "two.pth' holds 2 sets of weights" in said
    assert said.count("\n") == 1
    other = said.rpartition("give ")[2].strip()
    assert parted(other)[0] == path
    assert holds(into(other), 7.0)
    assert capsys.readouterr().err == ""
    own = case.partition(",")[0]
    assert holds(into(f"{path},key={own}"), 5.0)


def test_of_two_sets_whose_names_tell_nothing_none_is_taken(tmp_path):
    for content in ({"student": state(5.0), "twin": state(7.0)}, state(5.0, "a.") | state(7.0, "b.")):
        torch.save(content, tmp_path / "two.pth")
        first = next(iter(content)).partition(".")[0]
        with pytest.raises(InputError, match=rf"holds 2 sets of weights.*say which, as in .*two\.pth,key={first}"):
            into(tmp_path / "two.pth")
        assert holds(into(f"{tmp_path / 'two.pth'},key={first}"), 5.0)


def test_a_key_that_is_not_there_is_told_with_those_that_are(tmp_path):
    torch.save({"state_dict": state(), "ema": state()}, tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"unknown set of weights in .*two\.pth' 'emma'; did you mean 'ema'"):
        load_state(f"{tmp_path / 'two.pth'},key=emma")
    save_file(state(5.0, "a.b."), tmp_path / "a.safetensors")
    assert holds(into(f"{tmp_path / 'a.safetensors'},key=a.b"), 5.0)


def test_what_lies_beside_a_network_is_never_left_out_unsaid(tmp_path):
    torch.save({"state_dict": state(5.0, "model.") | {"loss_fn.weight": torch.ones(2)}}, tmp_path / "a.ckpt")
    with pytest.raises(
        InputError, match=r"unexpected.*loss_fn\.weight|The names under 'model' fit: give .*a\.ckpt,key=model"
    ):
        into(tmp_path / "a.ckpt")
    assert holds(into(f"{tmp_path / 'a.ckpt'},key=model"), 5.0)
    half = {name: t for name, t in state(7.0, "ema_model.").items() if "bias" not in name}
    torch.save(state(5.0, "model.") | half, tmp_path / "b.ckpt")
    with pytest.raises(InputError, match="The names under 'model' fit"):
        into(tmp_path / "b.ckpt")


def test_a_key_in_the_weights_of_a_model_of_a_card_and_of_a_conversion(tmp_path, monkeypatch):
    (tmp_path / "their_small_net.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), "
        "nn.Sequential(nn.Conv2d(4, 2, 1)))\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(5.0), "ema": state(7.0)}, "two.pth")
    model = load_model("their_small_net:net", weights="two.pth,key=ema", normalisation="none")
    assert holds(model.network, 7.0)
    assert model.weights.source == "two.pth,key=ema"
    digest = convert("two.pth,key=ema", "ema.safetensors").sha256
    assert holds(into("ema.safetensors"), 7.0)
    for weights, said in (("ema.safetensors", digest), ("two.pth,key=ema", "0" * 64)):
        (tmp_path / "card.yaml").write_text(f"model: their_small_net:net\nweights: {weights}\nsha256: '{said}'\n")
        if said == digest:
            assert holds(load_model("card.yaml", normalisation="none").network, 7.0)
        else:
            with pytest.raises(InputError, match="has SHA-256"):
                load_model("card.yaml", normalisation="none")


def test_a_network_of_another_library_is_named():
    names = ["backbone.conv1.weight", "decode_head.conv_seg.weight", "decode_head.conv_seg.bias"]
    with pytest.raises(InputError, match=r"names as of MMSegmentation: give what it builds of its config, as package"):
        load_into(net(), dict.fromkeys(names, torch.zeros(1)), "mm.pth")


def test_a_checkpoint_of_mmsegmentation_loads_into_its_network(tmp_path):
    torch.save(
        {"meta": {"dataset_meta": {"classes": ["a"], "palette": torch.ones(2, 3)}}, "state_dict": state(5.0)},
        tmp_path / "mm.pth",
    )
    assert holds(into(tmp_path / "mm.pth"), 5.0)


def made(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * 64)
    return folder


FOLDERS = {
    "fsdp": (
        (".metadata", "__0_0.distcp"),
        r"torch\.distributed, as of FSDP: .*format_utils dcp_to_torch .*fsdp weights\.pth",
    ),
    "deepspeed": (("zero_to_fp32.py", "latest", "global_step1/mp_rank_00_model_states.pt"), "DeepSpeed.*zero_to_fp32"),
    "step": (("mp_rank_00_model_states.pt",), "DeepSpeed checkpoint"),
    "saved": (("saved_model.pb", "variables/x.index"), r"SavedModel of TensorFlow.*tf2onnx.*--target onnx"),
    "orbax": (("_METADATA", "checkpoint"), "checkpoint of JAX"),
    "paddle": (("model.pdmodel", "model.pdiparams"), "PaddlePaddle model.*paddle2onnx"),
    "one": (("config.json", "model.safetensors"), r"are a folder: give the file in it, .*model\.safetensors"),
    "some": (("a.pth", "b.pth"), "are a folder: give one of the files in it"),
    "none": (("notes.txt",), "are a folder: give a file"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders_of_others_are_told_with_what_to_do(tmp_path, case):
    names, said = FOLDERS[case]
    with pytest.raises(InputError, match=said) as caught:
        load_state(made(tmp_path / case, *names))
    assert "\n" not in str(caught.value)


def paddle(protocol):
    content = {"w": np.zeros((2, 3), "f4"), "StructuredToParameterName@@": {"w": "conv2d_0.w_0"}}
    return pickle.dumps(content, protocol)


FILES = {
    "net.pdparams": (paddle(2), "weights of PaddlePaddle.*paddle2onnx.*--target onnx"),
    "net4.pdparams": (paddle(4), "weights of PaddlePaddle"),
    "saved_model.pb": (b"\x08\x01\x12\x80" + bytes(64), "a graph of TensorFlow.*tf2onnx"),
    "flax_model.msgpack": (
        b"\x82\xa6params\x81\xa6kernel\xc7\x20\x01" + bytes(64),
        r"msgpack, as Flax \(JAX\).*from_flax",
    ),
    "net.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 file, as Keras.*tf2onnx.*--target onnx"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_frameworks_are_told_with_what_to_do(tmp_path, name):
    content, said = FILES[name]
    for suffix in ("", ".pth"):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        if name == "saved_model.pb" and suffix:
            continue  # without its name it cannot be told from an ONNX file
        with pytest.raises(InputError, match=said):
            load_state(path)


def test_a_part_of_a_deepspeed_checkpoint_is_told(tmp_path):
    torch.save({"module": state(5.0), "ds_version": "0.15", "ds_config": {}}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(
        InputError, match="part of a DeepSpeed checkpoint: make one file of all of it with the zero_to_fp32"
    ):
        load_state(tmp_path / "mp_rank_00_model_states.pt")


class Trap:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        import os

        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("place", ["state_dict", "ema", "hyper_parameters", "callbacks", "optimizer_states"])
def test_nothing_in_a_checkpoint_runs_wherever_it_lies(tmp_path, place):
    torch.save(lightning(**{place: {"x": Trap(tmp_path / "ran")}}), tmp_path / "trap.ckpt")
    for key in ("", ",key=state_dict", ",key=ema"):
        with pytest.raises(InputError, match=r"trap\.ckpt' is refused: it holds Python objects \(posix\.mkdir\)"):
            load_state(f"{tmp_path / 'trap.ckpt'}{key}")
    assert not (tmp_path / "ran").exists()


def test_a_file_whose_own_name_looks_like_a_key_is_that_file(tmp_path):
    path = tmp_path / "net,key=a.pth"
    torch.save(state(5.0), path)
    assert holds(into(path), 5.0)
    assert list(itertools.chain(parted(path))) == [path, None]
