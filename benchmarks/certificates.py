"""What a certificate costs beside the forward passes that it is made of, and how that grows.

    python benchmarks/certificates.py --out certificates.json
    python benchmarks/certificates.py --model card.yaml --height 96 --width 128 --growth false

Each figure is of a process of its own, forked before PyTorch does anything: seconds of the processor with one thread,
and the peak of resident memory above what there was before. ``passes`` are n bare passes, four images at a time, of a
class and its logit for each pixel. A ratio is of the seconds over those of so many bare passes, 1 for a certificate
that costs nothing beside them; of tests of votes that were counted already, the share that they add, with the tables
that they look up kept from the image before. The default network is small and coarse, so that the work around it shows;
ratios with a real network are nearer to 1. Growth is the slope of log seconds, and of log MiB,
over log size between two sizes, 1 for what grows with it.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.certification import (
    FILLS,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    SoftRadii,
    Votes,
    class_worst,
    covering,
    distances,
    look,
    looks_needed,
    turnable,
    vote,
    vote_softly,
)
from segradius.evaluation import confiding

#: Axes of growth: pixels of a square image by its side, classes, noisy copies.
AXES = {"side": (128, 256), "classes": (10, 40), "n": (100, 400)}
N0, TOGETHER, MASKS = 10, 4, 3


@dataclass(frozen=True)
class Case:
    """One image.

    Args:
        height: Pixels.
        width: Pixels.
        classes: C.
        n: Noisy copies that test.
        model: Card of a network; empty for the coarse one.
    """

    height: int = 192
    width: int = 192
    classes: int = 20
    n: int = 200
    model: str = ""


class Coarse(nn.Module):
    """Logits at a quarter of the size, brought to it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), x.shape[2:], mode="bilinear", align_corners=False)


#: From a model, an image and the case to what is timed, which is made before the clock runs.
Work = Callable[[sr.Segmenter, Tensor, Case], Callable[[], object]]


def passes(model: sr.Segmenter, image: Tensor, case: Case, count: int | None = None) -> Callable[[], object]:
    def run() -> None:
        for _ in range(math.ceil((N0 + case.n if count is None else count) / TOGETHER)):
            model.top_class(image.expand(TOGETHER, *image.shape))

    return run


def votes(model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], Votes]:
    sampling = Sampling(Noise(0.1), N0, case.n, TOGETHER)
    return lambda: vote(model.top_class, image, model.num_classes, sampling, sr.Randomness(0, ("image",)))


