"""What attacks came to: rows of metrics with intervals, costs, paired differences, sanity; and the files for that."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from segradius.attacks.make import references
from segradius.core.ledger import SURROGATE
from segradius.evaluation.attack import STILL, AttackPlan
from segradius.evaluation.class_summary import ClassRow, class_rows
from segradius.evaluation.facts import Finding
from segradius.evaluation.foreground import NOTHING_NAMED, Foreground, Named, foreground_first, foreground_of, least
from segradius.evaluation.gallery import share_left
from segradius.evaluation.job import Experiment
from segradius.evaluation.norms import Norms, norms_of
from segradius.evaluation.outcome import Digest, digest_of
from segradius.evaluation.rounded import LEVELS, EightBit, eight_bit
from segradius.evaluation.rows import CLEAN, ImageResult, Rounded, ledger
from segradius.evaluation.store import Store
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Difference, Interval, interval, jackknife, paired_difference, without_ends
from segradius.metrics.statistics import miou, miou_image, pooled_accuracy

#: Passes of the evaluation and not of the attack; in the ledger, and in no cost of an attack.
CHECKING = "checking"


@dataclass(frozen=True)
class Sanity:
    """What must hold of every adversarial image, at its worst over the images.

    Args:
        length_over_eps: Largest ‖δ‖ / ε, with weights of bands ‖w ⊙ δ‖ / ε; at most 1 save for float32 rounding.
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
        forward: Forward passes per image for all purposes but ``checking``, which is no part of the attack, and
            ``surrogate``, which are passes of another network.
        backward: Backward passes per image, likewise.
        seconds: Wall time per image.
        ledger: ``{purpose: {"forward": …, "backward": …}}`` summed over the images.
        sanity: What must hold.
        classes: What is left of each class.
        foreground: Of what is asked with yes or no; None where nothing is.
        weights: Those of the bands, as they are written; empty where all are 1.
        lattice: L where adversarial images are of whole levels, {0, 1/L, …, 1}; None where any values are allowed.
        rounded: Of the adversarial images rounded to 8 bits; None where they were not looked at, as each look at a
            target has its price, and an earlier version made none.
        patch: The square that the attack keeps to, as its plan tells it; empty for the whole image. Not in files, which
            have the options of every attack.
        norms: Lengths that were needed, where there is no ball (``eps=inf``); None in one.
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
    foreground: Foreground | None = None
    weights: str = ""
    rounded: EightBit | None = None
    patch: str = ""
    lattice: int | None = None
    norms: Norms | None = None

    @property
    def eps_levels(self) -> float | None:
        """ε in grey levels of 1/255; None where ε is not that of a single value."""
        return LEVELS * self.eps if self.eps is not None and self.norm == "linf" else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is asked with yes or no stands first; weights, lattice and norms only if there are any."""
        whole = asdict(self) | {"rounded": self.rounded and self.rounded.as_dict(), "eps_levels": self.eps_levels}
        found = foreground_first(whole, "name", "norm", "eps", "images", "invalid")
        absent = {"patch", *(name for name in ("weights", "lattice", "norms") if not found[name])}
        return {name: value for name, value in found.items() if name not in absent}


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

    ``structures`` are those whose sets the classes are. ``invalid`` has the images that gave NaN or infinite logits, by
    label, norm and ε of the attack. ``predicted``: the model's own predictions are the labels.
    """

    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    set_aside: dict[str, str]
    targeted: bool = False
    digest: Digest | None = None
    structures: tuple[str, ...] = ()
    invalid: Mapping[tuple[str, str | None, float | None], tuple[str, ...]] = field(default_factory=dict)
    predicted: bool = False


@dataclass(frozen=True)
class Outcome:
    """Valid results of one attack in the order of the data, those that were not, and where it had no gradient."""

    plan: AttackPlan
    results: dict[str, ImageResult]
    invalid: int
    still: tuple[str, ...] = ()
    targeted: bool = False
    spoilt: tuple[str, ...] = ()
    rounded: Mapping[str, Rounded] = field(default_factory=dict)

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


def summarise(
    experiment: Experiment,
    store: Store,
    ids: Sequence[str],
    named: Named = NOTHING_NAMED,
) -> Summary:
    """Rows and comparisons of ``experiment`` over the images ``ids`` that have results.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set, in order.
        named: Names of the model's classes, for a row of each, and of the structures whose sets they are.
    """
    targeted = experiment.aim is not None
    aside = store.all_set_aside()
    ids = [image for image in ids if image not in aside]  # also where an attack failed that others did not
    clean = _outcome(AttackPlan(CLEAN, "l2", 0.0), CLEAN, store, ids, targeted=targeted)
    usable = list(clean.results)
    outcomes = [_outcome(plan, experiment.key(plan), store, usable, targeted=targeted) for plan in experiment.attacks]
    rows = [_row(outcome, named) for outcome in (clean, *outcomes)]
    if own := experiment.data.predicted:  # unattacked, all is right by definition, with other images too
        rows[0] = without_ends(rows[0])
    for threat in dict.fromkeys(plan.threat for plan in experiment.attacks):
        rows += _worst([outcome for outcome in outcomes if outcome.plan.threat == threat], named)
    digest = digest_of(experiment, store, ids)
    spoilt: dict[tuple[str, str | None, float | None], tuple[str, ...]] = {
        (outcome.plan.label, *outcome.plan.threat): outcome.spoilt for outcome in outcomes
    }
    pairs, structures = tuple(_comparisons(outcomes)), tuple(named.structures)
    return Summary(tuple(rows), pairs, aside, targeted, digest, structures, spoilt, own)


