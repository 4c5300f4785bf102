r"""CLEVER's radius beside that of randomized smoothing: price, ranking, and what either is worth to PGD (Section 6).

    python studies/clever.py --out clever --data camvid:PATH --split test --size 240x320 --weights WEIGHTS.safetensors \
        --model smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11

Price: passes over an image and CPU seconds for one radius of all pixels, also as multiples of smoothing with M = 8. The
paper counts N_b·N_s·|Y| passes; `segradius.radius.clever` needs one and 2·K·N_b·N_s (a pass with its tangent is two).
(50, 1024) is not run: its seconds are those a sample of the largest setting that is, and the table says so.

Ranking: Spearman's correlation over the labelled pixels that are right, mean over images, with

- smoothing: the radius from many noisy copies;
- slope: margin over its largest slope at x, min_j g_ij(x) / ‖∇g_ij(x)‖, exact by a backward pass for each class, at a
  few random pixels only;
- PGD: the least of five budgets, ε/16 to ε, at which plain PGD fools the pixel.

Attack: pixel accuracy after T steps of PGD, weights from the radius at x and then kept, for every radius alike. CR-PGD
as the library runs it, refreshed every 8 steps, stands beside them, and so does CLEVER where that is cheap. Writes
clever.json and clever.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean as mean
from typing import Any

import torch
from jsonargparse import auto_cli
from rich.console import Console
from scipy.stats import spearmanr
from torch import Tensor

import segradius as sr
from segradius.attacks import guided_by
from segradius.core import text
from segradius.data import Sample
from segradius.metrics import Counts, interval, pooled_accuracy
from segradius.objectives import CertifiedRadius, CleverRadius, Goal, View
from segradius.radius import Ball, clever_radius, differences, gradient_norms, pixel_radius, plane_distances
from segradius.report import Cells

SMOOTHING, FULL = "smoothing", (50, 1024)
REFERENCES = ("smoothing", "slope", "PGD")


@dataclass(frozen=True)
class Given(sr.objectives.Weighting):
    """Pixel weights that were computed before the attack, (N, H, W)."""

    weights: Tensor

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """They never change."""
        return view.number(self.weights), state


@dataclass(frozen=True)
class Radius:
    """One image's radii by one method: (1, H, W), the weights that they make, and what they cost."""

    radius: Tensor
    weights: Tensor
    passes: int
    seconds: float


@dataclass(frozen=True)
class Scores:
    """One image: by method, passes and seconds of a radius, correlation with each reference, and right pixels."""

    image: str
    pixels: int
    passes: Mapping[str, int]
    seconds: Mapping[str, float]
    ranks: Mapping[str, Mapping[str, float]]
    right: Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """What is common to all images.

    Attributes:
        model: The network.
        balls: CLEVER's settings by name.
        void: Ignored label.
        eps: Budget, l2.
        steps: T.
        pixels: How many of each image have an exact slope.
        reference: Noisy copies of the reference.
        refreshed: CLEVER with at most so many samples also guides with refreshed weights.
        seed: Seed.
    """

    model: sr.Segmenter
    balls: Mapping[str, Ball]
    void: int
    eps: float
    steps: int
    pixels: int
    reference: int
    refreshed: int
    seed: int


def smoothing(on: Setting, images: Tensor, keys: sr.Randomness) -> Radius:
    """M = 8 noisy copies at the paper's σ."""
    weighting, book, start = CertifiedRadius(), sr.Ledger(1), time.process_time()
    found = pixel_radius(on.model, images, keys, sigma=weighting.sigma, samples=weighting.samples, ledger=book)
    seconds = time.process_time() - start
    return Radius(found.radius, weighting.of_probability(found.probability), int(book.forward[0]), seconds)


def clever(on: Setting, ball: Ball, images: Tensor, keys: sr.Randomness, goal: Goal) -> Radius:
    """CLEVER with some N_b, N_s and K."""
    book, start = sr.Ledger(1), time.process_time()
    found = clever_radius(on.model, images, keys, ball, ledger=book).radius
    seconds = time.process_time() - start
    weights = guidance(ball).of_radius(found, goal.mean(found).view(-1, 1, 1))
    return Radius(found, weights, int(book.forward[0] + book.backward[0]), seconds)


def guidance(ball: Ball) -> CleverRadius:
    """CLEVER's weighting with these settings."""
    return CleverRadius(radius=ball.radius, batches=ball.batches, samples=ball.samples, probes=ball.probes)


