"""Section 6 of the paper: CLEVER's radius beside that of randomized smoothing, its price and its worth to PGD.

Ranking: Spearman's correlation over the labelled pixels that are right, with

- smoothing: the radius from many noisy copies;
- slope: margin over its largest slope at x, min_j g_ij(x) / ‖∇g_ij(x)‖, exact by a backward pass for each class, at a
  few random pixels only;
- PGD: the least of five budgets, ε/16 to ε, at which plain PGD fools the pixel.

Attack: pixel accuracy after T steps of PGD, weights from the radius at x and then kept, for every radius alike. CR-PGD
as the library runs it, refreshed every 8 steps, stands beside them, and so does CLEVER where that is cheap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.make import guided_by, make_attack
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample
from segradius.models.segmenter import Segmenter
from segradius.objectives.goal import Goal
from segradius.objectives.view import View
from segradius.objectives.weightings import CertifiedRadius, CleverRadius, Weighting
from segradius.paper.computed.running_time import clock_of
from segradius.radius.clever import Ball, clever_radius
from segradius.radius.jacobians import differences, gradient_norms, plane_distances
from segradius.radius.smoothing import pixel_radius

#: CLEVER's default N_b and N_s.
FULL = (50, 1024)
SMOOTHING = "smoothing"
REFERENCES = ("smoothing", "slope", "PGD")


@dataclass(frozen=True)
class Given(Weighting):
    """Pixel weights that were computed before the attack, (N, H, W)."""

    weights: Tensor

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """They never change."""
        return view.number(self.weights), state


@dataclass(frozen=True)
class Radius:
    """One image's radii by one method: (1, H, W), the weights that they make, and what they cost."""

    radius: Tensor
    weights: Tensor
    passes: int
    seconds: float


@dataclass(frozen=True)
class Scores:
    """One image: by method, passes and seconds of a radius, correlation with each reference, and right pixels."""

    image: str
    pixels: int
    passes: Mapping[str, int]
    seconds: Mapping[str, float]
    ranks: Mapping[str, Mapping[str, float]]
    right: Mapping[str, int]


@dataclass(frozen=True)
class Setting:
    """What is common to all images.

    Attributes:
        model: The network.
        balls: CLEVER's settings by name.
        void: Ignored label.
        eps: Budget, l2.
        steps: T.
        pixels: How many of each image have an exact slope.
        reference: Noisy copies of the reference.
        refreshed: CLEVER with at most so many samples also guides with refreshed weights.
        seed: Seed.
        ranked: Whether radii are compared with the references, which is dearer than the rest.
    """

    model: Segmenter
    balls: Mapping[str, Ball]
    void: int
    eps: float
    steps: int
    pixels: int
    reference: int
    refreshed: int
    seed: int
    ranked: bool = True


def smoothing(on: Setting, images: Tensor, keys: Randomness) -> Radius:
    """M = 8 noisy copies at the paper's σ."""
    weighting, book, clock = CertifiedRadius(), Ledger(1), clock_of(images.device)
    start = clock()
    found = pixel_radius(on.model, images, keys, sigma=weighting.sigma, samples=weighting.samples, ledger=book)
    seconds = clock() - start
    return Radius(found.radius, weighting.of_probability(found.probability), int(book.forward[0]), seconds)


def of_clever(on: Setting, ball: Ball, images: Tensor, keys: Randomness, goal: Goal) -> Radius:
    """CLEVER with some N_b, N_s and K."""
    book, clock = Ledger(1), clock_of(images.device)
    start = clock()
    found = clever_radius(on.model, images, keys, ball, ledger=book).radius
    seconds = clock() - start
    weights = guidance(ball).of_radius(found, goal.mean(found).view(-1, 1, 1))
    return Radius(found, weights, int(book.forward[0] + book.backward[0]), seconds)


def guidance(ball: Ball) -> CleverRadius:
    """CLEVER's weighting with these settings."""
    return CleverRadius(radius=ball.radius, batches=ball.batches, samples=ball.samples, probes=ball.probes)


def slopes(on: Setting, images: Tensor, places: Tensor) -> Tensor:
    """min_j g_ij / ‖∇g_ij‖ at x, of P pixels of one image; (P,)."""
    with torch.no_grad():
        logits = on.model.logits(images)
    classes = logits.argmax(1)
    norms = gradient_norms(on.model, images, classes, places)
    margins, own = differences(logits, classes).flatten(2)[..., places], classes.flatten(1)[:, places]
    return plane_distances(margins, norms, own).amin(1)[0]


def first_budget(on: Setting, images: Tensor, labels: Tensor, key: str) -> Tensor:
    """The least of ε/16 … ε at which plain PGD fools a pixel, 2ε where none does; (1, H, W)."""
    least = torch.full(labels.shape, 2 * on.eps, device=labels.device)
    for part in (1.0, 0.5, 0.25, 0.125, 0.0625):
        attack = make_attack("pgd", norm="l2", eps=on.eps * part, steps=on.steps)
        found = attack(on.model, images, labels, ids=(key,), seed=on.seed)
        least = torch.where(found.prediction != labels, on.eps * part, least)
    return least


