"""Certifies the images of a data set one after the other, and keeps a record of each as it comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.nn import functional

from segradius.certification import Certificate, Hierarchy, Votes, vote
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.data import Sample, SegmentationData
from segradius.evaluation.certifying import PRECISIONS, Certification, Certify, Smoothing
from segradius.evaluation.check import class_names, usable
from segradius.evaluation.journal import Checkpoints, digest
from segradius.evaluation.records import Kind, Record, Records
from segradius.evaluation.scoring import edges, score_answer, score_certificate
from segradius.evaluation.seeing import Seen, check_model, judge
from segradius.models import Segmenter


@dataclass(frozen=True, eq=False)
class Subject:
    """A certified image, for a further study.

    Attributes:
        sample: The image and its labels, on the model's device.
        votes: Over its noisy copies.
        certificates: By name.
        where: (H, W) bool, the pixels that noise fell on; None for all.
    """

    sample: Sample
    votes: Votes
    certificates: Mapping[str, Certificate]
    where: Tensor | None


#: Looks further into a certified image; returns plain numbers for the record, with the ``passes`` it made, if any, by
#: a purpose of its own.
Study = Callable[[Subject], Mapping[str, Any]]


@dataclass(frozen=True)
class CertifyRun:
    """All that a run needs beside its records.

    Args:
        experiment: What to run.
        model: The network, on its device, or a target.
        data: The images.
        checkpoints: Where votes are kept while an image is under way.
        region: (h, w) bool mask that noise is confined to, resized to each image; None for the whole image.
        together: Noisy copies in a pass; changes no result but by rounding. None for a number that suits the device.
        progress: Called with an image's id and the number of copies just done.
        studies: Further studies of each image, by name.
    """

    experiment: Certification
    model: Seen
    data: SegmentationData
    checkpoints: Checkpoints
    region: Tensor | None = None
    together: int | None = None
    progress: Callable[[str, int], None] = lambda image, copies: None
    studies: Mapping[str, Study] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return class_names(self.data.classes, self.model.num_classes)

    @property
    def hierarchy(self) -> Hierarchy | None:
        """The groups of classes, where there are any."""
        groupings = self.experiment.smoothing.hierarchy
        return Hierarchy.of(self.names, groupings) if groupings else None


def missing(data: SegmentationData, records: Records) -> list[int]:
    """Places of the images without a finished record."""
    found = (records.get(image) for image in data.ids)
    return [place for place, record in enumerate(found) if record is None or not record.done]


def certify_all(run: CertifyRun, records: Records) -> dict[str, str]:
    """Certify what has no record yet.

    Returns:
        By id, why an image could not be used.

    Raises:
        InputError: The model does not give logits, or does not run in the precision asked for.
    """
    set_aside: dict[str, str] = {}
    certify = run.experiment.smoothing.certificates(run.names)
    checked = False
    with run.model.frozen():
        for place in missing(run.data, records):
            sample = usable(run.data, place, run.model.num_classes)
            if isinstance(sample, str):
                set_aside[run.data.ids[place]] = sample
                continue
            if not checked:
                check_model(run.model, sample.image)
                checked = True
            reason = _certify(run, sample, certify, records)
            if reason:
                set_aside[sample.id] = reason
    return set_aside


def cross_check(experiment: Certification, model: Segmenter) -> Study:
    """The study that attacks the certificates of every image.

    Args:
        experiment: With a `CrossChecking`.
        model: The network.
    """
    checking, it = experiment.crosscheck, experiment.smoothing
    assert checking is not None

    def study(subject: Subject) -> Mapping[str, Any]:
        return checking.study(
            model,
            it.sampling(subject.where).noise,
            subject.votes,
            subject.certificates,
            subject.sample.image,
            alpha=it.alpha,
            image_id=subject.sample.id,
            seed=experiment.seed,
            precision=PRECISIONS[it.precision],
        )

    return study


def fit_region(region: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask (h, w) bool at another size, by nearest neighbour."""
    resized = functional.interpolate(region[None, None].float(), size=size, mode="nearest-exact")
    return resized[0, 0] > 0.5


