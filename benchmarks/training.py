"""What a training costs beyond its plain passes through the network: a step, and a whole epoch.

    python benchmarks/training.py steps --out steps.json
    python benchmarks/training.py epoch --data camvid:PATH --images 64 --out epoch.json
    python benchmarks/training.py steps --model pspnet50 --size 473x473 --batch 8 --device cuda --variants plain,fast

Times are of the processor on a CPU, those of processes that read included, and of the clock on a GPU. Every variant is
timed in interleaved rounds with a plain PyTorch loop over the same network and batch, in float32: forward,
cross-entropy of the main and auxiliary heads, backward. Figures are medians of the rounds.

- ``own``: over the plain passes that such a step or epoch consists of: one to the image for FastADT, one to the
  parameters.
- ``clean``: over passes to the parameters alone, twice as many where images are attacked by one step: for FastADT,
  over two clean epochs' passes.

Variants: ``plain``; ``exact`` (weights in channels_last memory, fused
optimiser, attacks on a twin with batch norm folded); ``fast`` (with bfloat16, whether it
pays or not); ``compile``.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from segradius.core import text
from segradius.data import Classes, Sample, SegmentationData, open_data
from segradius.models import load_model
from segradius.training import (
    Augmentation,
    Engine,
    Job,
    Lesson,
    Optimiser,
    Pace,
    Recipe,
    WeightAverage,
    make_adversary,
)
from segradius.training.fit import _evaluate, _kept, _learn, _lessons, _prepare, _save, _step
from segradius.training.process import Process
from segradius.training.recipe import PRECISIONS
from segradius.training.records import Log

#: Options of a defence, and its passes to the image.
DEFENCES: dict[str, tuple[dict[str, Any], int]] = {"none": ({}, 0), "fast_adt": ({}, 1), "pgd_at": ({"steps": 3}, 3)}
EXACT = Pace(channels_last=True, twin=True)
VARIANTS = {
    "plain": ("32", False, Pace()),
    "exact": ("32", True, EXACT),
    "fast": ("bf16", True, EXACT),
    "compile": ("32", True, replace(EXACT, compile=True)),
}


@dataclass(frozen=True)
class Noise:
    """A data set of random pixels."""

    classes: Classes
    ids: Sequence[str]
    size: tuple[int, int]
    name: str = "noise"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        labels = torch.randint(len(self.classes), self.size, generator=generator)
        return Sample(self.ids[index], torch.rand(3, *self.size, generator=generator), labels)


@dataclass(frozen=True)
class Case:
    """A network ready to be trained, and a batch."""

    process: Process
    lesson: Lesson
    attacks: int

    def step(self) -> None:
        """One step of the trainer."""
        _step(self.process, self.lesson, 0)

    def passes(self, attacks: int, learning: int = 1) -> None:
        """Passes in a plain loop: so many to the image, then so many to the parameters; no step is made."""
        model, loss = self.process.job.model, self.process.job.recipe.loss
        for _ in range(attacks):
            images = self.lesson.images.clone().requires_grad_()
            with model.frozen():
                torch.autograd.grad(loss(model.logits(images), self.lesson.labels), images)
        self.process.learner.train()
        for _ in range(learning):
            self.process.fabric.backward(loss(self.process.learner(self.lesson.images), self.lesson.labels))
            self.process.optimiser.zero_grad()


def prepared(model: str, data: SegmentationData, batch: int, variant: str, defence: str, engine: Engine) -> Case:
    """A case of one variant and defence."""
    torch.manual_seed(0)
    (options, attacks), (precision, fused, pace) = DEFENCES[defence], VARIANTS[variant]
    recipe = Recipe(
        epochs=10**6,
        batch_size=batch,
        optimiser=Optimiser("adamw", lr=1e-6, fused=fused),
        augmentation=replace(Augmentation.none(), colour=0.4, flip_p=0.5),
        adversary=make_adversary(defence, **options),
        average=WeightAverage(0.97),
        precision=precision,
        pace=pace,
    )
    job = Job(load_model(model), data, data, recipe, Path(tempfile.mkdtemp()), engine=engine, quiet=True)
    process = _prepare(engine.fabric(PRECISIONS[precision]), job, {})
    for line in process.told:
        print(f"{variant}: {line}")
    first = [data[place] for place in range(batch)]
    images, labels = (torch.stack([getattr(sample, part) for sample in first]) for part in ("image", "label"))
    lesson = Lesson(images, labels, [sample.id for sample in first], 0, data.classes.ignore_index)
    return Case(process, lesson.to(process.device), attacks)


@contextmanager
def timed(device: str, into: list[float]) -> Iterator[None]:
    """A context whose seconds are noted: of all processors on a CPU, of the clock on a GPU."""

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    begun = now()
    yield
    into.append(now() - begun)


def seconds(device: str, work: Callable[[], object]) -> float:
    """Of one call."""
    found: list[float] = []
    with timed(device, found):
        work()
    return found[0]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}


def steps(
    model: str = "pspnet_light,num_classes=11",
    size: str = "240x320",
    batch: int = 8,
    device: str = "cpu",
    rounds: int = 5,
    variants: str = "plain,exact,fast,compile",
    defences: str = "none,fast_adt,pgd_at",
    out: str | None = None,
) -> None:
    """Time training steps on random pixels.

    Args:
        model: As ``segradius train`` takes it.
        size: Height x width.
        batch: Images in a step.
        device: cpu or cuda.
        rounds: How often each is timed, after one round that is not counted.
        variants: Of plain, exact, fast and compile.
        defences: Of none, fast_adt and pgd_at (3 steps).
        out: A JSON file to write.
    """
    height_width = text.size(size) or (240, 320)
    classes_of = load_model(model).num_classes
    classes = Classes(tuple(map(str, range(classes_of))), ((0, 0, 0),) * classes_of)
    data, engine = Noise(classes, [str(i) for i in range(batch)], height_width), Engine(device, log_every=10**6)
    rows = []
    for defence in text.names(defences):
        cases = {variant: prepared(model, data, batch, variant, defence, engine) for variant in text.names(variants)}
        plain = prepared(model, data, batch, "plain", defence, engine)
        found: dict[str, dict[str, list[float]]] = {variant: {"own": [], "clean": [], "ms": []} for variant in cases}
        for turn in range(rounds + 1):
            own = seconds(device, partial(plain.passes, plain.attacks))
            learning = 2 if plain.attacks else 1
            clean = seconds(device, partial(plain.passes, 0, learning)) if plain.attacks else own
            for variant, case in cases.items():
                step = seconds(device, case.step)
                if turn:
                    for name, value in (("own", step / own), ("clean", step / clean), ("ms", 1e3 * step)):
                        found[variant][name].append(value)
        rows += [
            {"defence": defence, "variant": variant, **{name: spread(values) for name, values in figures.items()}}
            for variant, figures in found.items()
        ]
    told(f"a step: {model}, {size}, batch {batch}, {device}", rows, out)


def epoch(
    data: str,
    model: str = "pspnet_light,num_classes=11",
    size: str = "240x320",
    images: int = 64,
    batch: int = 8,
    device: str = "cpu",
    rounds: int = 5,
    variants: str = "plain,exact",
    defences: str = "none,fast_adt",
    workers: int = 0,
    in_memory: bool = False,
    out: str | None = None,
) -> None:
    """Time whole epochs on real images: reading, augmentation, attack, learning, average, logs and a snapshot.

    Args:
        data: As ``segradius train`` takes it.
        model: As ``segradius train`` takes it.
        size: Height x width.
        images: How many are learnt.
        batch: Images in a step.
        device: cpu or cuda.
        rounds: How often each is timed, after one round that is not counted.
        variants: Of plain, exact, fast and compile.
        defences: Of none, fast_adt and pgd_at (3 steps).
        workers: Processes that read.
        in_memory: Read once and keep.
        out: A JSON file to write.
    """
    learnt = open_data(data, split="train", size=text.size(size), limit=images)
    engine = Engine(device, workers=workers, in_memory=in_memory)
    rows = []
    for defence in text.names(defences):
        cases = {variant: prepared(model, learnt, batch, variant, defence, engine) for variant in text.names(variants)}
        plain = prepared(model, learnt, batch, "plain", defence, engine)
        names = ("own", "clean", "reading", "saving", "evaluating", "s")
        found: dict[str, dict[str, list[float]]] = {variant: {name: [] for name in names} for variant in cases}
        kept = _kept(plain.process.job)
        for case in cases.values():
            total, process = 10**6, case.process
            process.log = Log(process.job.folder, 0, total, {}, quiet=True)
        count = len(learnt) // batch
        for turn in range(rounds + 1):
            own = sum(seconds(device, partial(plain.passes, plain.attacks)) for _ in range(count))
            clean = own
            if plain.attacks:
                clean = sum(seconds(device, partial(plain.passes, 0, 2)) for _ in range(count))
            for variant, case in cases.items():
                parts = of_an_epoch(case, kept, turn, device)
                whole = parts["learning"] + parts["saving"]
                values = {"own": whole / own, "clean": whole / clean, "s": whole}
                values |= {name: parts[name] / own for name in ("reading", "saving", "evaluating")}
                for name, value in values.items() if turn else ():
                    found[variant][name].append(value)
        rows += [
            {"defence": defence, "variant": variant, **{name: spread(values) for name, values in figures.items()}}
            for variant, figures in found.items()
        ]
    told(f"an epoch: {model}, {images} images, {size}, batch {batch}, {device}, {workers} workers", rows, out)


def of_an_epoch(case: Case, kept: SegmentationData, number: int, device: str) -> dict[str, float]:
    """Seconds of an epoch, reading included, of its snapshot, and by itself of reading and of an evaluation."""
    found: dict[str, list[float]] = {name: [] for name in ("learning", "saving", "evaluating", "reading")}
    process = case.process
    with timed(device, found["learning"]):
        batches = one_epoch(process, kept, number)
        _learn(process, batches, number)
        batches.close()
    with timed(device, found["saving"]):
        _save(process)
    with timed(device, found["evaluating"]):
        _evaluate(process, number)
    with timed(device, found["reading"]):
        for _ in one_epoch(process, kept, number):
            pass
    return {name: values[0] for name, values in found.items()}


def one_epoch(process: Process, kept: SegmentationData, number: int) -> Any:
    """The lessons of one epoch."""
    recipe = replace(process.job.recipe, epochs=number + 1)
    return _lessons(replace(process, job=replace(process.job, recipe=recipe)), kept, number, 0)


def told(title: str, rows: Sequence[dict[str, Any]], out: str | None) -> None:
    """The figures as a table of medians, and as JSON with their spread."""
    table = Table(*rows[0], title=f"{title}, {torch.get_num_threads()} threads")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value['median']:.3f}" for value in row.values()))
    Console(width=140).print(table)
    if out is not None:
        Path(out).write_text(json.dumps({"title": title, "threads": torch.get_num_threads(), "rows": rows}, indent=1))


if __name__ == "__main__":
    auto_cli([steps, epoch], as_positional=False)
