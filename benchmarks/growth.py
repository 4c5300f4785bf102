"""How time and memory of attacks and certificates grow: with images, pixels, steps, noisy copies and classes.

    python benchmarks/growth.py --out growth.json
    python benchmarks/growth.py --axes size,classes --works pgd,certify

Each point is a process of its own, forked before PyTorch does anything. Its time is the processor's, with one thread,
after a call on a tiny image; its memory is the peak of resident memory above what there was before. The network is
small and coarse, so that the work around it shows; bare passes (forward, mean cross-entropy, input gradient) stand
beside, as they may grow worse than linearly by themselves, where a cache gets too small or the system begins to take
freed memory back. Bare ``looks`` stand beside ``double_masking`` in the same way. A slope is that of log cost over log
size, 1 for what grows with it, 0 for what does not; the first is over all points, the other over the last two, where
constant parts matter least. The whole takes eight minutes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.attacks import make_attack
from segradius.certification import FILLS, Noise, Sampling, SegCertify, covering, look, looks_needed, vote
from segradius.core import text

#: Of which an axis is one, by its values; size is that of the longer side, and time is over pixels.
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 8, 32),
    "size": (128, 256, 512, 1024, 2048),
    "steps": (10, 30, 100),
    "samples": (1, 4, 16, 64),
    "classes": (2, 10, 40, 150),
    "masks": (4, 9, 16, 36),
}
#: Growth beyond which a row is marked: a cache that gets too small explains less.
STEEP = 1.15
FLOOR = 4.0  # MiB of memory that are no measurement


@dataclass(frozen=True)
class Case:
    """What is done.

    Args:
        batch: Images; copies in a pass of a certificate, which is of one image at a time.
        size: Side of a square image; of 2048 the height is half.
        steps: T; twice as many queries, or noisy copies of a certificate.
        samples: M of the radius, found anew at every fifth step.
        classes: C.
        masks: k, a square number, of a certificate against patches.
    """

    batch: int = 2
    size: int = 192
    steps: int = 10
    samples: int = 8
    classes: int = 19
    masks: int = 9

    @property
    def height(self) -> int:
        """2048 is the width of a street of Cityscapes."""
        return self.size // 2 if self.size == 2048 else self.size


class Coarse(nn.Module):
    """Logits at a quarter of the size, brought to it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), x.shape[2:], mode="bilinear", align_corners=False)


Work = Callable[[sr.Segmenter, Tensor, Tensor, Case], object]


