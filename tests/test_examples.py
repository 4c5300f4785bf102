"""The examples run, each within its budget; the guided loss makes every library's attack stronger; groups fit."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import segradius as sr
from segradius.certification import Hierarchy
from segradius.cli.certify import read_hierarchy
from segradius.data.camvid import CAMVID

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LIBRARIES = {"foolbox_pgd": "foolbox", "art_pgd": "art", "torchattacks_pgd": "torchattacks"}
TINY = ["--data=scenes:48x64", "--limit=2", "--steps=6", "--eps=2.0"]

# The libraries themselves use what SciPy and Python have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if name in LIBRARIES:
        pytest.importorskip(LIBRARIES[name], reason=f"{LIBRARIES[name]} is not installed (extra: peers)")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_guided_loss_makes_a_librarys_attack_stronger(name: str, monkeypatch: pytest.MonkeyPatch):
    assert example(name, monkeypatch).main(TINY) == 0


@pytest.mark.parametrize("name", LIBRARIES)
def test_both_attacks_stay_in_ball_and_box(name: str, monkeypatch: pytest.MonkeyPatch):
    module = example(name, monkeypatch)
    setting = module.from_command_line(TINY)
    for adversarial in module.attack(setting):
        assert (adversarial - setting.images).flatten(1).norm(dim=1).max() <= setting.eps * (1 + 1e-5)
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1


@pytest.mark.parametrize("name", LIBRARIES)
def test_void_pixels_have_no_say(name: str, monkeypatch: pytest.MonkeyPatch):
    """An image without a label stays as it is; the other one moves."""
    module = example(name, monkeypatch)
    setting = module.from_command_line([*TINY, "--steps=1"])
    labels = setting.labels.clone()
    labels[1] = module.VOID
    for adversarial in module.attack(type(setting)(setting.model, setting.images, labels, setting.eps, 1)):
        assert torch.equal(adversarial[1], setting.images[1])
        assert not torch.equal(adversarial[0], setting.images[0])


def test_the_torchattacks_subclass_is_its_parent_when_given_its_parents_loss(monkeypatch: pytest.MonkeyPatch):
    module = example("torchattacks_pgd", monkeypatch)
    setting = module.from_command_line(TINY)
    own, _ = module.attack(setting)
    options = {"eps": setting.eps, "alpha": setting.alpha, "steps": setting.steps}
    loss = nn.CrossEntropyLoss(ignore_index=module.VOID)
    mine = module.PGDL2WithLoss(sr.AsModule(setting.model), loss, **options)(setting.images, setting.labels)
    torch.testing.assert_close(mine, own, rtol=0, atol=1e-5)


def test_two_libraries_agree(monkeypatch: pytest.MonkeyPatch):
    """foolbox and torchattacks both scale into the ball, then clamp: the same images, on either loss."""
    found = []
    for name in ("foolbox_pgd", "torchattacks_pgd"):
        module = example(name, monkeypatch)
        found.append(module.attack(module.from_command_line([*TINY, "--steps=3"])))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_own_model(monkeypatch: pytest.MonkeyPatch):
    assert example("own_model", monkeypatch).main(steps=40) == 0


def test_python_api(monkeypatch: pytest.MonkeyPatch):
    assert example("python_api", monkeypatch).main(limit=1, steps=5) == 0


def test_the_groups_of_camvid_fit_its_classes() -> None:
    hierarchy = Hierarchy.of(CAMVID.names, read_hierarchy(str(EXAMPLES / "camvid_groups.yaml")))
    road, pavement = CAMVID.names.index("road"), CAMVID.names.index("pavement")
    assert len(hierarchy.levels) == 4
    assert all(groups[road] == groups[pavement] for groups in hierarchy.levels[1:])