def attacked(on: Setting, images: Tensor, labels: Tensor, key: str, found: Mapping[str, Radius]) -> dict[str, int]:
    """Right pixels before, and after each attack."""
    plain, guided = (make_attack(name, norm="l2", eps=on.eps, steps=on.steps) for name in ("pgd", "cr_pgd"))
    attacks = {"PGD": plain, "CR-PGD": guided} | {
        name: replace(plain, method=guided_by(plain.method, Given(each.weights))) for name, each in found.items()
    }
    for name, ball in on.balls.items():
        if ball.batches * ball.samples <= on.refreshed:
            attacks[f"{name}, refreshed"] = replace(plain, method=guided_by(plain.method, guidance(ball)))
    known = labels != on.void
    right = {"no attack": int(((on.model.logits(images).detach().argmax(1) == labels) & known).sum())}
    for name, attack in attacks.items():
        result = attack(on.model, images, labels, ids=(key,), seed=on.seed, ignore_index=on.void)
        right[name] = int(known.sum() - result.fooled.sum())
    return right


def scores_of(on: Setting, sample: Sample) -> Scores:
    """Everything about one image."""
    images, labels = (each[None].to(on.model.device) for each in (sample.image, sample.label))
    keys, goal = Randomness(on.seed, (sample.id,)), Goal.leave(labels, ignore_index=on.void)
    found = {SMOOTHING: smoothing(on, images, keys)}
    found |= {name: of_clever(on, ball, images, keys, goal) for name, ball in on.balls.items()}
    return Scores(
        sample.id,
        int(goal.counted.sum()),
        {name: each.passes for name, each in found.items()},
        {name: each.seconds for name, each in found.items()},
        ranks(on, images, labels, sample.id, goal, found) if on.ranked else {},
        attacked(on, images, labels, sample.id, found),
    )


def ranks(
    on: Setting, images: Tensor, labels: Tensor, key: str, goal: Goal, found: Mapping[str, Radius]
) -> dict[str, dict[str, float]]:
    """Spearman's correlation of each radius with each reference, over labelled pixels that are right."""
    from scipy.stats import spearmanr  # half a second to import

    with torch.no_grad():
        kept = ((on.model.logits(images).argmax(1) == labels) & goal.counted).flatten().nonzero().squeeze(1)
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(on.seed))
    few, keys = kept[order[: on.pixels]], Randomness(on.seed, (key,)).spawn("reference")
    fine = pixel_radius(on.model, images, keys, samples=on.reference).radius.flatten()
    budgets, exact = first_budget(on, images, labels, key).flatten(), slopes(on, images, few)
    compared: dict[str, dict[str, float]] = {}
    for name, each in found.items():
        flat = each.radius.flatten()
        pairs = ((flat[kept], fine[kept]), (flat[few], exact), (flat[kept], budgets[kept]))
        values = [float(spearmanr(*(side.cpu() for side in pair)).statistic) for pair in pairs]
        compared[name] = dict(zip(REFERENCES, values, strict=True))
    return compared


def setting_name(batches: int, samples: int) -> str:
    """What a setting of CLEVER is called.

    Example:
        >>> setting_name(10, 32)
        'CLEVER (10, 32)'
    """
    return f"CLEVER ({batches}, {samples})"


def prices(found: Sequence[Scores], balls: Mapping[str, Ball], classes: int) -> list[dict[str, Any]]:
    """What the radius of all pixels of an image costs: by smoothing, by CLEVER at each setting, and at its default.

    The paper counts N_b·N_s·|Y| passes; `segradius.radius.clever` needs one and 2·K·N_b·N_s (a pass with its tangent is
    two). (50, 1024) is not run: its seconds are those of a sample of the largest setting that is.

    Args:
        found: Of images.
        balls: CLEVER's settings, all of them run on all of the images.
        classes: |Y|.

    Returns:
        A row for each: ``method``, ``batches``, ``samples``, ``passes_paper``, ``passes``, ``seconds``,
        ``extrapolated``, and ``times_paper``, ``times_passes``, ``times_seconds``: as multiples of smoothing.
    """
    seconds = {name: fmean([each.seconds[name] for each in found]) for name in (SMOOTHING, *balls)}
    base = found[0].passes[SMOOTHING]
    rows = [_price(SMOOTHING, (0, base), (base, base, seconds[SMOOTHING]), (base, seconds[SMOOTHING]))]
    if balls:
        dearest, ball = max(balls.items(), key=lambda item: item[1].batches * item[1].samples)
        count = FULL[0] * FULL[1]
        spent = seconds[dearest] * count / (ball.batches * ball.samples)
        full = (count * classes, 1 + 2 * ball.probes * count, spent)
        rows.append(_price(setting_name(*FULL), FULL, full, (base, seconds[SMOOTHING]), extrapolated=True))
    for name, ball in balls.items():
        paid = (ball.batches * ball.samples * classes, found[0].passes[name], seconds[name])
        rows.append(_price(name, (ball.batches, ball.samples), paid, (base, seconds[SMOOTHING])))
    return rows


def _price(
    method: str,
    size: tuple[int, int],
    paid: tuple[int, int, float],
    base: tuple[int, float],
    *,
    extrapolated: bool = False,
) -> dict[str, Any]:
    theirs, ours, seconds = paid
    about = {"method": method, "batches": size[0], "samples": size[1], "extrapolated": extrapolated}
    times = {"times_paper": theirs / base[0], "times_passes": ours / base[0], "times_seconds": seconds / base[1]}
    return {**about, "passes_paper": theirs, "passes": ours, "seconds": seconds, **times}