def tested(test: Callable[[Votes], object], model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    counted = votes(model, image, case)()
    return lambda: test(replace(counted))  # a copy, which remembers nothing


def looked(test: Callable[[Votes], object], model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    counted = votes(model, image, case)()
    return lambda: test(replace(counted, looks=True))


def softly(bound: str, model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    sampling, key = Sampling(Noise(0.1), N0, case.n, TOGETHER), sr.Randomness(0, ("image",))
    how = confiding(model), image, model.num_classes, sampling, key, SoftRadii(0.001, bound)
    return lambda: vote_softly(*how)


def lipschitz(model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    def run() -> Tensor:
        found = distances(model.logits(image[None])[0])
        return turnable(found.turn.square().flatten(), torch.linspace(0, 1, 65).double().square())

    return run


def lipschitz_iou(model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    labels = torch.randint(model.num_classes, image.shape[1:])

    def run() -> None:
        found = distances(model.logits(image[None])[0])
        for c in range(model.num_classes):
            class_worst(found, labels, c, [0.1])

    return run


def double_masking(model: sr.Segmenter, image: Tensor, case: Case) -> Callable[[], object]:
    masks = covering(max(image.shape[1] // 10, 1), *image.shape[1:], MASKS, MASKS)
    return lambda: look(model.top_class, image, model.num_classes, masks, FILLS["pyramid"], together=TOGETHER)


@dataclass(frozen=True)
class Kind:
    """A certificate.

    Attributes:
        work: What is timed.
        beside: Of how many bare passes it is made for a case, of which it is timed with them; 0 for a test of votes
            that are there.
    """

    work: Work
    beside: Callable[[Case], int]


def _counted(case: Case) -> int:
    return N0 + case.n


def _none(case: Case) -> int:
    return 0


KINDS = {
    "votes": Kind(votes, _counted),
    "test: SegCertify, Holm": Kind(partial(tested, SegCertify()), _none),
    "test: fewer than 100 errors": Kind(partial(tested, SegCertify(correction="kfwer", k=100)), _none),
    "test: at any time, Holm": Kind(partial(looked, SegCertify()), _none),
    "test: own radii, one": Kind(partial(tested, PixelRadii()), _none),
    "test: own radii, two": Kind(partial(tested, PixelRadii(form="two")), _none),
    "test: own radii, at any time": Kind(partial(looked, PixelRadii()), _none),
    "votes and betting": Kind(partial(softly, "betting"), _counted),
    "votes and bernstein": Kind(partial(softly, "bernstein"), _counted),
    "votes and hoeffding": Kind(partial(softly, "hoeffding"), _counted),
    "Lipschitz, PixAcc": Kind(lipschitz, lambda case: 1),
    "Lipschitz, IoU of every class": Kind(lipschitz_iou, lambda case: 1),
    "double masking, 9 masks": Kind(double_masking, lambda case: 1 + looks_needed(MASKS**2)),
}


@dataclass(frozen=True)
class Cost:
    """Seconds, those of so many bare passes, and MiB at the peak beyond what there was."""

    seconds: float
    bare: float
    memory: float


def measured(name: str, case: Case) -> Cost:
    """In this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = sr.load_model(case.model) if case.model else sr.wrap(Coarse(case.classes), num_classes=case.classes)
    image, kind = torch.rand(3, case.height, case.width), KINDS[name]
    with torch.no_grad(), model.frozen():
        model.top_class(image.expand(TOGETHER, *image.shape))
        count = kind.beside(case) or _counted(case)
        bare = _timed(passes(model, image, case, count)) * count / (TOGETHER * math.ceil(count / TOGETHER))
        run = kind.work(model, image, case)
        before = _peak()
        seconds = _timed(run)
    return Cost(seconds, bare, max(_peak() - before, 0.0))


def _timed(run: Callable[[], object]) -> float:
    """The least of some times, all together about a fifth of a second."""
    started, times = time.process_time(), list[float]()
    while not times or (len(times) < 5 and time.process_time() - started < 0.2):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return min(times)


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_own_process(name: str, case: Case) -> Cost:
    with multiprocessing.get_context("fork").Pool(1) as pool:  # so that PyTorch is imported once
        return pool.apply(measured, (name, case))


def certificates(
    height: int = 96,
    width: int = 128,
    classes: int = 11,
    n: int = 200,
    model: str = "",
    growth: bool = True,
    out: Path | None = None,
) -> None:
    """Measure every certificate and print a table.

    Args:
        height: Of the image.
        width: Of the image.
        classes: C of the coarse network.
        n: Noisy copies.
        model: Card of a network instead of the coarse one.
        growth: Whether growth with pixels, classes and n is measured too, of the coarse network.
        out: JSON file to write.
    """
    case, rows = Case(height, width, classes, n, model), []
    columns: tuple[str, ...] = (
        "seconds",
        "bare passes",
        "over bare",
        "MiB",
        "seconds grow with pixels",
        "with classes",
        "with n",
    )
    columns += ("MiB grow with pixels", "with classes", "with n")
    print(f"| certificate | {' | '.join(columns)} |\n|:--|{'--:|' * len(columns)}")
    for name, kind in KINDS.items():
        cost = in_own_process(name, case)
        both = {axis: _slopes(name, axis) for axis in AXES} if growth else {}
        slopes = {axis: seconds for axis, (seconds, _) in both.items()}
        held = {axis: None if math.isnan(memory) else memory for axis, (_, memory) in both.items()}
        over = cost.seconds / cost.bare
        told = f"{over:.2f}" if kind.beside(case) else f"+{over:.4f}"
        grown = [f"{slopes[axis]:.2f}" if axis in slopes else "" for axis in AXES]
        grown += ["" if held.get(axis) is None else f"{held[axis]:.2f}" for axis in AXES]
        cells = (name, f"{cost.seconds:.4f}", str(kind.beside(case) or ""), told, f"{cost.memory:.0f}", *grown)
        print(f"| {' | '.join(cells)} |", flush=True)
        rows.append(
            {"name": name, **asdict(cost), "passes": kind.beside(case), "growth": slopes, "memory_growth": held}
        )
    if out is not None:
        facts = {"case": asdict(replace(case, model=Path(model).parent.name)), "rows": rows}
        out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _slopes(name: str, axis: str) -> tuple[float, float]:
    """Of log seconds, and of log memory, over log size between the sizes of an axis; of memory NaN below a MiB."""
    few = replace(Case(), n=50) if axis != "n" else replace(Case(), height=96, width=96)
    ends = []
    for value in AXES[axis]:
        sizes = {"height": value, "width": value} if axis == "side" else {axis: value}
        ends.append(in_own_process(name, replace(few, **sizes)))
    span = math.log((AXES[axis][1] / AXES[axis][0]) ** (2 if axis == "side" else 1))
    memory = [each.memory for each in ends]
    held = math.log(memory[1] / memory[0]) / span if min(memory) >= 1 else math.nan
    return math.log(ends[1].seconds / ends[0].seconds) / span, held


if __name__ == "__main__":
    auto_cli(certificates, as_positional=False)
