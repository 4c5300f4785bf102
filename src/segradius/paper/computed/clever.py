"""Section 6 of the paper as a computation: what CLEVER's radius costs, and what it is worth to PGD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from segradius.core.declared import Copies, Count, Eps, Positive, Seed
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample
from segradius.paper.computed.attacking import shots
from segradius.paper.computed.clever_radii import REFERENCES, Scores, Setting, prices, scores_of, setting_name
from segradius.paper.computed.spread import gain_of, mean_of, share_of
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.radius.clever import Ball, clever_radius


def _passes(
    subjects: Sequence[Subject] = (), *, settings: Sequence[Sequence[int]] = ((10, 32), (10, 1)), probes: int = 2,
    steps: int = 10, limit: int = 8, dear_limit: int = 4, refreshed: int = 10, ranked: bool = False, pixels: int = 24,
    reference: int = 256, **others: Any,
) -> int:  # fmt: skip
    turns, total = -(-steps // 8), 0
    for on in subjects:
        for dear in (True, False):
            kept = [each for each in settings if dear or each[0] * each[1] <= refreshed]
            images = min(dear_limit if dear else limit, len(on.images)) - (
                0 if dear else min(dear_limit, len(on.images))
            )
            radii = [1 + 2 * probes * batches * samples for batches, samples in kept]
            cheap = [paid for paid, each in zip(radii, kept, strict=True) if each[0] * each[1] <= refreshed]
            attacks = (2 * steps + 1) * (3 + len(kept) + len(cheap)) + 8 * turns + turns * sum(cheap)
            compared = (reference + 2 + pixels * len(on.images.classes) + 5 * (2 * steps + 1)) if ranked else 0
            total += max(images, 0) * (8 + sum(radii) + attacks + 1 + compared)
    return total


@COMPUTED.register("clever", passes=_passes)
def clever(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    settings: tuple[tuple[Count, Count], ...] = ((10, 32), (10, 1)),
    probes: Count = 2,
    radius: Positive | None = None,
    eps: Eps = 1.5,
    steps: Count = 10,
    limit: Count = 8,
    dear_limit: Count = 4,
    refreshed: Count = 10,
    ranked: bool = False,
    pixels: Count = 24,
    reference: Copies = 256,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Section 6: CLEVER's radius against that of smoothing, its price and PixAcc when it guides PGD (l2).

    Args:
        subjects: Networks, each with its images.
        folder: Of the computation.
        settings: N_b and N_s of each setting that is run; the default, 50 and 1024, is told from passes and the time of
            a sample.
        probes: K.
        radius: R of CLEVER's ball; None is ε.
        eps: Budget of the attacks, l2.
        steps: T.
        limit: How many of a subject's images.
        dear_limit: How many of them with the settings that have more than ``refreshed`` samples.
        refreshed: Settings with at most so many samples also guide with weights that are refreshed every 8 steps.
        ranked: Whether radii are compared with references, pixel by pixel.
        pixels: How many of each image have an exact slope.
        reference: Noisy copies of the reference.
        seed: Seed.

    Returns:
        Rows that begin with `Subject.about`. ``prices``: a row for each radius, as `clever_radii.prices` gives, and
        ``n`` images. ``attacks``: a row for each guidance, ``guided_by`` (no attack, PGD, CR-PGD, smoothing, each
        setting, and each with ``, refreshed``), ``n``, ``pixacc``, and ``less_pgd`` and ``less_cr_pgd``, its PixAcc
        less that of the two on the same images. ``ranks``: for each radius and reference the mean of Spearman's
        correlation.
    """
    found: dict[str, list[dict[str, Any]]] = {"prices": [], "attacks": [], "ranks": []}
    size = eps if radius is None else radius
    for on in subjects:
        balls = {setting_name(*each): Ball(size, *each, probes) for each in settings}
        asked = (probes, eps, steps, limit, dear_limit, refreshed, ranked, pixels, reference, seed)
        given = {"network": on.known, "balls": repr(balls), "asked": asked}
        setting = partial(
            Setting, balls=balls, void=on.images.classes.ignore_index, eps=eps, steps=steps, pixels=pixels,
            reference=reference, refreshed=refreshed, seed=seed, ranked=ranked,
        )  # fmt: skip
        one = remembered(folder, on.label, given, partial(_of_subject, on, setting, limit, dear_limit))
        for name, rows in one.items():
            found[name] += [{**on.about, **row} for row in rows]
    return {"eps": eps, "steps": steps, "radius": size, "probes": probes, **found}


def _of_subject(on: Subject, setting: partial[Setting], limit: int, dear_limit: int) -> dict[str, Any]:
    whole = setting(on.load())
    cheap = {name: ball for name, ball in whole.balls.items() if ball.batches * ball.samples <= whole.refreshed}
    dear, rest = list[Scores](), list[Scores]()
    for place, sample in enumerate(_samples(on, whole, max(limit, dear_limit))):
        if not place:  # PyTorch imports a compiler at its first derivative along a direction, which is no price
            image = sample.image[None].to(whole.model.device)
            clever_radius(whole.model, image, Randomness(whole.seed, ("first",)), Ball(1.0, 2, 1, 1))
        if place < dear_limit:
            dear.append(scores_of(whole, sample))
        elif place < limit:
            rest.append(scores_of(replace(whole, balls=cheap), sample))
    every = [*dear, *rest]
    rows = []
    for name in dear[0].right:
        used = [each for each in every if name in each.right]
        right, pixels = [each.right[name] for each in used], [each.pixels for each in used]
        less = {
            key: gain_of(right, [each.right[other] for each in used], pixels)
            for key, other in (("less_pgd", "PGD"), ("less_cr_pgd", "CR-PGD"))
        }
        rows.append({"guided_by": name, "n": len(used), "pixacc": share_of(right, pixels), **less})
    priced = [{**row, "n": len(dear)} for row in prices(dear, whole.balls, whole.model.num_classes)]
    ranks = [
        {"radius": name, "reference": other, "spearman": mean_of([each.ranks[name][other] for each in used])}
        for name in (dear[0].ranks if whole.ranked else ())
        for used in [[each for each in every if name in each.ranks]]
        for other in REFERENCES
    ]
    return {"prices": priced, "attacks": rows, "ranks": ranks}


def _samples(on: Subject, setting: Setting, limit: int) -> Iterator[Sample]:
    for shot in shots(on, setting.model, limit):
        yield Sample(shot.id, shot.images[0], shot.labels[0])
