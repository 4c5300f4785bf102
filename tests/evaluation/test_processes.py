"""Workers in processes: a SIGKILL of one changes nothing, and none outlives its driver."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from segradius.core.errors import InputError
from segradius.evaluation import (
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Run,
    Store,
    execute,
    make_plans,
    open_choice,
    open_images,
)
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.processes import cores, devices, in_processes

MODEL, DATA = ModelChoice("demo"), DataChoice("scenes:24x32", limit=4)
ATTACKS = Experiment(MODEL, DATA, make_plans(["fgsm", "pgd"], [("l2", 1.0)], {"steps": 5}))


def found(executor, progress=lambda job, steps: None):
    """Digest of the results, and what was set aside."""
    with Store(":memory:") as store:
        execute(Run(ATTACKS, open_choice(MODEL), open_images(DATA), 1, progress=progress), store, executor)
        return digest_of(ATTACKS, store, open_images(DATA).ids), store.all_set_aside()


def test_a_worker_that_is_killed_changes_nothing():
    said, signals = [], [signal.SIGKILL]

    def harm(job, steps):
        if signals:
            os.kill(multiprocessing.active_children()[0].pid, signals.pop(0))

    assert found(in_processes(1, threads=1, warn=said.append), harm) == found(InProcess())
    (ended,) = said  # over an image, or in between
    assert ended.startswith("worker 1 ended (signal 9, SIGKILL)")
    assert multiprocessing.active_children() == []


DRIVER = """
    import multiprocessing, os, sys, time
    sys.path.insert(0, {here!r})
    import test_processes as it
    if __name__ == "__main__":
        def tell(job, steps):
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            time.sleep(60)
        it.found(it.in_processes(1, threads=1), tell)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_no_worker_outlives_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER.format(here=str(Path(__file__).parent))))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as driver:
        workers = [int(word) for word in driver.stdout.readline().split()]
        assert workers
        driver.kill()
    end = time.monotonic() + 20
    while time.monotonic() < end and any(is_running(worker) for worker in workers):
        time.sleep(0.05)
    assert not any(is_running(worker) for worker in workers)


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_each_worker_has_an_accelerator_of_its_own_whole(monkeypatch):
    assert devices("cpu", 3) == ["cpu"] * 3
    there = torch.accelerator if hasattr(torch, "accelerator") else torch.cuda
    monkeypatch.setattr(there, "device_count", lambda: 2)
    assert devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert devices("cuda:1", 1) == ["cuda:1"]
    with pytest.raises(
        InputError, match="3 workers on cuda: each has an accelerator of its own, whole, and there are 2"
    ):
        devices("cuda", 3)
    with pytest.raises(InputError, match="there are 1"):
        devices("cuda:1", 2)


def test_cores_are_divided_and_numbers_checked():
    assert cores() >= 1
    for wrong in ({"workers": 0}, {"workers": 1, "threads": 0}, {"workers": 1, "patience": 0}):
        with pytest.raises(InputError, match="expected"):
            in_processes(**wrong)
