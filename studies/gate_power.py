r"""How often does ``segradius compare --max-drop`` block equal models, pass them, and catch a drop of two points?

    python studies/gate_power.py --out docs/data/gate/power.csv

Two models have the same images under several attacks and budgets. Accuracies of an image are Beta distributed around a
mean that falls with the budget and go together over the attacks, as an image is easy or hard; the difference of two
equal models has a given standard deviation over images, tails of Student's t with five degrees of freedom, and half of
its variance in common over the attacks. ``skewed`` differences have the mean 0 and a long tail on one side, which
flips of signs do not allow for: the candidate loses much on few images, or with ``--mirrored true``, which draws those
alone, gains much on few.
"""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from jsonargparse import auto_cli
from scipy.stats import beta, norm
from torch import Tensor
from torch.distributions import Exponential, StudentT

from segradius.evaluation import About, Pairs, Verdict, judged
from segradius.report import Cells

#: Mean accuracy of the rows: unattacked, three attacks at two budgets, and their worst at each.
MEANS = (0.9, 0.6, 0.57, 0.58, 0.5, 0.35, 0.3, 0.32, 0.25)
#: Of the Beta distribution: the larger, the more alike images are.
CONCENTRATION = 8.0
#: Correlation over rows of how easy an image is, and of differences.
EASE, TOGETHER = 0.8, 0.5
COLUMNS = ("differences", "images", "spread", "drop", "allowed", *(str(verdict) for verdict in Verdict))


def simulate(
    out: Path,
    images: str = "8,12,24,48,100",
    spreads: str = "0.01,0.03,0.06",
    drop: float = 0.02,
    allowed: str = "0,0.01,0.02",
    runs: int = 2000,
    others: int = 500,
    flips: int = 1000,
    seed: int = 0,
    mirrored: bool = False,
) -> None:
    """Shares of comparisons that end with each verdict.

    Args:
        out: CSV file.
        images: Numbers of images, commas between them.
        spreads: Standard deviations over images of the difference of two models.
        drop: What the candidate loses on every image, where it does.
        allowed: Values of --max-drop.
        runs: Comparisons of two equal models, of each kind.
        others: Of a candidate that is worse, and of skewed differences.
        flips: Of signs, where there are more images than that many assignments have.
        seed: Seed.
        mirrored: Draw only differences that are skewed the other way.
    """
    torch.manual_seed(seed)
    rows = []
    tailed = ("mirrored" if mirrored else "skewed", float(spreads.split(",")[1]), 0.0)
    cells = [("symmetric", float(spread), lost) for spread in spreads.split(",") for lost in (0.0, drop)]
    for n in map(int, images.split(",")):
        for kind, spread, lost in [tailed] if mirrored else [*cells, tailed]:
            found = {limit: dict.fromkeys(Verdict, 0) for limit in map(float, allowed.split(","))}
            times = runs if kind == "symmetric" and not lost else others
            for _ in range(times):
                before, after = draw(n, spread, lost, skewed=kind != "symmetric")
                if mirrored:
                    before, after = after, before
                for limit, tally in found.items():
                    tally[judged(pairs(before, after, limit), flips=flips).verdict] += 1
            for limit, tally in found.items():
                rows.append((kind, n, spread, lost, limit, *(count / times for count in tally.values())))
            print(*rows[-1], flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    print(*(each.markdown() for each in tables(out)), sep="\n\n")


def draw(n: int, spread: float, lost: float, *, skewed: bool = False) -> tuple[Tensor, Tensor]:
    """Accuracies of both models, (N, R) each."""
    rows = len(MEANS)
    ease = EASE**0.5 * torch.randn(n, 1) + (1 - EASE) ** 0.5 * torch.randn(n, rows)
    means = torch.tensor(MEANS).double()
    accuracy = torch.from_numpy(beta.ppf(norm.cdf(ease.double()), CONCENTRATION * means, CONCENTRATION * (1 - means)))
    noise = TOGETHER**0.5 * _tailed(n, 1, skewed) + (1 - TOGETHER) ** 0.5 * _tailed(n, rows, skewed)
    half = (spread * noise).clamp(-0.5, 0.5) / 2
    accuracy = accuracy.clamp(half.abs() + lost, 1 - half.abs())  # so that neither leaves [0, 1] and the drop is whole
    return accuracy + half, accuracy - half - lost


def _tailed(n: int, rows: int, skewed: bool) -> Tensor:
    """Of mean 0 and variance 1."""
    if skewed:
        return Exponential(torch.tensor(1.0).double()).sample((n, rows)) - 1
    return StudentT(torch.tensor(5.0).double()).sample((n, rows)) / (5 / 3) ** 0.5


def pairs(before: Tensor, after: Tensor, allowed: float) -> list[Pairs]:
    """The rows of a comparison."""
    found = []
    for row in range(before.shape[1]):
        gaps = (before[:, row] - after[:, row]).tolist()
        means = float(before[:, row].mean()), float(after[:, row].mean())
        about = About("", f"attack {row}", "l2", 1.0, "PixAcc")
        found.append(Pairs(about, *means, {str(k): gap for k, gap in enumerate(gaps)}, allowed))
    return found


def tables(path: Path) -> list[Cells]:
    """Of equal models, of a drop, and of skewed differences: how often each verdict comes, from the CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    equal = [row for row in rows if row["differences"] == "symmetric" and float(row["drop"]) == 0]
    lost = [row for row in rows if float(row["drop"]) > 0]
    skewed = [row for row in rows if row["differences"] != "symmetric"]
    return [
        _table("Two equal models, per cent of comparisons", equal),
        _table("The candidate is two points worse, per cent of comparisons", lost),
        _table("Equal on average, differences skewed, per cent of comparisons", skewed),
    ]


def _table(title: str, rows: list[dict[str, str]]) -> Cells:
    numbers = list(dict.fromkeys(row["images"] for row in rows))
    lines = []
    for allowed, spread in dict.fromkeys((row["allowed"], row["spread"]) for row in rows):
        mine = {row["images"]: row for row in rows if (row["allowed"], row["spread"]) == (allowed, spread)}
        shares = [" / ".join(f"{100 * float(mine[n][str(verdict)]):.1f}" for verdict in Verdict) for n in numbers]
        lines.append((f"{float(allowed):g}", f"{100 * float(spread):g}", *shares))
    header = ("--max-drop", "spread, points", *(f"n = {n}" for n in numbers))
    return Cells(f"{title}: {' / '.join(map(str, Verdict))}", header, lines)


if __name__ == "__main__":
    auto_cli(simulate, as_positional=False)
