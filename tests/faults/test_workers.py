"""Workers, drivers and nodes that end, hang or go, and what is bad elsewhere: the same results as in one process.

In the table each kind has the executor beside it. With every test run a few are tried; the campaign is

    pytest tests/faults/test_workers.py --faults 20
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from faults.frame import Case, Ran, Tried, begun, digest, fault, limited, test_fault
from segradius.evaluation import crew, processes

__all__ = ["test_fault"]

WORKERS = ("--workers", "2", "--threads", "1")
#: Of the processes of this file: they are forked from one that has imported all, and so are there at once.
multiprocessing.set_forkserver_preload(["segradius.evaluation.worker", "segradius.attacks", "segradius.cli"])
SIGNALS = (signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGBUS)
EXECUTORS = ("processes", "ray")
#: Of an actor, as its command line begins.
ACTOR = "ray::_Inside"


def few(executor: str, tries: int = 1) -> int:
    """Tries with every test run: a cluster takes a while to start, and one fault of it is in tests/evaluation."""
    return tries if executor == "processes" else 0


def hired(executor: str, *more: str) -> list[str]:
    """Words for a command that has workers."""
    words = [*WORKERS, *more]
    return words if executor == "processes" else [*words, "--executor", "ray", "--address", cluster().address]


@functools.cache
def cluster():
    """A Ray cluster of two nodes beside its head, on this machine, for all tries."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # loopback only
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="sr-", dir="/tmp")
    Path("/tmp/ray").mkdir(exist_ok=True)  # where it notes its address
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": folder})
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(found.shutdown)
    for _ in range(2):
        found.add_node(num_cpus=1)
    return found


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """Worker processes are there at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "METHOD", "forkserver")
        yield


@contextlib.contextmanager
def at_event(moments: dict[int, Callable[[crew.Hired], object]]) -> Iterator[None]:
    """When so many events have come, something is done to the worker of the last of them."""
    met, seen = crew.Crew._met, [0]

    def counted(self, member, event, progress):
        seen[0] += 1
        if seen[0] in moments:
            moments[seen[0]](member.worker)
        return met(self, member, event, progress)

    with forked(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew.Crew, "_met", counted)
        yield


def sent(number: int) -> Callable[[crew.Hired], object]:
    """A signal to a worker's process, whatever its source."""

    def send(worker: crew.Hired) -> None:
        process = getattr(worker, "_process", None)
        for pid in [process.pid] if process is not None else running(ACTOR)[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return send


def running(words: str) -> list[int]:
    """Processes whose command line has some words."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in file.read_text(errors="replace"):
                found.append(int(file.parent.name))
    return sorted(found)


def same(case: Case, ran: Ran, problem: str = "") -> Tried:
    """The digest is that of one process too."""
    return Tried(ran, problem=problem or ("" if digest(case.out) == case.digest else "another digest of the results"))


for _executor in EXECUTORS:
    for _command in ("attack", "certify", "black"):

        @fault(
            f"SIGKILL of a worker, {_executor}", "right", _command, few=few(_executor), name=f"{_executor}_{_command}"
        )
        def _killed(case: Case, executor: str = _executor) -> Tried:
            moments = sorted(case.random.sample(range(1, 14), 2))
            with at_event(dict.fromkeys(moments, sent(signal.SIGKILL))):
                return same(case, case.run(*hired(executor)))

    @fault(f"a worker that hangs, {_executor}", "right", few=0, name=f"hangs_{_executor}")
    def _hangs(case: Case, executor: str = _executor) -> Tried:
        with at_event({case.random.randrange(3, 9): sent(signal.SIGSTOP)}):
            return same(case, case.run(*hired(executor, "--patience", "4")))

    @fault(f"SIGKILL of the driver, {_executor}", "right", "black", few=few(_executor), name=f"driver_{_executor}")
    def _driver(case: Case, executor: str = _executor) -> Tried:
        """At any moment; the same command goes on, with workers or without."""
        words = [*case.command, *hired(executor)]
        child, end = begun(words), time.monotonic() + case.random.uniform(0.2, 8)
        while time.monotonic() < end and not os.waitpid(child, os.WNOHANG)[0]:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with forked():
            return same(case, case.run(*(hired(executor) if case.number % 2 else ())))

    @fault(f"an unreadable image, {_executor}", "set aside", few=few(_executor), name=f"unreadable_{_executor}")
    def _unreadable(case: Case, executor: str = _executor) -> Tried:
        file = case.folder / "data" / "images" / "b.png"
        file.write_bytes(file.read_bytes()[: case.random.randrange(100)])
        return aside(case, executor)

    @fault(f"a NaN image, {_executor}", "set aside", few=few(_executor), name=f"nan_{_executor}")
    def _nan(case: Case, executor: str = _executor) -> Tried:
        pixels = np.full((8, 10, 3), 0.5, np.float32)
        pixels[case.random.randrange(8), case.random.randrange(10)] = np.nan
        (case.folder / "data" / "images" / "b.png").unlink()
        tifffile.imwrite(case.folder / "data" / "images" / "b.tif", pixels, photometric="rgb")
        return aside(case, executor)

    @fault(f"a model that raises on an image, {_executor}", "set aside", few=few(_executor), name=f"raises_{_executor}")
    def _raises(case: Case, executor: str = _executor) -> Tried:
        return guilty(case, executor, "raise ValueError('not this one')")

    @fault(f"an image that ends its process, {_executor}", "set aside", few=few(_executor), name=f"ends_{_executor}")
    def _ends(case: Case, executor: str = _executor) -> Tried:
        """In every worker, by an exit status or a signal: after three times it is left out, named once."""
        # Where the signal has a handler that tells of it, as in Ray, other threads go on until it ends the process.
        ending = ("os._exit(3)", "os.kill(os.getpid(), 11), time.sleep(60)", "raise SystemExit(5)")[case.number % 3]
        return guilty(case, executor, f"import os, time\n            if os.getpid() != {os.getpid()}: {ending}")


def aside(case: Case, executor: str) -> Tried:
    """Image b is set aside, and named once in the report."""
    with forked():
        ran = case.run(*hired(executor))
    told = json.loads((case.out / "results.json").read_text())["set_aside"] if ran.status == 0 else {"b": ""}
    return Tried(ran, aside=("b",), problem="" if list(told) == ["b"] else f"set aside is {told}")


def guilty(case: Case, executor: str, code: str) -> Tried:
    """The network does something on image b, which has a pixel of its own; its weights stay what they are."""
    from PIL import Image

    file = case.folder / "data" / "images" / "b.png"
    with Image.open(file) as picture:
        mark = np.array(picture)[0, 0].tolist()
    module = case.folder / "small_net.py"
    hook = f"""
class Guilty(nn.Module):
    def forward(self, x):
        if bool((((x[:, :, 0, 0] * 255).round() - torch.tensor({mark})).abs().amax(1) == 0).any()):
            {code}
        return x
"""
    module.write_text(
        module.read_text()
        .replace("def network", f"{hook}\ndef network")
        .replace("Sequential(", "Sequential(Guilty(), ", 1)
        .replace("(net[0], net[2])", "(net[1], net[3])")
    )
    return aside(case, executor)


@fault("another end of a worker, processes", "right", name="signals", few=1)
def _signals(case: Case) -> Tried:
    with at_event({case.random.randrange(2, 14): sent(SIGNALS[case.number % len(SIGNALS)])}):
        return same(case, case.run(*hired("processes")))


@fault("a full disk, processes", "right", "black", few=1)
def full_disk(case: Case) -> Tried:
    """The driver and its workers cannot write files beyond some size; the same command goes on."""
    first = limited([*case.command, *WORKERS], int(2 ** case.random.uniform(9, 17)))
    fine = first.status in (0, 2) and not first.traceback and "Traceback" not in first.told
    with forked():
        return same(case, case.run(*WORKERS), "" if fine else f"exit status {first.status}: {first.told}")


@fault("SIGKILL of a raylet, ray", "right", few=0)
def raylet(case: Case) -> Tried:
    """A node's own process; its actors end with it, and a node that joins later gets what is left."""
    words, there = hired("ray"), cluster()
    node = next(iter(there.worker_nodes))

    def harm(worker: crew.Hired) -> None:
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    with at_event({case.random.randrange(2, 10): harm}):
        ran = case.run(*words)
    there.remove_node(node)
    there.add_node(num_cpus=1)
    return same(case, ran)


@fault("SIGKILL of a node, ray", "right", few=0)
def node_lost(case: Case) -> Tried:
    """All processes of a node at once; one that joins gets what is left."""
    words, there = hired("ray"), cluster()
    node = next(iter(there.worker_nodes))

    def harm(worker: crew.Hired) -> None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)

    with at_event({case.random.randrange(2, 10): harm}):
        ran = case.run(*words)
    there.remove_node(node, allow_graceful=False)
    there.add_node(num_cpus=1)
    return same(case, ran)


