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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean as mean

import torch
from jsonargparse import auto_cli
from rich.console import Console

import segradius as sr
from segradius.core import text
from segradius.metrics import Counts, interval, pooled_accuracy
from segradius.paper.computed import REFERENCES, Scores, Setting, prices, scores_of, setting_name
from segradius.radius import Ball, clever_radius
from segradius.report import Cells


def _prices(found: Sequence[Scores], balls: Mapping[str, Ball], classes: int) -> Cells:
    lines = []
    for row in prices(found, balls, classes):
        name = row["method"] + (", extrapolated" if row["extrapolated"] else "" if row["batches"] else ", M = 8")
        times = (f"{row[f'times_{kind}']:,.0f}" for kind in ("paper", "passes"))
        passes = (f"{row['passes_paper']:,}", f"{row['passes']:,}")
        lines.append((name, *passes, *times, f"{row['seconds']:,.2f}", f"{row['times_seconds']:,.0f}"))
    probes = max((ball.probes for ball in balls.values()), default=0)
    header = ("radius", "passes, paper", "passes, ours", "× paper", "× ours", "CPU s", "× CPU s")
    return Cells(f"Price of one radius map, {len(found)} images, |Y| = {classes}, K = {probes}", header, lines)


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
        balls[setting_name(batches, samples)] = Ball(radius, batches, samples, probes)
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
        found.append(scores_of(on, source[place]))
        print(f"{found[-1].image}: {json.dumps(found[-1].right)}", flush=True)
        lines = {**about, "images": [asdict(each) for each in found]}
        (folder / "clever.json").write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n")
    shown = [_prices(found, balls, network.num_classes), _rankings(found), _attacks(found)]
    (folder / "clever.md").write_text("\n\n".join(each.markdown() for each in shown) + "\n")
    for cells in shown:
        Console(width=130).print(cells.rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
