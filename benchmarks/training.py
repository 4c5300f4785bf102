"""What a training step and an attack step cost beyond their passes through the network.

    python benchmarks/training.py
    python benchmarks/training.py --model pspnet50 --size 473x473 --batch 8 --device cuda --variants plain,bf16,compile

Every variant is timed in interleaved rounds with a plain PyTorch loop on the same network and batch: forward,
cross-entropy of the main and auxiliary heads, backward, optimiser. Figures are medians of the rounds; "over passes" is
the time over that of the plain passes which the step consists of, in the same round.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from segradius.core import text
from segradius.data import Classes, Sample
from segradius.models import Segmenter, load_model
from segradius.training import Augmentation, Engine, Job, Lesson, Optimiser, Recipe, make_adversary
from segradius.training.fit import _prepare, _step
from segradius.training.process import Process

VARIANTS = ("plain", "channels_last", "bf16", "compile")
DEFENCES = {"none": {}, "fast_adt": {}, "pgd_at": {"steps": 3}}


@dataclass(frozen=True)
class Noise:
    """A data set of random pixels, of which only the classes and the length are asked here."""

    classes: Classes
    ids: Sequence[str]
    name: str = "noise"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError


@dataclass(frozen=True)
class Case:
    """A network ready to be trained, and a batch."""

    process: Process
    lesson: Lesson

    def step(self) -> None:
        """One step of the trainer."""
        _step(self.process, self.lesson, 0)

    def passes(self, count: int) -> None:
        """The passes of such a step in a plain loop: ``count`` to the image, then one to the parameters."""
        model, loss = self.process.job.model, self.process.job.recipe.loss
        with self.process.fabric.autocast():
            for _ in range(count):
                images = self.lesson.images.clone().requires_grad_()
                with model.frozen():
                    torch.autograd.grad(loss(model.logits(images), self.lesson.labels), images)
        self.process.learner.train()
        self.process.fabric.backward(loss(self.process.learner(self.lesson.images), self.lesson.labels))
        self.process.optimiser.step()
        self.process.optimiser.zero_grad()


def prepare(model: str, size: tuple[int, int], batch: int, device: str, variant: str, defence: str) -> Case:
    """A case of one variant and defence."""
    torch.manual_seed(0)
    network: Segmenter = load_model(model)
    classes = Classes(tuple(map(str, range(network.num_classes))), ((0, 0, 0),) * network.num_classes)
    data = Noise(classes, [str(i) for i in range(batch)])
    recipe = Recipe(
        epochs=10**6,
        batch_size=batch,
        optimiser=Optimiser("sgd", lr=1e-6),
        augmentation=Augmentation.none(),
        adversary=make_adversary(defence, **DEFENCES[defence]),
        precision="bf16" if variant == "bf16" else "32",
    )
    engine = Engine("cuda" if device == "cuda" else "cpu", log_every=10**9)
    job = Job(network, data, data, recipe, Path(tempfile.mkdtemp()), engine=engine, quiet=True)
    process = _prepare(engine.fabric("bf16-mixed" if variant == "bf16" else "32-true"), job)
    if variant == "channels_last":
        process.network.to(memory_format=torch.channels_last)
    if variant == "compile":
        process.network.compile()
    images = torch.rand(batch, 3, *size)
    labels = torch.randint(network.num_classes, (batch, *size))
    return Case(process, Lesson(images, labels, data.ids).to(process.device))


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds of one call, the device's work included."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main(
    model: str = "pspnet_light,num_classes=11",
    size: str = "160x224",
    batch: int = 8,
    device: str = "cpu",
    rounds: int = 5,
    variants: str = "plain",
    defences: str = "none,fast_adt,pgd_at",
) -> None:
    """Time training steps.

    Args:
        model: As ``segradius train`` takes it.
        size: Height x width of the crops.
        batch: Images in a step.
        device: cpu or cuda.
        rounds: How often each is timed, after one round that is not counted.
        variants: Of plain, channels_last (parameters), bf16 and compile.
        defences: Of none, fast_adt and pgd_at (3 steps).
    """
    height_width = text.size(size) or (160, 224)
    columns = ("variant", "defence", "ms a step", "ms of its passes", "over passes", "images/s")
    table = Table(*columns, title=f"{model}, {size}, batch {batch}, {device}, {os.cpu_count()} cores")
    for variant in text.names(variants):
        for defence in text.names(defences):
            case = prepare(model, height_width, batch, device, variant, defence)
            count = {"none": 0, "fast_adt": 1, "pgd_at": 3}[defence]
            pairs = [(timed(case.step, device), timed(partial(case.passes, count), device)) for _ in range(rounds + 1)]
            steps, passes = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
            ratio = statistics.median(step / own for step, own in pairs[1:])
            cells = (f"{1e3 * steps:.0f}", f"{1e3 * passes:.0f}", f"{ratio:.3f}", f"{batch / steps:.1f}")
            table.add_row(variant, defence, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
