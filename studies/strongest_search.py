r"""The search for the settings of `flips`: objective × schedule × weights × step × start, on several networks at once.

    python studies/strongest_search.py --models a=a/last.yaml,b=b/last.yaml,c=c/last.yaml --data camvid:PATH \
        --size 96x128 --norm l2 --eps 0.5,1.5 --space wide --candidates 64 --out runs/l2
    python studies/strongest_search.py … --space near --candidates 32 --out runs/l2-near

Candidates are drawn at random from a space, by a seed, and judged by PixAcc left, mean over networks and budgets:

- ``wide``: one rung, T = 30 on three images of the training part for each network, at the last of the ε;
- ``near``, around what was best there and beyond its edges: T = 30 on two training images; the best quarter with T = 10
  and 100 on three validation images; the best quarter of those on two other ones, T = 300, every ε.

- ``last``, with what ``near`` did not have, losses on the network's own scale and lengths in units of ε whatever T is:
  one rung, T = 50 on three validation images. ``flips``, whose settings had been chosen by hand in this space, on
  training and validation images, stands beside the candidates.
- ``rivals``: the steps of CosPGD, SegPGD and RP-PGD, T = 50 on three validation images.

Named rivals go through the rungs beside them: APGD on cross-entropy, masked cross-entropy and Jensen-Shannon, which SEA
is made of, our own earlier attacks, and settings that were first tried by hand (``hand``). No test image is looked at.
One line of ``candidates.csv`` for each candidate × network × ε × T with the settings; what is there is not attacked
again.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

import segradius as sr
from segradius.attacks import Attack, Iterative, Observation, Room
from segradius.core import text
from segradius.data import open_data
from segradius.models import Segmenter, load_model
from segradius.objectives import (
    CrossEntropy,
    ExpectedFlips,
    Hinge,
    JensenShannon,
    Loss,
    Objective,
    ScaledFlips,
    ScaledSigmoid,
    View,
    Weighting,
)
from segradius.threats import make_threat, sparse_steepest

#: What candidates are drawn from, independently. Sparse steps are for l1, powers for l2.
SPACES: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "wide": {
        "loss": ("flips", "flips", "flips", "flips", "sigmoid", "js", "hinge", "ce"),
        "tau": (1.0, 2.0, 3.0, 4.0, 6.0),
        "tau_end": (0.25, 0.5, 1.0),
        "fooled": (0.0, 0.1, 0.3, 0.5, 1.0),
        "fooled_end": (0.0, 0.1, 0.3, 0.5, 1.0),
        "per_eps": (2.0, 3.5, 5.0, 7.0, 10.0),
        "fall": ("constant", "constant", "linear", "cosine"),
        "start": ("zero", "uniform"),
        "momentum": (0.0, 0.0, 0.5, 0.75, 0.9),
        "power": (1.0, 1.0, 0.75, 0.5),
        "sparse": (0.003, 0.01, 0.03, 0.1, 0.3),
    },
    "near": {
        "loss": ("flips", "flips", "sigmoid"),
        "tau": (1.0, 2.0, 3.0),
        "tau_end": (0.1, 0.25, 0.5),
        "fooled": (0.0, 0.3, 0.5),
        "fooled_end": (0.1, 0.3, 0.5),
        "per_eps": (10.0, 15.0, 20.0, 30.0),
        "law": ("linear", "root"),
        "fall": ("constant", "cosine"),
        "start": ("zero", "uniform"),
        "momentum": (0.5, 0.75, 0.85, 0.9),
        "sparse": (0.003, 0.01, 0.03, 0.1),
    },
    "last": {
        "loss": ("scaled_flips", "scaled_flips", "scaled_sigmoid", "flips"),
        "tau": (0.5, 0.7, 1.0),
        "tau_end": (0.02, 0.05, 0.1),
        "fooled": (0.0, 0.3, 0.5),
        "per_eps": (0.5, 1.0, 1.5),
        "law": ("ball",),
        "fall": ("linear", "cosine", "square"),
        "start": ("zero", "uniform"),
        "momentum": (0.25, 0.5, 0.75),
        "sparse": (0.01, 0.03, 0.1),
    },
}
#: Part of the data, images of each network, T, and whether every ε or the last one, of each rung.
RUNGS = {
    "wide": (("train", 3, (30,), False),),
    "rivals": (("val", 3, (50,), False),),
    "last": (("val", 3, (50,), False),),
    "near": (("train", 2, (30,), False), ("val", 3, (10, 100), False), ("val", 2, (300,), True)),
}


@dataclass(frozen=True)
class Candidate:
    """Settings of an attack; those that its loss or norm does not look at stand still."""

    name: str
    loss: str = "flips"
    tau: float = 2.0
    tau_end: float = 0.5
    fooled: float = 0.3
    fooled_end: float = 0.3
    per_eps: float = 5.0
    fall: str = "constant"
    start: str = "uniform"
    momentum: float = 0.0
    power: float = 1.0
    sparse: float = 0.0
    law: str = "linear"


@dataclass(frozen=True)
class Sigmoid(Loss):
    """σ(margin/τ) of the logits, τ falling as that of `ExpectedFlips`."""

    annealed: ClassVar[bool] = True

    tau: float
    tau_end: float

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        """Loss of each pixel, (N, H, W)."""
        at = labels.unsqueeze(1)
        margin = logits.scatter(1, at, float("-inf")).amax(1) - logits.gather(1, at).squeeze(1)
        return torch.sigmoid(margin / (self.tau + (self.tau_end - self.tau) * progress))


@dataclass(frozen=True)
class Fooled(Weighting):
    """1 where a pixel is not fooled yet, and a number elsewhere that changes linearly over the run."""

    first: float
    last: float

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The weights of a step."""
        share = self.first + (self.last - self.first) * view.progress
        return 1 - (1 - share) * view.number(view.fooled()), None