def slopes(on: Setting, images: Tensor, places: Tensor) -> Tensor:
    """min_j g_ij / ‖∇g_ij‖ at x, of P pixels of one image; (P,)."""
    with torch.no_grad():
        logits = on.model.logits(images)
    classes = logits.argmax(1)
    norms = gradient_norms(on.model, images, classes, places)
    margins, own = differences(logits, classes).flatten(2)[..., places], classes.flatten(1)[:, places]
    return plane_distances(margins, norms, own).amin(1)[0]


def first_budget(on: Setting, images: Tensor, labels: Tensor, key: str) -> Tensor:
    """The least of ε/16 … ε at which plain PGD fools a pixel, 2ε where none does; (1, H, W)."""
    least = torch.full(labels.shape, 2 * on.eps)
    for part in (1.0, 0.5, 0.25, 0.125, 0.0625):
        attack = sr.make_attack("pgd", norm="l2", eps=on.eps * part, steps=on.steps)
        found = attack(on.model, images, labels, ids=(key,), seed=on.seed)
        least = torch.where(found.prediction != labels, on.eps * part, least)
    return least


def attacked(on: Setting, images: Tensor, labels: Tensor, key: str, found: Mapping[str, Radius]) -> dict[str, int]:
    """Right pixels before, and after each attack."""
    plain, guided = (sr.make_attack(name, norm="l2", eps=on.eps, steps=on.steps) for name in ("pgd", "cr_pgd"))
    attacks = {"PGD": plain, "CR-PGD": guided} | {
        name: replace(plain, method=guided_by(plain.method, Given(each.weights))) for name, each in found.items()
    }
    for name, ball in on.balls.items():
        if ball.batches * ball.samples <= on.refreshed:
            attacks[f"{name}, refreshed"] = replace(plain, method=guided_by(plain.method, guidance(ball)))
    known = labels != on.void
    right = {"no attack": int(((on.model.logits(images).detach().argmax(1) == labels) & known).sum())}
    for name, attack in attacks.items():
        result = attack(on.model, images, labels, ids=(key,), seed=on.seed, ignore_index=on.void)
        right[name] = int(known.sum() - result.fooled.sum())
    return right


def measure(on: Setting, sample: Sample) -> Scores:
    """Everything about one image."""
    images, labels, keys = sample.image[None], sample.label[None], sr.Randomness(on.seed, (sample.id,))
    goal = Goal.leave(labels, ignore_index=on.void)
    found = {SMOOTHING: smoothing(on, images, keys)}
    found |= {name: clever(on, ball, images, keys, goal) for name, ball in on.balls.items()}
    with torch.no_grad():
        kept = ((on.model.logits(images).argmax(1) == labels) & goal.counted).flatten().nonzero().squeeze(1)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(on.seed))
    few = kept[order[: on.pixels]]
    fine = pixel_radius(on.model, images, keys.spawn("reference"), samples=on.reference).radius
    budgets = first_budget(on, images, labels, sample.id)
    exact = slopes(on, images, few)
    compared: dict[str, dict[str, float]] = {}
    for name, each in found.items():
        flat = each.radius.flatten()
        pairs = ((flat[kept], fine.flatten()[kept]), (flat[few], exact), (flat[kept], budgets.flatten()[kept]))
        values = [float(spearmanr(*pair).statistic) for pair in pairs]
        compared[name] = dict(zip(REFERENCES, values, strict=True))
    return Scores(
        sample.id,
        int(goal.counted.sum()),
        {name: each.passes for name, each in found.items()},
        {name: each.seconds for name, each in found.items()},
        compared,
        attacked(on, images, labels, sample.id, found),
    )


