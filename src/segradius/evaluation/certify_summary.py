"""What certificates came to: rows of accuracies with intervals, abstention, radii; and the files that say so."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any

import torch

from segradius.core.storage import as_csv, as_json
from segradius.evaluation.certified_by import WITHOUT_RADII
from segradius.evaluation.certify import Certification, Way
from segradius.evaluation.certify_lipschitz import Lipschitz
from segradius.evaluation.certify_options import Smoothing
from segradius.evaluation.certify_whole import WholeImages, whole_images
from segradius.evaluation.contradicting import Stood, stood
from segradius.evaluation.crosscheck import Checked, summarise_checks
from segradius.evaluation.foreground import Foreground, Named, foreground_first, foreground_of
from segradius.evaluation.outcome import Digest
from segradius.evaluation.record import Record, Score, pack, unpack
from segradius.evaluation.rows import ledger
from segradius.evaluation.schema import head
from segradius.evaluation.store import Store
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval, interval, without_ends
from segradius.metrics.statistics import class_iou, miou, pooled_accuracy

CERTIFIED_COLUMNS = (
    "answer", "image", "valid", "pixels", "right", "pixacc", "abstained", "boundary", "boundary_right",
    "mean_radius", "copies", "forward",
)  # fmt: skip


@dataclass(frozen=True)
class RadiusCurve:
    """How many labelled pixels are certified, and certified right, beyond a radius.

    Attributes:
        edges: Radii, growing from 0.
        certified: Labelled pixels certified at a radius between two edges.
        right: Those of them that are right.
        accuracy: Share of all labelled pixels that are right and certified at a radius above each edge.
    """

    edges: tuple[float, ...]
    certified: tuple[int, ...]
    right: tuple[int, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class PerClass:
    """Of one class over the images: labelled pixels, certified accuracy (recall) and IoU; NaN where there are none."""

    name: str
    pixels: int
    accuracy: float
    iou: float


@dataclass(frozen=True)
class CertifiedRow:
    """One answer over all images; only labelled pixels count, and an abstained one is wrong.

    Args:
        name: ``base`` (the model), ``smoothed`` (its majority under noise, no certificate), or the certificate.
        pixacc: Share of labelled pixels that are right, and certified where it is a certificate's row.
        miou: Over the data set; abstention is no class. NaN where groups of classes count.
        abstained: Share of labelled pixels about which nothing is said.
        boundary: PixAcc near other classes.
        interior: PixAcc elsewhere.
        radius: Mean over the certified pixels, l2; NaN without certificate.
        gain: Mean information gain; 1 where every pixel is certified right as a single class.
        promise: In words; None without certificate.
        classes: By class.
        curve: By radius; None without certificate.
        foreground: Of what is asked with yes or no, an abstained pixel having the wrong answer; None where nothing is,
            or groups of classes count.
    """

    name: str
    pixacc: Interval
    miou: Interval
    abstained: Interval
    boundary: Interval
    interior: Interval
    radius: float
    gain: float
    promise: str | None
    classes: tuple[PerClass, ...]
    curve: RadiusCurve | None
    foreground: Foreground | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what is asked with yes or no stands before all other figures."""
        return foreground_first(asdict(self), "name")


@dataclass(frozen=True)
class CertifiedSummary:
    """All that a certification found out.

    Attributes:
        rows: Of the answers.
        images: Images behind the figures.
        invalid: Images left out because an answer to a noisy copy was NaN or infinite.
        copies: Noisy copies per image, mean.
        ledger: Passes by purpose, summed over the images.
        set_aside: By id, why an image could not be used.
        studies: What further studies found, by image.
        checked: What attacks on the certificates found, over the images.
        digest: Of the results.
        structures: Names of those whose sets the classes are.
        whole: What is certified of whole images; None where nothing is.
        attacked: What attacks found that one contradiction refutes.
        predicted: Whether the model's own predictions are the labels.
        undecided: Share of the pixels that are not certified and might have been by further copies, mean over images;
            None where the number of copies was fixed before.
        timed: Whether a clock set that number.
    """

    rows: tuple[CertifiedRow, ...]
    images: int
    invalid: tuple[str, ...]
    copies: float
    ledger: dict[str, dict[str, int]]
    set_aside: dict[str, str]
    studies: dict[str, Any]
    checked: tuple[Checked, ...] = ()
    digest: Digest | None = None
    structures: tuple[str, ...] = ()
    whole: WholeImages | None = None
    attacked: tuple[Stood, ...] = ()
    predicted: bool = False
    undecided: float | None = None
    timed: bool = False


