"""Table 1 of the paper, measured: gradient estimators against autograd, on losses in closed form and on networks.

Every estimator has the same number of queries, and its points lie about γ from δ in l2: spheres of other norms and
Gaussians are scaled to that, and coordinates, of ZOO and SimBA, move by γ/√n, as each value does in a dense direction.
Points may leave [0, 1], as clamping them would give the loss another gradient at the border. SimBA is a search and
estimates no gradient: its cosine is that of the way it went.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from segradius.core.declared import Count, Seed
from segradius.core.randomness import Randomness
from segradius.data.sample import SegmentationData
from segradius.gradients.directions import Directions, Pixel, Tiles
from segradius.gradients.estimator import Estimator, Probe, estimate
from segradius.gradients.estimators import NES, OPGE, TPGE, ZOO
from segradius.gradients.sphere import Sphere
from segradius.models.segmenter import Segmenter
from segradius.objectives.goal import Goal
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.threats.threat import Linf

#: γ at which the length of an estimate is looked at.
REACHES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
#: An estimator from the reach γ and the number of values n of an image.
Make = Callable[[float, int], Estimator]


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
class Problem:
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
class Finding:
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
    return _network(images, functional.softplus)


def hinge(images: Tensor) -> Tensor:
    """The same network under a hinge in the place of the softplus, (M, 3, H, W) → (M, H, W)."""
    return _network(images, functional.relu)


def _network(images: Tensor, end: Callable[[Tensor], Tensor]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(shape, generator=generator, dtype=images.dtype) for shape in ((6, 3, 3, 3), (1, 6, 3, 3))
    )
    hidden = functional.conv2d(images, first, padding=1).tanh()
    return end(functional.conv2d(hidden, second, padding=1))[:, 0] / images[0, 0].numel()


def largest(images: Tensor) -> Tensor:
    """The largest value of each image, at its first pixel, (M, 3, H, W) → (M, H, W)."""
    maps = torch.zeros_like(images[:, 0])
    maps[:, 0, 0] = images.flatten(1).amax(1)
    return maps


def problem(name: str, maps: Callable[[Tensor], Tensor], delta: Tensor, reach: float, queries: int) -> Problem:
    """A problem from the loss of every pixel, which takes a batch of N images at a time."""

    @torch.no_grad()
    def probe(points: Tensor) -> Tensor:
        return torch.stack([maps(point) for point in points])

    leaf = delta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(maps(leaf).sum(), leaf)
    return Problem(name, delta, probe, gradient, reach, queries)


def attack_loss(model: Segmenter, images: Tensor, labels: Tensor, void: int) -> Callable[[Tensor], Tensor]:
    """Cross-entropy of every labelled pixel of x + δ, over their number; (N, 3, H, W) → (N, H, W)."""
    goal = Goal.leave(labels, ignore_index=void)
    share = goal.counted / goal.counted.sum((1, 2), keepdim=True)
    return lambda delta: (
        functional.cross_entropy(model.logits(images + delta), goal.reference, reduction="none") * share
    )


def projected(directions: Directions, gradient: Tensor, keys: Randomness) -> Tensor:
    """P∇L: the lift of the lift's transpose, which is its gradient."""
    shape = gradient.shape[1:]
    values = gradient.new_zeros(len(gradient), *directions.grid(shape)).requires_grad_()
    (coordinates,) = torch.autograd.grad((directions.lift(values, shape, 0.5, keys) * gradient).sum(), values)
    return directions.lift(coordinates, shape, 0.5, keys)


def measure(row: Candidate, on: Problem, keys: Randomness) -> Finding:
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
    return Finding(
        on.name, row.label, row.paper, estimator.queries, mean(firsts)[0], curve[-1][1], mean(scales),
        mean(errors)[0], kink(row.make(on.reach, n), on, keys), norms(row, on, keys), thin(curve),
    )  # fmt: skip


def norms(row: Candidate, on: Problem, keys: Randomness) -> tuple[float, ...]:
    """Largest ‖ĝ‖/‖∇L‖ at each reach, of one round, or three where they are cheap."""
    n, length, found = on.delta[0].numel(), on.gradient.flatten(1).norm(dim=1), []
    for reach in REACHES:
        estimator = row.make(reach, n)
        rounds = 3 if estimator.queries < 10 else 1
        each = [estimate(estimator, on.probe, on.delta, keys, step).flatten(1).norm(dim=1) for step in range(rounds)]
        found.append(float((torch.stack(each) / length).max()))
    return tuple(found)


