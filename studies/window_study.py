"""How wide a position should listen: bias and variance of the local estimator against its window, on a real network.

    python studies/window_study.py --model SPEC --weights FILE --data camvid:PATH --out docs/figures/window.png

For each window the same draws are used. *Alone* is the cosine of one round's estimate with the exact gradient,
projected on the directions' tiles; *mean of R* that of the mean over R rounds, which only bias keeps below 1 in the
end. The last window is the whole image, where the estimate is TPGE's. The footprint of the network, measured with
queries alone, is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jsonargparse import auto_cli
from matplotlib.figure import Figure
from torch import Tensor

import segradius as sr
from segradius.attacks import footprint
from segradius.core import text
from segradius.gradients import LocalTPGE, Sphere, Tiles
from segradius.objectives import ExpectedFlips, Goal, look
from segradius.report import Cells

WINDOWS = (1, 17, 33, 49, 65, 97, 145, 241, 641)


def study(
    model: str,
    data: str,
    weights: str | None = None,
    split: str = "val",
    size: str = "240x320",
    images: int = 4,
    rounds: int = 128,
    tile: int = 16,
    gamma: float = 0.5,
    tau: float = 2.0,
    out: Path | None = None,
) -> None:
    """Measure, print and draw.

    Args:
        model: As ``segradius attack --model``.
        data: As ``segradius attack --data``.
        weights: File of the weights.
        split: Part of the data set.
        size: Height x width.
        images: Images, evenly spread over the split.
        rounds: Rounds R of two queries.
        tile: Side of the tiles of the directions.
        gamma: γ, in l2.
        tau: Scale of the loss, expected flips.
        out: Picture to write.
    """
    opened = sr.open_data(data, split=split, size=text.size(size))
    samples = [opened[int((i + 0.5) * len(opened) / images)] for i in range(images)]
    stack, labels = (torch.stack(part) for part in zip(*((s.image, s.label) for s in samples), strict=True))
    network, loss = sr.load_model(model, weights=weights), ExpectedFlips(tau, tau)
    goal = Goal.leave(labels)
    exact = _on_tiles(_gradient(network, loss, stack, goal), tile)
    means = torch.zeros(len(WINDOWS), *stack.shape)
    alone = torch.zeros(len(WINDOWS), images)
    curve: dict[int, Tensor] = {}
    keys = sr.Randomness(0, tuple(s.id for s in samples))
    local = LocalTPGE(gamma, Sphere(directions=Tiles(tile)), window=1)
    for step in range(rounds):
        draw = local.draw(torch.zeros_like(stack), keys, step)
        points = local.points(torch.zeros_like(stack), draw)[:]
        losses = torch.stack([_losses(network, loss, (stack + p).clamp(0, 1), goal) for p in points])
        for row, window in enumerate(WINDOWS):
            found = _on_tiles(replace(local, window=window).gradient(losses, draw), tile)
            alone[row] += _cosine(found, exact) / rounds
            means[row] += found
        if step + 1 in (8, 32, rounds):
            curve[step + 1] = torch.stack([_cosine(mean, exact).mean() for mean in means])
    marked = footprint(network, stack, labels, tile=tile).window()
    _print(alone.mean(1), curve, marked, images)
    if out is not None:
        _draw(alone.mean(1), curve, marked, out)


def _losses(network: sr.Segmenter, loss: ExpectedFlips, images: Tensor, goal: Goal) -> Tensor:
    seen = look(network.scores(images), goal.reference)
    return loss.of_scores(*seen) * goal.counted / goal.counted.flatten(1).sum(1).view(-1, 1, 1)


def _gradient(network: sr.Segmenter, loss: ExpectedFlips, images: Tensor, goal: Goal) -> Tensor:
    x = images.clone().requires_grad_()
    with network.frozen():
        value = goal.mean(loss(network.logits(x), goal.reference)).sum()
        (found,) = torch.autograd.grad(value, x)
    return found


def _on_tiles(values: Tensor, tile: int) -> Tensor:
    """Means over the tiles, on their pixels: the projection on what is constant there."""
    coarse = torch.nn.functional.avg_pool2d(values, tile, ceil_mode=True)
    return coarse.repeat_interleave(tile, 2).repeat_interleave(tile, 3)[..., : values.shape[2], : values.shape[3]]


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a.flatten(1), b.flatten(1))


def _print(alone: Tensor, curve: dict[int, Tensor], marked: int, images: int) -> None:
    title = f"Cosine with the exact gradient on the tiles, mean over n = {images}; footprint (80 %): {marked} px"
    names = [*map(str, WINDOWS[:-1]), "image (TPGE)"]
    columns = {"alone": alone} | {f"mean of {rounds}": means for rounds, means in curve.items()}
    rows = [(name, *(f"{values[k]:.3f}" for values in columns.values())) for k, name in enumerate(names)]
    print(Cells(title, ("window", *columns), rows).markdown())


def _draw(alone: Tensor, curve: dict[int, Tensor], marked: int, out: Path) -> None:
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    lines: Sequence[tuple[str, Tensor]] = [
        ("one round", alone),
        *((f"mean of {rounds} rounds", means) for rounds, means in curve.items()),
    ]
    for colour, (name, values) in zip(("#56B4E9", "#0072B2", "#009E73", "#D55E00"), lines, strict=False):
        axes.plot(range(len(WINDOWS)), values, "o-", color=colour, ms=4)
        end = (len(WINDOWS) - 1, float(values[-1]))
        axes.annotate(name, end, (8, 0), textcoords="offset points", color=colour, va="center")
    place = sum(window < marked for window in WINDOWS)
    before, after = WINDOWS[place - 1], WINDOWS[place]
    at = place - 1 + (marked - before) / (after - before)
    axes.axvline(at, color="#999999", lw=0.8, ls=":")
    axes.annotate("footprint", (at, 1.0), (4, 0), textcoords="offset points", color="#777777")
    axes.set_xticks(range(len(WINDOWS)), [*map(str, WINDOWS[:-1]), "image"])
    axes.set(xlabel="side of the window (pixels)", ylabel="cosine with the exact gradient")
    axes.set(xlim=(-0.3, len(WINDOWS) + 1.3), ylim=(0, 1.05))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    auto_cli(study, as_positional=False)