def passes(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> None:
    for _ in range(case.steps):
        leaf = images.detach().requires_grad_()
        torch.autograd.grad(functional.cross_entropy(model.logits(leaf), labels), leaf)


def pgd(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> object:
    return make_attack("pgd", norm="l2", eps=1.5, steps=case.steps)(model, images, labels)


def cr_pgd(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> object:
    made = make_attack("cr_pgd", norm="l2", eps=1.5, steps=case.steps, samples=case.samples, every=5)
    return made(model, images, labels)


def local_search(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> object:
    return make_attack("local_search", norm="linf", eps=0.05, queries=2 * case.steps)(model, images, labels)


def certify(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> object:
    copies = max(2 * case.steps, 32)
    sampling = Sampling(Noise(0.1), 2, copies - 2, together=len(images))
    return SegCertify()(vote(model.top_class, images[0], case.classes, sampling, sr.Randomness(0, ("image",))))


def looks(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> None:
    for _ in range(looks_needed(case.masks) // 5):
        model.top_class(images[:1].expand(5, -1, -1, -1))


def double_masking(model: sr.Segmenter, images: Tensor, labels: Tensor, case: Case) -> object:
    side, each = max(images.shape[2] // 10, 1), math.isqrt(case.masks)
    masks = covering(side, *images.shape[2:], each, each)
    return look(model.top_class, images[0], case.classes, masks, FILLS["pyramid"], together=5)


WORKS: dict[str, Work] = {
    "passes": passes,
    "pgd": pgd,
    "cr_pgd": cr_pgd,
    "local_search": local_search,
    "certify": certify,
    "looks": looks,
    "double_masking": double_masking,
}


@dataclass(frozen=True)
class Point:
    """What one process found: seconds, and MiB at its peak beyond what it had."""

    seconds: float
    memory: float


@dataclass(frozen=True)
class Row:
    """How one work grows along one axis; slopes as the head of this file says, of memory None where there is little."""

    axis: str
    work: str
    values: tuple[int, ...]
    points: tuple[Point, ...]
    time: tuple[float, float]
    memory: tuple[float, float] | None


def measured(work: str, case: Case, device: str) -> Point:
    """In this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = sr.wrap(Coarse(case.classes).to(device), num_classes=case.classes)
    run, tick = WORKS[work], time.process_time if device == "cpu" else time.perf_counter
    run(model, *_inputs(replace(case, batch=1, size=16, steps=2), device), replace(case, batch=1, steps=2, samples=1))
    images, labels = _inputs(case, device)
    before, started, times = _peak(device), tick(), list[float]()
    while not times or (len(times) < 5 and tick() - started < 1):
        begun = tick()
        run(model, images, labels, case)
        _peak(device)  # which waits for an accelerator
        times.append(tick() - begun)
    return Point(min(times), max(_peak(device) - before, 0.0))


def _inputs(case: Case, device: str) -> tuple[Tensor, Tensor]:
    shape = case.batch, case.height, case.size
    return torch.rand(shape[0], 3, *shape[1:], device=device), torch.randint(case.classes, shape, device=device)


def _peak(device: str) -> float:
    """MiB."""
    if device != "cpu":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(work: str, case: Case, device: str) -> Point:
    with multiprocessing.get_context("fork").Pool(1) as pool:  # so that PyTorch is imported once
        return pool.apply(measured, (work, case, device))


def slopes(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Of log cost over log size: the least squares over all points, and of the last two."""
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    middle, level = sum(x) / len(x), sum(y) / len(y)
    fit = sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)
    return fit, (y[-1] - y[-2]) / (x[-1] - x[-2])


def row(axis: str, work: str, device: str) -> Row:
    values = AXES[axis]
    cases = [replace(Case(), **{axis: value} | ({"batch": 1} if axis == "size" else {})) for value in values]
    points = [in_own_process(work, case, device) for case in cases]
    sizes = [case.height * case.size for case in cases] if axis == "size" else values
    some = [(size, point.memory) for size, point in zip(sizes, points, strict=True) if point.memory > FLOOR]
    memory = slopes(*zip(*some, strict=True)) if len(some) > 1 else None
    return Row(axis, work, values, tuple(points), slopes(sizes, [point.seconds for point in points]), memory)


def growth(axes: str = "", works: str = "", device: str = "cpu", out: Path | None = None) -> None:
    """Measure how costs grow and print a table of slopes.

    Args:
        axes: Of batch, size, steps, samples, classes, masks (commas between them); all when empty.
        works: Of passes, pgd, cr_pgd, local_search, certify, looks, double_masking; all when empty.
        device: As ``cpu`` or ``cuda``.
        out: JSON file to write.
    """
    rows = []
    print("| axis | from … to | work | seconds | MiB | time grows by | memory grows by | |")
    print("|:--|--:|:--|--:|--:|--:|--:|:--|")
    for axis in text.names(axes) if axes else AXES:
        for work in text.names(works) if works else WORKS:
            if not _grows(work, axis):
                continue
            found = row(axis, work, device)
            rows.append(found)
            print(_line(found), flush=True)
    if out is not None:
        out.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n", encoding="utf-8")


def _grows(work: str, axis: str) -> bool:
    """Whether an axis is anything to a work."""
    if work in ("looks", "double_masking"):
        return axis in ("size", "classes", "masks")
    return axis != "masks" and (axis != "samples" or work == "cr_pgd")


def _line(found: Row) -> str:
    seconds = " … ".join(f"{point.seconds:.2f}" for point in (found.points[0], found.points[-1]))
    memory = " … ".join(f"{point.memory:.0f}" for point in (found.points[0], found.points[-1]))
    grows = ["{:.2f}, {:.2f}".format(*each) if each else "" for each in (found.time, found.memory)]
    steep = max(*found.time, *(found.memory or (0,))) > STEEP
    ends = f"{found.values[0]} … {found.values[-1]}"
    return f"| {' | '.join([found.axis, ends, found.work, seconds, memory, *grows, 'steep' if steep else ''])} |"


if __name__ == "__main__":
    auto_cli(growth, as_positional=False)
