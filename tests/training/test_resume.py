"""A run that was stopped anywhere, even by kill -9, ends bit by bit as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import small
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file

from segradius.cli import main
from segradius.data.sample import Sample
from segradius.training import Augmentation, Engine, Optimiser, WeightAverage, fit, make_adversary

#: Everything that has a state or needs chance.
ALL_ON = {
    "augmentation": Augmentation(crop=(24, 32)),
    "adversary": make_adversary("fast_adt", norm="linf", eps=0.02, mix=0.7),
    "average": WeightAverage(0.9),
    "every": 2,
}


@dataclass
class Stopping:
    """A data set that is interrupted at its n-th read."""

    source: small.InMemory
    at: int
    reads: list[int] = field(default_factory=list)

    def __getattr__(self, name: str):
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        self.reads.append(index)
        if len(self.reads) > self.at:
            raise KeyboardInterrupt
        return self.source[index]


def assert_same_folders(one: Path, other: Path) -> None:
    """The same files, the same weights and state bit by bit, the same logs, and nothing half-written."""
    for name in ("best.safetensors", "last.safetensors"):
        small.assert_same(load_file(one / name), load_file(other / name))
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for key in states[0]:
        if key in ("network", "average"):
            small.assert_same(states[0][key], states[1][key])
        elif key == "optimiser":
            torch.testing.assert_close(states[0][key]["state"], states[1][key]["state"], rtol=0, atol=0)
            assert states[0][key]["param_groups"] == states[1][key]["param_groups"]
        else:
            assert states[0][key] == states[1][key]
    for name in ("train.csv", "evaluations.csv"):
        assert (one / name).read_text() == (other / name).read_text()
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert not [p for p in other.rglob(".*")]


@pytest.mark.parametrize("optimiser", [Optimiser(lr=0.05), Optimiser("adamw", lr=0.01)], ids=lambda o: o.name)
def test_an_interrupted_run_goes_on(tmp_path: Path, optimiser: Optimiser) -> None:
    engine = Engine("cpu", save_every=2, log_every=1)
    changes = ALL_ON | {"optimiser": optimiser, "engine": engine}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(small.job(whole, **changes))
    # In step 6, two after a snapshot; in the first step after that; and in the step right after another snapshot. Every
    # image is read once before, and the first twice more, for its bands and to look for a label.
    for reads, step in ((36, 4), (17, 4), (30, 8)):
        with pytest.raises(KeyboardInterrupt):
            fit(small.job(parts, train=Stopping(small.TRAIN, reads), **changes))
        assert torch.load(parts / "last.pt", weights_only=True)["position"]["step"] == step
    fit(small.job(parts, **changes))
    assert_same_folders(whole, parts)


def test_half_precision_goes_on_with_its_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU gets no loss scale from Fabric by itself, a GPU does."""
    half = {"accelerator": "cpu", "plugins": [MixedPrecision("16-mixed", "cpu")]}
    monkeypatch.setattr(Engine, "fabric", lambda engine, precision, *, unused: Fabric(devices=1, **half))
    changes = ALL_ON | {"precision": "16", "engine": Engine(save_every=2)}
    fit(small.job(tmp_path / "whole", **changes))
    half["plugins"] = [MixedPrecision("16-mixed", "cpu")]
    with pytest.raises(KeyboardInterrupt):
        fit(small.job(tmp_path / "parts", train=Stopping(small.TRAIN, 22), **changes))
    half["plugins"] = [MixedPrecision("16-mixed", "cpu")]
    fit(small.job(tmp_path / "parts", **changes))
    assert_same_folders(tmp_path / "whole", tmp_path / "parts")
    scale = torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["scaler"]
    assert scale["_growth_tracker"] == 12  # steps without overflow, of both parts


def test_bfloat16_goes_on(tmp_path: Path) -> None:
    fit(small.job(tmp_path / "whole", precision="bf16"))
    with pytest.raises(KeyboardInterrupt):
        fit(small.job(tmp_path / "parts", train=Stopping(small.TRAIN, 20), precision="bf16"))
    fit(small.job(tmp_path / "parts", precision="bf16"))
    assert_same_folders(tmp_path / "whole", tmp_path / "parts")


def test_half_written_files_are_swept(tmp_path: Path) -> None:
    fit(small.job(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(small.job(tmp_path / "parts", train=Stopping(small.TRAIN, 20)))
    for name in (".last.pt.abc123.pt", ".best.safetensors.abc123.safetensors", ".train.csv.abc123.csv"):
        (tmp_path / "parts" / name).write_bytes(b"half")
    with (tmp_path / "parts" / "train.csv").open("a") as file:
        file.write("7,3,0.0")  # a torn line
    fit(small.job(tmp_path / "parts"))
    assert_same_folders(tmp_path / "whole", tmp_path / "parts")


def command(out: Path) -> list[str]:
    options = {
        "model": "small:tiny",
        "data": small.SCENES,
        "held-out-limit": "4",
        "out": str(out),
        "epochs": "2",
        "batch-size": "4",
        "crop": "24x32",
        "average": "0.9",
        "adversary": "fast_adt",
        "eps": "0.02",
        "every": "1",
        "device": "cpu",
        "save-every": "2",
    }
    return ["train", *(word for key, value in options.items() for word in (f"--{key}", value))]


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """SIGKILL in the middle of the first epoch of 16 steps, after a snapshot; the rest in another process."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *command(parts)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert steps_logged(parts, at_least=4, patience=300, process=process) < 16
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()
    assert 2 <= torch.load(parts / "last.pt", weights_only=True)["position"]["step"] < 16
    for folder in (parts, whole):
        assert main(command(folder)) == 0
    assert_same_folders(whole, parts)


SLOWLY = """
import sys, time, torch
from segradius.cli import main
from segradius.training import records
torch.set_num_threads(1)
save = records.Snapshot.save
records.Snapshot.save = lambda self, folder: (save(self, folder), time.sleep(0.2))
main(sys.argv[1:])
"""


def steps_logged(folder: Path, at_least: int, patience: float, process: subprocess.Popen) -> int:
    """Wait until the log has so many steps; how many it has."""
    for _ in range(int(patience / 0.02)):
        log = folder / "train.csv"
        done = len(small.rows(log)) if log.exists() else 0
        if done >= at_least:
            return done
        assert process.poll() is None, "the run ended too early"
        time.sleep(0.02)
    raise AssertionError("the run does not get on")
