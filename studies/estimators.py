r"""Table 1 of the paper, measured: gradient estimators against autograd on a smooth loss, and on a network if given.

    python studies/estimators.py --out estimators --data camvid:PATH --split test --weights WEIGHTS.safetensors \
        --model smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11

The columns "paper" repeat the claims of Table 1; the others are measured at an equal number of queries:

- cosine: of one round's estimate with ∇L, and of the mean of all rounds; mean over the images.
- scale: ⟨ĝ, g⟩/‖g‖² with g = ∇L, on a subspace g = P∇L; 1 for an unbiased estimator; mean ± standard error.
- variance: E‖ĝ − g‖²/‖g‖² of a round.
- largest: of ‖ĝ‖/‖∇L‖ over all rounds and over reaches γ from 10⁻³ to 10: what "stable" is about.
- at a kink: sum of the mean estimate for the loss max δ_i at δ = 0. Every subgradient sums to 1.

Every point lies about γ from δ in l2: spheres of other norms and Gaussians are scaled to that, and coordinates, of ZOO
and SimBA, move by γ/√n, as each value does in a dense direction. Points may leave [0, 1], as clamping them would give
the loss another gradient at the border. SimBA is a search and estimates no gradient: its cosine is that of the way it
went. Writes estimators.json, .csv, .md and .png.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from segradius.core import text
from segradius.data import open_data
from segradius.models import load_model
from segradius.paper.computed import REACHES, Finding, Problem, closed_form, compared, of_network
from segradius.report import Cells

COLOURS = ("#000000", "#E69F00", "#D55E00", "#999999", "#009E73", "#0072B2", "#56B4E9", "#CC79A7", "#8B4513")


def table(found: Sequence[Finding]) -> Cells:
    """The rows of one subject."""
    lines = []
    for each in found:
        peak = f"{max(each.norms):.3g}" if each.norms else "–"
        pairs = ["–" if pair is None else "{:.3g} ± {:.2g}".format(*pair) for pair in (each.scale, each.kink)]
        first, variance = (f"{v:.3g}" if v is not None else "–" for v in (each.cosine_round, each.variance))
        cells = (f"{each.queries:.3g}", first, f"{each.cosine_all:.3f}", pairs[0], variance, peak, pairs[1])
        lines.append((each.label, each.paper or "–", *cells))
    header = (
        "method", "paper: queries, stable, unbiased, differentiable", "queries", "cosine, a round", "cosine, all",
        "scale", "variance", "largest", "at a kink",
    )  # fmt: skip
    return Cells(found[0].subject, header, lines)


def tables(path: Path) -> list[Cells]:
    """Those of all subjects, from estimators.json."""
    found = [Finding(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    return [table([each for each in found if each.subject == name]) for name in dict.fromkeys(e.subject for e in found)]


def draw(subjects: Sequence[Problem], found: Sequence[Finding], path: Path) -> None:
    """A PNG: for each subject the largest norm against the reach, and the cosine against queries."""
    figure = Figure(figsize=(10.5, 3.9 * len(subjects) + 0.6), layout="constrained")
    axes = figure.subplots(len(subjects), 2, squeeze=False)
    for pair, on in zip(axes, subjects, strict=True):
        _curves(pair, on, [each for each in found if each.subject == on.name])
    handles, labels = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _curves(axes: Sequence[Axes], on: Problem, found: Sequence[Finding]) -> None:
    for each, colour, marker in zip(found, COLOURS, "so^Dv*P<X", strict=False):
        if each.norms:
            axes[0].plot(REACHES, each.norms, marker=marker, color=colour, markersize=5)
        shown = [(spent, y if y > 0 else math.nan) for spent, y in each.cosines]
        axes[1].plot(*zip(*shown, strict=True), marker=marker, color=colour, markersize=4, label=each.label)
    title = on.name.split(",")[0]
    axes[0].set(xscale="log", yscale="log", xlabel="reach γ (l2)", ylabel="largest ‖ĝ‖/‖∇L‖", title=title)
    axes[1].set(xscale="log", yscale="log", xlabel="queries an image", ylabel="cosine with ∇L", title=title)
    positive = [y for each in found for _, y in each.cosines if y > 0]
    axes[1].set_ylim(max(min(positive), max(positive) / 300) / 1.5, 1.3)
    for axis in axes:
        axis.grid(alpha=0.3)


def as_csv(found: Sequence[Finding]) -> str:
    """A line for each row, without the curves; empty where there is no such thing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("subject", "label", "paper", "queries", "cosine_round", "cosine_all", "variance")
    writer.writerow((*names, "scale", "scale_error", "kink", "kink_error", "largest"))
    for each in found:
        pairs = (*(each.scale or ("", "")), *(each.kink or ("", "")))
        cells = [getattr(each, name) for name in names]
        writer.writerow((*("" if v is None else v for v in cells), *pairs, max(each.norms, default="")))
    return text.getvalue()


def problems(
    model: str, weights: str, data: str, split: str | None, size: str, images: int, queries: tuple[int, int]
) -> list[Problem]:
    """The smooth loss on eight images of 3 × 8 × 8, and the network where it is given."""
    found = [closed_form("smooth", queries[0])]
    if model:
        source = open_data(data, split=split, size=text.size(size), limit=images)
        found.append(of_network(load_model(model, weights=weights or None), source, images, queries[1]))
    return found


def main(
    model: str = "",
    weights: str = "",
    data: str = "",
    split: str | None = None,
    size: str = "120x160",
    images: int = 2,
    queries: int = 3840,
    network_queries: int = 256,
    out: str = "estimators",
) -> None:
    """Measure, print and draw.

    Args:
        model: A network, as `segradius attack` takes it; empty for the smooth loss alone.
        weights: Its checkpoint.
        data: Images and labels, as `segradius attack` takes them.
        split: Part of the data set.
        size: Height x width.
        images: How many, the first ones.
        queries: Of each image of the smooth loss, for each estimator.
        network_queries: The same for the network.
        out: Folder of estimators.json, .csv, .md and .png.
    """
    every = problems(model, weights, data, split, size, images, (queries, network_queries))
    found = [each for on in every for each in compared(on)]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lines = json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False)
    (folder / "estimators.json").write_text(lines + "\n")
    made = tables(folder / "estimators.json")
    (folder / "estimators.csv").write_text(as_csv(found))
    (folder / "estimators.md").write_text("\n\n".join(each.markdown() for each in made) + "\n")
    draw(every, found, folder / "estimators.png")
    for each in made:
        Console(width=150).print(each.rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
