"""What an attack costs beyond its forward and backward passes: segradius beside other libraries, in one run.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --model smp:… --weights FILE --data camvid:PATH --size 240x320 --batch 2 --out FILE

With ``--every linf`` it is every attack of the registry that follows gradients, and ``per pass`` is what to look at.

Everybody attacks the same model and batch with T steps, in interleaved rounds (A B C A B C …); every time is divided by
the time of two plain loops of the *same round*: T × (forward, mean cross-entropy, input gradient), and T × forward.
Other libraries (extra ``peers``) are left out, with the reason, where they are absent or refuse label maps.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

import segradius as sr
from segradius.core import text

VOID, THEIR_VOID = 255, -100  # torch's own ignore_index, for losses that are written into a library's loop
EPS = {"l2": 1.5, "linf": 0.004}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
BASELINE, FORWARD = "T × (forward + backward)", "T × forward"


@dataclass(frozen=True)
class Batch:
    """What is attacked."""

    model: sr.Segmenter
    images: Tensor
    labels: Tensor
    steps: int

    @property
    def their_labels(self) -> Tensor:
        return self.labels.masked_fill(self.labels == VOID, THEIR_VOID)


@dataclass
class Passes:
    """Images that went forward and backward through a model."""

    forward: int = 0
    backward: int = 0

    def watch(self, logits: Tensor) -> Tensor:
        self.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


Contender = Callable[[Batch], object]


def plain(batch: Batch) -> None:
    """The baseline: what T steps cannot do without."""
    for _ in range(batch.steps):
        images = batch.images.detach().requires_grad_()
        torch.autograd.grad(cross_entropy(batch.model.logits(images), batch.their_labels), images)


@torch.no_grad()
def forward_only(batch: Batch) -> None:
    for _ in range(batch.steps):
        batch.model.logits(batch.images)


def ours(name: str, norm: str, **options: Any) -> Contender:
    def run(batch: Batch) -> object:
        steps = {} if "steps" in sr.attacks.ATTACKS.facts(name.removeprefix("cr_"))["fixed"] else {"steps": batch.steps}
        attack = sr.make_attack(name, norm=norm, eps=EPS[norm], **steps, **options)
        return attack(batch.model, batch.images, batch.labels, ignore_index=VOID)

    return run


def torchattacks_pgd(norm: str) -> Contender:
    def run(batch: Batch) -> object:
        import torchattacks

        kind = {"l2": torchattacks.PGDL2, "linf": torchattacks.PGD}[norm]
        attack = kind(sr.AsModule(batch.model), EPS[norm], EPS[norm] / batch.steps, batch.steps, random_start=False)
        return attack(batch.images, batch.their_labels)

    return run


def foolbox_pgd(batch: Batch) -> object:
    import eagerpy as ep
    import foolbox

    class OnLabelMaps(foolbox.attacks.LinfPGD):
        def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
            return lambda x: ep.astensor(cross_entropy(model(x).raw, labels.raw))

    model = foolbox.PyTorchModel(sr.AsModule(batch.model).eval(), bounds=(0, 1), device=batch.images.device)
    attack = OnLabelMaps(steps=batch.steps, abs_stepsize=EPS["linf"] / batch.steps, random_start=False)
    return attack.run(model, batch.images, foolbox.criteria.Misclassification(batch.their_labels), epsilon=EPS["linf"])


def adv_lib_asma(batch: Batch) -> object:
    sys.modules.setdefault("visdom", ModuleType("visdom"))  # which plots, and does not build everywhere
    from adv_lib.attacks.segmentation import asma  # its PGD takes no label maps

    return asma(sr.AsModule(batch.model), batch.images, batch.labels, num_steps=batch.steps)


CONTENDERS: dict[str, Contender] = {
    BASELINE: plain,
    FORWARD: forward_only,
    "segradius pgd linf": ours("pgd", "linf"),
    "segradius pgd l2": ours("pgd", "l2"),
    "segradius flip_pgd l2": ours("flip_pgd", "l2"),
    "segradius cr_pgd l2, samples=0": ours("cr_pgd", "l2", samples=0),
    "segradius cr_pgd l2, M=8 INT=8 bfloat16": ours("cr_pgd", "l2", samples=8, every=8, precision="bfloat16"),
    "segradius cr_pgd l2, M=8 INT=8 float32": ours("cr_pgd", "l2", samples=8, every=8),
    "torchattacks PGD linf": torchattacks_pgd("linf"),
    "torchattacks PGDL2": torchattacks_pgd("l2"),
    "foolbox LinfPGD": foolbox_pgd,
    "adv_lib ASMA": adv_lib_asma,
}


def registered(norm: str) -> dict[str, Contender]:
    """The bare loops, and every attack of the registry that follows gradients and is defined for a norm."""
    kinds = sr.attacks.ATTACKS
    named = {f"segradius {name} {norm}": ours(name, norm) for name in kinds if norm in kinds.facts(name)["norms"]}
    return {BASELINE: plain, FORWARD: forward_only, **named}


@dataclass(frozen=True)
class Row:
    """A contender's passes over each image and its time relative to the baseline.

    Attributes:
        name: The contender.
        forward: Forward passes over each image.
        backward: Backward passes over each image.
        seconds: Time of each round.
        ratio: Median over the rounds of its time over the baseline's.
        low: Least of those ratios.
        of_fastest: Its fastest round over the baseline's fastest round.
        per_pass: Median of its time over that of as many passes, bare: backward × (forward + backward) + the rest ×
            forward, in the images' precision.
    """

    name: str
    forward: int
    backward: int
    seconds: tuple[float, ...]
    ratio: float
    low: float
    of_fastest: float
    per_pass: float


def count_passes(contender: Contender, batch: Batch) -> Passes:
    """Passes over each image, from hooks on what the network gives; of ours from the ledger."""
    found = Passes()
    decode = batch.model.decode
    result = contender(replace(batch, model=replace(batch.model, decode=lambda raw: found.watch(decode(raw)))))
    if isinstance(result, sr.attacks.Result):  # one that follows features does not go back through what is hooked
        return Passes(int(result.ledger.forward[0]), int(result.ledger.backward[0]))
    return Passes(found.forward // len(batch.images), found.backward // len(batch.images))


def admit(batch: Batch, contenders: Mapping[str, Contender]) -> tuple[dict[str, Passes], dict[str, str]]:
    """Run each contender once, which also warms up: passes of those that run, and why the others do not."""
    passes: dict[str, Passes] = {}
    refused: dict[str, str] = {}
    for name, contender in contenders.items():
        try:
            passes[name] = count_passes(contender, batch)
        except Exception as error:  # a row has to say why, whatever another library raises
            if name in (BASELINE, FORWARD) or name.startswith("segradius"):
                raise
            refused[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return passes, refused


def timed(contender: Contender, batch: Batch, clock: Callable[[], float]) -> float:
    settle(batch.images.device)
    start = clock()
    contender(batch)
    settle(batch.images.device)
    return clock() - start


def settle(device: torch.device) -> None:
    """Wait until nothing is left in an accelerator's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    batch: Batch,
    contenders: Mapping[str, Contender],
    passes: dict[str, Passes],
    rounds: int,
    clock: Callable[[], float],
) -> list[Row]:
    """Interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name in passes:
            seconds[name].append(timed(contenders[name], batch, clock))
    both, forward = seconds[BASELINE], seconds[FORWARD]
    return [row(name, passes[name], seconds[name], both, forward, batch.steps) for name in passes]


def row(
    name: str, passes: Passes, own: Sequence[float], both: Sequence[float], forward: Sequence[float], steps: int
) -> Row:
    ratios = [mine / base for mine, base in zip(own, both, strict=True)]
    more = passes.forward - passes.backward
    bare = [(passes.backward * b + more * f) / steps for b, f in zip(both, forward, strict=True)]
    per_pass = statistics.median(mine / base for mine, base in zip(own, bare, strict=True))
    middle, fastest = statistics.median(ratios), min(own) / min(both)
    return Row(name, passes.forward, passes.backward, tuple(own), middle, min(ratios), fastest, per_pass)


def show(rows: Sequence[Row], refused: dict[str, str], console: Console) -> None:
    table = Table("", "fwd", "bwd", "seconds", "ratio", "least", "of fastest", "per pass")
    for r in rows:
        numbers = (statistics.median(r.seconds), r.ratio, r.low, r.of_fastest, r.per_pass)
        table.add_row(r.name, str(r.forward), str(r.backward), *(f"{number:.3f}" for number in numbers))
    console.print(table)
    console.print("seconds: median. ratio: median over rounds of time / T × (forward + backward); least: its minimum;")
    console.print("of fastest: fastest round / fastest baseline; per pass: time / that of as many bare passes.")
    for name, reason in refused.items():
        console.print(f"{name} does not run: {reason}", markup=False, highlight=False)


def machine(device: torch.device) -> dict[str, Any]:
    """Where it was measured."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {"python": platform.python_version(), "torch": torch.__version__, "segradius": sr.__version__}
    return {"device": chip, "threads": torch.get_num_threads(), "load_1min": load, **versions}