def _prices(found: Sequence[Scores], balls: Mapping[str, Ball], classes: int) -> Cells:
    base_passes = found[0].passes[SMOOTHING]
    seconds = {name: mean([each.seconds[name] for each in found]) for name in found[0].seconds}
    lines = [("smoothing, M = 8", str(base_passes), str(base_passes), "1", "1", f"{seconds[SMOOTHING]:.2f}", "1")]
    dearest, ball = max(balls.items(), key=lambda item: item[1].batches * item[1].samples)
    count = FULL[0] * FULL[1]
    full = (*FULL, 1 + 2 * ball.probes * count, seconds[dearest] * count / (ball.batches * ball.samples))
    rows = [(b.batches, b.samples, found[0].passes[name], seconds[name]) for name, b in balls.items()]
    for batches, samples, passes, spent in (full, *rows):
        theirs = batches * samples * classes
        note = ", extrapolated" if (batches, samples) == FULL else ""
        times = (theirs / base_passes, passes / base_passes, spent / seconds[SMOOTHING])
        passes_by = (f"{theirs:,}", f"{passes:,}", f"{times[0]:,.0f}", f"{times[1]:,.0f}")
        lines.append((f"CLEVER ({batches}, {samples}){note}", *passes_by, f"{spent:,.1f}", f"{times[2]:,.0f}"))
    header = ("radius", "passes, paper", "passes, ours", "× paper", "× ours", "CPU s", "× CPU s")
    return Cells(f"Price of one radius map, {len(found)} images, |Y| = {classes}, K = {ball.probes}", header, lines)


def _rankings(found: Sequence[Scores]) -> Cells:
    lines = []
    for name in found[0].ranks:
        values = [[each.ranks[name][other] for each in found] for other in REFERENCES]
        lines.append((name, *(f"{mean(v):.3f} ({min(v):.2f} to {max(v):.2f})" for v in values)))
    return Cells("Rank correlation over right pixels, mean (range over images)", ("radius", *REFERENCES), lines)


def _attacks(found: Sequence[Scores]) -> Cells:
    pixels = torch.tensor([[each.pixels] for each in found])
    lines = []
    for name in found[0].right:
        right = torch.tensor([[each.right[name]] for each in found])
        value = interval(pooled_accuracy, Counts(right, pixels, pixels))
        lines.append((name, f"{100 * value.value:.2f}", f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"))
    return Cells("Pixel accuracy", ("guided by", "PixAcc %", "95 % over images"), lines)


def main(
    model: str = "demo",
    weights: str = "",
    data: str = "scenes:48x64",
    split: str | None = None,
    size: str | None = None,
    images: int = 4,
    settings: str = "10x32,10x1",
    probes: int = 2,
    radius: float = 1.5,
    eps: float = 1.5,
    steps: int = 10,
    pixels: int = 24,
    reference: int = 256,
    refreshed: int = 10,
    threads: int = 1,
    seed: int = 0,
    out: str = "clever",
) -> None:
    """Measure, print and write.

    Args:
        model: A network, as `segradius attack` takes it.
        weights: Its checkpoint.
        data: Images and labels, as `segradius attack` takes them.
        split: Part of the data set.
        size: Height x width.
        images: How many, evenly spread.
        settings: N_b x N_s of CLEVER, commas between them.
        probes: K.
        radius: R of CLEVER's ball.
        eps: Budget of the attacks, l2.
        steps: T.
        pixels: How many of each image have an exact slope; a backward pass for each and each class.
        reference: Noisy copies of the reference.
        refreshed: CLEVER with at most so many samples also guides with weights that are refreshed every 8 steps.
        threads: Of torch.
        seed: Seed.
        out: Folder of clever.json and clever.md.
    """
    given = dict(locals())
    torch.set_num_threads(threads)
    network = sr.load_model(model, weights=weights or None)
    source = sr.open_data(data, split=split, size=text.size(size))
    balls = {}
    for each in settings.split(","):
        batches, samples = map(int, each.split("x"))
        balls[f"CLEVER ({batches}, {samples})"] = Ball(radius, batches, samples, probes)
    void = source.classes.ignore_index
    on = Setting(network, balls, void, eps, steps, pixels, reference, refreshed, seed)
    places = [int((k + 0.5) * len(source) / images) for k in range(images)]
    about = {name: value for name, value in given.items() if name not in ("weights", "images", "out")}
    about["data"] = data.partition(":")[0]  # no path of a machine
    # PyTorch imports a compiler at its first derivative along a direction, which is no price of a radius.
    clever_radius(network, source[0].image[None], sr.Randomness(seed, ("first",)), Ball(radius, 2, 1, 1))
    folder, found = Path(out), list[Scores]()
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        found.append(measure(on, source[place]))
        print(f"{found[-1].image}: {json.dumps(found[-1].right)}", flush=True)
        lines = {**about, "images": [asdict(each) for each in found]}
        (folder / "clever.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    shown = [_prices(found, balls, network.num_classes), _rankings(found), _attacks(found)]
    (folder / "clever.md").write_text("\n\n".join(each.markdown() for each in shown) + "\n")
    for each in shown:
        Console(width=130).print(each.rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