def kink(estimator: Estimator, on: Problem, keys: Randomness) -> tuple[float, float]:
    """Sum of the estimate for max δ_i at δ = 0, mean and standard error over images and rounds; whole sweeps of ZOO."""
    at, loss = torch.zeros_like(on.delta), problem("", largest, on.delta[:1], 1.0, 1).probe
    rounds = max(2, on.queries // estimator.queries)
    return mean([estimate(estimator, loss, at, keys, step).flatten(1).sum(1) for step in range(rounds)])


def simba(on: Problem, keys: Randomness) -> Finding:
    """SimBA (Guo et al. 2019): try + and − along one value after the other, keep what raises the loss."""
    n, size = on.delta[0].numel(), on.reach / math.sqrt(on.delta[0].numel())
    order = keys.rows(lambda g: torch.randperm(n, generator=g), "simba", 0, torch.device("cpu")).to(on.delta.device)
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
    return Finding(on.name, "SimBA", SIMBA, queries, None, curve[-1][1], None, None, None, (), thin(curve))


def mean(values: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and standard error over all rounds and images."""
    flat = torch.stack(list(values)).flatten().double()
    return float(flat.mean()), float(flat.std()) / math.sqrt(len(flat))


def thin(curve: Sequence[tuple[float, float]], points: int = 40) -> tuple[tuple[float, float], ...]:
    """At most about ``points`` of a curve, evenly on a logarithmic axis, with the last."""
    kept = sorted({round(len(curve) ** (k / points)) - 1 for k in range(points + 1)})
    return tuple(curve[k] for k in kept)


def closed_form(kind: str, queries: int) -> Problem:
    """The ``smooth`` or ``hinge`` loss at eight random points of 3 × 8 × 8 values, in double precision.

    Args:
        kind: ``smooth`` or ``hinge``.
        queries: Of each point, for each estimator.
    """
    delta = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    name = f"{kind.capitalize()} loss, n = 192, γ = 0.01, {queries} queries, 8 images"
    return problem(name, {"smooth": smooth, "hinge": hinge}[kind], delta, 0.01, queries)


def of_network(
    model: Segmenter, data: SegmentationData, images: int, queries: int, label: str | None = None
) -> Problem:
    """The loss of a network on the first of these images, at δ = 0 and with γ = 1.

    Args:
        model: The network.
        data: Images.
        images: How many.
        queries: Of each image, for each estimator.
        label: What the network is called; None for the model's own name.
    """
    samples = [data[i] for i in range(min(images, len(data)))]
    x, labels = (torch.stack([getattr(each, part) for each in samples]).to(model.device) for part in ("image", "label"))
    maps = attack_loss(model, x, labels, data.classes.ignore_index)
    name = f"{label or model.name}, n = {x[0].numel()}, γ = 1, {queries} queries, {len(x)} images"
    return problem(name, maps, torch.zeros_like(x), 1.0, queries)


def compared(on: Problem, seed: int = 0) -> list[Finding]:
    """All estimators of `ROWS`, and SimBA, on one loss."""
    keys = Randomness(seed, tuple(f"image {k}" for k in range(len(on.delta))))
    found = [measure(row, on, keys) for row in ROWS]
    return [*found[:3], simba(on, keys), *found[3:]]


def _passes(
    subjects: Sequence[Subject] = (), *, queries: int = 3840, network_queries: int = 256, images: int = 2, seed: int = 0
) -> int:
    each = 0
    for row in ROWS:
        spent = row.make(1.0, 1000).queries
        each += spent * (max(2, network_queries // spent) + len(REACHES) * (3 if spent < 10 else 1))
    return sum((each + network_queries + 2) * min(images, len(on.images)) for on in subjects)


@COMPUTED.register("estimators", passes=_passes)
def estimators(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    queries: Count = 3840,
    network_queries: Count = 256,
    images: Count = 2,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Table 1: what estimators of the gradient do with the same number of queries.

    Args:
        subjects: Networks, each measured on the loss of its first images; none for the losses in closed form alone.
        folder: Of the computation.
        queries: Of each point of the losses in closed form, for each estimator.
        network_queries: Of each image of a network.
        images: How many of a network's.
        seed: Of the directions.

    Returns:
        ``reaches``, the γ behind ``norms``, and ``rows``: for each loss and estimator the fields of `Finding`,
        ``loss`` (smooth, hinge, network), ``network`` (its label, or empty), and ``growth``, by
        how much the largest length grows as γ falls from 0.1 to 0.001: 1 if it is stable, 100 if it is as 1/γ.
    """
    rows = []
    for kind in ("smooth", "hinge"):
        given: dict[str, Any] = {"queries": queries, "seed": seed}
        found = remembered(folder, kind, given, partial(_of_closed_form, kind, queries, seed))
        rows += [{**each, "network": "", "loss": kind} for each in found]
    for on in subjects:
        given = {"network": on.known, "queries": network_queries, "images": images, "seed": seed}
        found = remembered(folder, on.label, given, partial(_of_subject, on, images, network_queries, seed))
        rows += [{**on.about, **each, "network": on.label, "loss": "network"} for each in found]
    return {"reaches": list(REACHES), "rows": rows}


def _of_closed_form(kind: str, queries: int, seed: int) -> list[dict[str, Any]]:
    return _lines(compared(closed_form(kind, queries), seed))


def _of_subject(on: Subject, images: int, queries: int, seed: int) -> list[dict[str, Any]]:
    return _lines(compared(of_network(on.load(), on.images, images, queries, on.label), seed))


def _lines(found: Sequence[Finding]) -> list[dict[str, Any]]:
    return [{**asdict(each), "growth": each.norms[0] / each.norms[2] if each.norms else None} for each in found]