def certificates(experiment: Certification, store: Store, ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """What is kept of each certified image, packed, with what attacks on its certificates found.

    Args:
        experiment: What was run.
        store: Its results.
        ids: Images of the data set, in order.
    """
    certified, *checks = experiment.jobs
    aside = store.all_set_aside()
    for image in ids:
        if image not in aside and (packed := store.record(certified.key, image)):
            studies = [json.loads(found) for job in checks if (found := store.record(job.key, image))]
            yield image, pack(unpack(packed).checked(studies[0])) if studies else packed


def summarise_certified(
    experiment: Certification, found: Sequence[Record], named: Named, set_aside: dict[str, str]
) -> CertifiedSummary:
    """Rows over finished records.

    Args:
        experiment: What was run.
        found: Records of images that are done, in the order of the data.
        named: Names of the model's classes, and of the structures whose sets they are.
        set_aside: By id, why an image could not be used.
    """
    valid = [record for record in found if record.finite]
    checks = {record.image: record.studies["crosscheck"] for record in valid if "crosscheck" in record.studies}
    base, predicted = _row("base", [record.base_score for record in valid], named), experiment.data.predicted
    rows = [without_ends(base) if predicted else base]  # it is all right by definition, with other images too
    if polled := [record.polled.majority_score for record in valid if record.polled is not None]:
        rows.append(_row("smoothed", polled, named))
    for kind in valid[0].kinds if valid else ():
        rows.append(_certified(experiment, kind, valid, named))
    return CertifiedSummary(
        tuple(rows),
        len(valid),
        tuple(record.image for record in found if not record.finite),
        sum(record.copies for record in valid) / max(1, len(valid)),
        ledger(record.passes for record in found),
        set_aside,
        {record.image: dict(record.studies) for record in valid if record.studies},
        _checked(experiment.way, checks),
        structures=tuple(named.structures),
        whole=_whole(experiment.way, valid, named),
        attacked=stood(each for each in checks.values() if "attacked" in each),
        predicted=predicted,
        undecided=_undecided(experiment.way, valid),
        timed=isinstance(experiment.way, Smoothing) and experiment.way.minutes is not None,
    )


def _undecided(way: Way, valid: Sequence[Record]) -> float | None:
    polled = [record.polled for record in valid if record.polled is not None]
    if not (isinstance(way, Smoothing) and way.looks and polled):
        return None
    return math.fsum(way.undecided(each.votes, each.n) for each in polled) / len(polled)


def _checked(way: Way, checks: Mapping[str, Any]) -> tuple[Checked, ...]:
    return summarise_checks(checks, way.alpha, way.radii) if checks and isinstance(way, Smoothing) else ()


def _whole(way: Way, valid: Sequence[Record], named: Named) -> WholeImages | None:
    return whole_images(valid, way.bounds, way.eps, named.classes) if isinstance(way, Lipschitz) else None


def _certified(experiment: Certification, kind: str, valid: Sequence[Record], named: Named) -> CertifiedRow:
    scores = [record.kinds[kind].score for record in valid]
    told = experiment.way.promised(kind, valid[0].kinds[kind].promise)
    if not told:
        return _row(kind, scores, named)
    bounds = experiment.way.bounds
    pixels = sum(score.labelled for score in scores)
    certified, right = (_added([getattr(score, part) for score in scores]) for part in ("certified", "right"))
    beyond = list(accumulate(reversed(right), initial=0))[::-1]
    curve = RadiusCurve(tuple(bounds), certified, right, tuple(count / pixels for count in beyond))
    radius = math.fsum(score.radius for score in scores) / max(1, sum(certified))
    known = sum(certified) and experiment.way.key not in WITHOUT_RADII
    return _row(kind, scores, named, radius if known else math.nan, told, curve)


def _row(
    name: str,
    scores: Sequence[Score],
    named: Named,
    radius: float = math.nan,
    told: str | None = None,
    curve: RadiusCurve | None = None,
) -> CertifiedRow:
    counts = Counts.of([score.pixels for score in scores])
    nothing = Interval(math.nan, math.nan, math.nan)
    labelled = [score.labelled for score in scores]
    return CertifiedRow(
        name,
        interval(pooled_accuracy, counts),
        nothing if name == "adaptive" else interval(miou, counts),
        _share([score.abstained for score in scores], labelled),
        _share([score.boundary[0] for score in scores], [score.boundary[1] for score in scores]),
        _share(
            [sum(score.pixels.intersection) - score.boundary[0] for score in scores],
            [score.labelled - score.boundary[1] for score in scores],
        ),
        radius,
        math.fsum(score.gain for score in scores) / max(1, sum(labelled)) if told else math.nan,
        told,
        _per_class(counts, named.classes),
        curve,
        foreground_of(counts, [counts], named) if named.asked and name != "adaptive" else None,
    )


def _share(parts: Sequence[int], wholes: Sequence[int]) -> Interval:
    """Sum of parts over sum of wholes, with its interval over images."""
    whole = torch.tensor(wholes, dtype=torch.int64).view(-1, 1)
    return interval(pooled_accuracy, Counts(torch.tensor(parts, dtype=torch.int64).view(-1, 1), whole, whole))


def _per_class(counts: Counts, names: Sequence[str]) -> tuple[PerClass, ...]:
    """Pooled over the images; classes that are neither labelled nor predicted are left out."""
    right, labelled, iou = counts.intersection.sum(0), counts.labelled.sum(0), class_iou(counts)
    recall = (right.double() / labelled).tolist()
    return tuple(
        PerClass(name, int(labelled[c]), recall[c], float(iou[c]))
        for c, name in enumerate(names)
        if not math.isnan(iou[c])
    )


def _added(parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sum(column) for column in zip(*parts, strict=True))


def certified_json(
    experiment: Certification,
    summary: CertifiedSummary,
    runtime: Mapping[str, Any],
    doubts: Mapping[str, Any] | None = None,
) -> str:
    """The whole report as JSON. ``identity`` depends on the experiment only; NaN is written as null.

    Args:
        experiment: What was run, with every default spelt out.
        summary: What came out.
        runtime: What changes no result: versions, device, batch size.
        doubts: What is probably a mistake, as `segradius.evaluation.preflight.told` has it.
    """
    described = head(runtime) | {"identity": experiment.identity, "experiment": experiment.as_dict()}
    told = "The certificates speak of all pixels, void ones too; metrics count labelled pixels only."
    found = asdict(summary) | {"rows": [row.as_dict() for row in summary.rows]}
    del found["predicted"], found["timed"]  # the experiment says it
    if summary.undecided is None:
        del found["undecided"]
    for name in ("structures", "whole", "attacked"):
        if not found[name]:
            del found[name]
    return as_json(described | found | dict(doubts or {}) | {"about": told, "runtime": dict(runtime)})


def certified_csv(found: Sequence[Record]) -> str:
    """One line for each answer and image, in the order of the data."""
    by_answer = zip(*map(_lines, found), strict=True)
    return as_csv(CERTIFIED_COLUMNS, chain.from_iterable(by_answer))


def _lines(record: Record) -> Iterator[list[Any]]:
    yield _line("base", record, record.base_score)
    if record.polled is not None:
        yield _line("smoothed", record, record.polled.majority_score)
    for name, kind in record.kinds.items():
        yield _line(name, record, kind.score)


def _line(name: str, record: Record, score: Score) -> list[Any]:
    right, certified = sum(score.pixels.intersection), sum(score.certified)
    radius = f"{score.radius / certified:.9g}" if certified and score.radius else ""
    spent = sum(forward for forward, _ in record.passes.values())
    return [
        name,
        record.image,
        int(record.finite),
        score.labelled,
        right,
        f"{right / score.labelled:.9g}",
        score.abstained,
        score.boundary[1],
        score.boundary[0],
        radius,
        record.copies,
        spent,
    ]
