"""Conversion to safetensors: the same tensors, nothing else, no code unless it is asked for."""

from __future__ import annotations

import argparse
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import segradius.models.checkpoints as conversion
from segradius.core.errors import InputError
from segradius.models import convert, load_state
from segradius.models.weight_files import sha256_of


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def state():
    torch.manual_seed(0)
    return dict(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict())


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("envelope", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_written_is_what_load_state_reads(tmp_path, envelope, prefix, zipped):
    named = {prefix + name: tensor for name, tensor in state().items()}
    content = named if envelope is None else {envelope: named, "epoch": 3, "optimizer": {"lr": torch.zeros(1)}}
    torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    done = convert(tmp_path / "net.pth", tmp_path / "net.safetensors")
    written = load_state(tmp_path / "net.safetensors")
    torch.testing.assert_close(written, load_state(tmp_path / "net.pth"), rtol=0, atol=0)
    assert (done.tensors, done.sha256) == (len(named), sha256_of(done.target))
    assert done.dropped == (() if envelope is None else ("epoch", "optimizer"))
    assert files(tmp_path) == ["net.pth", "net.safetensors"]


def test_layouts_types_and_shared_memory_are_kept_by_value(tmp_path):
    base = torch.randn(4, 6)
    content = {
        "base": base,
        "tied": base,
        "turned": base.T,
        "part": base[1:3, ::2],
        "row": base[2],
        "parameter": nn.Parameter(base + 1),
        "half": base.bfloat16(),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    }
    torch.save(content, tmp_path / "net.pt")
    assert convert(tmp_path / "net.pt", tmp_path / "net.safetensors").tensors == 10
    written = load_state(tmp_path / "net.safetensors")
    assert set(written) == set(content)
    for name, tensor in content.items():
        assert written[name].dtype == tensor.dtype
        assert torch.equal(written[name], tensor)
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_entries_that_are_no_tensors_are_left_out_and_named(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(2), "classes": ["road", "sky"]}, "epoch": 7}, tmp_path / "net.pth")
    done = convert(tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert (done.tensors, done.dropped) == (1, ("epoch", "classes"))
    assert list(load_state(tmp_path / "net.safetensors")) == ["w"]


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_runs_code_is_refused_and_does_not_run(tmp_path, zipped):
    marker = tmp_path / "ran"
    content = {"state_dict": state(), "args": Malicious(marker)}
    torch.save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    message = r"bad\.pth.*refused.*posix\.mkdir.*runs whatever code.*origin you trust.*--allow-unsafe-pickle"
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "bad.pth", tmp_path / "bad.safetensors")
    assert not marker.exists()
    assert files(tmp_path) == ["bad.pth"]


def test_the_opt_in_does_run_it(tmp_path):
    # Not a wish but the truth that the documentation tells: whoever opts in runs the file.
    torch.save({"state_dict": state(), "args": Malicious(tmp_path / "ran")}, tmp_path / "bad.pth")
    convert(tmp_path / "bad.pth", tmp_path / "bad.safetensors", allow_unsafe=True)
    assert (tmp_path / "ran").is_dir()


def test_python_objects_need_the_opt_in_and_are_left_out(tmp_path):
    torch.save({"state_dict": state(), "args": argparse.Namespace(lr=0.01)}, tmp_path / "old.pth")
    with pytest.raises(InputError, match=r"old\.pth.*argparse\.Namespace"):
        convert(tmp_path / "old.pth", tmp_path / "new.safetensors")
    done = convert(tmp_path / "old.pth", tmp_path / "new.safetensors", allow_unsafe=True)
    assert done.dropped == ("args",)
    torch.testing.assert_close(load_state(tmp_path / "new.safetensors"), state(), rtol=0, atol=0)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_whole_module_counts_as_its_state(tmp_path, wrapped):
    network = nn.Conv2d(3, 2, 1)
    torch.save({"model": network, "epoch": 1} if wrapped else network, tmp_path / "net.pt")
    done = convert(tmp_path / "net.pt", tmp_path / "net.safetensors", allow_unsafe=True)
    assert done.dropped == (("epoch",) if wrapped else ())
    torch.testing.assert_close(load_state(done.target), dict(network.state_dict()), rtol=0, atol=0)


def test_an_existing_target_is_replaced_only_when_told(tmp_path):
    torch.save(state(), tmp_path / "net.pth")
    (tmp_path / "net.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"net\.safetensors.*exists.*--overwrite"):
        convert(tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert (tmp_path / "net.safetensors").read_text() == "mine"
    convert(tmp_path / "net.pth", tmp_path / "net.safetensors", overwrite=True)
    assert set(load_state(tmp_path / "net.safetensors")) == set(state())


def test_a_writing_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    def torn(tensors, name, metadata):
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "save_file", torn)
    torch.save(state(), tmp_path / "net.pth")
    (tmp_path / "net.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*net\.safetensors.*No space left"):
        convert(tmp_path / "net.pth", tmp_path / "net.safetensors", overwrite=True)
    assert (tmp_path / "net.safetensors").read_text() == "mine"
    assert files(tmp_path) == ["net.pth", "net.safetensors"]


@pytest.mark.parametrize("allow_unsafe", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 5, 300])
def test_truncated_files_are_named_whatever_is_allowed(tmp_path, keep, zipped, allow_unsafe):
    torch.save(state(), tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.pth"):
        convert(tmp_path / "cut.pth", tmp_path / "cut.safetensors", allow_unsafe=allow_unsafe)
    assert files(tmp_path) == ["cut.pth", "whole.pth"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "net": {"w": [0.0]}}, "holds a dict of epoch, net; expected names and tensors"),
        ([torch.zeros(1)], "holds a list; expected names and tensors"),
        ({}, "holds a dict; expected"),
    ],
)
def test_files_without_named_tensors_are_described(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "net.pth", tmp_path / "net.safetensors")


def test_bad_paths_are_named(tmp_path):
    torch.save(state(), tmp_path / "net.pth")
    save_file({"w": torch.zeros(1)}, tmp_path / "net.safetensors")
    for source, target, message in [
        ("gone.pth", "net2.safetensors", r"gone\.pth.*does not exist"),
        ("net.safetensors", "net2.safetensors", r"net\.safetensors.*is a safetensors file already"),
        ("net.pth", "net2.pt", r"net2\.pt.*ends in \.safetensors"),
        ("net.pth", "gone/net.safetensors", "folder .*gone.* does not exist"),
    ]:
        with pytest.raises(InputError, match=message):
            convert(tmp_path / source, tmp_path / target)
