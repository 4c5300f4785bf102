"""What attacks came to: rows of metrics with intervals, costs, paired differences, sanity; and the files for that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from segradius.attacks.make import references
from segradius.core.storage import as_csv, as_json
from segradius.evaluation.attack import STILL, AttackPlan
from segradius.evaluation.class_summary import ClassRow, class_rows, classes_csv
from segradius.evaluation.job import Experiment
from segradius.evaluation.outcome import Digest, digest_of
from segradius.evaluation.preflight import Finding
from segradius.evaluation.store import CLEAN, ImageResult, Store, ledger
from segradius.evaluation.trace import trace_csv
from segradius.metrics.counts import Counts, Pixels
from segradius.metrics.intervals import Difference, Interval, interval, jackknife, paired_difference
from segradius.metrics.statistics import (
    miou,
    miou_image,
    pooled_accuracy,
    worst_miou,
)

ABOUT = ("attack", "norm", "eps", "image", "valid", "pixels", "right", "pixacc", "hit", "eligible")
MEASURED = ("l1", "l2", "linf", "outside", "disagreement", "forward", "backward")
COLUMNS = (*ABOUT, *MEASURED)

#: Passes of the evaluation and not of the attack; in the ledger, and in no cost of an attack.
CHECKING = "checking"


@dataclass(frozen=True)
class Sanity:
    """What must hold of every adversarial image, at its worst over the images.

    Args:
        length_over_eps: Largest ‖δ‖ / ε; at most 1 save for float32 rounding.
        outside: Largest distance of a value from [0, 1]; 0.
        disagreement: Share of labelled pixels whose prediction differs when the adversarial image is judged again; NaN
            where that would have had its price.
        zero_gradient: Images whose gradient was exactly zero at every step, so that the attack had nothing to follow.
    """

    length_over_eps: float
    outside: float
    disagreement: float
    zero_gradient: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One attack in one threat model over all images; for the unattacked images norm, eps and sanity are None.

    Args:
        name: ``"clean"``, the attack by its label, or ``"worst of K"``: for each image whichever of K did worst, which
            is by the share of pixels that are right or, of targeted attacks, that are not where they aim.
        norm: Norm of the threat model.
        eps: Its budget.
        images: Images behind the figures.
        invalid: Images left out because NaN or infinite logits were met.
        pixacc: Share of all labelled pixels that are right, pooled over images, in [0, 1], with its interval.
        miou: Data-set MIoU, as the field reports it; for an untargeted ensemble with the choice of members that makes
            it least.
        miou_image: MIoU as the paper defines it (Section 5.1).
        success: Share of the eligible pixels that reached the goal, in [0, 1], with its interval.
        forward: Forward passes per image for all purposes but ``checking``, which is no part of the attack.
        backward: Backward passes per image, likewise.
        seconds: Wall time per image.
        ledger: ``{purpose: {"forward": …, "backward": …}}`` summed over the images.
        sanity: What must hold.
        classes: What is left of each class.
    """

    name: str
    norm: str | None
    eps: float | None
    images: int
    invalid: int
    pixacc: Interval
    miou: Interval
    miou_image: Interval
    success: Interval
    forward: float
    backward: float
    seconds: float
    ledger: dict[str, dict[str, int]]
    sanity: Sanity | None
    classes: tuple[ClassRow, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """`share_left` of each image after ``attack`` minus that after ``against``, over ``images``; negative: stronger."""

    attack: str
    against: str
    norm: str
    eps: float
    images: int
    difference: Difference


@dataclass(frozen=True)
class Summary:
    """All that a run found out; ``targeted`` attacks are compared by what they aim at.

    ``invalid`` has the images that gave NaN or infinite logits, by label, norm and ε of the attack.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    set_aside: dict[str, str]
    targeted: bool = False
    digest: Digest | None = None
    invalid: Mapping[tuple[str, str | None, float | None], tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Valid results of one attack in the order of the data, how many were invalid, and where it had no gradient."""

    plan: AttackPlan
    results: dict[str, ImageResult]
    invalid: int
    still: tuple[str, ...] = ()
    targeted: bool = False

    def left(self, ids: Iterable[str]) -> list[float]:
        """What the attack left of each image."""
        return [share_left(self.results[image], targeted=self.targeted) for image in ids]

    def counts(self, ids: Iterable[str]) -> Counts:
        """Counts over some images."""
        return Counts.of([self.results[image].pixels for image in ids])

    def alternatives(self, ids: Sequence[str]) -> list[Counts]:
        """The attack's own counts and each member's; an invalid member's are the attack's own."""
        chosen = [self.results[image] for image in ids]
        names = dict.fromkeys(name for result in chosen for name in result.members)
        members = [Counts.of([result.members.get(name, result.pixels) for result in chosen]) for name in names]
        return [Counts.of([result.pixels for result in chosen]), *members]


def share_left(result: ImageResult, *, targeted: bool) -> float:
    """What an attack left undone of an image: labelled pixels that are right or, targeted, not where it aimed.

    Example:
        >>> from segradius.metrics.counts import Pixels
        >>> result = ImageResult("a", Pixels((1, 2), (2, 2), (3, 1)), hit=1, eligible=4)
        >>> share_left(result, targeted=False), share_left(result, targeted=True)
        (0.75, 0.75)
    """
    if targeted:
        return 1 - result.hit / max(1, result.eligible)
    return sum(result.pixels.intersection) / max(1, sum(result.pixels.labelled))


def summarise(experiment: Experiment, store: Store, ids: Sequence[str], names: Sequence[str] = ()) -> Summary:
    """Rows and comparisons of ``experiment`` over the images ``ids`` that have results.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set, in order.
        names: Of the model's classes, for a row of each.
    """
    targeted = experiment.aim is not None
    aside = store.all_set_aside()
    ids = [image for image in ids if image not in aside]  # also where an attack failed that others did not
    clean = _outcome(AttackPlan(CLEAN, "l2", 0.0), CLEAN, store, ids, targeted=targeted)
    usable = list(clean.results)
    outcomes = [_outcome(plan, experiment.key(plan), store, usable, targeted=targeted) for plan in experiment.attacks]
    rows = [_row(outcome, names) for outcome in (clean, *outcomes)]
    for threat in dict.fromkeys(plan.threat for plan in experiment.attacks):
        rows += _worst([outcome for outcome in outcomes if outcome.plan.threat == threat], names)
    digest = digest_of(experiment, store, ids)
    spoilt: dict[tuple[str, str | None, float | None], tuple[str, ...]] = {
        (plan.label, *plan.threat): tuple(
            image for image, found in store.results(experiment.key(plan)).items() if not found.valid
        )
        for plan in experiment.attacks
    }
    return Summary(tuple(rows), tuple(_comparisons(outcomes)), aside, targeted, digest, spoilt)


def _outcome(plan: AttackPlan, key: str, store: Store, ids: Sequence[str], *, targeted: bool) -> Outcome:
    stored = store.results(key)
    found = [stored[image] for image in ids if image in stored]
    valid = {result.image: result for result in found if result.valid}
    still = tuple(image for image in valid if store.record(key, image) == STILL)
    return Outcome(plan, valid, len(found) - len(valid), still, targeted)


def _row(outcome: Outcome, names: Sequence[str]) -> Row:
    plan, results = outcome.plan, list(outcome.results.values())
    attacked = plan.name != CLEAN
    own, *members = outcome.alternatives(list(outcome.results))
    return _filled(
        plan.label,
        plan if attacked else None,
        results,
        outcome.invalid,
        own,
        _least_miou([own, *members]) if members and not outcome.targeted else own,
        _sanity(outcome) if attacked else None,
        names,
    )


def _worst(outcomes: Sequence[Outcome], names: Sequence[str]) -> list[Row]:
    """The row of the per-image worst over several attacks in one threat model, members of ensembles included."""
    if len(outcomes) < 2:
        return []
    ids = [image for image in outcomes[0].results if all(image in other.results for other in outcomes)]
    invalid = max(len(outcome.results) + outcome.invalid for outcome in outcomes) - len(ids)
    every = [counts for outcome in outcomes for counts in outcome.alternatives(ids)]
    choice = torch.tensor([outcome.left(ids) for outcome in outcomes]).argmin(0).tolist() if ids else []
    chosen = [outcomes[pick].results[image] for pick, image in zip(choice, ids, strict=True)]
    worst = Counts.of([result.pixels for result in chosen])
    row = _filled(
        f"worst of {len(outcomes)}",
        outcomes[0].plan,
        [outcome.results[image] for outcome in outcomes for image in ids],
        invalid,
        worst,
        _least_miou(every) if ids and not outcomes[0].targeted else worst,
        None,
        names,
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
    names: Sequence[str],
    hits: Sequence[ImageResult] | None = None,
) -> Row:
    """A row from the results whose cost it bears and the counts that its metrics come from."""
    book, images = ledger(result.passes for result in results), max(1, len(counts))
    own = [passes for purpose, passes in book.items() if purpose != CHECKING]
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
        sum(passes["forward"] for passes in own) / images,
        sum(passes["backward"] for passes in own) / images,
        math.fsum(result.seconds for result in results) / images,
        book,
        sanity,
        tuple(class_rows(counts, names)),
    )


