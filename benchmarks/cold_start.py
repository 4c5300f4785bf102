"""What a command costs before it does anything: processor time of a fresh process, and what it imports.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --runs 15 --out cold.json

Every row is a process of its own, run in interleaved rounds (A B C A B C …) after one that fills the disk's cache; user
and system time are summed, with one thread, so that a busy machine disturbs them least. ``import torch`` stands beside
as what nothing that runs a network can do without. To compare two versions, run it in a checkout of each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

import segradius

#: Packages that are worth their while only where something of them is used.
HEAVY = ("torch", "scipy.special", "scipy.stats", "scipy.optimize", "sympy", "torchvision", "matplotlib", "PIL")
ATTACK = (
    *("attack", "--model", "demo", "--data", "scenes:48x64", "--limit", "4"),
    *("--attack", "pgd", "--steps", "1", "--eps", "linf=4/255", "--out", "OUT"),
)
CERTIFY = (
    *("certify", "--model", "demo", "--data", "scenes:48x64", "--limit", "4"),
    *("--sigma", "0.1", "--n0", "8", "--n", "52", "--out", "OUT"),
)
TO_THE_FIRST_PASS = f"""
import os
from torch.nn.modules.module import register_module_forward_pre_hook
register_module_forward_pre_hook(lambda *_: os._exit(0))
from segradius.cli import main
main({list(ATTACK)!r})
"""


def command(*words: str) -> list[str]:
    return ["-m", "segradius", *words]


#: What follows the interpreter's name.
CASES: dict[str, list[str]] = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import segradius": ["-c", "import segradius"],
    "segradius --help": command("--help"),
    "segradius attack --help": command("attack", "--help"),
    "segradius list attacks": command("list", "attacks"),
    "import segradius.attacks, .models, .data": ["-c", "import segradius.attacks, segradius.models, segradius.data"],
    "segradius attack, to the first pass": ["-c", TO_THE_FIRST_PASS],
    "segradius attack, one step, no figures": command(*ATTACK, "--figures", "0"),
    "segradius attack, one step": command(*ATTACK),
    "segradius certify, 60 copies": command(*CERTIFY),
}


def processor_seconds(words: list[str]) -> float:
    """User and system time of one process."""
    before = os.times()
    _ran(words)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def imported(words: list[str]) -> list[str]:
    """The heavy packages that it loads."""
    loaded = re.findall(r"^import time:.*\| +(\S+)$", _ran(["-X", "importtime", *words]), re.M)
    # A package that is imported by its name as text is not told, its parts are.
    return [name for name in HEAVY if any(f"{one}.".startswith(f"{name}.") for one in loaded)]


def _ran(words: list[str]) -> str:
    """What a process said on its second stream, in a folder that is removed again."""
    folder = tempfile.mkdtemp()
    try:
        place = [word.replace("OUT", f"{folder}/out") for word in words]
        one = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(Path(segradius.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, *place], capture_output=True, text=True, check=True, env=os.environ | one, cwd=folder
        )
        return done.stderr
    finally:
        shutil.rmtree(folder)


def cold_start(runs: int = 7, only: str = "", out: Path | None = None) -> None:
    """Time fresh processes.

    Args:
        runs: Of each, after one that is not counted.
        only: Leave out rows whose name does not hold this text.
        out: JSON file to write.
    """
    cases = {name: words for name, words in CASES.items() if only in name}
    heavy = {name: imported(words) for name, words in cases.items()}
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, words in cases.items():
            found[name].append(processor_seconds(words))
    table = Table("process", "processor seconds", "least", "most", "imports, of what is heavy")
    for name, each in found.items():
        seconds = (f"{number:.3f}" for number in (statistics.median(each), min(each), max(each)))
        table.add_row(name, *seconds, ", ".join(heavy[name]) or "none")
    console = Console(width=150)
    console.print(f"segradius {segradius.__version__}, Python {sys.version.split()[0]}, median of {runs}, one thread")
    console.print(table)
    if out is not None:
        rows = {name: {"seconds": found[name], "imports": heavy[name]} for name in cases}
        out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    auto_cli(cold_start, as_positional=False)
