"""Numbers that would mislead: what makes them is named on the screen, in results.json and in table.md, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from faults.frame import Case, Tried, fault, test_fault

__all__ = ["test_fault"]

#: What is done to the images, or to the logits, of a network that was right, by the warning that it must bring.
NETWORKS = (
    ("gradient", "(x * 16).round() / 16", "z"),
    ("gradient", "(x * 255).round() / 255", "z"),
    ("gradient", "x.bfloat16().float().detach() + 0 * x", "z"),
    ("gradient", "x", "z.round()"),
    ("saturated", "x", "1000 * z"),
    ("saturated", "x", "1e6 * z"),
    ("constant", "x", "z + 1e4 * torch.eye(3)[1].view(1, 3, 1, 1)"),
    ("outputs", "x", "(z / 100).sigmoid()"),
    ("outputs", "x", "100 * z.softmax(1)"),
    ("outputs", "x", "(9 * z).tanh()"),
    ("masked", "x.detach() + (x.detach() - x)", "z"),
)
ENDS = ("z.sigmoid()", "z.softmax(1)", "z.sigmoid() ** 2", "torch.cat([z[:, :1].sigmoid(), 1 - z[:, 1:].sigmoid()], 1)")

WRAPPED = """

class Changed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        x = {x}
        z = self.net(x)
        return {z}

right = network

def network():
    return Changed(right())
"""


def _change(x: str, z: str) -> None:
    file = Path("small_net.py")
    file.write_text(file.read_text() + WRAPPED.format(x=x, z=z))


def _told(case: Case, name: str, *words: str) -> Tried:
    """The command, which must tell of ``name`` everywhere; its numbers are those of the changed network."""
    ran = case.run("--normalisation", "none", *words)
    if ran.status != 0:
        return Tried(ran)
    report = json.loads((case.out / "results.json").read_text())
    said = [each["advice"] for each in report["warnings"] if each["name"] == name]
    places = {
        "results.json": bool(said),
        "table.md": f"Warning ({name})" in (case.out / "table.md").read_text(),
        "the screen": all(advice in ran.told for advice in said),
    }
    missing = [place for place, there in places.items() if not there]
    return Tried(ran, found=case.wanted, problem=f"no word of {name} in {', '.join(missing)}" if missing else "")


@fault("misleading network", expected="right", few=len(NETWORKS))
def network_that_shows_too_little(case: Case) -> Tried:
    """The network rounds, saturates, says one class, squeezes its logits or turns its gradient around."""
    name, x, z = NETWORKS[case.number % len(NETWORKS)]
    _change(x, z)
    return _told(case, name)


@fault("misleading network", expected="refused", few=len(ENDS))
def network_that_ends_in_probabilities(case: Case) -> Tried:
    """The network gives one sigmoid a class, or a softmax, where logits were promised."""
    _change("x", ENDS[case.number % len(ENDS)])
    return Tried(case.run("--normalisation", "none"), names=("small_net:network",))


@fault("misleading masks", expected="right", few=2)
def masks_that_are_mostly_void(case: Case) -> Tried:
    """Four pixels of five are void, which the YAML says."""
    for file in Path("data", "masks").glob("*.png"):
        mask = np.array(Image.open(file))
        mask[np.random.default_rng(case.number).random(mask.shape) < 0.8] = 255
        Image.fromarray(mask).save(file)
    yaml = Path("data", "segradius.yaml")
    yaml.write_text(yaml.read_text() + "\nignore_index: 255\n")
    return _told(case, "void")


@fault("misleading budget", expected="right", few=2)
def budget_of_another_norm(case: Case) -> Tried:
    """8/255 without a norm is l2, or l1 by mistake."""
    return _told(case, "eps", "--eps", ("l2=8/255", "l1=8/255")[case.number % 2])


@fault("training without labels", expected="refused", prepared="train", few=2)
def training_on_void_alone(case: Case) -> Tried:
    """No mask of the training part, or of the held-out part, has a label."""
    part = ("train", "val")[case.number % 2]
    files = [file for file in Path("data").rglob("*.png") if "mask" in str(file) and part in file.parts]
    for file in files or [f for f in Path("data").rglob("*.png") if "mask" in str(f)]:
        Image.fromarray(np.full_like(np.array(Image.open(file)), 255)).save(file)
    yaml = next(Path("data").rglob("segradius.yaml"))
    yaml.write_text(yaml.read_text() + "\nignore_index: 255\n")
    return Tried(case.run(), names=("labelled",))
