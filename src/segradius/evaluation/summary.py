"""From stored results to the rows of a table: metrics with intervals, costs, paired differences, sanity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from segradius.evaluation.experiment import AttackPlan, Experiment
from segradius.evaluation.store import CLEAN, ImageResult, Pixels, Store
from segradius.metrics.counts import Counts
from segradius.metrics.statistics import (
    Difference,
    Interval,
    interval,
    miou,
    miou_image,
    paired_difference,
    pixel_accuracy,
    pooled_accuracy,
    worst_accuracy,
    worst_miou,
)


@dataclass(frozen=True)
class Sanity:
    """What must hold of every adversarial image, at its worst over the images.

    Args:
        length_over_eps: Largest ‖δ‖ / ε; at most 1 save for float32 rounding.
        outside: Largest distance of a value from [0, 1]; 0.
        disagreement: Share of labelled pixels whose prediction differs when the adversarial image is judged again; NaN
            where that would have had its price.
    """

    length_over_eps: float
    outside: float
    disagreement: float


@dataclass(frozen=True)
class Row:
    """One attack in one threat model over all images; for the unattacked images norm, eps and sanity are None.

    Args:
        name: ``"clean"``, the attack, or ``"worst of K"``: for each image whichever of K attacks did worst.
        norm: Norm of the threat model.
        eps: Its budget.
        images: Images behind the figures.
        invalid: Images left out because NaN or infinite logits were met.
        pixacc: Share of all labelled pixels that are right, pooled over images, in [0, 1], with its interval.
        miou: Data-set MIoU, as the field reports it; for an ensemble with the choice of members that makes it least.
        miou_image: MIoU as the paper defines it (Section 5.1).
        success: Eligible pixels that reached the goal.
        forward: Forward passes per image, all purposes.
        backward: Backward passes per image.
        seconds: Wall time per image.
        ledger: ``{purpose: {"forward": …, "backward": …}}`` summed over the images.
        sanity: What must hold.
    """

    name: str
    norm: str | None
    eps: float | None
    images: int
    invalid: int
    pixacc: Interval
    miou: Interval
    miou_image: Interval
    success: float
    forward: float
    backward: float
    seconds: float
    ledger: dict[str, dict[str, int]]
    sanity: Sanity | None


@dataclass(frozen=True)
class Comparison:
    """Per-image pixel accuracy after ``attack`` minus that after ``against``, over ``images``; negative: stronger."""

    attack: str
    against: str
    norm: str
    eps: float
    images: int
    difference: Difference


@dataclass(frozen=True)
class Summary:
    """All that a run found out."""

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    set_aside: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """Valid results of one attack in the order of the data, and how many were invalid."""

    plan: AttackPlan
    results: dict[str, ImageResult]
    invalid: int

    def counts(self, ids: Iterable[str]) -> Counts:
        """Counts over some images."""
        return _counts([self.results[image].pixels for image in ids])

    def alternatives(self, ids: Sequence[str]) -> list[Counts]:
        """The attack's own counts and each member's; an invalid member's are the attack's own."""
        chosen = [self.results[image] for image in ids]
        names = dict.fromkeys(name for result in chosen for name in result.members)
        members = [_counts([result.members.get(name, result.pixels) for result in chosen]) for name in names]
        return [_counts([result.pixels for result in chosen]), *members]


def summarise(experiment: Experiment, store: Store, ids: Sequence[str]) -> Summary:
    """Rows and comparisons of ``experiment`` over the images ``ids`` that have results.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set, in order.
    """
    clean = _outcome(AttackPlan(CLEAN, "", 0.0), CLEAN, store, ids)
    outcomes = [_outcome(plan, experiment.key(plan), store, list(clean.results)) for plan in experiment.attacks]
    rows = [_row(clean), *map(_row, outcomes)]
    for threat in dict.fromkeys(plan.threat for plan in experiment.attacks):
        rows += _worst([outcome for outcome in outcomes if outcome.plan.threat == threat])
    return Summary(tuple(rows), tuple(_comparisons(outcomes)), store.all_set_aside())


def _outcome(plan: AttackPlan, key: str, store: Store, ids: Sequence[str]) -> Outcome:
    stored = store.results(key)
    found = [stored[image] for image in ids if image in stored]
    valid = {result.image: result for result in found if result.valid}
    return Outcome(plan, valid, len(found) - len(valid))


def _row(outcome: Outcome) -> Row:
    plan, results = outcome.plan, list(outcome.results.values())
    attacked = plan.name != CLEAN
    own, *members = outcome.alternatives(list(outcome.results))
    return _filled(
        plan.name,
        plan if attacked else None,
        results,
        outcome.invalid,
        own,
        _least_miou([own, *members]) if members else own,
        _sanity(plan, results) if attacked else None,
    )


def _worst(outcomes: Sequence[Outcome]) -> list[Row]:
    """The row of the per-image worst over several attacks in one threat model, members of ensembles included."""
    if len(outcomes) < 2:
        return []
    ids = [image for image in outcomes[0].results if all(image in other.results for other in outcomes)]
    invalid = max(len(outcome.results) + outcome.invalid for outcome in outcomes) - len(ids)
    each = [outcome.counts(ids) for outcome in outcomes]
    every = [counts for outcome in outcomes for counts in outcome.alternatives(ids)]
    choice = worst_accuracy(each).tolist() if ids else []
    chosen = [outcomes[pick].results[image] for pick, image in zip(choice, ids, strict=True)]
    worst = _counts([result.pixels for result in chosen])
    row = _filled(
        f"worst of {len(outcomes)}",
        outcomes[0].plan,
        [outcome.results[image] for outcome in outcomes for image in ids],
        invalid,
        worst,
        _least_miou(every) if ids else worst,
        None,
        hits=chosen,
    )
    return [row]


def _filled(
    name: str,
    plan: AttackPlan | None,
    results: Sequence[ImageResult],
    invalid: int,
    counts: Counts,
    miou_counts: Counts,
    sanity: Sanity | None,
    hits: Sequence[ImageResult] | None = None,
) -> Row:
    """A row from the results whose cost it bears and the counts that its metrics come from."""
    ledger = _ledger(results)
    images = max(1, len(counts))
    return Row(
        name,
        plan.norm if plan else None,
        plan.eps if plan else None,
        len(counts),
        invalid,
        interval(pooled_accuracy, counts),
        interval(miou, miou_counts),
        interval(miou_image, counts),
        _success(results if hits is None else hits),
        sum(book["forward"] for book in ledger.values()) / images,
        sum(book["backward"] for book in ledger.values()) / images,
        math.fsum(result.seconds for result in results) / images,
        ledger,
        sanity,
    )


def _comparisons(outcomes: Sequence[Outcome]) -> Iterator[Comparison]:
    """Each ``cr_X`` against X, and every attack against plain PGD and PBGD, within a threat model."""
    by_name = {(outcome.plan.name, *outcome.plan.threat): outcome for outcome in outcomes}
    for outcome in outcomes:
        name = outcome.plan.name
        for against in dict.fromkeys((name.removeprefix("cr_"), "pgd", "pbgd")):
            other = by_name.get((against, *outcome.plan.threat))
            if other is not None and against != name:
                ids = [image for image in outcome.results if image in other.results]
                if ids:
                    a, b = pixel_accuracy(outcome.counts(ids)), pixel_accuracy(other.counts(ids))
                    yield Comparison(name, against, *outcome.plan.threat, len(ids), paired_difference(a, b))


def _least_miou(alternatives: Sequence[Counts]) -> Counts:
    """Counts of the choice of one alternative per image that a greedy search finds to have the least MIoU."""
    choice = worst_miou(list(alternatives))
    rows = torch.arange(len(choice))
    parts = ([getattr(counts, part) for counts in alternatives] for part in Pixels._fields)
    return Counts(*(torch.stack(part)[choice, rows] for part in parts))


def _success(results: Sequence[ImageResult]) -> float:
    eligible = sum(result.eligible for result in results)
    return sum(result.hit for result in results) / eligible if eligible else math.nan


def _sanity(plan: AttackPlan, results: Sequence[ImageResult]) -> Sanity:
    pixels = sum(sum(result.pixels.labelled) for result in results)
    differing = [math.nan if result.disagreement is None else result.disagreement for result in results]
    return Sanity(
        max((getattr(result, plan.norm) / plan.eps for result in results), default=math.nan),
        max((result.outside for result in results), default=math.nan),
        sum(differing) / pixels if pixels else math.nan,
    )


def _ledger(results: Sequence[ImageResult]) -> dict[str, dict[str, int]]:
    book: dict[str, dict[str, int]] = {}
    for result in results:
        for purpose, (forward, backward) in result.passes.items():
            entry = book.setdefault(purpose, {"forward": 0, "backward": 0})
            entry["forward"] += forward
            entry["backward"] += backward
    return book


def _counts(images: Sequence[Pixels]) -> Counts:
    if not images:
        return Counts(*(torch.zeros(0, 0, dtype=torch.int64) for _ in Pixels._fields))
    return Counts(*(torch.tensor(part, dtype=torch.int64) for part in zip(*images, strict=True)))