@dataclass(frozen=True)
class Wide:
    """A step with all that is searched: length and its fall, momentum of unit gradients, power, sparsity."""

    compares: ClassVar[bool] = False

    per_eps: float
    fall: str
    momentum: float
    power: float
    sparse: float
    law: str

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        gradient = seen.gradient
        if self.momentum:
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-30).view(-1, 1, 1, 1)
            state = gradient / length if state is None else self.momentum * state + gradient / length
            gradient = state
        name = room.threat.norm.name
        if name == "l1":
            direction = sparse_steepest(gradient, self.sparse)
        elif name == "l2" and self.power != 1:
            scaled = gradient / gradient.flatten(1).abs().amax(1).clamp_min(1e-30).view(-1, 1, 1, 1)
            direction = room.threat.norm.steepest(scaled.sign() * scaled.abs() ** self.power)
        else:
            direction = room.threat.norm.steepest(gradient)
        done = seen.step / room.steps
        rate = {"constant": 1.0, "linear": 2 * (1 - done), "cosine": 1 + math.cos(math.pi * done)}
        rate |= {"square": 3 * (1 - done) ** 2}
        per = {"linear": room.steps, "root": math.sqrt(30 * room.steps), "ball": 1.0}  # the first two equal at T = 30
        size = (room.eps * (self.per_eps / per[self.law] * rate[self.fall])).view(-1, 1, 1, 1)
        return room.project(seen.delta + size * direction), state


def attack_of(candidate: Candidate, norm: str, eps: float, steps: int) -> Attack:
    """The attack of a candidate, or of a rival by its name."""
    if "*" in candidate.name:
        name, _, multiple = candidate.name.partition("*")
        return sr.make_attack(name, norm=norm, eps=eps, steps=steps, alpha=float(multiple) * eps / steps)
    if candidate.name in RIVALS:
        name, options = RIVALS[candidate.name]
        return sr.make_attack(name, norm=norm, eps=eps, steps=steps, **options)
    losses: Mapping[str, Loss] = {
        "flips": ExpectedFlips(candidate.tau, candidate.tau_end),
        "sigmoid": Sigmoid(candidate.tau, candidate.tau_end),
        "scaled_flips": ScaledFlips(candidate.tau, candidate.tau_end),
        "scaled_sigmoid": ScaledSigmoid(candidate.tau, candidate.tau_end),
        "js": JensenShannon(),
        "hinge": Hinge(),
        "ce": CrossEntropy(),
    }
    objective = Objective(losses[candidate.loss], Fooled(candidate.fooled, candidate.fooled_end))
    step = Wide(candidate.per_eps, candidate.fall, candidate.momentum, candidate.power, candidate.sparse, candidate.law)
    return Attack("candidate", Iterative(objective, make_threat(norm, eps), step, steps, candidate.start))


#: Attacks that go through the rungs beside the candidates: name and options.
RIVALS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "apgd": ("apgd", {"start": "uniform"}),
    "apgd-masked": ("apgd", {"loss": "masked_ce", "start": "uniform"}),
    "apgd-js": ("apgd", {"loss": "js", "start": "uniform"}),
    "flip_apgd": ("flip_apgd", {}),
    "flip_pgd": ("flip_pgd", {}),
    "flips": ("flips", {}),
}
BEFORE = tuple(RIVALS)[:-1]

#: Published attacks of which the step is tuned as ours was, and the steps that are tried, in units of ε/T.
STEPPING, MULTIPLES = ("cospgd", "segpgd", "rp_pgd"), (1.0, 2.5, 5.0, 10.0, 20.0)
NEAR = ("apgd-masked", "apgd-js", "flip_apgd")


def drawn(count: int, norm: str, seed: int, space: str) -> list[Candidate]:
    """Candidates at random, each with the settings that mean something in the norm."""
    if space == "rivals":
        return [Candidate(f"{name}*{multiple}") for name in STEPPING for multiple in MULTIPLES]
    source, found = random.Random(f"{norm} {seed}"), []
    hand = Candidate("hand", sparse=0.03 if norm == "l1" else 0.0)
    for number in range(count):
        chosen = {name: source.choice(values) for name, values in SPACES[space].items()}
        chosen |= {} if norm == "l1" else {"sparse": 0.0}
        chosen |= {} if norm == "l2" else {"power": 1.0}
        chosen |= {} if "fooled_end" in chosen else {"fooled_end": chosen["fooled"]}
        found.append(Candidate(f"{number:03}", **chosen))
    beside = {"wide": BEFORE, "near": NEAR, "last": (*NEAR, "flips")}[space]
    return [hand, *map(Candidate, beside), *found]


