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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor
from torch.nn import functional

import segradius as sr
from segradius.core import text
from segradius.data import open_data
from segradius.gradients import NES, OPGE, TPGE, ZOO, Directions, Estimator, Pixel, Probe, Sphere, Tiles, estimate
from segradius.models import Segmenter, load_model
from segradius.objectives import Goal
from segradius.report import Cells
from segradius.threats import Linf

REACHES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
COLOURS = ("#000000", "#E69F00", "#D55E00", "#999999", "#009E73", "#0072B2", "#56B4E9", "#CC79A7", "#8B4513")
Make = Callable[[float, int], Estimator]  # from the reach γ and the number of values n of an image


@dataclass(frozen=True)
class Candidate:
    """An estimator of the table, and what Table 1 says: queries, stable, unbiased, needs a differentiable loss."""

    label: str
    make: Make
    paper: str = ""
    directions: Directions = field(default_factory=Pixel)


ROWS = (
    Candidate("ZOO", lambda r, n: ZOO(r / math.sqrt(n), n if n < 1000 else 32, unbiased=True), "2n, yes, yes, yes"),
    Candidate("NES, pairs", lambda r, n: NES(r / math.sqrt(n)), "≥ 100, no, yes, no"),
    Candidate("NES, one-sided", lambda r, n: NES(r / math.sqrt(n), antithetic=False), "≥ 100, no, yes, no"),
    Candidate("OPGE", lambda r, n: OPGE(r), "1, no, yes, no"),
    Candidate("TPGE", lambda r, n: TPGE(r), "2, yes, yes, no"),
    Candidate("TPGE, l∞, dense", lambda r, n: TPGE(r * math.sqrt(3 / n), Sphere(Linf()))),
    Candidate("TPGE, l∞, exact", lambda r, n: TPGE(r * math.sqrt(3 / n), Sphere(Linf(), form="exact"))),
    Candidate("TPGE, tiles of 8", lambda r, n: TPGE(r, Sphere(directions=Tiles(8))), "", Tiles(8)),
)
SIMBA = "n, no, no, no"


@dataclass(frozen=True)
class Subject:
    """A loss, where its gradient is wanted, and what autograd says there.

    Attributes:
        name: In the table.
        delta: (N, 3, H, W).
        probe: The black box.
        gradient: (N, 3, H, W).
        reach: γ of the comparison.
        queries: Of each image, for each estimator.
    """

    name: str
    delta: Tensor
    probe: Probe
    gradient: Tensor
    reach: float
    queries: int


@dataclass(frozen=True)
class Measured:
    """A row of the table, None where there is no such thing; ``norms`` and ``cosines`` are the picture's curves."""

    subject: str
    label: str
    paper: str
    queries: float
    cosine_round: float | None
    cosine_all: float
    scale: tuple[float, float] | None
    variance: float | None
    kink: tuple[float, float] | None
    norms: tuple[float, ...]
    cosines: tuple[tuple[float, float], ...]


def smooth(images: Tensor) -> Tensor:
    """A small convolutional network with a loss, (M, 3, H, W) → (M, H, W)."""
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(shape, generator=generator, dtype=images.dtype) for shape in ((6, 3, 3, 3), (1, 6, 3, 3))
    )
    hidden = functional.conv2d(images, first, padding=1).tanh()
    return functional.softplus(functional.conv2d(hidden, second, padding=1))[:, 0] / images[0, 0].numel()


def largest(images: Tensor) -> Tensor:
    """The largest value of each image, at its first pixel, (M, 3, H, W) → (M, H, W)."""
    maps = torch.zeros_like(images[:, 0])
    maps[:, 0, 0] = images.flatten(1).amax(1)
    return maps


def subject(name: str, maps: Callable[[Tensor], Tensor], delta: Tensor, reach: float, queries: int) -> Subject:
    """A subject from the loss of every pixel, which takes a batch of N images at a time."""

    @torch.no_grad()
    def probe(points: Tensor) -> Tensor:
        return torch.stack([maps(point) for point in points])

    leaf = delta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(maps(leaf).sum(), leaf)
    return Subject(name, delta, probe, gradient, reach, queries)