def _outcome(plan: AttackPlan, key: str, store: Store, ids: Sequence[str], *, targeted: bool) -> Outcome:
    stored = store.results(key)
    found = [stored[image] for image in ids if image in stored]
    valid = {result.image: result for result in found if result.valid}
    recorded = store.recorded(key)
    still = tuple(image for image in valid if image in recorded and store.record(key, image) == STILL)
    spoilt = tuple(result.image for result in found if not result.valid)
    return Outcome(plan, valid, len(spoilt), still, targeted, spoilt, store.rounded(key))


def _row(outcome: Outcome, named: Named) -> Row:
    plan, results = outcome.plan, list(outcome.results.values())
    attacked = plan.name != CLEAN
    own, *members = outcome.alternatives(list(outcome.results))
    return _filled(
        plan.label,
        plan if attacked else None,
        results,
        outcome.invalid,
        own,
        [own] if outcome.targeted else [own, *members],
        _sanity(outcome) if attacked else None,
        named,
        rounded=_after_rounding([outcome]) if attacked else (None, 0),
        norms=_norms([outcome], outcome.results) if attacked else None,
    )


def _worst(outcomes: Sequence[Outcome], named: Named) -> list[Row]:
    """The row of the per-image worst over several attacks in one threat model, members of ensembles included."""
    if len(outcomes) < 2:
        return []
    ids = [image for image in outcomes[0].results if all(image in other.results for other in outcomes)]
    invalid = max(len(outcome.results) + outcome.invalid for outcome in outcomes) - len(ids)
    every = [counts for outcome in outcomes for counts in outcome.alternatives(ids)]
    choice = torch.tensor([outcome.left(ids) for outcome in outcomes]).argmin(0).tolist() if ids else []
    chosen = [outcomes[pick].results[image] for pick, image in zip(choice, ids, strict=True)]
    worst = Counts.of([result.pixels for result in chosen])
    plan = outcomes[0].plan
    if len({outcome.plan.lattice for outcome in outcomes}) > 1:  # all are in the ball, and not all on one lattice
        plan = replace(plan, options={o: value for o, value in plan.options.items() if o != "lattice"})
    row = _filled(
        f"worst of {len(outcomes)}",
        plan,
        [outcome.results[image] for outcome in outcomes for image in ids],
        invalid,
        worst,
        every if ids and not outcomes[0].targeted else [worst],
        None,
        named,
        hits=chosen,
        rounded=_after_rounding(outcomes, ids),
        norms=_norms(outcomes, ids),
    )
    return [row]


def _filled(
    name: str,
    plan: AttackPlan | None,
    results: Sequence[ImageResult],
    invalid: int,
    counts: Counts,
    every: Sequence[Counts],
    sanity: Sanity | None,
    named: Named,
    hits: Sequence[ImageResult] | None = None,
    rounded: tuple[EightBit | None, int] = (None, 0),
    norms: Norms | None = None,
) -> Row:
    """A row from the results whose cost it bears and the counts that its metrics come from, chosen from ``every``."""
    book, images = ledger(result.passes for result in results), max(1, len(counts))
    eight, looks = rounded
    if looks:
        book.setdefault(CHECKING, {"forward": 0, "backward": 0})["forward"] += looks
    own = [passes for purpose, passes in book.items() if purpose not in (CHECKING, SURROGATE)]
    return Row(
        name,
        plan.norm if plan else None,
        plan.eps if plan else None,
        len(counts),
        invalid,
        interval(pooled_accuracy, counts),
        least(miou, every),
        interval(miou_image, counts),
        _success(results if hits is None else hits),
        sum(passes["forward"] for passes in own) / images,
        sum(passes["backward"] for passes in own) / images,
        math.fsum(result.seconds for result in results) / images,
        book,
        sanity,
        tuple(class_rows(counts, named.classes)),
        foreground_of(counts, every, named) if named.asked else None,
        plan.weights if plan else "",
        eight,
        plan.patch if plan else "",
        plan.lattice if plan else None,
        norms,
    )


def _after_rounding(outcomes: Sequence[Outcome], ids: Iterable[str] | None = None) -> tuple[EightBit | None, int]:
    """What is left after rounding, over all images or some, and how many forward passes it took to know."""
    first, *_ = outcomes
    wanted = set(first.results if ids is None else ids)
    parts = [
        ({image: result for image, result in each.results.items() if image in wanted}, each.rounded)
        for each in outcomes
    ]
    looks = sum(seen.passes for each in outcomes for image, seen in each.rounded.items() if image in wanted)
    return eight_bit(parts, first.plan.norm, targeted=first.targeted), looks


def _norms(outcomes: Sequence[Outcome], ids: Iterable[str]) -> Norms | None:
    """Lengths that were needed, of each image the least of several; None in a ball."""
    return norms_of([(each.plan, each.results) for each in outcomes], ids, targeted=outcomes[0].targeted)


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