@dataclass(frozen=True)
class Line:
    """One candidate on one network with one budget."""

    rung: int
    network: str
    norm: str
    eps: float
    steps: int
    images: int
    name: str
    pixacc: float


class Search:
    """Lines of a folder, and what makes those that it lacks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.file = options, Path(options.out) / "candidates.csv"
        self.lines = read(self.file)
        pairs = [pair.partition("=")[::2] for pair in text.names(options.models)]
        self.models: dict[str, Segmenter] = {label: load_model(path) for label, path in pairs}
        self.batches: dict[tuple[str, int, int], tuple[Tensor, Tensor]] = {}

    def batch(self, part: str, count: int, rung: int) -> tuple[Tensor, Tensor]:
        """Images spread over a part, others in each rung."""
        if (part, count, rung) not in self.batches:
            height, width = (int(n) for n in self.options.size.split("x"))
            data = open_data(self.options.data, split=part, size=(height, width))
            apart = len(data) // count
            samples = [data[place * apart + 3 * rung] for place in range(count)]
            self.batches[part, count, rung] = (
                torch.stack([s.image for s in samples]),
                torch.stack([s.label for s in samples]),
            )
        return self.batches[part, count, rung]

    def rung(self, rung: int, candidates: Sequence[Candidate]) -> list[Candidate]:
        """All candidates on one rung, best first."""
        part, count, several, every = RUNGS[self.options.space][rung]
        budgets = [float(e) for e in self.options.eps.split(",")][0 if every else -1 :]
        for candidate in candidates:
            for network in self.models:
                for eps in budgets:
                    for steps in several:
                        self.measure(rung, candidate, network, eps, steps, part, count)
        left = defaultdict(list)
        for line in self.lines.values():
            if line.rung == rung:
                left[line.name].append(line.pixacc)
        return sorted(candidates, key=lambda c: sum(left[c.name]) / len(left[c.name]))

    def measure(
        self, rung: int, candidate: Candidate, network: str, eps: float, steps: int, part: str, count: int
    ) -> None:
        """One line, unless it is there."""
        key = (rung, network, self.options.norm, eps, steps, candidate.name)
        if key in self.lines:
            return
        images, labels = self.batch(part, count, rung)
        found = attack_of(candidate, self.options.norm, eps, steps)(self.models[network], images, labels)
        right = 1 - found.fooled.double() / (labels != 255).flatten(1).sum(1)
        line = Line(rung, network, self.options.norm, eps, steps, count, candidate.name, 100 * right.mean().item())
        self.lines[key] = line
        new = not self.file.exists()
        with self.file.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow([f.name for f in (*fields(Line), *fields(Candidate)[1:])])
            writer.writerow([*asdict(line).values(), *list(asdict(candidate).values())[1:]])


def read(file: Path) -> dict[tuple[Any, ...], Line]:
    """Lines of a file, by what they were measured for; none where it is not there."""
    if not file.exists():
        return {}
    with file.open(newline="") as opened:
        found = [
            Line(int(r["rung"]), r["network"], r["norm"], float(r["eps"]), int(r["steps"]), int(r["images"]), r["name"],
                 float(r["pixacc"]))
            for r in csv.DictReader(opened)
        ]  # fmt: skip
    return {(r.rung, r.network, r.norm, r.eps, r.steps, r.name): r for r in found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rungs, and print each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, help="LABEL=CARD of each network, with commas")
    parser.add_argument("--data", required=True, help="a data set with a training and a validation part")
    parser.add_argument("--size", default="96x128")
    parser.add_argument("--norm", required=True)
    parser.add_argument("--eps", required=True, help="budgets, the usual one last")
    parser.add_argument("--space", choices=list(RUNGS), default="wide")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    search = Search(options)
    candidates = drawn(options.candidates, options.norm, options.seed, options.space)
    named = {candidate.name for candidate in candidates if not candidate.name.isdigit()}
    for rung in range(len(RUNGS[options.space])):
        ranked = search.rung(rung, candidates)
        print(f"rung {rung + 1}")
        for candidate in ranked:
            mine = [line.pixacc for line in search.lines.values() if (line.rung, line.name) == (rung, candidate.name)]
            settings = "" if candidate.name in RIVALS else " ".join(f"{v}" for v in asdict(candidate).values())
            print(f"  {sum(mine) / len(mine):6.2f}  {candidate.name:12} {settings}")
        best = [candidate for candidate in ranked if candidate.name not in named]
        chosen = best[: max(len(best) // 4, 1)]
        candidates = [candidate for candidate in ranked if candidate in chosen or candidate.name in named]


if __name__ == "__main__":
    main()
