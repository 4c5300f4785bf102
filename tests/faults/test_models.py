"""Models that cannot be what they are taken for: files that are no weights, parameters without values, downloads."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import torch

from faults.frame import Case, Tried, fault, test_fault

__all__ = ["test_fault"]

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NO_WEIGHTS = (
    POINTER,
    b"<!DOCTYPE html><title>Sign in</title>",
    b'{"error": "Repository not found"}',
    b"Invalid username or password.",
    b"",
    b"\x89HDF\r\n\x1a\n" + bytes(99),
    b"\x08\x08\x12\x07pytorch:\x00",
    b"PK\x03\x04" + bytes(99),
    bytes(999),
)
SECRET = "s3cr3tValue0123456789"


class Trap:
    """Makes a folder when it is rebuilt."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def _refused(case: Case, *words: str, names: tuple[str, ...]) -> Tried:
    """The command with these words; nothing of it may run code, advise to, or tell a secret."""
    ran = case.run(*words)
    kept = [path for path in case.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    wrong = "code ran" if Path("ran").exists() else "advises to run code" if "unsafe" in ran.told else ""
    secret = "a secret was kept or told" if kept or SECRET in ran.told + ran.shown else ""
    return Tried(ran, names=names, problem=wrong or secret)


@fault("weights that are none", expected="refused", few=3)
def weights_that_are_no_checkpoint(case: Case) -> Tried:
    """The file of weights is something else: another thing each time, under either name."""
    name = ("net.pth", "net.safetensors")[case.number % 2]
    Path(name).write_bytes(NO_WEIGHTS[case.number % len(NO_WEIGHTS)])
    return _refused(case, "--weights", name, names=(name,))


@fault("weights that are none", expected="refused")
def pickle_that_torch_has_not_written(case: Case) -> Tried:
    """The file of weights is a pickle that would run code, in each protocol."""
    Path("net.pth").write_bytes(pickle.dumps(Trap(), case.number % 6))
    return _refused(case, "--weights", "net.pth", names=("net.pth",))


@fault("weights that are none", expected="refused")
def weights_cut_short(case: Case) -> Tried:
    """A download of the weights ended early."""
    torch.save({"w": torch.zeros(99)}, "net.pth")
    content = Path("net.pth").read_bytes()
    Path("net.pth").write_bytes(content[: case.random.randrange(len(content))])
    return _refused(case, "--weights", "net.pth", names=("net.pth",))


@fault("weights that are none", expected="refused")
def pickled_folder_of_the_hub(case: Case) -> Tried:
    """A folder of transformers has weights that would run code."""
    Path("net").mkdir()
    Path("net/config.json").write_text(json.dumps({"model_type": "segformer", "num_labels": 3}))
    torch.save({"w": Trap()}, "net/pytorch_model.bin")
    ran = case.run("--model", "hf:net")
    problem = "code ran" if Path("ran").exists() else ""
    return Tried(ran, names=("pytorch_model.bin", "transformers"), problem=problem)


CODE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1))

def meta():
    return net().to("meta")

def part():
    made = net()
    made[2].to_empty(device="meta")
    return made

def lazy():
    return nn.Sequential(nn.LazyConv2d(3, 1))

def nan():
    made = net()
    nn.init.constant_(made[2].bias, torch.nan)
    return made

def zero():
    made = net()
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    return made

def whole():
    made = net()
    made[0].weight = nn.Parameter(torch.ones(4, 3, 1, 1, dtype=torch.int8), requires_grad=False)
    return made
"""
BROKEN = {"meta": "0.weight", "part": "2.weight", "lazy": "0.weight", "nan": "2.bias", "zero": "0.weight",
          "whole": "0.weight"}  # fmt: skip


@fault("parameters without values", expected="refused", few=len(BROKEN))
def parameters_without_values(case: Case) -> Tried:
    """The network's parameters hold nothing, or nothing that was learnt: another way each time."""
    Path("broken.py").write_text(CODE)
    name, parameter = list(BROKEN.items())[case.number % len(BROKEN)]
    return _refused(case, "--model", f"broken:{name}", names=(f"{parameter!r}",))


ELSEWHERE = (
    f"hf:nobody/no-such-network,token={SECRET}",
    "torchvision:lraspp_mobilenet_v3_large,weights=DEFAULT",
    "torch.hub:load_state_dict_from_url,url=https://host.example/net.pth",
)


@fault("download unasked", expected="refused", few=2)
def model_that_is_not_here(case: Case) -> Tried:
    """The model would have to be downloaded, and nobody has allowed it."""
    model = ELSEWHERE[case.number % len(ELSEWHERE)]
    return _refused(case, "--model", model, names=("--allow-download", "transformers"))


@fault("no network", expected="refused", few=2)
def model_that_is_a_target(case: Case) -> Tried:
    """A target, a file or an address is given as the model."""
    model = ("onnx:net.onnx", "oip:http://localhost:1/v2/models/net", "net.onnx", "net.pth")[case.number % 4]
    return _refused(case, "--model", model, names=("--target", "--weights"))


@fault("units of the images", expected="refused")
def normalisation_of_other_images(case: Case) -> Tried:
    """The normalisation is for images in 0–255."""
    entry = json.dumps({"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]})
    return _refused(case, "--normalisation", entry, names=("0–255",))
