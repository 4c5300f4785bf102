"""What the fast path saves: every kind of work in every mode, over the eager float32 passes of the same network.

    python benchmarks/fast_path.py --data camvid:PATH --trained FILE --out fast.json
    python benchmarks/fast_path.py --device cuda --size 512x512 --batch 8 --modes plain,exact,fast,compile

Of each network all works in all modes, other libraries and the bare passes run in interleaved rounds (A B C A B C …).
Every time is divided by that of the passes that the *plain* work makes, bare, in the same round: T × (forward, mean
cross-entropy, input gradient), and as many forward passes without gradient as it makes beside; the pass that judges the
end of a white-box attack is not among them, so that with few steps it shows. A FastADT step is compared with two bare
passes of clean training; it needs the mode plain. Networks have random weights by a seed, but the PSPNet of ``trained``
and the demo.

With the defaults it takes a quarter of an hour of one core of a server's processor, half of it with ``--rounds 1``.
``--clock cpu`` is the processor time of this process, for one thread on a busy machine. Other libraries
come with the extra ``peers``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import auto_cli
from overhead import (
    CLOCKS,
    EPS,
    Batch,
    adv_lib_asma,
    foolbox_pgd,
    forward_only,
    machine,
    plain,
    timed,
    torchattacks_pgd,
)
from rich.console import Console
from torch import nn

import segradius as sr
from segradius.certification import Noise, Sampling, SegCertify, vote
from segradius.core import text
from segradius.core.contracts import for_answers
from segradius.speed import Choice, Speed, chosen

TRAINED = "smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11"
NETWORKS = {
    "PSPNet, ResNet-18": TRAINED,
    "light PSPNet": "pspnet_light,num_classes=11",
    "light PSANet": "psanet_light,num_classes=11",
    "light HRNet-OCR": "hrnet_ocr_light,num_classes=11",
    "SegFormer-B0": "fast_path:segformer_b0",
    "demo": "demo",
}
CLASSES = 11
#: By mode the speed, and whether `torch.compile` is tried.
MODES: dict[str, tuple[Speed, bool]] = {
    "plain": ("plain", False),
    "exact": ("exact", False),
    "fast": ("fast", False),
    "compile": ("exact", True),
    "fast-compile": ("fast", True),
}
GOALS = {"plain": 1.03, "exact": 0.85, "fast": 0.55}


def segformer_b0() -> nn.Module:
    """Random weights, as no file is needed to time it."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES))


@dataclass(frozen=True)
class Passes:
    """Of each image."""

    both: int = 0
    forward: int = 0


Work = Callable[[Batch], Passes]


def attack(name: str, norm: str, **options: Any) -> Work:
    """A white-box attack of T steps; a forward pass beside them is one of the radius, or judges."""

    def run(batch: Batch) -> Passes:
        made = sr.make_attack(name, norm=norm, eps=EPS[norm], steps=batch.steps, **options)
        ledger = made(batch.model, batch.images, batch.labels).ledger
        forward, backward = int(ledger.forward[0]), int(ledger.backward[0])
        return Passes(backward, forward - backward - 1)

    return run


def search(batch: Batch) -> Passes:
    """A black-box attack of 2T queries, its last judgement among them."""
    made = sr.make_attack("local_search", norm="linf", eps=0.05, queries=2 * batch.steps)
    return Passes(forward=int(made(batch.model, batch.images, batch.labels).ledger.forward[0]))


def certify(batch: Batch) -> Passes:
    """The votes of 2T noisy copies of each image, and what they certify."""
    sampling = Sampling(Noise(0.1), 4, 2 * batch.steps - 4, together=len(batch.images))
    answer = for_answers(batch.model).top_class
    for number, image in enumerate(batch.images):
        votes = vote(answer, image, batch.model.num_classes, sampling, sr.Randomness(0, (str(number),)))
        SegCertify()(votes)
    return Passes(forward=2 * batch.steps)


WORKS: dict[str, Work] = {
    "pgd linf": attack("pgd", "linf"),
    "pgd l2": attack("pgd", "l2"),
    "flip_pgd l2": attack("flip_pgd", "l2"),
    "cr_pgd l2, M = 8": attack("cr_pgd", "l2", samples=8),
    "local_search": search,
    "certify": certify,
}
PEERS: dict[str, Callable[[Batch], object]] = {
    "torchattacks PGD": torchattacks_pgd("linf"),
    "torchattacks PGDL2": torchattacks_pgd("l2"),
    "foolbox LinfPGD": foolbox_pgd,
    "adv_lib ASMA": adv_lib_asma,
}
TRAINING = "FastADT step"


