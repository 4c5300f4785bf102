"""What certification costs beside the model's own passes, and the most memory that it takes.

    python benchmarks/certification.py time --model smp:… --weights FILE --data camvid:PATH --size 240x320 --clock cpu
    python benchmarks/certification.py memory --n 1000

``time``: votes, tests and radii of one image against as many bare ``logits`` calls on batches of the same size, in
interleaved rounds. ``memory``: the peak resident memory of a process that certifies one large image; the network is a
single convolution at an eighth of the size, so that what is seen is the certificate's.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.certification import Noise, PixelRadii, Sampling, SegCertify, SoftRadii, vote
from segradius.core import text

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(
    model: str = "demo",
    weights: str | None = None,
    data: str = "scenes:192x256,8",
    size: str | None = None,
    n0: int = 20,
    n: int = 200,
    together: int = 4,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    clock: Literal["wall", "cpu"] = "wall",
) -> None:
    """Time certificates against bare passes.

    Args:
        model: As ``segradius certify --model``.
        weights: Checkpoint to load.
        data: As ``segradius certify --data``; the first image of its test part.
        size: HEIGHTxWIDTH to resize to.
        n0: Noisy copies that name the classes.
        n: Noisy copies that test them.
        together: Copies in a pass.
        rounds: Rounds, after one to warm up.
        threads: Of torch.
        device: As ``cpu`` or ``cuda``.
        precision: Of the network's weights and activations.
        clock: ``wall``, or ``cpu`` for the processor time of this process, with one thread on a busy machine.
    """
    torch.set_num_threads(threads)
    image = sr.open_data(data, split="test", size=text.size(size), limit=1)[0].image.to(device)
    network, tick = sr.load_model(model, weights=weights, device=device), CLOCKS[clock]
    network.network.to(getattr(torch, precision))
    sampling, key = Sampling(Noise(0.25), n0, n, together), sr.Randomness(0, ("image",))
    stack = image.expand(together, -1, -1, -1).contiguous()

    def bare() -> None:
        with torch.no_grad():
            for _ in range((n0 + n) // together):
                network.logits(stack)

    def hard() -> None:
        votes = vote(network.top_class, image, network.num_classes, sampling, key)
        SegCertify()(votes), PixelRadii()(votes)

    def soft(bound: str) -> None:
        SoftRadii(bound=bound)(lambda x: network.logits(x).softmax(1), image, network.num_classes, sampling, key)

    ways = {"SegCertify and radii": hard, **{f"soft, {b}": lambda b=b: soft(b) for b in ("hoeffding", "betting")}}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    passes = []
    with network.frozen():
        for turn in range(rounds + 1):
            base = _timed(bare, tick, image)
            passes += [base / (n0 + n)] if turn else []
            for name, way in ways.items():
                ratios[name] += [_timed(way, tick, image) / base] if turn else []
    print(f"{model}, {tuple(image.shape)}, n0 = {n0}, n = {n}, {together} a pass, {precision}, {threads} thread(s)")
    print(f"bare: {1e3 * statistics.median(passes):.1f} ms a copy, {clock} clock, {device}, {rounds} rounds\n")
    print("| certificate | time / bare passes | least | most |\n|:--|--:|--:|--:|")
    for name, found in ratios.items():
        print(f"| {name} | {statistics.median(found):.3f} | {min(found):.3f} | {max(found):.3f} |")


def memory(
    height: int = 1024,
    width: int = 2048,
    classes: int = 19,
    n0: int = 10,
    n: int = 1000,
    together: int = 1,
    whole: bool = False,
) -> None:
    """Certify one large image and say how much memory the process took at its peak.

    Args:
        height: Of the image.
        width: Of the image.
        classes: C.
        n0: Noisy copies that name the classes.
        n: Noisy copies that test them.
        together: Copies in a pass.
        whole: Whether votes are given all logits of a pass, as those of any function are.
    """
    torch.set_num_threads(1)
    started = time.perf_counter()
    network = sr.wrap(_Coarse(classes), num_classes=classes)
    before = _peak()
    sampling = Sampling(Noise(0.25), n0, n, together)
    answer = network.logits if whole else network.top_class
    with network.frozen():
        votes = vote(answer, torch.rand(3, height, width), classes, sampling, sr.Randomness(0, ("image",)))
    sampled = _peak()
    certificate, radii = SegCertify()(votes), PixelRadii(form="two")(votes)
    print(
        f"{height}×{width}, {classes} classes, n = {n}: {before:.2f} GiB before, {sampled:.2f} GiB after sampling, "
        f"{_peak():.2f} GiB at the end; {certificate.abstained:.2f} and {radii.abstained:.2f} abstained; "
        f"{time.perf_counter() - started:.0f} s, {time.process_time():.0f} s of the processor"
    )


class _Coarse(nn.Module):
    """Logits from averages over 8×8 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.avg_pool2d(x, 8))


def _timed(work: Any, tick: Any, image: Tensor) -> float:
    start = tick()
    work()
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return tick() - start


def _peak() -> float:
    """Peak resident memory in GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    auto_cli({"time": measure, "memory": memory}, as_positional=False)
