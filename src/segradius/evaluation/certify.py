"""The task `Certifying`, and what one folder of certificates holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

from segradius.certification.certifiers import Hierarchy
from segradius.core.contracts import Journal, Seen
from segradius.evaluation.batch import Batch, Bench, Clean, answering
from segradius.evaluation.certified_by import certified_by
from segradius.evaluation.certify_options import PRECISIONS
from segradius.evaluation.job import DataChoice, Job, ModelChoice, Task, conflict, described, fingerprint_of, plain
from segradius.evaluation.record import Record, pack
from segradius.evaluation.rows import ImageResult, Kept, Rows


class Way(Protocol):
    """A way of certifying images: options as a frozen dataclass of plain data, which makes a `Record` of an image."""

    key: ClassVar[str]
    """Its name among the facts of a run."""
    unit: ClassVar[str]
    """What its passes are of, in the plural."""

    @property
    def passes(self) -> tuple[int, bool]:
        """Forward passes over an image, and whether they may be fewer."""

    @property
    def autocast(self) -> torch.dtype | None:
        """In which the network runs; None for its own precision."""

    @property
    def title(self) -> str:
        """For people, while it runs."""

    @property
    def short(self) -> str:
        """In the heading of a picture."""

    @property
    def bounds(self) -> list[float]:
        """Radii between which pixels are counted, growing from 0."""

    def heading(self) -> list[str]:
        """What was certified, in parts of a line."""

    def promised(self, kind: str, promised: str) -> str:
        """What a kind of certificate promises of an image, in a sentence."""

    def groups(self, names: Sequence[str]) -> Hierarchy | None:
        """Groups of a model's classes that are certified where single ones cannot be; None without any."""

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model can be certified so."""

    def record(self, batch: Batch, bench: Bench, journal: Journal | None = None) -> Record:
        """The certificates of a batch of one image, and what every answer is worth."""


#: Options of a way that are left out of its description where they are the default, as earlier versions had none.
UNLESS_GIVEN: Mapping[str, Sequence[str]] = {"smoothing": ("bound", "minutes")}


def described_way(way: Way) -> dict[str, Any]:
    """The options of a way, those of later versions only where they are not the default."""
    late, options = UNLESS_GIVEN.get(way.key, ()), asdict(cast(Any, way))
    usual = {field.name: field.default for field in fields(cast(Any, way))}
    return {name: value for name, value in options.items() if name not in late or value != usual[name]}


class Checks(Protocol):
    """How certificates are attacked: options as a frozen dataclass of plain data."""

    def task(self, way: Any) -> Task:
        """The task that attacks certificates of a way; raises `InputError` where that says nothing."""


@dataclass(frozen=True)
class Certifying:
    """Certificates of every image.

    Args:
        way: How.
    """

    way: Way

    one_by_one: ClassVar[bool] = True
    differentiates: ClassVar[bool] = False

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""
        return {self.way.key: described_way(self.way)}

    @property
    def unit(self) -> str:
        """What its steps are."""
        return self.way.unit

    @property
    def precision(self) -> torch.dtype | None:
        """Of its passes."""
        return self.way.autocast

    @property
    def title(self) -> str:
        """For people."""
        return self.way.title

    @property
    def total_steps(self) -> int:
        """Passes over an image, at most."""
        return self.way.passes[0]

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model can be certified so."""
        self.way.check(model)

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Certify a batch of one image."""
        (image,), started = batch.ids, time.perf_counter()
        journal = bench.checkpoints.journal(bench.key, batch.ids, batch.images[0]) if bench.checkpoints else None
        record = self.way.record(batch, bench, journal)
        seconds = time.perf_counter() - started
        passes = {"certification": record.passes["certification"]}
        pixels = next(iter(record.kinds.values())).score.pixels
        found = ImageResult(image, pixels, passes=passes, valid=record.finite, seconds=seconds)
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


@dataclass(frozen=True)
class Certification:
    """Certificates of a model over images, and attacks on them. Batch size, device and folder are not part of it.

    Example:
        >>> from segradius.evaluation import Smoothing
        >>> one = Certification(ModelChoice("demo"), DataChoice("scenes", limit=3), Smoothing(0.25))
        >>> other = Certification(ModelChoice("demo"), DataChoice("scenes"), Smoothing(0.5))
        >>> other.extends(one.as_dict())
        'smoothing.sigma is 0.5, and 0.25 in the earlier run'
    """

    model: ModelChoice
    data: DataChoice
    way: Way
    seed: int = 0
    crosscheck: Checks | None = None

    clean: ClassVar[Clean] = Clean()

    def __post_init__(self) -> None:
        _ = self.jobs  # checks that they go together

    def as_dict(self) -> dict[str, Any]:
        """The experiment as plain numbers, strings, lists and dicts."""
        checks = {} if self.crosscheck is None else {"crosscheck": plain(asdict(cast(Any, self.crosscheck)))}
        how = {self.way.key: plain(described_way(self.way)), "seed": self.seed}
        return described(self.model, self.data) | how | checks

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole, equal on every machine."""
        return fingerprint_of(self.as_dict())

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The certificates, and the attacks on them where there are any."""
        certifying = Job(self.model, self.data, Certifying(self.way), self.seed)
        if self.crosscheck is None:
            return (certifying,)
        return certifying, replace(certifying, task=self.crosscheck.task(self.way))

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
        if certified_by(earlier) is None:
            return "that of segradius attack"
        if self.way.key not in earlier:
            return f"certified by {certified_by(earlier)}, and this is by {self.way.key}"
        mine, theirs = self.as_dict(), dict(earlier)
        if "crosscheck" not in theirs:
            mine.pop("crosscheck", None)
        return conflict(mine, theirs)
