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
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import auto_cli
from matplotlib.figure import Figure
from rich.console import Console

import segradius as sr
from segradius.paper.computed import Regrets, regrets
from segradius.report import Cells

COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's


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
    found = regrets([2**power for power in range(first, last + 1, 2)], seeds)
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