@dataclass
class Row:
    """One work in one mode on one network.

    Attributes:
        network: Of `NETWORKS`.
        work: Of `WORKS`, `PEERS` or `TRAINING`.
        mode: Of `MODES`; ``peer`` for another library.
        seconds: Time of each round.
        ratios: Over the bare passes of the same round.
    """

    network: str
    work: str
    mode: str
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median."""
        return statistics.median(self.ratios)


@dataclass
class Found:
    """What one network showed.

    Attributes:
        rows: Of works, modes and other libraries.
        chosen: By mode, what its trial chose.
        refused: By name, why something does not run.
        bare: Milliseconds of a forward and backward pass, and of a forward pass, over one image.
    """

    rows: list[Row]
    chosen: dict[str, Choice] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    bare: tuple[float, float] = (0.0, 0.0)


def opened(spec: str, trained: str | None, device: str) -> sr.Segmenter:
    """A network, with random weights from a fixed seed unless it has others."""
    torch.manual_seed(0)
    weights = trained if spec == TRAINED else None
    more = {"num_classes": 11} if spec.startswith("fast_path:") else {}
    return sr.load_model(spec, weights=weights, device=device, **more)


def batch_of(model: sr.Segmenter, data: str, size: tuple[int, int] | None, images: int, steps: int) -> Batch:
    """The first images, with the network's own predictions for labels, so that all are right before an attack."""
    samples = sr.open_data(data, split="test", size=size, limit=images)
    stacked = torch.stack([samples[i].image for i in range(images)]).to(model.device)
    with torch.no_grad():
        labels = model.logits(stacked).argmax(1)
    return Batch(model, stacked, labels, steps)


def works(batch: Batch, models: Mapping[str, sr.Segmenter], wanted: Sequence[str]) -> dict[tuple[str, str], Work]:
    """By work and mode, what is timed against the network's bare passes."""
    made = {(work, mode): _on(models[mode], WORKS[work]) for work in WORKS if work in wanted for mode in models}
    if "peers" in wanted:
        made |= {(peer, "peer"): partial(_peer, run) for peer, run in PEERS.items()}
    return made


def _on(model: sr.Segmenter, work: Work) -> Work:
    return lambda batch: work(Batch(model, batch.images, batch.labels, batch.steps))


def _peer(run: Callable[[Batch], object], batch: Batch) -> Passes:
    run(batch)
    return Passes(batch.steps)


def measure(
    name: str,
    batch: Batch,
    models: Mapping[str, sr.Segmenter],
    wanted: Sequence[str],
    rounds: int,
    clock: Callable[[], float],
) -> Found:
    """Interleaved rounds of one network."""
    found, passes = Found([]), dict[tuple[str, str], Passes]()
    ready = works(batch, models, wanted)
    for key, work in list(ready.items()):
        try:
            passes[key] = work(batch)  # which also warms up
        except Exception as error:  # a row has to say why, whatever another library raises
            if key[1] != "peer":
                raise
            found.refused[key[0]] = f"{type(error).__name__}: {error}".splitlines()[0]
            del ready[key]
    steps = trainings(name, batch, models) if TRAINING in wanted else {}
    rows = {key: Row(name, *key) for key in [*ready, *((TRAINING, mode) for mode in steps)]}
    bare = []
    for _ in range(rounds):
        both, forward = (timed(loop, batch, clock) / batch.steps for loop in (plain, forward_only))
        bare.append((both, forward))
        for key, work in ready.items():
            count = passes[key[0], "plain"] if (key[0], "plain") in passes else passes[key]
            _enter(rows[key], timed(work, batch, clock), count.both * both + count.forward * forward)
        if steps:
            base = timed(lambda _: steps["plain"].passes(0, 2), batch, clock)
            for mode, case in steps.items():
                _enter(rows[TRAINING, mode], timed(lambda _, case=case: case.step(), batch, clock), base)
    found.rows = list(rows.values())
    both, forward = (statistics.median(column) for column in zip(*bare, strict=True))
    found.bare = 1e3 * both / len(batch.images), 1e3 * forward / len(batch.images)
    return found


def _enter(row: Row, seconds: float, base: float) -> None:
    row.seconds.append(seconds)
    row.ratios.append(seconds / base)


def trainings(name: str, batch: Batch, modes: Iterable[str]) -> dict[str, Any]:
    """By mode, steps of training on random images, two at least, as a batch norm may need them; none of the demo."""
    import training
    from segradius.data import Classes

    if name == "demo":
        return {}
    classes = Classes(tuple(map(str, range(CLASSES))), ((0, 0, 0),) * CLASSES)
    names = [str(number) for number in range(max(2, len(batch.images)))]
    data = training.Noise(classes, names, tuple(batch.images.shape[-2:]))
    engine = training.Engine(batch.images.device.type, log_every=10**6)
    made = {
        mode: training.prepared(NETWORKS[name], data, len(names), mode, "fast_adt", engine)
        for mode in modes
        if mode in training.VARIANTS
    }
    for case in made.values():
        case.step()
    return made


