"""Theorem 3 measured: regret of projected bandit ascent on a concave Lipschitz loss, against the number of rounds T.

    python studies/regret.py --out regret

An attacker maximises, so the guarantee is about a *concave* loss, and regret is Σ L(δ*) − L(δ⁽ᵗ⁾) ≥ 0. Both losses are
1-Lipschitz in l2 (C = 1): a cone, −‖δ − a‖₂ with its top inside the ball, and a plane, ⟨a, δ⟩ with ‖a‖₂ = 1, whose best
point is on the border. The ball has radius D = √N/2, the distance that the constants of the paper's Theorem 4 imply.
Three settings, all with the estimator of Eq. 16:

- letter: Theorem 3's α = √N/(2C√T) and γ = N^{3/2}/(6√T), for a regret of at most N^{3/2}C√T.
- norm: Theorem 4 with what Theorem 2 bounds, ‖ĝ‖ ≤ NC: α = D/(NC√T), γ = D/√T; regret at most (N + 1)DC√T.
- moment: the same with E‖ĝ‖² ≤ N²C²/(N − 1): α = D√(N − 1)/(NC√T), γ = D/√T; at most (N/√(N − 1) + 1)DC√T.

Writes regret.json, .csv, .md and .png; prints the slope of log regret against log T, which is ½ for √T.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

import segradius as sr
from segradius.gradients import TPGE, Probe, estimate
from segradius.report import Cells

COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's


@dataclass(frozen=True)
class Setting:
    """Step α, radius γ and proven bound of a run of T rounds, for N values and C = 1; times √T they do not depend on T.

    Attributes:
        alpha: α√T.
        gamma: γ√T.
        bound: The bound over √T.
    """

    alpha: float
    gamma: float
    bound: float


@dataclass(frozen=True)
class Regrets:
    """Regret of each seed after each number of rounds, for one loss and setting."""

    loss: str
    setting: str
    bound: float
    rounds: tuple[int, ...]
    regret: tuple[tuple[float, ...], ...]

    @property
    def slope(self) -> tuple[float, float]:
        """Slope of log regret against log T: mean over the seeds of the least squares, and its standard error."""
        x = torch.tensor(self.rounds, dtype=torch.float64).log()
        y = torch.tensor(self.regret, dtype=torch.float64).log()  # (rounds, seeds)
        x = x - x.mean()
        slopes = (x.unsqueeze(1) * y).sum(0) / x.square().sum()
        return float(slopes.mean()), float(slopes.std()) / math.sqrt(len(slopes))


def settings(values: int) -> dict[str, Setting]:
    """The three settings for N = ``values`` in the ball of radius √N/2."""
    n, radius = values, math.sqrt(values) / 2
    moment = n / math.sqrt(n - 1)
    return {
        "letter": Setting(math.sqrt(n) / 2, n**1.5 / 6, n**1.5),
        "norm": Setting(radius / n, radius, (n + 1) * radius),
        "moment": Setting(radius / moment, radius, (moment + 1) * radius),
    }


def losses(a: Tensor) -> dict[str, tuple[Callable[[Tensor], Tensor], float]]:
    """Concave 1-Lipschitz losses (M, 3, H, W) → (M,), and their maxima in the ball; ``a`` (3, H, W) has norm 1."""
    radius = math.sqrt(a.numel()) / 2
    top = a * (radius / 2)
    return {
        "cone": (lambda points: -(points - top).flatten(1).norm(dim=1), 0.0),
        "plane": (lambda points: (points * a).flatten(1).sum(1), radius),
    }


def ascend(loss: Callable[[Tensor], Tensor], best: float, setting: Setting, rounds: int, keys: sr.Randomness) -> Tensor:
    """Regret after ``rounds`` rounds of δ ← Proj(δ + αĝ) from 0, an image for each key, (N,)."""
    shape = (len(keys.ids), 3, 2, 2)
    radius = math.sqrt(math.prod(shape[1:])) / 2
    estimator, probe = TPGE(setting.gamma / math.sqrt(rounds)), as_probe(loss)
    delta = torch.zeros(shape, dtype=torch.float64)
    regret = torch.zeros(len(delta), dtype=torch.float64)
    for step in range(rounds):
        regret += best - loss(delta)
        delta += estimate(estimator, probe, delta, keys, step) * (setting.alpha / math.sqrt(rounds))
        delta *= (radius / delta.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    return regret


def as_probe(loss: Callable[[Tensor], Tensor]) -> Probe:
    """The loss as a black box; it has no pixels of its own, so all of it stands at the first."""

    def probe(points: Tensor) -> Tensor:
        values = loss(points.flatten(0, 1)).view(*points.shape[:2], 1, 1)
        return torch.nn.functional.pad(values, (0, points.shape[4] - 1, 0, points.shape[3] - 1))

    return probe


def measure(rounds: Sequence[int], seeds: int) -> list[Regrets]:
    """Every loss under every setting."""
    a = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys = sr.Randomness(0, tuple(f"seed {k}" for k in range(seeds)))
    found = []
    for name, (loss, best) in losses(a / a.norm()).items():
        for label, setting in settings(a.numel()).items():
            regret = tuple(tuple(ascend(loss, best, setting, T, keys).tolist()) for T in rounds)
            found.append(Regrets(name, label, setting.bound, tuple(rounds), regret))
    return found


def table(found: Sequence[Regrets]) -> Cells:
    """Slope, and mean regret over √T at both ends beside its bound."""
    lines = []
    for each in found:
        ends = [sum(each.regret[k]) / len(each.regret[k]) / math.sqrt(each.rounds[k]) for k in (0, -1)]
        slope = "{:.3f} ± {:.3f}".format(*each.slope)
        lines.append((f"{each.loss}, {each.setting}", slope, *(f"{end:.2f}" for end in ends), f"{each.bound:.2f}"))
    header = ("loss, setting", "slope ± s.e.", *(f"regret/√T, T = {found[0].rounds[k]}" for k in (0, -1)), "bound/√T")
    return Cells(f"Regret against T, N = 12, {len(found[0].regret[0])} seeds", header, lines)


def draw(found: Sequence[Regrets], path: Path) -> None:
    """A PNG, one panel for each loss."""
    names = list(dict.fromkeys(each.loss for each in found))
    figure = Figure(figsize=(5 * len(names), 4.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axis, name in zip(panels, names, strict=True):
        for each, colour in zip((each for each in found if each.loss == name), COLOURS, strict=True):
            mean = [sum(regret) / len(regret) for regret in each.regret]
            spread = [[abs(end(regret) - m) for m, regret in zip(mean, each.regret, strict=True)] for end in (min, max)]
            label = "{}: slope {:.3f} ± {:.3f}".format(each.setting, *each.slope)
            axis.errorbar(each.rounds, mean, spread, fmt="o-", color=colour, markersize=4, elinewidth=0.8, label=label)
            axis.plot(each.rounds, [each.bound * math.sqrt(T) for T in each.rounds], "--", color=colour, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="rounds T", title=f"{name} (dashed: bound, ∝ √T)")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, loc="lower right")
    panels[0].set_ylabel("regret (mean, least and most of the seeds)")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def as_csv(found: Sequence[Regrets]) -> str:
    """A line for each loss, setting, T and seed."""
    lines = ["loss,setting,rounds,seed,regret"]
    for each in found:
        for rounds, regret in zip(each.rounds, each.regret, strict=True):
            lines += [f"{each.loss},{each.setting},{rounds},{k},{value}" for k, value in enumerate(regret)]
    return "\n".join(lines) + "\n"


def main(out: str = "regret", first: int = 6, last: int = 14, seeds: int = 8) -> None:
    """Measure, print and draw.

    Args:
        out: Folder of regret.json, .csv, .md and .png.
        first: Fewest rounds, as a power of 2; then every second power.
        last: Most rounds, as a power of 2.
        seeds: Independent runs.
    """
    if not 0 <= first < last or seeds < 2:
        raise sr.InputError(f"expected 0 <= first < last and seeds >= 2, got {first}, {last} and {seeds}")
    found = measure([2**power for power in range(first, last + 1, 2)], seeds)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{**asdict(each), "slope": each.slope} for each in found]
    (folder / "regret.json").write_text(json.dumps(lines, indent=2) + "\n")
    (folder / "regret.md").write_text(table(found).markdown() + "\n")
    (folder / "regret.csv").write_text(as_csv(found))
    draw(found, folder / "regret.png")
    Console(width=110).print(table(found).rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
