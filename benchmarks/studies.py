"""One study by every way to run it: in this process, by workers, and as parts that are merged. Are the results equal?

    python benchmarks/studies.py
    python benchmarks/studies.py --routes "in process,2 processes,4 parts" --images 24 --certified 6 --size 48x64

Two networks (the demo network, and itself in bfloat16), three attacks, two budgets, and certificates of the first
images; every way is the command line in processes of its own, into a folder of its own. Prints the digest of each
measurement's results by each way, which has nine digits of all numbers, and how long it took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from segradius.core import text
from segradius.evaluation import run_folders

#: How the study is run into a folder, by what that is called.
ROUTES: dict[str, Callable[[Path, Path], None]] = {}


def study(images: int, certified: int, size: str, steps: int) -> dict[str, object]:
    """What is measured."""
    return {
        "models": {"demo": "demo", "half": {"model": "demo", "dtype": "bfloat16"}},
        "data": {"scenes": {"data": f"scenes:{size}", "limit": images}},
        "budgets": {"eps": "l2=0.5,1.5"},
        "attacks": {"pgd": {"steps": steps}, "cr_pgd": {"steps": steps, "samples": 4}, "segpgd": {"steps": steps}},
        "certify": {"sigma": 0.1, "n0": 20, "n": 100, "limit": certified, "attack": "pgd", "steps": 2,
                    "check_copies": 50},
    }  # fmt: skip


def segradius(*words: str | Path) -> None:
    """A command, in a process of its own."""
    command = [sys.executable, "-m", "segradius", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")


def run(file: Path, out: Path, *more: str) -> None:
    """The study, with one image in two batches whatever the way."""
    segradius("run", file, "--out", out, "--device", "cpu", "--batch-size", "4", "--figures", "0", *more)


def in_process(file: Path, out: Path) -> None:
    """By the command itself."""
    run(file, out)


def two_processes(file: Path, out: Path) -> None:
    """By two workers of this machine."""
    run(file, out, "--workers", "2", "--threads", "1")


def ray(file: Path, out: Path) -> None:
    """By two actors of a Ray cluster that is started for it."""
    run(file, out, "--workers", "2", "--threads", "1", "--executor", "ray")


def four_parts(file: Path, out: Path) -> None:
    """By four commands, each with its part of the images, the last first; then merged."""
    for part in (4, 3, 2, 1):
        run(file, out, "--shard", f"{part}/4")
    parts = sorted(out.glob("shard-*"))
    segradius("merge", *parts, "--out", out, "--device", "cpu", "--figures", "0")


ROUTES |= {"in process": in_process, "2 processes": two_processes, "ray": ray, "4 parts": four_parts}


def digests(out: Path) -> dict[str, str]:
    """Of the results of each measurement."""
    return {
        each.name: str(json.loads((each.path / "results.json").read_text())["digest"]["results"])
        for each in run_folders([out])
    }


def main(
    routes: str | Sequence[str] = "in process,2 processes,4 parts",
    images: int = 24,
    certified: int = 6,
    size: str = "48x64",
    steps: int = 10,
) -> None:
    """Run the study by every way and print the digests.

    Args:
        routes: Ways, commas between them: "in process", "2 processes", "ray", "4 parts".
        images: Under attack.
        certified: Of those.
        size: Of the scenes.
        steps: Of the attacks.
    """
    chosen = text.names(routes)
    text.refuse_unknown("way", chosen, ROUTES)
    found: dict[str, dict[str, str]] = {}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(study(images, certified, size, steps), sort_keys=False))
        for name in chosen:
            begun = time.perf_counter()
            ROUTES[name](file, Path(folder) / name.replace(" ", "-"))
            seconds[name] = time.perf_counter() - begun
            found[name] = digests(Path(folder) / name.replace(" ", "-"))
    table = Table("measurement", *chosen, "equal", title="Digests of the results")
    for measurement in found[chosen[0]]:
        each = [found[name].get(measurement, "missing") for name in chosen]
        table.add_row(measurement, *(digest[:12] for digest in each), "yes" if len(set(each)) == 1 else "NO")
    table.add_row("seconds", *(f"{seconds[name]:.0f}" for name in chosen), "")
    Console(width=140).print(table)


if __name__ == "__main__":
    auto_cli(main)
