"""What two deployments of one network come to: how far they agree, and where."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from segradius.evaluation.agreeing import Agreement, Look
from segradius.evaluation.class_summary import ClassRow, class_rows
from segradius.evaluation.outcome import Digest, digest_of
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.store import Store
from segradius.metrics.agreement import renaming
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval, interval, jackknife
from segradius.metrics.shifts import best_shift
from segradius.metrics.statistics import miou, pooled_accuracy

#: Classes up to which a renaming is looked for.
MOST_CLASSES = 2048


@dataclass(frozen=True)
class AgreementSummary:
    """All that a comparison found out; the first's predictions are the reference.

    Attributes:
        images: Behind the figures.
        pixacc: Share of the pixels that agree, with its interval over images.
        miou: Of the second's predictions against the first's.
        boundary: Share that agrees within three pixels of a boundary of the first's prediction.
        interior: Share that agrees elsewhere.
        at_boundary: Share of the pixels that lie near a boundary.
        classes: Of each class of the first: the share that the second calls so, and IoU and Dice.
        pairs: (C, C) pixels by the class of the first and of the second; None of too many classes.
        shift: (dy, dx), how far the second's map is best held to be the first's moved down and to the right.
        shift_share: Share that agrees under it, of the pixels that all shifts are judged on.
        unshifted: Share of those that agrees without.
        quarters: The best shift of each quarter of the images: top left, top right, bottom left, bottom right.
        quarters_share: Share that agrees where each quarter is moved by its own.
        reach: The largest shift tried.
        order: Of each class of the first the class of the second that suits best, one to one; empty if not sought.
        renamed: Share that agrees in that order.
        largest: Largest difference of two scores; NaN where not both give scores.
        median: Median over images of the median over pixels of the largest over classes; likewise.
        worst: Ids, the image that agrees least first.
        set_aside: Images that could not be used, with the reason.
        invalid: Images in which the second's scores are not finite.
        digest: Of the results.
        names: Of the classes.
        asked: Images that each of the two answered: ``{"first": …, "second": …}``.
    """

    images: int
    pixacc: Interval
    miou: Interval
    boundary: Interval
    interior: Interval
    at_boundary: float
    classes: tuple[ClassRow, ...]
    pairs: Tensor | None
    shift: tuple[int, int]
    shift_share: float
    unshifted: float
    quarters: tuple[tuple[int, int], ...]
    quarters_share: float
    reach: int
    order: tuple[int, ...]
    renamed: float
    largest: float
    median: float
    worst: tuple[str, ...]
    set_aside: dict[str, str]
    invalid: tuple[str, ...]
    digest: Digest
    names: tuple[str, ...]
    asked: Mapping[str, int]

    def cleared(self, share: float, before: float | None = None) -> float:
        """How much of a disagreement is gone where ``share`` agrees; 0 where there was none.

        Args:
            share: That agrees now.
            before: That agreed before, of the same pixels; all by default.
        """
        wrong = 1 - (self.pixacc.value if before is None else before)
        return 1 - (1 - share) / wrong if wrong > 0 else 0.0

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """Classes that the first says anywhere."""
        return () if self.pairs is None else tuple(self.pairs.sum(1).nonzero().flatten().tolist())

    def only(self, side: int) -> tuple[tuple[int, ...], float]:
        """Classes that the first (0) or the second (1) alone says, and their share of the disagreement."""
        if self.pairs is None:
            return (), 0.0
        mine, theirs = self.pairs.sum(1 - side), self.pairs.sum(side)
        alone = (mine > 0) & (theirs == 0)
        wrong = int(self.pairs.sum() - self.pairs.diagonal().sum())
        return tuple(alone.nonzero().flatten().tolist()), int(mine[alone].sum()) / wrong if wrong else 0.0


def summarise_agreement(
    study: Agreement, store: Store, ids: Sequence[str], names: Sequence[str], structures: int = 0
) -> AgreementSummary | None:
    """What a comparison found in those images that have results; None where none have.

    Args:
        study: What was run.
        store: Its results.
        ids: Images of the data set, in order.
        names: Of the classes of both.
        structures: Of which the classes are the sets, if they are; then no renaming is looked for.
    """
    (job,) = study.jobs
    aside, rows = store.all_set_aside(), store.results(job.key)
    every = [image for image in ids if image not in aside and image in rows]
    good = [image for image in every if rows[image].valid]
    if not good:
        return None
    records = [record for image in good if (record := store.record(job.key, image)) is not None]
    found = [Look.unpacked(record) for record in records]
    counts = Counts.of([rows[image].pixels for image in good])
    own = counts.intersection.sum(1) / counts.labelled.sum(1)
    edge = torch.stack([look.edge for look in found]).double()
    whole = torch.stack([counts.intersection.sum(1), counts.labelled.sum(1)], 1).double()
    pairs = _pairs(found, len(names))
    order = () if pairs is None or structures else renaming(pairs)
    gaps = [look.gaps for look in found if not math.isnan(look.gaps[0])]
    passes = [rows[image].passes for image in every]
    return AgreementSummary(
        images=len(good),
        pixacc=interval(pooled_accuracy, counts),
        miou=interval(miou, counts),
        boundary=jackknife(edge, _ratio),
        interior=jackknife(whole - edge, _ratio),
        at_boundary=float(edge[:, 1].sum() / whole[:, 1].sum()),
        classes=tuple(class_rows(counts, names)),
        pairs=pairs,
        **_shifts(found),
        order=order,
        renamed=_share(pairs, order),
        largest=max((gap for gap, _ in gaps), default=math.nan),
        median=statistics.median(gap for _, gap in gaps) if gaps else math.nan,
        worst=tuple(good[place] for place in own.argsort(stable=True).tolist()),
        set_aside=aside,
        invalid=tuple(image for image in every if image not in set(good)),
        digest=digest_of(study, store, ids),
        names=tuple(names),
        asked={
            "first": len(store.done(CLEAN)) + sum("scores" in book for book in passes),
            "second": len(passes),
        },
    )


def _ratio(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


def _pairs(found: Sequence[Look], classes: int) -> Tensor | None:
    if classes > MOST_CLASSES:
        return None
    pairs = torch.zeros(classes, classes, dtype=torch.int64)
    for look in found:
        pairs.index_put_((look.pairs[:, 0], look.pairs[:, 1]), look.pairs[:, 2], accumulate=True)
    return pairs


def _share(pairs: Tensor | None, order: Sequence[int]) -> float:
    if pairs is None or not order:
        return math.nan
    return float(pairs[range(len(order)), list(order)].sum() / pairs.sum())


def _shifts(found: Sequence[Look]) -> dict[str, Any]:
    """The best shift over all images, as far as the smallest of them lets one be tried."""
    most = len(found[0].shifts) // 2
    table, judged = torch.stack([look.shifts for look in found]), torch.stack([look.judged for look in found]).sum(0)
    tried = (table[:, most, :, 0] >= 0).sum(1)
    reach = int(tried.min()) // 2
    table = table[:, most - reach : most + reach + 1, most - reach : most + reach + 1].sum(0)
    pixels, whole = int(judged.sum()), table.sum(-1)
    dy, dx = best_shift(whole)
    quarters = tuple(best_shift(table[..., quarter]) for quarter in range(4))
    apart = sum(int(table[y + reach, x + reach, quarter]) for quarter, (y, x) in enumerate(quarters))
    return {
        "shift": (dy, dx),
        "shift_share": int(whole[dy + reach, dx + reach]) / pixels,
        "unshifted": int(whole[reach, reach]) / pixels,
        "quarters": quarters,
        "quarters_share": apart / pixels,
        "reach": reach,
    }
