"""What attacks hold in memory, over what the network's own forward and backward pass holds.

    python benchmarks/memory.py --size 1024x2048
    python benchmarks/memory.py --size 512x1024 --only linf --out memory.json

Each row is a process of its own, forked before PyTorch does anything; its memory is the peak of resident memory above
what there was after a call on a tiny image. glibc is told to give freed memory back at once, as what it keeps depends
on the order of all that came before (``--allocator usual`` leaves it alone). ``coarse`` is a small network that works
at an eighth of the size and brings 19 classes to it, so that the logits are most of what a pass holds; ``demo`` is the
one that comes with the package, which works at full size. At 1024x2048 no row takes two gigabytes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.core import text

STEPS = 3
BARE = "forward + backward"
EPS = {"l1": 750.0, "l2": 1.5, "linf": 0.004}
#: Attack and norm, with options; the first is the bare pass, with mean cross-entropy.
WORKS: dict[str, dict[str, object]] = {
    BARE: {},
    "pgd linf": {},
    "pgd l2": {},
    "pgd l1": {},
    "apgd linf": {},
    "flip_pgd l2": {},
    "cr_pgd linf": {"samples": 4, "every": 2},
}


class Coarse(nn.Module):
    """Logits at an eighth of the size, brought to it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 64, 8, 8), nn.ReLU(), nn.Conv2d(64, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), x.shape[2:], mode="bilinear", align_corners=False)


MODELS: dict[str, Callable[[], sr.Segmenter]] = {
    "coarse": lambda: sr.wrap(Coarse(19), num_classes=19, name="coarse"),
    "demo": lambda: sr.load_model("demo"),
}


@dataclass(frozen=True)
class Row:
    """The peak of one process above what it had, in MiB, and over that of the bare pass."""

    model: str
    work: str
    peak: float
    ratio: float


def do(model: sr.Segmenter, work: str, height: int, width: int) -> None:
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(model.num_classes, (1, height, width), generator=torch.Generator().manual_seed(1))
    if work == BARE:
        for _ in range(STEPS):
            leaf = images.detach().requires_grad_()
            torch.autograd.grad(functional.cross_entropy(model.logits(leaf), labels), leaf)
        return
    name, norm = work.split()
    sr.make_attack(name, norm=norm, eps=EPS[norm], steps=STEPS, **WORKS[work])(model, images, labels)


def peak(name: str, work: str, height: int, width: int) -> float:
    """MiB, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MODELS[name]()
    with model.frozen():
        do(model, work, 32, 32)
        before = resident()
        do(model, work, height, width)
    return resident() - before


def resident() -> float:
    """The largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(*what: object) -> float:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(peak, what)


def memory(
    size: str = "512x1024",
    models: str = "coarse,demo",
    only: str = "",
    allocator: Literal["prompt", "usual"] = "prompt",
    out: Path | None = None,
) -> None:
    """Measure the peaks and print a table.

    Args:
        size: HEIGHTxWIDTH of the one image.
        models: Of coarse and demo (commas between them).
        only: Leave out attacks whose name does not hold one of these texts (commas between them).
        allocator: ``prompt`` has glibc give back what is freed; ``usual`` is how it comes.
        out: JSON file to write.
    """
    if allocator == "prompt" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
    height, width = text.size(size) or (512, 1024)
    works = [work for work in WORKS if work == BARE or any(part in work for part in only.split(","))]
    rows: list[Row] = []
    for name in models.split(","):
        peaks = {work: in_own_process(name, work, height, width) for work in works}
        rows += [Row(name, work, found, found / peaks[BARE]) for work, found in peaks.items()]
    table = Table("network", "", "peak, MiB", "ratio")
    for row in rows:
        table.add_row(row.model, row.work, f"{row.peak:.0f}", f"{row.ratio:.2f}")
    Console().print(table)
    if out is not None:
        facts = {"size": size, "allocator": allocator, "torch": torch.__version__}
        out.write_text(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    auto_cli(memory)