for _part in ("shard", "merge"):

    @fault(f"SIGKILL of a {_part}", "right", few=1, name=f"killed_{_part}")
    def _shards(case: Case, part: str = _part) -> Tried:
        """A study in two parts, killed at any moment while one is run or while they are merged, and run again."""
        return in_parts(case, part)


def in_parts(case: Case, part: str) -> Tried:
    """The study of the command in two parts, of which something is killed once."""
    words = dict(zip(case.command[1::2], case.command[2::2], strict=True))
    study = {
        "models": {"net": {"model": words["--model"], "num_classes": 3}},
        "data": {"d": words["--data"]},
        "attacks": words["--attack"].split(","),
        "options": {"steps": int(words["--steps"])},
        "budgets": {"eps": words["--eps"]},
    }
    (case.folder / "study.json.yaml").write_text(json.dumps(study))
    run = ["run", "study.json.yaml", "--out", "study", "--batch-size", "1", "--device", "cpu", "--figures", "0"]
    merge = ["merge", "study/shard-1-of-2", "study/shard-2-of-2", "--out", "study"]
    commands = [[*run, "--shard", "1/2"], [*run, "--shard", "2/2"], merge]
    victim = 2 if part == "merge" else case.number % 2
    for number, command in enumerate(commands):
        if number == victim:
            child, end = begun(command), time.monotonic() + case.random.uniform(0, 1.2 * case.seconds)
            while time.monotonic() < end and not os.waitpid(child, os.WNOHANG)[0]:
                time.sleep(0.002)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        ran = case.run(words=command)
        if ran.status:
            return Tried(ran)
    (folder,) = Path("study/runs").iterdir()
    shutil.copytree(folder, case.out)
    return same(case, ran)
