r"""Do intervals over images and networks hold for three networks? Crossed tables of normal effects whose mean is known.

    python studies/claim_coverage.py --out docs/data/intervals/claim_coverage.csv

A row is a network, a column an image; each has an effect of its own, and each pair one. The bootstrap that draws
networks and images again stands beside, and the interval over images alone.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor

from segradius.paper import Term, estimate
from segradius.report import Cells

COLUMNS = ("networks", "images", "of_network", "of_image", "of_pair", "coverage", "bootstrap", "images_alone")
CASES = (
    (3, 24, 1.0, 0.0, 0.0), (3, 24, 2.0, 1.0, 1.0), (3, 24, 1.0, 1.0, 1.0), (3, 24, 0.5, 1.0, 1.0),
    (3, 24, 0.3, 1.0, 0.5), (3, 24, 0.2, 1.0, 1.0), (3, 24, 0.0, 1.0, 1.0), (3, 24, 0.0, 0.0, 1.0),
    (3, 12, 0.5, 1.0, 1.0), (5, 24, 0.3, 1.0, 1.0),
)  # fmt: skip
"""Networks, images, and standard deviations of the effects of a network, of an image, and of a pair."""


def simulate(out: Path, tables: int = 4000, resamples: int = 400, seed: int = 0) -> None:
    """Share of tables whose 95 % interval holds the mean.

    Args:
        out: CSV file.
        tables: Drawn for each case.
        resamples: Of the bootstrap, which a quarter of the tables get.
        seed: Seed.
    """
    torch.manual_seed(seed)
    rows = []
    for networks, images, *spreads in CASES:
        drawn = [table(networks, images, *spreads) for _ in range(tables)]
        ours = sum(map(holds, drawn)) / tables
        alone = sum(holds(each.mean(0, keepdim=True)) for each in drawn) / tables
        few = drawn[: tables // 4]
        theirs = sum(bootstrap_holds(each, resamples) for each in few) / len(few)
        rows.append((networks, images, *spreads, *(f"{each:.4f}" for each in (ours, theirs, alone))))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def table(networks: int, images: int, of_network: float, of_image: float, of_pair: float) -> Tensor:
    """A table whose mean is 0 in the population, (networks, images)."""
    effects = of_network * torch.randn(networks, 1) + of_image * torch.randn(1, images)
    return (effects + of_pair * torch.randn(networks, images)).double()


def holds(found: Tensor) -> bool:
    """Whether the interval of a claim has 0 in it."""
    its = estimate([Term("network", found, torch.ones_like(found))], lambda shares: shares[..., 0])
    return its.low <= 0 <= its.high


def bootstrap_holds(found: Tensor, resamples: int) -> bool:
    """Whether 0 is between the 2.5 and 97.5 per cent of means of networks and images that are drawn again."""
    rows, columns = (torch.randint(n, (resamples, n)) for n in found.shape)
    means = found[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    low, high = means.quantile(torch.tensor([0.025, 0.975]).double())
    return bool(low <= 0 <= high)


def tables(path: Path) -> list[Cells]:
    """Coverage by case, from the CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spreads = ("of_network", "of_image", "of_pair")
    lines = [
        (f"{row['networks']} × {row['images']}", *(f"{float(row[name]):g}" for name in spreads),
         *(f"{100 * float(row[name]):.1f}" for name in ("coverage", "bootstrap", "images_alone")))
        for row in rows
    ]  # fmt: skip
    header = (
        "networks × images",
        "spread of networks",
        "of images",
        "of pairs",
        "interval",
        "bootstrap",
        "images alone",
    )
    return [Cells("Intervals that hold the truth, per cent; 95 is aimed at", header, lines)]


if __name__ == "__main__":
    auto_cli(simulate, as_positional=False)