def attack_loss(model: Segmenter, images: Tensor, labels: Tensor, void: int) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of every labelled pixel of x + δ, over their number; (N, 3, H, W) → (N, H, W)."""
    goal = Goal.leave(labels, ignore_index=void)
    share = goal.counted / goal.counted.sum((1, 2), keepdim=True)
    return lambda delta: (
        functional.cross_entropy(model.logits(images + delta), goal.reference, reduction="none") * share
    )


def projected(directions: Directions, gradient: Tensor, keys: sr.Randomness) -> Tensor:
    """P∇L: the lift of the lift's transpose, which is its gradient."""
    shape = gradient.shape[1:]
    values = gradient.new_zeros(len(gradient), *directions.grid(shape)).requires_grad_()
    (coordinates,) = torch.autograd.grad((directions.lift(values, shape, 0.5, keys) * gradient).sum(), values)
    return directions.lift(coordinates, shape, 0.5, keys)


def measure(row: Candidate, on: Subject, keys: sr.Randomness) -> Measured:
    """One estimator on one loss."""
    n = on.delta[0].numel()
    estimator, target = row.make(on.reach, n), projected(row.directions, on.gradient, keys).flatten(1)
    count, true = max(2, on.queries // estimator.queries), on.gradient.flatten(1)
    total, scales, errors, firsts, curve = torch.zeros_like(true), [], [], [], []
    for step in range(count):
        found = estimate(estimator, on.probe, on.delta, keys, step).flatten(1)
        total += found
        scales.append((found * target).sum(1) / target.square().sum(1))
        errors.append((found - target).square().sum(1) / target.square().sum(1))
        firsts.append(functional.cosine_similarity(found, true))
        curve.append((float(estimator.queries * (step + 1)), float(functional.cosine_similarity(total, true).mean())))
    return Measured(
        on.name, row.label, row.paper, estimator.queries, mean(firsts)[0], curve[-1][1], mean(scales),
        mean(errors)[0], kink(row.make(on.reach, n), on, keys), norms(row, on, keys), thin(curve),
    )  # fmt: skip


def norms(row: Candidate, on: Subject, keys: sr.Randomness) -> tuple[float, ...]:
    """Largest ‖ĝ‖/‖∇L‖ at each reach, of one round, or three where they are cheap."""
    n, length, found = on.delta[0].numel(), on.gradient.flatten(1).norm(dim=1), []
    for reach in REACHES:
        estimator = row.make(reach, n)
        rounds = 3 if estimator.queries < 10 else 1
        each = [estimate(estimator, on.probe, on.delta, keys, step).flatten(1).norm(dim=1) for step in range(rounds)]
        found.append(float((torch.stack(each) / length).max()))
    return tuple(found)


def kink(estimator: Estimator, on: Subject, keys: sr.Randomness) -> tuple[float, float]:
    """Sum of the estimate for max δ_i at δ = 0, mean and standard error over images and rounds; whole sweeps of ZOO."""
    at, loss = torch.zeros_like(on.delta), subject("", largest, on.delta[:1], 1.0, 1).probe
    rounds = max(2, on.queries // estimator.queries)
    return mean([estimate(estimator, loss, at, keys, step).flatten(1).sum(1) for step in range(rounds)])


def simba(on: Subject, keys: sr.Randomness) -> Measured:
    """SimBA (Guo et al. 2019): try + and − along one value after the other, keep what raises the loss."""
    n, size = on.delta[0].numel(), on.reach / math.sqrt(on.delta[0].numel())
    order = keys.rows(lambda g: torch.randperm(n, generator=g), "simba", 0, torch.device("cpu"))
    start, delta = on.probe(on.delta.unsqueeze(0)).flatten(2).sum(2)[0], on.delta.clone()
    loss, spent, curve, rounds = start, 1.0, [], 0
    while spent + 2 <= on.queries and rounds < n:
        unit = torch.zeros_like(delta).flatten(1).scatter_(1, order[:, rounds : rounds + 1], size).view_as(delta)
        ahead, behind = on.probe(torch.stack([delta + unit, delta - unit])).flatten(2).sum(2)
        forward = ahead > loss
        backward = ~forward & (behind > loss)
        delta += unit * (forward.int() - backward.int()).view(-1, 1, 1, 1)
        loss = torch.where(forward, ahead, torch.where(backward, behind, loss))
        spent, rounds = spent + 2 - float(forward.float().mean()), rounds + 1  # the second is not asked after a success
        way = (delta - on.delta).flatten(1)
        curve.append((spent, float(functional.cosine_similarity(way, on.gradient.flatten(1)).mean())))
    queries = (spent - 1) / rounds
    return Measured(on.name, "SimBA", SIMBA, queries, None, curve[-1][1], None, None, None, (), thin(curve))


def mean(values: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and standard error over all rounds and images."""
    flat = torch.stack(list(values)).flatten().double()
    return float(flat.mean()), float(flat.std()) / math.sqrt(len(flat))


def thin(curve: Sequence[tuple[float, float]], points: int = 40) -> tuple[tuple[float, float], ...]:
    """At most about ``points`` of a curve, evenly on a logarithmic axis, with the last."""
    kept = sorted({round(len(curve) ** (k / points)) - 1 for k in range(points + 1)})
    return tuple(curve[k] for k in kept)


def table(found: Sequence[Measured]) -> Cells:
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
    found = [Measured(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    return [table([each for each in found if each.subject == name]) for name in dict.fromkeys(e.subject for e in found)]


def draw(subjects: Sequence[Subject], found: Sequence[Measured], path: Path) -> None:
    """A PNG: for each subject the largest norm against the reach, and the cosine against queries."""
    figure = Figure(figsize=(10.5, 3.9 * len(subjects) + 0.6), layout="constrained")
    axes = figure.subplots(len(subjects), 2, squeeze=False)
    for pair, on in zip(axes, subjects, strict=True):
        _curves(pair, on, [each for each in found if each.subject == on.name])
    handles, labels = axes[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _curves(axes: Sequence[Axes], on: Subject, found: Sequence[Measured]) -> None:
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


def as_csv(found: Sequence[Measured]) -> str:
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


def subjects(
    model: str, weights: str, data: str, split: str | None, size: str, images: int, queries: tuple[int, int]
) -> list[Subject]:
    """The smooth loss on eight images of 3 × 8 × 8, and the network where it is given."""
    delta = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    name = f"Smooth loss, n = 192, γ = 0.01, {queries[0]} queries, 8 images"
    found = [subject(name, smooth, delta, 0.01, queries[0])]
    if model:
        network = load_model(model, weights=weights or None)
        source = open_data(data, split=split, size=text.size(size), limit=images)
        samples = [source[i] for i in range(len(source))]
        x, labels = (torch.stack([getattr(each, part) for each in samples]) for part in ("image", "label"))
        maps = attack_loss(network, x, labels, source.classes.ignore_index)
        name = f"{network.name}, n = {x[0].numel()}, γ = 1, {queries[1]} queries, {len(x)} images"
        found.append(subject(name, maps, torch.zeros_like(x), 1.0, queries[1]))
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
    found: list[Measured] = []
    all_subjects = subjects(model, weights, data, split, size, images, (queries, network_queries))
    for on in all_subjects:
        keys = sr.Randomness(0, tuple(f"image {k}" for k in range(len(on.delta))))
        found += [*(measure(row, on, keys) for row in ROWS[:3]), simba(on, keys)]
        found += [measure(row, on, keys) for row in ROWS[3:]]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lines = json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False)
    (folder / "estimators.json").write_text(lines + "\n")
    made = tables(folder / "estimators.json")
    (folder / "estimators.csv").write_text(as_csv(found))
    (folder / "estimators.md").write_text("\n\n".join(each.markdown() for each in made) + "\n")
    draw(all_subjects, found, folder / "estimators.png")
    for each in made:
        Console(width=150).print(each.rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