def overhead(
    model: str = "demo",
    weights: str | None = None,
    data: str = "scenes:192x256",
    size: str | None = None,
    batch: int = 4,
    steps: int = 16,
    rounds: int = 7,
    threads: int | None = None,
    device: str = "cpu",
    clock: Literal["wall", "cpu"] = "wall",
    only: str | None = None,
    every: Literal["l2", "linf"] | None = None,
    out: Path | None = None,
) -> None:
    """Time attacks against their bare passes.

    Args:
        model: As ``segradius attack --model``.
        weights: Checkpoint to load.
        data: As ``segradius attack --data``; the first images of its test part.
        size: HEIGHTxWIDTH to resize to.
        batch: Number of images.
        steps: Steps T.
        rounds: Rounds, after one to warm up.
        threads: Of torch; None leaves its own choice.
        device: As ``cpu`` or ``cuda``.
        clock: ``wall``, or ``cpu`` for the processor time of this process, which a busy machine disturbs less;
            it says something with one thread on a CPU only.
        only: Leave out contenders whose name does not hold one of these texts (commas between them).
        every: Time every attack of the registry that follows gradients in this norm, in the place of the others.
        out: JSON file to write.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    opened = sr.open_data(data, split="test", size=text.size(size), limit=batch)
    samples = [opened[i] for i in range(len(opened))]
    images, labels = (torch.stack(part).to(device) for part in zip(*((s.image, s.label) for s in samples), strict=True))
    task = Batch(sr.load_model(model, weights=weights, device=device), images, labels, steps)
    offered = CONTENDERS if every is None else registered(every)
    asked = (only or "").split(",")
    wanted = {n: c for n, c in offered.items() if n in (BASELINE, FORWARD) or any(o in n for o in asked)}
    with task.model.frozen():
        passes, refused = admit(task, wanted)
        rows = measure(task, wanted, passes, rounds, CLOCKS[clock])
    facts = {
        "model": model,
        "images": list(images.shape),
        "steps": steps,
        "rounds": rounds,
        "clock": clock,
        **machine(images.device),
    }
    console = Console(width=120)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    show(rows, refused, console)
    if out is not None:
        out.write_text(json.dumps({**facts, "rows": [asdict(r) for r in rows], "refused": refused}, indent=1) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    auto_cli(overhead)