def _certify(run: CertifyRun, sample: Sample, certify: Mapping[str, Certify], records: Records) -> str | None:
    """Keep the record of an image; the reason where it has none."""
    device = run.model.device
    sample = Sample(sample.id, sample.image.to(device), sample.label.to(device))
    record = records.get(sample.id) or _base(run, sample)
    if record is None:
        return "the model's answer to the clean image is NaN or infinite"
    records.put(record)
    where = None if run.region is None else fit_region(run.region, (sample.label.shape[0], sample.label.shape[1]))
    where = None if where is None else where.to(device)
    journal = run.checkpoints.journal(run.experiment.key, (sample.id,), sample.image)
    told = 0

    def tell(copies: int) -> None:
        nonlocal told
        told += copies
        run.progress(sample.id, copies)

    smoothing = run.experiment.smoothing
    votes = vote(
        _answer(run.model, smoothing),
        sample.image,
        run.model.num_classes,
        smoothing.sampling(where, run.together),
        Randomness(run.experiment.seed, (sample.id,)),
        progress=tell,
        journal=journal,
    )
    certificates = {name: test(votes) for name, test in certify.items()}
    records.put(_finished(run, Subject(sample, votes, certificates, where), record))
    journal.remove()
    run.progress(sample.id, smoothing.n0 + smoothing.n - told)  # sampling may stop early
    return None


def _answer(model: Seen, smoothing: Smoothing) -> Callable[[Tensor], Tensor]:
    """What votes: logits where there are any, else scores."""
    precision = PRECISIONS[smoothing.precision]
    return (lambda x: model.logits(x, precision)) if isinstance(model, Segmenter) else model.scores


def _base(run: CertifyRun, sample: Sample) -> Record | None:
    """The record of an image before it is certified; None where the model's answer is not finite."""
    run.checkpoints.begin(f"base {digest((sample.id,), sample.image)}")
    prediction, finite = judge(run.model, sample.image[None])
    if not bool(finite):
        return None
    labels, ignore = sample.label, run.data.classes.ignore_index
    score = score_answer(prediction[0], labels, run.model.num_classes, ignore)
    ledger = Ledger(1)
    ledger.enter("judging", forward=1)
    return Record(sample.id, prediction[0], score, passes=ledger.by_purpose())


def _finished(run: CertifyRun, subject: Subject, before: Record) -> Record:
    sample, votes = subject.sample, subject.votes
    ignore, classes = run.data.classes.ignore_index, run.model.num_classes
    studies = _studied(run, subject)
    ledger = Ledger(1)
    ledger.enter("certification", forward=votes.n0 + votes.n)
    return replace(
        before,
        done=True,
        guess=votes.guess,
        votes=votes.successes,
        majority=votes.majority,
        majority_score=score_answer(votes.majority, sample.label, classes, ignore),
        kinds={name: _kind(run, sample, name, found) for name, found in subject.certificates.items()},
        n0=votes.n0,
        n=votes.n,
        finite=votes.finite,
        passes={**before.passes, **ledger.by_purpose(), **_paid(studies)},
        studies=studies,
    )


def _studied(run: CertifyRun, subject: Subject) -> dict[str, Mapping[str, Any]]:
    if not subject.votes.finite:
        return {}
    if run.studies:
        run.progress(f"{subject.sample.id}, under attack", 0)
    return {name: study(subject) for name, study in run.studies.items()}


def _paid(studies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {purpose: book for study in studies.values() for purpose, book in study.get("passes", {}).items()}


def _kind(run: CertifyRun, sample: Sample, name: str, certificate: Certificate) -> Kind:
    it = run.experiment.smoothing
    hierarchy = run.hierarchy if name == "adaptive" else None
    bins = edges(it.sigma, it.n, it.alpha, it.tau)
    score = score_certificate(
        certificate, sample.label, run.model.num_classes, run.data.classes.ignore_index, bins, hierarchy
    )
    return Kind(certificate.prediction, certificate.radius, certificate.level, certificate.promise, score)