def show(found: Mapping[str, Found], modes: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Tables, the last of medians over the networks; columns of modes."""
    console = Console(width=130)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    for name, each in found.items():
        both, forward = each.bare
        console.print(f"\n**{name}**: bare {both:.0f} ms forward + backward, {forward:.0f} ms forward, an image")
        for mode, choice in each.chosen.items():
            console.print(f"{mode}: {choice}", highlight=False)
        print(_table(each.rows, modes))
        for what, why in each.refused.items():
            console.print(f"{what} does not run: {why}", markup=False, highlight=False)
    rows = [row for each in found.values() for row in each.rows]
    console.print(f"\n**medians over {len(found)} networks [largest]**")
    print(_table(rows, modes))
    for mode, goal in GOALS.items():
        ratios = [row.ratio for row in rows if row.mode == mode]
        if ratios:
            console.print(f"{mode}: median {statistics.median(ratios):.3f} of all rows; the goal is {goal}")


def _table(rows: Sequence[Row], modes: Sequence[str]) -> str:
    """Markdown."""
    lines = ["| | " + " | ".join(modes) + " |", "|:--" + "|--:" * len(modes) + "|"]
    for work in dict.fromkeys(row.work for row in rows):
        cells = []
        for mode in modes:
            found = [row.ratio for row in rows if row.work == work and row.mode in (mode, "peer")]
            peer = any(row.mode == "peer" for row in rows if row.work == work) and mode != modes[0]
            largest = f" [{max(found):.2f}]" if len(found) > 1 else ""
            cells.append("" if peer or not found else f"{statistics.median(found):.3f}{largest}")
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fast_path(
    networks: str = "",
    modes: str = "plain,exact,fast",
    works: str = "",
    trained: str | None = None,
    data: str = "scenes:160x224",
    size: str = "160x224",
    batch: int = 1,
    steps: int = 20,
    rounds: int = 3,
    threads: int = 1,
    device: str = "cpu",
    clock: Literal["wall", "cpu"] = "wall",
    out: Path | None = None,
) -> None:
    """Time every kind of work in every mode.

    Args:
        networks: Names that hold one of these texts (commas between them); all when empty.
        modes: Of plain, exact, fast, compile, fast-compile.
        works: Works that hold one of these texts, ``FastADT`` and ``peers`` among them; all when empty.
        trained: Weights of the PSPNet; random without.
        data: As ``segradius attack --data``; the first images of its test part.
        size: HEIGHTxWIDTH.
        batch: Images at a time.
        steps: Steps T; twice as many queries and noisy copies.
        rounds: Rounds, after one call of everything to warm up.
        threads: Of torch.
        device: As ``cpu`` or ``cuda``.
        clock: ``wall``, or ``cpu`` for the processor time of this process.
        out: JSON file to write.
    """
    torch.set_num_threads(threads)
    wanted = holding([*WORKS, TRAINING, "peers"], works)
    facts = {"size": size, "batch": batch, "steps": steps, "rounds": rounds, "clock": clock}
    found: dict[str, Found] = {}
    for name in holding(NETWORKS, networks):
        model = opened(NETWORKS[name], trained, device)
        task = batch_of(model, data, text.size(size), batch, steps)
        choices = {}
        for mode in text.names(
            modes
        ):  # by a trial of its own, by the clock of all else: none of an earlier run is used
            speed, compiled = MODES[mode]
            choices[mode] = chosen(model, task.images, speed, compiled=compiled, clock=CLOCKS[clock])
        models = {mode: sr.sped_up(model, task.images, each.speed, choice=each) for mode, each in choices.items()}
        with model.frozen():
            found[name] = measure(name, task, models, wanted, rounds, CLOCKS[clock])
        found[name].chosen = choices
        print(f"{name} is measured", file=sys.stderr)
    facts |= machine(torch.device(device))
    show(found, text.names(modes), facts)
    if out is not None:
        out.write_text(json.dumps({**facts, "networks": {n: asdict(f) for n, f in found.items()}}, indent=1) + "\n")


def holding(names: Iterable[str], parts: str) -> list[str]:
    """Names that hold one of some texts; all where there are none."""
    return [name for name in names if not parts or any(part in name for part in text.names(parts))]


if __name__ == "__main__":
    auto_cli(fast_path, as_positional=False)