def _comparisons(outcomes: Sequence[Outcome]) -> Iterator[Comparison]:
    """Each ``cr_X`` against X, and every attack against the references, PGD and PBGD, within a threat model."""
    by_name = {(outcome.plan.label, *outcome.plan.threat): outcome for outcome in outcomes}
    for outcome in outcomes:
        name = outcome.plan.label
        for against in dict.fromkeys((name.removeprefix("cr_"), *references())):
            other = by_name.get((against, *outcome.plan.threat))
            if other is not None and against != name:
                ids = [image for image in outcome.results if image in other.results]
                if ids:
                    found = paired_difference(outcome.left(ids), other.left(ids))
                    yield Comparison(name, against, *outcome.plan.threat, len(ids), found)


def _least_miou(alternatives: Sequence[Counts]) -> Counts:
    """Counts of the choice of one alternative per image that a greedy search finds to have the least MIoU."""
    choice = worst_miou(list(alternatives))
    rows = torch.arange(len(choice))
    parts = ([getattr(counts, part) for counts in alternatives] for part in Pixels._fields)
    return Counts(*(torch.stack(part)[choice, rows] for part in parts))


def _success(results: Sequence[ImageResult]) -> Interval:
    parts = torch.tensor([(result.hit, result.eligible) for result in results], dtype=torch.float64).view(-1, 2)
    return jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1])


