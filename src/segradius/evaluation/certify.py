"""The task `Certifying`, and what one folder of certificates holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from segradius.certification.votes import Votes, vote
from segradius.core.contracts import LOGITS, Seen, for_answers
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.evaluation.batch import Batch, Bench, Clean, answering
from segradius.evaluation.certify_options import PRECISIONS, Smoothing, noisy_pixels
from segradius.evaluation.crosscheck import Checking, CrossChecking
from segradius.evaluation.job import DataChoice, Job, ModelChoice, conflict, described, fingerprint_of, plain
from segradius.evaluation.record import Kind, Record, edges, pack, score_answer, score_certificate
from segradius.evaluation.rows import ImageResult, Kept, Rows


@dataclass(frozen=True)
class Certifying:
    """Certificates of every image by votes on noisy copies of it.

    Args:
        smoothing: How.
    """

    smoothing: Smoothing

    one_by_one: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False
    unit: ClassVar[str] = "noisy copies"

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""
        return {"smoothing": asdict(self.smoothing)}

    @property
    def precision(self) -> torch.dtype | None:
        """Of the votes."""
        return PRECISIONS[self.smoothing.precision]

    @property
    def title(self) -> str:
        """For people."""
        return f"certifying σ={self.smoothing.sigma:g}"

    @property
    def total_steps(self) -> int:
        """Noisy copies of an image, at most."""
        return self.smoothing.n0 + self.smoothing.n

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model runs in the precision asked for."""
        if self.smoothing.precision != "float32" and LOGITS not in model.offers:
            raise InputError(f"precision {self.smoothing.precision} is for --model; a target runs as it does")

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Certify a batch of one image."""
        (image,) = batch.ids
        it, started = self.smoothing, time.perf_counter()
        journal = bench.checkpoints.journal(bench.key, batch.ids, batch.images[0]) if bench.checkpoints else None
        votes = vote(
            answering(for_answers(bench.model, self.precision), self.precision),
            batch.images[0],
            bench.model.num_classes,
            it.sampling(noisy_pixels(bench.region, batch), bench.together),
            Randomness(bench.seed, batch.ids),
            progress=bench.progress,
            journal=journal,
        )
        record = _record(it, votes, batch, bench)
        seconds = time.perf_counter() - started
        passes = {"certification": record.passes["certification"]}
        pixels = record.kinds["segcertify"].score.pixels
        found = ImageResult(image, pixels, passes=passes, valid=votes.finite, seconds=seconds)
        return Rows(bench.key, [found], Kept(records={image: pack(record)}), journal=journal.name if journal else None)


def slowdown(model: Seen, images: Tensor, precision: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of a pass over images (N, B, H, W) in a precision over that of one in float32, from the least of three each.

    Args:
        model: A network; no target.
        images: In [0, 1], on its device.
        precision: One of `PRECISIONS`.
        clock: Seconds.

    Example:
        >>> import segradius as sr
        >>> slowdown(sr.load_model("demo"), torch.rand(1, 3, 24, 32), "float32") > 0
        True
    """
    least = dict.fromkeys(("float32", precision), float("inf"))
    with torch.no_grad(), model.frozen():
        for turn in range(4):
            for name in least:
                started = clock()
                answering(model, PRECISIONS[name])(images)[1].sum().item()  # which waits for an accelerator
                least[name] = min(least[name], clock() - started) if turn else least[name]
    return least[precision] / least["float32"]


def _record(it: Smoothing, votes: Votes, batch: Batch, bench: Bench) -> Record:
    """The certificates of an image, and what every answer is worth."""
    classes, ignore, labels, base = bench.model.num_classes, batch.ignore_index, batch.labels[0], batch.prediction[0]
    score = partial(score_answer, labels=labels, num_classes=classes, ignore_index=ignore, structures=batch.structures)
    grouped, bins = it.groups(bench.names), edges(it.sigma, it.n, it.alpha, it.tau)
    kinds = {}
    for name, certify in it.certificates(bench.names).items():
        found = certify(votes)
        tested = grouped if name == "adaptive" else None
        worth = score_certificate(found, labels, classes, ignore, bins, tested, batch.structures)
        kinds[name] = Kind(found.prediction, found.radius, found.level, found.promise, worth)
    return Record(
        batch.ids[0],
        base,
        score(base),
        votes.guess,
        votes.successes,
        votes.majority,
        score(votes.majority),
        kinds,
        votes.n0,
        votes.n,
        votes.finite,
        {"judging": (1, 0), "certification": (votes.n0 + votes.n, 0)},
    )


@dataclass(frozen=True)
class Certification:
    """Certificates of a model over images, and attacks on them. Batch size, device and folder are not part of it.

    Example:
        >>> one = Certification(ModelChoice("demo"), DataChoice("scenes", limit=3), Smoothing(0.25))
        >>> other = Certification(ModelChoice("demo"), DataChoice("scenes"), Smoothing(0.5))
        >>> other.extends(one.as_dict())
        'smoothing.sigma is 0.5, and 0.25 in the earlier run'
    """

    model: ModelChoice
    data: DataChoice
    smoothing: Smoothing
    seed: int = 0
    crosscheck: CrossChecking | None = None

    clean: ClassVar[Clean] = Clean()

    def __post_init__(self) -> None:
        _ = self.jobs  # checks that they go together

    def as_dict(self) -> dict[str, Any]:
        """The experiment as plain numbers, strings, lists and dicts."""
        checks = {} if self.crosscheck is None else {"crosscheck": plain(asdict(self.crosscheck))}
        smoothing = {"smoothing": plain(asdict(self.smoothing)), "seed": self.seed}
        return described(self.model, self.data) | smoothing | checks

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole, equal on every machine."""
        return fingerprint_of(self.as_dict())

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The certificates, and the attacks on them where there are any."""
        certifying = Job(self.model, self.data, Certifying(self.smoothing), self.seed)
        if self.crosscheck is None:
            return (certifying,)
        return certifying, replace(certifying, task=Checking(self.smoothing, self.crosscheck))

    @property
    def key(self) -> str:
        """Of the certificates."""
        return self.jobs[0].key

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What keeps this experiment from going on with an earlier one; None where nothing does.

        Nothing may differ, save that there may be more images, and attacks on certificates where there were none.

        Args:
            earlier: `as_dict` of the earlier experiment.
        """
        if "smoothing" not in earlier:
            return "that of segradius attack"
        mine, theirs = self.as_dict(), dict(earlier)
        if "crosscheck" not in theirs:
            mine.pop("crosscheck", None)
        return conflict(mine, theirs)
