"""The task `Agreeing`: what two deployments of one network say of the same images, pixel by pixel."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from segradius.certification.certificate import boundary
from segradius.core.border import at_border
from segradius.core.contracts import SCORES, Model, ScoreModel, Seen
from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.core.seal import readable
from segradius.evaluation.batch import Batch, Bench, Clean, check_model, is_priced
from segradius.evaluation.job import DataChoice, Job, ModelChoice, conflict, described, fingerprint_of, plain
from segradius.evaluation.journal import OTHER, Checkpoints, digest, resumable
from segradius.evaluation.record import WIDTH
from segradius.evaluation.rows import ImageResult, Kept, Rows
from segradius.evaluation.store import Store
from segradius.metrics.counts import count
from segradius.metrics.shifts import shift_table
from segradius.targets.target import Target, layers


@dataclass(eq=False)
class Second:
    """The second of two deployments while it is asked: it answers each image once, and every answer is counted.

    Args:
        model: A network or a target, as it was opened.
    """

    model: Seen
    _checkpoints: Checkpoints | None = None
    _checked: bool = False

    def resume(self, job: Job, store: Store, folder: Path, warn: Callable[[str], None]) -> None:
        """Go on counting where an earlier run stopped, and keep what is answered until its rows are stored."""
        self.model, self._checkpoints = resumable(self.model, [job.key], store, folder, warn=warn, other=True)

    def finish(self) -> None:
        """Remove what was kept."""
        if self._checkpoints is not None:
            self._checkpoints.tidy()

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores (N, C, H, W) and the class of each pixel (N, H, W), on the batch's device."""
        if self._checkpoints is not None:
            self._checkpoints.begin(f"second {digest(batch.ids)}")
        images = batch.images.to(self.model.device)
        with self.model.frozen():
            if not self._checked:
                check_model(self.model, images[0])
            self._checked = True
            scores, classes = scored(self.model, images)
        return scores.to(batch.images.device), classes.to(batch.images.device)


