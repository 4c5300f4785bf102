"""What the paper's networks cost on a CPU: parameters, seconds and memory of one image, forward and backward.

    python benchmarks/networks.py
    python benchmarks/networks.py --names '[psp50, psa50]' --repeats 5

Each row is measured in a process of its own, so that its peak of resident memory (interpreter and torch included) is
its own, and shown when it is there. Threads are torch's, as OMP_NUM_THREADS sets them; where others use the machine,
one thread and ``--clock cpu`` disturb the times least. Weights are random, parameters frozen, memory channels_last.
"""

from __future__ import annotations

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from segradius.models.networks import HRNetOCR, PSANet, PSPNet
from segradius.models.networks.hrnet_ocr import LIGHT

# Name to network, height and width.
CASES: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "psp50": (lambda: PSPNet(21), 473, 473),
    "psa50": (lambda: PSANet(150), 473, 473),
    "psa50-compact": (lambda: PSANet(150, compact=True, mask=(30, 30)), 473, 473),
    "hrnet48": (lambda: HRNetOCR(19), 512, 1024),
    "psp-light": (lambda: PSPNet(11, layers=18, width=32), 240, 320),
    "psa-light": (lambda: PSANet(11, layers=18, width=32, mask=(29, 39)), 240, 320),
    "hrnet-light": (lambda: HRNetOCR(11, **LIGHT), 240, 320),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
LINE = "{:14}{:>10}{:>12}{:>12}{:>12}{:>8}{:>12}"
PER_MEBIBYTE = 2**20 if platform.system() == "Darwin" else 2**10  # units of ru_maxrss: bytes there, KiB on Linux


@dataclass(frozen=True)
class Row:
    """One network's cost.

    Attributes:
        name: The case.
        size: Height and width of the image.
        parameters: Parameters without the auxiliary heads that only training runs.
        forward: Median seconds of a forward pass without gradients.
        both: Median seconds of a forward pass and the gradient of the logits' sum in the image.
        peak_forward: Peak of resident memory after the forward passes, MiB.
        peak_both: The same after the gradients, MiB.
    """

    name: str
    size: tuple[int, int]
    parameters: int
    forward: float
    both: float
    peak_forward: float
    peak_both: float


def networks(
    names: list[str] | None = None,
    repeats: int = 3,
    clock: Literal["wall", "cpu"] = "wall",
    row: str | None = None,
) -> None:
    """Measure the networks and print a table.

    Args:
        names: Cases; all when None.
        repeats: Timed passes a case, after one that warms up.
        clock: Wall time, or the process's CPU time.
        row: Measure this one here and print it as JSON, which is how the table gets its rows.
    """
    if row is not None:
        print(json.dumps(asdict(measured(row, repeats, CLOCKS[clock]))))
        return
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {clock} time, median of {repeats}; peaks in MiB"
    )
    print(LINE.format("", "size", "parameters", "forward", "+ gradient", "peak", "+ gradient"))
    for name in names or CASES:
        r = in_own_process(name, repeats, clock)
        size, millions = "x".join(map(str, r.size)), f"{r.parameters / 1e6:.2f} M"
        times = f"{r.forward:.3f} s", f"{r.both:.3f} s"
        print(LINE.format(r.name, size, millions, *times, f"{r.peak_forward:.0f}", f"{r.peak_both:.0f}"), flush=True)


def in_own_process(name: str, repeats: int, clock: str) -> Row:
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--row",
        name,
        "--repeats",
        str(repeats),
        "--clock",
        clock,
    ]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Row(**json.loads(printed))


def measured(name: str, repeats: int, clock: Callable[[], float]) -> Row:
    make, height, width = CASES[name]
    network = make().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        forward = seconds(lambda: network(image)["out"], repeats, clock)
    peak_forward = peak()
    image.requires_grad_()
    both = seconds(lambda: gradient(network, image), repeats, clock)
    return Row(name, (height, width), parameters(network), forward, both, peak_forward, peak())


def gradient(network: nn.Module, image: Tensor) -> Tensor:
    return torch.autograd.grad(network(image)["out"].sum(), image)[0]


def parameters(network: nn.Module) -> int:
    only_training = tuple(network.OPTIONAL)
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith(only_training))


def seconds(action: Callable[[], Tensor], repeats: int, clock: Callable[[], float]) -> float:
    action()
    taken = []
    for _ in range(repeats):
        start = clock()
        action()
        taken.append(clock() - start)
    return statistics.median(taken)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MEBIBYTE


if __name__ == "__main__":
    auto_cli(networks)
