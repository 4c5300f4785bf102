r"""Do intervals over images hold for few of them? Data sets drawn from populations whose figure is known.

    python studies/interval_coverage.py --out docs/data/intervals/coverage.csv

Shares of right pixels of an image are Beta distributed, or a mixture; sizes of the labelled part are log-normal. For
MIoU every image has some of eight classes. The old percentile bootstrap stands beside for comparison.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor
from torch.distributions import Beta

from segradius.metrics import miou, pooled_accuracy, student
from segradius.report import Cells

COLUMNS = ("figure", "images", "coverage", "width", "bootstrap_coverage")
CLASSES = 8
_LOST, _KEPT = torch.tensor([1.0, 20.0]), torch.tensor([20.0, 2.0])
RARE = 0.2
"""Share of the images of ``two kinds`` on which the network fails."""

SHARES: dict[str, Callable[[int], Tensor]] = {
    "unattacked": lambda n: Beta(18.0, 3.0).sample((n,)),
    "attacked": lambda n: Beta(5.0, 5.0).sample((n,)),
    "mostly lost": lambda n: Beta(1.0, 8.0).sample((n,)),
    "nearly all lost": lambda n: Beta(0.4, 20.0).sample((n,)),
    "two kinds": lambda n: Beta(*torch.where(torch.rand(n, 1) < RARE, _LOST, _KEPT).T).sample(),
}
SPREAD = {"unattacked": 0.1, "attacked": 0.8, "mostly lost": 0.1, "nearly all lost": 0.1, "two kinds": 0.1}
"""Standard deviation of the logarithm of an image's labelled pixels."""


def simulate(
    out: Path, images: str = "2,3,4,5,6,8,10,15,20,24,30,40,50", sets: int = 4000, resamples: int = 500, seed: int = 0
) -> None:
    """Share of data sets whose 95 % interval holds the population's figure, by population and number of images.

    Args:
        out: CSV file.
        images: Numbers of images, commas between them.
        sets: Data sets drawn for each.
        resamples: Of the bootstrap, which a quarter of the data sets get.
        seed: Seed.
    """
    torch.manual_seed(seed)
    rows = []
    for name, figure, draw in populations():
        truth = float(figure(draw(1_000_000 if name != "MIoU" else 100_000).sum(0)))
        for n in map(int, images.split(",")):
            parts = torch.stack([draw(n) for _ in range(sets)], 1)  # (n, sets, K)
            low, high = ends(parts, figure)
            few = parts[:, : sets // 4]
            pick = torch.randint(n, (resamples, n))
            drawn = figure(torch.einsum("rnsk->rsk", few[pick]))
            old = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64), 0)
            width = float((high - low).median())
            rows.append((name, n, held(low, high, truth), width, held(*old, truth)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(*(cells.markdown() for cells in tables(out)), sep="\n\n")


def tables(path: Path) -> list[Cells]:
    """Coverage by figure and number of images, of the intervals and of the percentile bootstrap, from the CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    numbers = list(dict.fromkeys(row["images"] for row in rows))
    lines = []
    for name in dict.fromkeys(row["figure"] for row in rows):
        mine = {row["images"]: row for row in rows if row["figure"] == name}
        for column, what in (("coverage", name), ("bootstrap_coverage", "… percentile bootstrap")):
            lines.append((what, *(f"{100 * float(mine[n][column]):.1f}" for n in numbers)))
    header = ("figure", *(f"n = {n}" for n in numbers))
    return [Cells("Intervals that hold the truth, per cent; 95 is aimed at", header, lines)]


def populations() -> list[tuple[str, Callable[[Tensor], Tensor], Callable[[int], Tensor]]]:
    """Name, figure from sums, and what draws images' parts (N, K)."""
    found: list[tuple[str, Callable[[Tensor], Tensor], Callable[[int], Tensor]]] = []
    for name, share in SHARES.items():

        def draw(n: int, share: Callable[[int], Tensor] = share, spread: float = SPREAD[name]) -> Tensor:
            size = torch.exp(spread * torch.randn(n, dtype=torch.float64))
            return torch.stack([share(n).double() * size, size], 1)

        found.append((f"PixAcc, {name}", pooled_accuracy.finish, draw))
    return [*found, ("MIoU", miou.finish, classes), ("difference", lambda sums: sums[..., 0] / sums[..., 1], gaps)]


def classes(n: int) -> Tensor:
    """Intersections and unions (N, 2C) of images with some of the classes, the last ones rare."""
    there = torch.rand(n, CLASSES) < torch.linspace(1.0, 0.3, CLASSES)
    size = there * torch.exp(torch.randn(n, CLASSES)) * torch.linspace(1.0, 0.1, CLASSES)
    iou = Beta(torch.linspace(9.0, 2.0, CLASSES).expand(n, CLASSES), torch.tensor(3.0)).sample()
    return torch.cat([iou * size, size], 1).double()


def gaps(n: int) -> Tensor:
    """Differences of a pair of attacks and ones (N, 2): small, and now and then large."""
    gap = 0.01 * torch.randn(n, dtype=torch.float64) - 0.005 - 0.05 * (torch.rand(n) < 0.1).double()
    return torch.stack([gap, torch.ones_like(gap)], 1)


def ends(parts: Tensor, figure: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Ends of the interval of each data set, from (N, sets, K)."""
    total = parts.sum(0)
    value = figure(total)
    return student(value, figure(total - parts), shares=bool((value >= 0).all()))


def held(low: Tensor, high: Tensor, truth: float) -> float:
    """Share of the intervals that hold the truth."""
    return float(((low <= truth) & (truth <= high)).double().mean())


if __name__ == "__main__":
    auto_cli(simulate, as_positional=False)
