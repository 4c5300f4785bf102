"""Where the time of an attack's step goes, beside the network: its operators, by processor time.

    python benchmarks/steps.py
    python benchmarks/steps.py --images 1x19x512x1024 --attack flip_pgd --norm l2

The network is replaced by one that gives the same logits and the same gradient each time, at no cost, so that what is
left is the loop; beside it stands what every loop must do, mean cross-entropy forward and backward. Behind a real
network's pass the loop finds colder caches, and costs somewhat more: ``overhead.py`` measures that. One thread; an
operator's times are added over the shapes of its inputs, and are those of the wall, which a busy machine inflates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate
from torch.profiler import ProfilerActivity, profile

import segradius as sr

EPS = {"l1": 750.0, "l2": 1.5, "linf": 0.004}


class _Still(torch.autograd.Function):
    """Logits and gradient that are there already."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return logits.repeat(len(images) // len(logits), 1, 1, 1) if len(images) > len(logits) else logits.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient, None, None


def stood_in(images: int, classes: int, height: int, width: int) -> tuple[sr.Segmenter, Tensor, Tensor]:
    """A model without cost, and what it is attacked on: smooth logits of blocks, a gradient of noise."""
    g = torch.Generator().manual_seed(0)
    coarse = 3 * torch.randn(images, classes, height // 8, width // 8, generator=g)
    logits = interpolate(coarse, (height, width), mode="bilinear")
    gradient = 1e-6 * torch.randn(images, 3, height, width, generator=g)
    model = sr.wrap(lambda x: _Still.apply(x, logits, gradient), num_classes=classes)
    labels = logits.argmax(1)
    labels[:, :8] = 255
    return model, torch.rand(images, 3, height, width, generator=g), labels


def bare(model: sr.Segmenter, images: Tensor, labels: Tensor, steps: int) -> None:
    theirs = labels.masked_fill(labels == 255, -100)
    for _ in range(steps):
        leaf = images.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(model.logits(leaf), theirs), leaf)


def by_operator(run: Callable[[], object], steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Milliseconds and calls of a step, by operator, most first; of each operator the fastest round."""
    found: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            run()
        for event in seen.key_averages():
            name, spent = event.key.removeprefix("aten::"), event.self_cpu_time_total / 1000 / steps
            if name != event.key:
                found[name] = (min(spent, found.get(name, (spent, 0))[0]), event.count / steps)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def fastest(run: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times) * 1000


def table(title: str, found: dict[str, tuple[float, float]], rows: int) -> Table:
    made = Table("operator", "ms", "calls", title=title)
    for name, (spent, calls) in list(found.items())[:rows]:
        made.add_row(name, f"{spent:.2f}", f"{calls:.1f}")
    return made


def steps(
    images: str = "4x8x192x256",
    attack: str = "pgd",
    norm: str = "linf",
    steps: int = 20,
    rounds: int = 7,
    rows: int = 14,
    out: Path | None = None,
) -> None:
    """Profile the loop of an attack.

    Args:
        images: IMAGESxCLASSESxHEIGHTxWIDTH; the demo network's as it comes.
        attack: Name of a white-box attack.
        norm: l1, l2 or linf.
        steps: T, over which the attack's beginning and verdict are spread.
        rounds: Of which the fastest counts.
        rows: Operators that are shown.
        out: JSON file to write.
    """
    torch.set_num_threads(1)
    count, classes, height, width = map(int, images.split("x"))
    model, x, y = stood_in(count, classes, height, width)
    made = sr.make_attack(attack, norm=norm, eps=EPS[norm], steps=steps)
    runs = {"mean cross-entropy": lambda: bare(model, x, y, steps), f"{attack} {norm}": lambda: made(model, x, y)}
    console, facts = Console(width=100), dict[str, Any]()
    for name, run in runs.items():
        run()
        found, spent = by_operator(run, steps, rounds), fastest(run, rounds) / steps
        console.print(table(f"{name}: {spent:.2f} ms a step", found, rows))
        facts[name] = {"ms": spent, "operators": found}
    if out is not None:
        out.write_text(json.dumps({"images": images, "steps": steps, "torch": torch.__version__, **facts}) + "\n")


if __name__ == "__main__":
    auto_cli(steps)