@torch.no_grad()
def scored(model: Seen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (N, C, H, W) of a network or a target, and the class of each pixel (N, H, W)."""
    if is_priced(model):
        scores = cast(ScoreModel, model).scores(images)
        return scores, predict(scores)[1]
    logits = cast(Model, model).logits(images)
    return logits.softmax(1), predict(logits)[1]


def is_here(model: Seen) -> bool:
    """Whether a model may be asked again at no price: a network or a file in this process, none behind a wire."""
    return not is_priced(model) or not any(getattr(layer, "traffic", None) for layer in layers(cast(Target, model)))


@dataclass(frozen=True)
class Agreeing:
    """Asking a second deployment about images of which the first has just said what it sees.

    Args:
        other: The second, as it was asked for.
        second: It, open.
    """

    other: ModelChoice
    second: Second = field(compare=False, repr=False)

    title: ClassVar[str] = "comparing"
    unit: ClassVar[str] = "images"
    total_steps: ClassVar[int] = 1
    one_by_one: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    precision: ClassVar[torch.dtype | None] = None

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside the first model, data and seed."""
        return {"other": described(self.other, DataChoice(""))["model"]}

    def check(self, model: Seen) -> None:
        """Raise `InputError` where the two cannot be compared."""
        mine, theirs = (getattr(each, "structures", 0) for each in (model, self.second.model))
        if mine != theirs and max(mine, theirs) > 1:
            raise InputError(
                f"one of the two says yes or no to {max(mine, theirs)} structures, and the other to "
                f"{min(mine, theirs) or 'none'}: expected the same of both, by outputs= and channels="
            )

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """What both say of a batch; the labels of the batch are what the first says."""
        started = time.perf_counter()
        scores, seen = self.second(batch)
        own, asked = _own_scores(bench.model, batch, self.second.model, scores.shape[1])
        fine = scores.isfinite().flatten(1).all(1).tolist()
        classes = max(bench.model.num_classes, self.second.model.num_classes)
        counts = count(seen, batch.prediction, classes, -1).images
        tables = looks(batch.prediction, seen, classes)
        seconds = (time.perf_counter() - started) / len(batch.ids)
        found, records = [], {}
        for row, image in enumerate(batch.ids):
            passes = {OTHER: (1, 0), **({"scores": (1, 0)} if asked else {})}
            found.append(ImageResult(image, counts[row], passes=passes, valid=fine[row], seconds=seconds))
            gaps = _gaps(None if own is None or not fine[row] else own[row], scores[row])
            records[image] = Look(gaps=gaps, **{name: part[row] for name, part in tables.items()}).packed
        kept = Kept(predictions=dict(zip(batch.ids, seen, strict=True)), records=records)
        return Rows(bench.key, found, kept)


def _own_scores(model: Seen, batch: Batch, other: Seen, classes: int) -> tuple[Tensor | None, bool]:
    """The first's scores, and whether it was asked for them: only where that has no price, and both give comparable."""
    if not is_here(model) or SCORES not in model.offers & other.offers or model.num_classes != classes:
        return None, False
    with at_border(f"the forward pass of model {model.name!r}", batch.images.shape):
        return scored(model, batch.images)[0], True


def _gaps(mine: Tensor | None, theirs: Tensor) -> tuple[float, float]:
    """Of two scores (C, H, W): the largest difference, and the median over pixels of their largest over the classes."""
    if mine is None:
        return float("nan"), float("nan")
    gap = (mine.double() - theirs.double()).abs().amax(0)
    return float(gap.max()), float(gap.median())


@dataclass(frozen=True, eq=False)
class Look:
    """What two deployments say of one image.

    Attributes:
        pairs: (K, 3) int64: class of the first, class of the second, pixels; those that occur.
        shifts: (17, 17, 4) int64, from `segradius.metrics.shift_table`; −1 where the image is too small.
        judged: (4,) int64, pixels behind them.
        edge: (2,) int64: pixels near a boundary of the first's prediction that agree, and all of those.
        gaps: Largest and median difference of the scores; NaN where it is not known.
    """

    pairs: Tensor
    shifts: Tensor
    judged: Tensor
    edge: Tensor
    gaps: tuple[float, float]

    @property
    def packed(self) -> bytes:
        """As the bytes of a compressed NumPy file."""
        file = io.BytesIO()
        arrays = {name: getattr(self, name).numpy() for name in ("pairs", "shifts", "judged", "edge")}
        gaps = [None if gap != gap else gap for gap in self.gaps]
        np.savez_compressed(file, allow_pickle=False, numbers=np.array(json.dumps({"gaps": gaps})), **arrays)
        return file.getvalue()

    @classmethod
    def unpacked(cls, record: bytes) -> Look:
        """From its `packed`.

        Example:
            >>> first = torch.zeros(1, 8, 8, dtype=torch.int64)
            >>> one = Look(gaps=(0.5, 0.25), **{name: part[0] for name, part in looks(first, first, 2).items()})
            >>> Look.unpacked(one.packed).pairs.tolist(), Look.unpacked(one.packed).gaps
            ([[0, 0, 64]], (0.5, 0.25))
        """

        def read() -> Look:
            with np.load(io.BytesIO(record), allow_pickle=False) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in ("pairs", "shifts", "judged", "edge")}
                largest, median = json.loads(str(file["numbers"]))["gaps"]
            nan = float("nan")
            return cls(gaps=(nan if largest is None else largest, nan if median is None else median), **arrays)

        return readable(read, "a record", "what two deployments said")


def looks(first: Tensor, second: Tensor, classes: int) -> dict[str, list[Tensor]]:
    """Of class maps (N, H, W) what a `Look` has of each, by its names; without scores."""
    shifts, judged = shift_table(first, second)
    near, same = boundary(first, WIDTH, -1), first == second
    edge = torch.stack([(near & same).flatten(1).sum(1), near.flatten(1).sum(1)], 1).cpu()
    pairs = []
    for mine, theirs in zip(first, second, strict=True):
        codes, pixels = torch.unique(mine * classes + theirs, return_counts=True)
        pairs.append(torch.stack([codes // classes, codes % classes, pixels], 1).cpu())
    return {"pairs": pairs, "shifts": list(shifts), "judged": [judged] * len(first), "edge": list(edge)}


@dataclass(frozen=True)
class Agreement:
    """Two deployments over images: what `segradius agree` runs. The first's predictions stand for labels.

    Example:
        >>> task = Agreeing(ModelChoice("demo"), Second(None))
        >>> Agreement(ModelChoice("demo"), DataChoice("scenes", labels="predicted"), task).jobs[0].task.unit
        'images'
    """

    model: ModelChoice
    data: DataChoice
    task: Agreeing
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data.predicted:
            raise InputError("data.labels is 'given'; expected 'predicted': deployments are compared with each other")

    @property
    def clean(self) -> Clean:
        """What comes first."""
        return Clean()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The one."""
        return (Job(self.model, self.data, self.task, self.seed),)

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers, strings, lists and dicts."""
        mine: dict[str, Any] = plain(self.task.described)
        return described(self.model, self.data) | mine | {"seed": self.seed}

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole."""
        return fingerprint_of(self.as_dict())

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What stands in the way of going on with an earlier one: anything but more images."""
        if "other" not in earlier:
            return "that of another command than segradius agree"
        return conflict(self.as_dict(), earlier)
