"""What a black-box attack costs beside the target's answers: queries a second over the bare rate of the same model.

    python benchmarks/queries.py
    python benchmarks/queries.py --model smp:… --weights FILE --data camvid:PATH --size 240x320 --batch 4 --clock cpu

Attacks and a plain loop of ``scores`` calls on as many images run in interleaved rounds (A B C A B C …); the ratio is
the plain loop's time for the attack's queries over the attack's time, round by round.
"""

from __future__ import annotations

import statistics
import time
from typing import Literal

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor

import segradius as sr
from segradius.core import text

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
EPS = {"l2": 10.0, "linf": 0.05, "l1": 10000.0}


def plain(model: sr.Segmenter, images: Tensor, calls: int) -> None:
    """As many queries of every image, and nothing else; two copies of the batch at a time, as a two-point round."""
    double = torch.cat([images, images])
    for _ in range(calls // 2):
        model.scores(double)


def measure(
    model: str = "demo",
    weights: str | None = None,
    data: str = "scenes:192x256,8",
    size: str | None = None,
    attacks: str = "pbgd,cr_pbgd,local_pbgd,local_search,simba,square",
    norm: str = "linf",
    batch: int = 4,
    queries: int = 33,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    clock: Literal["wall", "cpu"] = "wall",
) -> None:
    """Time attacks against bare answers.

    Args:
        model: As ``segradius attack --model``.
        weights: Checkpoint to load.
        data: As ``segradius attack --data``; the first images of its test part.
        size: HEIGHTxWIDTH to resize to.
        attacks: Names, commas between them.
        norm: Norm of the threat.
        batch: Images at a time.
        queries: Budget of each image.
        rounds: Rounds, after one to warm up.
        threads: Of torch.
        device: As ``cpu`` or ``cuda``.
        precision: Of the network's weights and activations.
        clock: ``wall``, or ``cpu`` for the processor time of this process, with one thread on a busy machine.
    """
    torch.set_num_threads(threads)
    opened = sr.open_data(data, split="test", size=text.size(size), limit=batch)
    samples = [opened[i] for i in range(len(opened))]
    images, labels = (torch.stack(part).to(device) for part in zip(*((s.image, s.label) for s in samples), strict=True))
    network, tick = sr.load_model(model, weights=weights, device=device), CLOCKS[clock]
    network.network.to(getattr(torch, precision))
    ready = {name: sr.make_attack(name, norm=norm, eps=EPS[norm], queries=queries) for name in text.names(attacks)}
    ratios: dict[str, list[float]] = {name: [] for name in ready}
    bare: list[float] = []
    with network.frozen():
        for turn in range(rounds + 1):
            _settle(images)
            start = tick()
            plain(network, images, 32)
            _settle(images)
            each = (tick() - start) / 32
            bare += [each] if turn else []
            for name, attack in ready.items():
                start = tick()
                asked = int(attack(network, images, labels).ledger.forward.max())
                _settle(images)
                ratios[name] += [asked * each / (tick() - start)] if turn else []
    table = Table("attack", "attack's queries a second / bare", "least", "most")
    for name, found in ratios.items():
        table.add_row(name, f"{statistics.median(found):.3f}", f"{min(found):.3f}", f"{max(found):.3f}")
    console = Console(width=110)
    rate = len(images) / statistics.median(bare)
    console.print(f"{model}, {tuple(images.shape)}, {norm}, {precision}, {threads} thread(s), {clock} clock, {device}")
    console.print(f"bare: {rate:.1f} answers a second, median of {rounds} rounds")
    console.print(table)


def _settle(images: Tensor) -> None:
    """Wait until nothing is left in an accelerator's queue."""
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
