"""What was measured at a scale: a row for each image under each attack of each network, whatever block it is of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from segradius.core.names import safe_name
from segradius.core.seal import read_json, readable
from segradius.evaluation.attack_summary import CHECKING
from segradius.evaluation.folders import STUDY, RunFolder, measurements, run_folders
from segradius.evaluation.loaded import load_results
from segradius.evaluation.reread import experiment_of, reading
from segradius.evaluation.rows import CLEAN, ImageResult
from segradius.evaluation.study import variants
from segradius.evaluation.trace import ImageTrace
from segradius.metrics.counts import Pixels
from segradius.paper.block import Block
from segradius.paper.plan import COMPUTED, Part, folder_of, parts
from segradius.paper.scale import Scale

#: Of a certification, what is told of it.
SMOOTHING = ("sigma", "n0", "n", "tau", "alpha")
#: Points of a trace that are told of an image, about.
POINTS = 50


@dataclass(frozen=True)
class Of:
    """What a row is of.

    Attributes:
        block: Name of the block.
        network: Label of the network.
        family: Architecture: pspnet, psanet, hrnet_ocr.
        role: What it was trained as: plain, fast_adt, ….
        seed: That it was trained with.
        data: Label of the images.
        image: Id of the image.
    """

    block: str
    network: str
    family: str
    role: str
    seed: int
    data: str
    image: str


@dataclass(frozen=True)
class Seen(Of):
    """One image under one attack of one network.

    Attributes:
        attack: Label without what is swept; empty of the unattacked image.
        options: Values of the sweeps, by option; ``seed`` among them where the block has several seeds.
        norm: Of the threat; None of the unattacked.
        eps: Its budget, for images in [0, 1]; likewise.
        right: Labelled pixels that are right.
        labelled: All of them; 0 where NaN or infinite logits were met.
        classes: In the image's labels or predictions. The paper's MIoU of some images is Σ miou·classes / Σ classes.
        miou: Mean over these classes of their IoU, in [0, 1]; NaN without one.
        reached: Pixels at the aim, of targeted attacks; else None.
        eligible: Pixels that have an aim, likewise.
        forward: Passes over the image, its verdict among them.
        backward: Likewise.
        seconds: Wall time of its batch, shared equally.
    """

    attack: str
    options: Mapping[str, Any]
    norm: str | None
    eps: float | None
    right: int
    labelled: int
    classes: int
    miou: float
    reached: int | None
    eligible: int | None
    forward: int
    backward: int
    seconds: float


@dataclass(frozen=True)
class Certified(Of):
    """What was certified of one image of one network.

    Attributes:
        options: What decides it: σ, n, n0, τ and α, by name.
        answer: ``base``, ``smoothed``, or the certificate.
        right: Labelled pixels that are right, of a certificate: and certified.
        labelled: All of them.
        abstained: Of them, about which nothing is said.
        copies: Noisy copies that it took.
    """

    options: Mapping[str, Any]
    answer: str
    right: int
    labelled: int
    abstained: int
    copies: int


@dataclass(frozen=True)
class Traced(Of):
    """A point of how a black-box attack went on one image; of long runs some points, evenly, and the last.

    Attributes:
        attack: As `Seen` has it, like ``options``, ``norm`` and ``eps``.
        queries: About the image so far.
        loss: Mean over the counted pixels.
        pixacc: Share of the labelled pixels that are right, in [0, 1].
        best: The same of the best point so far inside the threat; NaN before the first.
    """

    attack: str
    options: Mapping[str, Any]
    norm: str
    eps: float
    queries: int
    loss: float
    pixacc: float
    best: float


@dataclass(frozen=True)
class Measured:
    """All that was measured of some blocks at a scale.

    Attributes:
        seen: Images under attack, and unattacked.
        computed: What computed blocks gave, by block.
        certified: Certificates.
        traced: How black-box attacks went.
        folders: The study's folder by (block, data), where it is there; that of a computed block by (block, "").
    """

    seen: tuple[Seen, ...] = ()
    computed: Mapping[str, Any] = field(default_factory=dict)
    certified: tuple[Certified, ...] = ()
    traced: tuple[Traced, ...] = ()
    folders: Mapping[tuple[str, str], Path] = field(default_factory=dict)

    def of(self, blocks: Collection[str]) -> Measured:
        """What was measured of some blocks."""
        return Measured(
            tuple(row for row in self.seen if row.block in blocks),
            {name: found for name, found in self.computed.items() if name in blocks},
            tuple(row for row in self.certified if row.block in blocks),
            tuple(row for row in self.traced if row.block in blocks),
            {key: folder for key, folder in self.folders.items() if key[0] in blocks},
        )


def measured(out: Path, scale: Scale, blocks: Iterable[Block]) -> Measured:
    """What is in the folders of some blocks; of measurements that are not finished nothing.

    Args:
        out: Folder of all scales.
        scale: Which; it need not be filled.
        blocks: As they are at the scale.

    Raises:
        DamagedError: What is there is not as it was written.
    """
    found, folders = _Rows({}, [], []), dict[tuple[str, str], Path]()
    computed: dict[str, Any] = {}
    for block in blocks:
        for part in parts(block, scale, out):
            folder = folder_of(out, scale) / part.name
            if (folder / STUDY).is_file():
                folders[block.name, part.data] = folder
                found.read(part, folder)
        file = folder_of(out, scale) / safe_name(block.name) / COMPUTED
        if block.compute and not block.skip and file.is_file():
            folders[block.name, ""] = file.parent
            computed[block.name] = readable(partial(_found, file), file, "what was computed")
    return Measured(tuple(found.seen.values()), computed, tuple(found.certified), tuple(found.traced), folders)


@dataclass(frozen=True)
class _Rows:
    """Rows as they are read; those of unattacked images are in several measurements, and count once."""

    seen: dict[tuple[Any, ...], Seen]
    certified: list[Certified]
    traced: list[Traced]

    def read(self, part: Part, folder: Path) -> None:
        """All measurements of a study that are finished and asked for."""
        wanted = variants(part.study, part.block.file)
        seeds = part.study.get("seeds", [0])
        for run, asked in zip(run_folders([folder]), measurements(folder), strict=True):
            if not run.is_reported or run.model not in part.subjects:
                continue
            it = part.subjects[run.model]
            options: dict[str, Any] = {"from": it.surrogate} if it.surrogate else {}
            options |= {"seed": int(asked["seed"])} if isinstance(seeds, list) and len(seeds) > 1 else {}
            own = {name: getattr(it.network, name) for name in ("family", "role", "seed")}
            of = {"block": part.block.name, "network": it.network.label, **own, "data": part.data}
            if run.kind == "certify":
                self.certified.extend(_certified(run, of, options))
            else:
                self._attacked(run, of, options, wanted)

    def _attacked(
        self, run: RunFolder, of: Mapping[str, Any], more: dict[str, Any], wanted: Mapping[str, tuple[str, Any]]
    ) -> None:
        store_file = run.path / "results.sqlite"
        with reading(store_file) as store:
            it = readable(lambda: experiment_of(store.noted("experiment")), store_file, "the store of an attack")
            for result in _in_order(store.results(CLEAN)):
                row = _seen(of, result, "", {}, None, None, targeted=False)
                self.seen.setdefault((row.block, row.network, row.data, row.image), row)
            for plan in it.attacks:
                if plan.label not in wanted:
                    continue
                label, values = wanted[plan.label]
                about = label, more | dict(values), plan.norm, plan.eps
                for result in _in_order(store.results(it.key(plan))):
                    row = _seen(of, result, *about, targeted=it.aim is not None)
                    self.seen[(run.path, plan.label, plan.norm, plan.eps, row.image)] = row
                for image, trace in sorted(store.traces(it.key(plan)).items()):
                    self.traced.extend(_point(of, image, about, point) for point in _thinned(trace))


def _found(file: Path) -> Any:
    return read_json(file)["found"]


def _in_order(results: Mapping[str, ImageResult]) -> list[ImageResult]:
    return [results[image] for image in sorted(results)]


def _seen(
    of: Mapping[str, Any],
    result: ImageResult,
    attack: str,
    options: Mapping[str, Any],
    norm: str | None,
    eps: float | None,
    *,
    targeted: bool,
) -> Seen:
    pixels = result.pixels if result.valid else Pixels([], [], [])
    books = [book for purpose, book in result.passes.items() if purpose != CHECKING]
    forward, backward = (sum(each) for each in zip(*books, strict=True)) if books else (0, 0)
    reached = (result.hit, result.eligible) if targeted else (None, None)
    right, labelled, seconds = sum(pixels.intersection), sum(pixels.labelled), rounded(result.seconds, 4)
    counted = (right, labelled, *miou_of(pixels), *reached, forward, backward, seconds)
    return Seen(**_named(Seen, {**of, "image": result.image}, (attack, options, norm, eps, *counted)))


def _point(of: Mapping[str, Any], image: str, about: Sequence[Any], point: Sequence[Any]) -> Traced:
    return Traced(**_named(Traced, {**of, "image": image}, (*about, *point)))


def _named(kind: type[Of], of: Mapping[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """Values of a row by the names of its fields, after those of what it is of."""
    rest = [each.name for each in fields(kind) if each.name not in of]
    return {**of, **dict(zip(rest, values, strict=True))}


def miou_of(pixels: Pixels) -> tuple[int, float]:
    """How many classes are in an image's labels or predictions, and the mean of their IoU.

    Example:
        >>> miou_of(Pixels([1, 0, 0], [2, 0, 1], [1, 0, 1]))
        (2, 0.25)
    """
    unions = [p + t - i for i, p, t in zip(pixels.intersection, pixels.predicted, pixels.labelled, strict=True)]
    shares = [i / union for i, union in zip(pixels.intersection, unions, strict=True) if union]
    return len(shares), rounded(math.fsum(shares) / len(shares)) if shares else math.nan


def rounded(value: float, digits: int = 9) -> float:
    """A number to some significant digits, as packed results have it."""
    return float(f"{value:.{digits}g}")


def _thinned(trace: ImageTrace) -> Iterator[Sequence[float]]:
    """Queries, loss, accuracy and best of some points, evenly, and the last."""
    rows = [(queries, *(rounded(each, 6) for each in rest)) for queries, _, *rest in zip(*astuple(trace), strict=True)]
    stride = max(1, len(rows) // POINTS)
    yield from (row for place, row in enumerate(rows) if place % stride == 0 or place == len(rows) - 1)


def _certified(run: RunFolder, of: Mapping[str, Any], more: Mapping[str, Any]) -> Iterator[Certified]:
    (found,) = load_results(run.path).runs
    options = {**more, **{name: found.experiment["smoothing"][name] for name in SMOOTHING}}
    for line in found.table("images"):
        if line["valid"]:
            counts = [int(line[name] or 0) for name in ("right", "pixels", "abstained", "copies")]
            it = {**of, "image": line["image"]}
            yield Certified(**_named(Certified, it, (options, line["answer"], *counts)))
