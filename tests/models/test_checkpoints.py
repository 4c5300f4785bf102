"""Checkpoints: safe, strict, and named when damaged."""

from __future__ import annotations

import argparse
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segradius.core.errors import InputError
from segradius.models import load_into, load_state
from segradius.models.fitting import strip_prefixes


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("envelope", [None, "state_dict", "model", "model_state_dict"])
def test_pytorch_checkpoints_and_their_envelopes(tmp_path, envelope):
    state = small().state_dict()
    torch.save(state if envelope is None else {envelope: state, "epoch": 3}, tmp_path / "net.pt")
    torch.testing.assert_close(load_state(tmp_path / "net.pt"), dict(state), rtol=0, atol=0)


def test_half_precision_files_are_cast_to_the_network(tmp_path):
    state = {name: t.bfloat16() if t.is_floating_point() else t for name, t in small().state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_into(network, load_state(tmp_path / "net.safetensors"))
    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight, state["0.weight"].float())


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "model.module.", "module.module."])
def test_prefixes_of_parallel_and_lightning_are_dropped(prefix):
    network, state = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3).state_dict()
    load_into(network, {prefix + name: tensor for name, tensor in state.items()})
    torch.testing.assert_close(dict(network.state_dict()), dict(state), rtol=0, atol=0)


def test_a_prefix_that_the_network_has_itself_stays():
    state = {"model.w": torch.zeros(1)}
    assert list(strip_prefixes(state, {"model.w": torch.zeros(1)})) == ["model.w"]
    assert list(strip_prefixes({**state, "head": torch.zeros(1)}, {"w": torch.zeros(1)})) == ["model.w", "head"]


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"weight": Malicious(str(marker))}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad\.pt.*refused.*mkdir.*safetensors"):
        load_state(tmp_path / "bad.pt")
    assert not marker.exists()


def test_a_harmless_pickle_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, tmp_path / "old.pth")
    with pytest.raises(InputError, match=r"old\.pth.*argparse\.Namespace.*segradius models convert .*old\.pth"):
        load_state(tmp_path / "old.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_harmless_object_does_not_hide_a_worse_one_behind_it(tmp_path, zipped):
    content = {"args": argparse.Namespace(lr=1), "weight": Malicious(str(tmp_path / "ran"))}
    torch.save(content, tmp_path / "both.pt", _use_new_zipfile_serialization=zipped)
    # Files of PyTorch before 1.6 cannot be scanned: what stops the reader first is named, and it says no more.
    named = r"argparse\.Namespace, posix\.mkdir\)" if zipped else r"argparse\.Namespace, and perhaps others\)"
    with pytest.raises(InputError, match=named):
        load_state(tmp_path / "both.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("keep", [0, 5, 300])
def test_truncated_files_are_named(tmp_path, suffix, keep):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = dict(small().state_dict())
    save_file(state, whole) if suffix == ".safetensors" else torch.save(state, whole)
    cut.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"cut\{suffix}.*truncated"):
        load_state(cut)


def test_missing_and_strange_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pt.*does not exist"):
        load_state(tmp_path / "gone.pt")
    (tmp_path / "weights.h5").write_bytes(b"\x00x")
    with pytest.raises(InputError, match=r"weights\.h5.*too short for a checkpoint"):
        load_state(tmp_path / "weights.h5")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt.*holds a list"):
        load_state(tmp_path / "list.pt")
    torch.save({"w": torch.zeros(1), "epoch": 3}, tmp_path / "mixed.pt")
    with pytest.raises(InputError, match="a int under 'epoch'"):
        load_state(tmp_path / "mixed.pt")


def test_every_difference_is_listed():
    state = dict(small().state_dict())
    del state["1.bias"]
    state["2.extra"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    with pytest.raises(InputError) as caught:
        load_into(small(), state, "net.pt")
    message = str(caught.value)
    assert "'net.pt' does not fit Sequential" in message
    assert "1 missing: 1.bias" in message
    assert "1 unexpected: 2.extra" in message
    assert "1 of another shape: 0.weight ((4, 3, 5, 5) in the file, (4, 3, 3, 3) in the network)" in message


class WithHead(nn.Module):
    """A network that declares what a checkpoint may have or lack."""

    OPTIONAL = ("aux.",)
    IGNORED = ("loss.",)

    def __init__(self, aux):
        super().__init__()
        self.trunk = nn.Conv2d(3, 4, 3)
        if aux:
            self.aux = nn.Conv2d(4, 2, 1)


def trained(prefix="", aux=True):
    return {prefix + name: torch.full_like(t, 7) for name, t in WithHead(aux).state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model.", "model.module."])
@pytest.mark.parametrize("extra", ["loss.criterion.weight", "module.loss.weight", "model.loss.weight"])
def test_entries_of_a_training_wrapper_are_left_out_with_or_without_the_others_prefix(prefix, extra):
    network = WithHead(aux=True)
    load_into(network, trained(prefix) | {extra: torch.zeros(3)})
    assert all((t == 7).all() for t in network.state_dict().values())


def test_a_whole_optional_group_may_be_absent_on_either_side():
    network = WithHead(aux=False)
    load_into(network, trained("module.", aux=True))
    assert (network.trunk.weight == 7).all()
    network = WithHead(aux=True)
    before = network.aux.weight.clone()
    load_into(network, trained("module.", aux=False))
    assert (network.trunk.weight == 7).all()
    assert torch.equal(network.aux.weight, before)


def test_half_an_optional_group_is_an_error():
    state = trained()
    del state["aux.bias"]
    with pytest.raises(InputError, match=r"WithHead: 1 missing: aux\.bias$"):
        load_into(WithHead(aux=True), state)
    with pytest.raises(InputError, match=r"1 unexpected: aux\.more$"):
        load_into(WithHead(aux=True), trained() | {"aux.more": torch.zeros(1)})
    with pytest.raises(
        InputError, match=r"1 of another shape: aux\.bias \(\(5,\) in the file, \(2,\) in the network\)$"
    ):
        load_into(WithHead(aux=True), trained() | {"aux.bias": torch.zeros(5)})


def test_what_is_not_declared_is_unexpected_also_beside_prefixed_names():
    with pytest.raises(InputError, match=r"1 unexpected: lost\.weight$"):
        load_into(WithHead(aux=True), trained() | {"lost.weight": torch.zeros(1)})
    with pytest.raises(InputError, match=r"unexpected: module\.trunk\.weight"):
        load_into(WithHead(aux=True), trained("module.") | {"lost.weight": torch.zeros(1)})


def test_files_from_before_the_batch_counters_load_and_errors_do_not_list_them():
    state = {name: t for name, t in small().state_dict().items() if not name.endswith("num_batches_tracked")}
    load_into(small(), state)
    with pytest.raises(InputError, match=r"Sequential: 1 missing: 0\.weight$"):
        load_into(small(), {name: t for name, t in state.items() if name != "0.weight"})
