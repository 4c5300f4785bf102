"""How tight the confidence bounds of certification are: mean lower bound for variables of known mean, as Markdown.

    python studies/bounds.py

The first table compares the bounds at several numbers of draws n. Clopper-Pearson counts votes, so that its column has
numbers for the coin alone. Betting names a point of its grid (Φ⁻¹ in steps of 0.05), which costs it half a step on
average. The second table is the price of sharing a stake among draws, and of betting on their means instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jsonargparse import auto_cli
from torch import Tensor

from segradius.certification import SOFT_BOUNDS, Betting, SoftBound, clopper_pearson_lower
from segradius.report import Cells

BOUNDS = ("hoeffding", "bernstein", "betting")
COIN = "Bernoulli(0.95)"
VARIABLES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    COIN: lambda random, size: random.random(size) < 0.95,
    "Beta(19, 1)": lambda random, size: random.beta(19, 1, size),
    "Beta(1.9, 0.1)": lambda random, size: random.beta(1.9, 0.1, size),
    "constant 0.9": lambda random, size: np.full(size, 0.9),
}
GROUPS = (1, 5, 10, 20)


def draws(variable: str, n: int, repetitions: int, seed: int) -> Tensor:
    """Independent draws (n, repetitions), float64."""
    values = VARIABLES[variable](np.random.default_rng(seed), (n, repetitions))
    return torch.from_numpy(values.astype(np.float64))


def mean_lower(bound: SoftBound, values: Tensor) -> float:
    """Mean over the repetitions of the bound of draws (n, repetitions)."""
    return bound.lower(bound.add(bound.start(values.shape[1:]), values)).mean().item()


def by_draws(trials: Sequence[int], alpha: float, repetitions: int, seed: int) -> Cells:
    """Every bound of every variable, at each number of draws."""
    rows = []
    for variable in VARIABLES:
        for n in trials:
            values = draws(variable, n, repetitions, seed)
            found = [f"{mean_lower(SOFT_BOUNDS[name](alpha, n), values):.4f}" for name in BOUNDS]
            exact = clopper_pearson_lower(values.sum(0).long(), n, alpha).mean().item()
            rows.append((variable, str(n), *found, f"{exact:.4f}" if variable == COIN else "–"))
    return Cells(f"Mean lower bound, α = {alpha:.3g}", ("variable", "n", *BOUNDS, "clopper-pearson"), rows)


def by_group(n: int, alpha: float, repetitions: int, seed: int) -> Cells:
    """Betting with shared stakes, and on means, at each size of the group."""
    rows = []
    for variable in VARIABLES:
        values = draws(variable, n, repetitions, seed)
        shared = [mean_lower(Betting(alpha, n, group=g), values) for g in GROUPS]
        means = [mean_lower(Betting(alpha, n // g, group=1), values.unflatten(0, (-1, g)).mean(1)) for g in GROUPS]
        rows.append((variable, "shared stake", *(f"{found:.4f}" for found in shared)))
        rows.append((variable, "bets on means", *(f"{found:.4f}" for found in means)))
    return Cells(f"Mean betting bound by group, n = {n}, α = {alpha:.3g}", ("variable", "", *map(str, GROUPS)), rows)


def main(alpha: float = 1e-3 / 76800, repetitions: int = 400, seed: int = 0) -> None:
    """Print both tables.

    Args:
        alpha: Error rate of one pixel; 1e-3 over the pixels of 240×320 by default.
        repetitions: Independent streams for each mean.
        seed: Of all draws.
    """
    print(by_draws((100, 1000, 10_000), alpha, repetitions, seed).markdown(), end="\n\n")
    print(by_group(1000, alpha, repetitions, seed).markdown())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