def _sanity(outcome: Outcome) -> Sanity:
    plan, results = outcome.plan, list(outcome.results.values())
    pixels = sum(sum(result.pixels.labelled) for result in results)
    differing = [math.nan if result.disagreement is None else result.disagreement for result in results]
    return Sanity(
        max((getattr(result, plan.norm) / plan.eps for result in results), default=math.nan),
        max((result.outside for result in results), default=math.nan),
        sum(differing) / pixels if pixels else math.nan,
        outcome.still,
    )


def without_gradient(summary: Summary) -> list[Finding]:
    """For each attack that met images whose gradient was exactly zero at every step, which these are."""
    found = []
    for row in summary.rows:
        still = row.sanity.zero_gradient if row.sanity else ()
        if still:
            named = ", ".join(still[:5]) + ", …" * (len(still) > 5)
            where = f"{row.name} ({row.norm}, ε = {row.eps:g})"
            text = f"{where}: zero gradient on {len(still)} of {row.images} images ({named})"
            advice = "the attack had nothing to follow there, and what is left right says nothing of robustness"
            found.append(Finding("zero_gradient", text, advice, len(still)))
    return found


def results_json(
    experiment: Experiment,
    summary: Summary,
    attacks: Mapping[str, str],
    runtime: Mapping[str, Any],
    told: Mapping[str, Any] | None = None,
) -> str:
    """The whole report as JSON. ``identity`` depends on the experiment only; NaN is written as null.

    Args:
        experiment: What was run, with every default spelt out.
        summary: What came out.
        attacks: For each attack, the parts that it is made of.
        runtime: What changes no result: versions, device, batch size.
        told: What is probably a mistake, as `segradius.evaluation.preflight.told` has it.
    """
    report = {
        "identity": experiment.identity,
        "experiment": experiment.as_dict(),
        "attacks": dict(attacks),
        "rows": [asdict(row) for row in summary.rows],
        "paired_differences": [asdict(comparison) for comparison in summary.comparisons],
        "set_aside": summary.set_aside,
        **(told or {}),
        "digest": summary.digest and asdict(summary.digest),
        "runtime": dict(runtime),
    }
    return as_json(report)


def per_image_csv(experiment: Experiment, store: Store, ids: Sequence[str]) -> str:
    """One line for each attack and image, in the order of the experiment and the data; times are left to the store."""
    aside = store.all_set_aside()
    ids = [image for image in ids if image not in aside]
    clean = [(CLEAN, "", "", CLEAN)]
    plans = [(plan.label, plan.norm, plan.eps, experiment.key(plan)) for plan in experiment.attacks]
    stored = ((about, store.results(key)) for *about, key in clean + plans)
    rows = ([*about, *_line(found[image])] for about, found in stored for image in ids if image in found)
    return as_csv(COLUMNS, rows)


def summary_classes_csv(summary: Summary) -> str:
    """One line for each attack and class, shares in [0, 1] and the ends of their intervals."""
    rows = (((row.name, row.norm, row.eps), each) for row in summary.rows for each in row.classes)
    return classes_csv(rows, ("attack", "norm", "eps"))


def traces_csv(experiment: Experiment, store: Store, ids: Sequence[str]) -> str | None:
    """The trace of every image under every black-box attack; None where there is none."""
    found = [
        ((plan.label, plan.norm, plan.eps, image), traces[image])
        for plan in experiment.attacks
        if (traces := store.traces(experiment.key(plan)))
        for image in ids
        if image in traces
    ]
    return trace_csv(found) if found else None


def _line(result: ImageResult) -> list[Any]:
    pixels, right = sum(result.pixels.labelled), sum(result.pixels.intersection)
    lengths = [f"{value:.9g}" for value in (result.l1, result.l2, result.linf, result.outside)]
    own = [book for purpose, book in result.passes.items() if purpose != CHECKING]
    passes = [sum(each) for each in zip(*own, strict=True)] or [0, 0]
    accuracy = f"{right / pixels:.9g}"
    goal = [result.hit, result.eligible]
    differing = "" if result.disagreement is None else result.disagreement
    return [result.image, int(result.valid), pixels, right, accuracy, *goal, *lengths, differing, *passes]
