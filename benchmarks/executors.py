"""One study by every executor: equal digests; and what two workers gain on two cores.

    python benchmarks/executors.py
    python benchmarks/executors.py --quick_steps 0 --images 32 --steps 14 --n 600 --out executors.json

Every run is the command itself in a process of its own, with one thread a worker. First the study of two networks ×
three attacks × two budgets × 24 images and a certification of 6 is run in process, by two processes, on a Ray cluster
of two nodes on this machine, and as four parts that are merged: the digests must be equal. Then, with more steps, two
processes without any driver each do one half (``--shard 1/2`` and ``2/2``, begun together); efficiency is the time of
the slower of them over that of the same study by ``--workers 2``, imports, opening and reports included; shards write
no reports, and are halves only where the batches of eight images are even in number.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def study(steps: int, n: int, images: int, size: str) -> dict:
    network = {"model": "smp:Unet,encoder_name=resnet18,encoder_weights=null,classes=8", "normalisation": "imagenet"}
    return {
        "models": {"demo": "demo", "unet": network},
        "data": {"scenes": {"data": f"scenes:{size}", "limit": images}},
        "budgets": {"eps": "l2=0.5,1.5"},
        "attacks": ["pgd", "segpgd", "cr_pgd"],
        "options": {"steps": steps},
        "certify": {"sigma": 0.25, "n0": 10, "n": n, "alpha": 0.01, "limit": 6},
    }


def command(folder: Path, name: str, *more: str) -> list[str]:
    words = ["--out", str(folder / name), "--device", "cpu", "--figures", "0", "--overwrite", *more]
    return [sys.executable, "-m", "segradius", "run", str(folder / "study.yaml"), *words]


def ran(*commands: Sequence[str]) -> float:
    """Seconds until all of some commands, begun together, are done."""
    started, environment = time.perf_counter(), os.environ | ONE_THREAD
    with tempfile.TemporaryFile("w+") as told:
        children = [subprocess.Popen(words, stdout=told, stderr=told, env=environment) for words in commands]
        failed = [child.args for child in children if child.wait()]
        told.seek(0)
        assert not failed, f"{failed}: {told.read()[-3000:]}"
    return time.perf_counter() - started


def digests(folder: Path) -> dict[str, str]:
    """Of the results of every measurement of a study."""
    found = sorted((folder / "runs").glob("*/results.json"))
    return {file.parent.name: json.loads(file.read_text("utf-8"))["digest"]["results"] for file in found}


@contextmanager
def two_nodes() -> Iterator[str]:
    """A Ray cluster of two nodes on this machine, each with one core; its address."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    os.environ.update(RAY_worker_niceness="0")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="sr-", dir="/tmp")
    head = {"num_cpus": 1, "temp_dir": folder, "include_dashboard": False}
    Path("/tmp/ray").mkdir(exist_ok=True)  # where it notes its address
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def equal(folder: Path, executors: Sequence[str], out: dict) -> None:
    """Run the study by each executor, and show digests and times."""
    workers, times = ("--workers", "2", "--threads", "1"), {}
    times["in process"] = ran(command(folder, "in process"))
    if "processes" in executors:
        times["2 processes"] = ran(command(folder, "2 processes", *workers))
    if "ray" in executors:
        with two_nodes() as address:
            more = (*workers, "--executor", "ray", "--address", address)
            times["2 Ray nodes"] = ran(command(folder, "2 Ray nodes", *more))
    if "shards" in executors:
        parts = [command(folder, "4 parts", "--shard", f"{k}/4") for k in range(1, 5)]
        seconds = sum(ran(part) for part in parts)
        merge = [sys.executable, "-m", "segradius", "merge", *sorted(map(str, (folder / "4 parts").glob("shard-*")))]
        times["4 parts"] = seconds + ran([*merge, "--out", str(folder / "4 parts")])
    found = {name: digests(folder / name) for name in times}
    table = Table("executor", "seconds", "measurements", "digests as in process", title="One study")
    for name, seconds in times.items():
        same = sum(found[name].get(each) == digest for each, digest in found["in process"].items())
        table.add_row(name, f"{seconds:.1f}", str(len(found[name])), f"{same} of {len(found['in process'])}")
    Console().print(table)
    out |= {"seconds": times, "digests": found}


def efficiency(folder: Path, out: dict) -> None:
    """Two halves by themselves against two workers."""
    halves = ran(*(command(folder, "halves", "--shard", f"{k}/2") for k in (1, 2)))
    workers = ran(command(folder, "workers", "--workers", "2", "--threads", "1"))
    print(f"two halves by themselves {halves:.1f} s, two workers {workers:.1f} s: efficiency {halves / workers:.3f}")
    out |= {"halves": halves, "workers": workers, "efficiency": halves / workers}


def main(
    steps: int = 20,
    n: int = 1000,
    images: int = 24,
    size: str = "60x80",
    quick_steps: int = 2,
    quick_n: int = 60,
    executors: str = "processes,ray,shards",
    out: str | None = None,
) -> None:
    """Compare executors.

    Args:
        steps: Of the attacks that are timed.
        n: Noisy copies of the certification that is timed.
        images: Of the attacks.
        size: Of the images.
        quick_steps: Of the attacks whose digests are compared; 0 leaves that out.
        quick_n: Noisy copies likewise.
        executors: Which, beside in process.
        out: JSON file for the figures.
    """
    found: dict = {"load": os.getloadavg()[0]}
    folder = Path(tempfile.mkdtemp(prefix="executors-"))
    try:
        if quick_steps:
            (folder / "study.yaml").write_text(yaml.safe_dump(study(quick_steps, quick_n, images, size)))
            equal(folder, executors.split(","), found)
        if steps:
            (folder / "study.yaml").write_text(yaml.safe_dump(study(steps, n, images, size)))
            efficiency(folder, found)
    finally:
        shutil.rmtree(folder)
    if out:
        Path(out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    auto_cli(main)
