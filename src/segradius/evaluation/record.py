"""What is kept of a certified image: its answers with what each is worth, packed as a compressed NumPy file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.certification.certificate import Certificate, boundary, certified_counts, information_gain
from segradius.certification.certifiers import Hierarchy
from segradius.core.seal import readable
from segradius.evaluation.rows import CLEAN, ImageResult, Kept
from segradius.evaluation.store import Store
from segradius.metrics.counts import Pixels, count

#: Rows and columns from another class within which a pixel is at a boundary.
WIDTH = 3


@dataclass(frozen=True)
class Score:
    """One answer in one image; only labelled pixels count, and an abstained one is wrong.

    Attributes:
        pixels: Of each class.
        abstained: Labelled pixels about which nothing is said.
        boundary: Labelled pixels near another class (`WIDTH`): right ones, all.
        radius: Sum of the radii of the certified labelled pixels.
        certified: Labelled pixels by radius, in the intervals of `edges`; empty for an answer without certificate.
        right: The same of those that are right.
        gain: Sum of `segradius.certification.information_gain`.
    """

    pixels: Pixels
    abstained: int
    boundary: tuple[int, int]
    radius: float = 0.0
    certified: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    gain: float = 0.0

    @property
    def labelled(self) -> int:
        """Labelled pixels."""
        return sum(self.pixels.labelled)


def score_answer(prediction: Tensor, labels: Tensor, num_classes: int, ignore_index: int, structures: int = 0) -> Score:
    """Of predicted classes (H, W) against labels (H, W)."""
    counts = count(prediction[None], labels[None], num_classes, ignore_index, structures)
    return Score(counts.images[0], 0, _at_boundary(prediction == labels, labels, ignore_index))


def score_certificate(
    certificate: Certificate,
    labels: Tensor,
    num_classes: int,
    ignore_index: int,
    edges: Sequence[float],
    hierarchy: Hierarchy | None = None,
    structures: int = 0,
) -> Score:
    """Of a certificate against labels (H, W); a group is right if the label is in it, and then counts as the label.

    Args:
        certificate: Of the image.
        labels: (H, W) int64.
        num_classes: C.
        ignore_index: Label that does not count.
        edges: Radii between which pixels are counted, growing from 0; see `edges`.
        hierarchy: Groups of classes that were tested; None for single classes.
        structures: K where the classes are the sets of K structures.
    """
    labelled = labels != ignore_index
    known = labels.masked_fill(~labelled, 0)
    right = labelled & certificate.certified & _agree(certificate, known, hierarchy)
    meant = replace(certificate, guess=torch.where(right, known, certificate.guess))
    sure = labelled & certificate.certified
    sizes = torch.ones(1, num_classes) if hierarchy is None else hierarchy.sizes()
    return Score(
        certified_counts(meant, labels, num_classes, ignore_index, -1.0, structures).images[0],
        int((labelled & ~certificate.certified).sum()),
        _at_boundary(right, labels, ignore_index),
        float(certificate.radius[sure].double().sum()),
        _histogram(certificate.radius[sure], edges),
        _histogram(certificate.radius[right], edges),
        float(information_gain(certificate, sizes, right).sum()),
    )


def edges(sigma: float, n: int, alpha: float, tau: float, bins: int = 64) -> list[float]:
    """Radii from 0 to at least the largest that n votes can certify, for histograms that add up over images.

    Example:
        >>> edges(0.25, 1000, 0.001, 0.75)[-1] > 0.25 * 2.4
        True
    """
    top = sigma * NormalDist().inv_cdf(max(alpha ** (1 / n), tau, 0.55))  # above ½, so that there are intervals
    found: list[float] = torch.linspace(0, top, bins + 1, dtype=torch.float64).tolist()
    return found


def _agree(certificate: Certificate, labels: Tensor, hierarchy: Hierarchy | None) -> Tensor:
    """(H, W) bool, whether the label is in the group of the guess at the level that was tested."""
    if hierarchy is None or certificate.level is None:
        return certificate.guess == labels
    groups = torch.tensor(hierarchy.levels, device=labels.device)
    return groups[certificate.level, certificate.guess] == groups[certificate.level, labels]


def _at_boundary(right: Tensor, labels: Tensor, ignore_index: int) -> tuple[int, int]:
    edge = boundary(labels, WIDTH, ignore_index)
    return int((right & edge).sum()), int(edge.sum())


def _histogram(radii: Tensor, edges: Sequence[float]) -> tuple[int, ...]:
    """How many radii lie in each interval (a, b] between two edges; what rounding puts outside is in the end ones."""
    bounds = torch.tensor(edges, dtype=torch.float64, device=radii.device)
    place = torch.bucketize(radii.double(), bounds).sub_(1).clamp_(0, len(edges) - 2)
    return tuple(torch.bincount(place, minlength=len(edges) - 1).tolist())


@dataclass(frozen=True, eq=False)
class Kind:
    """What is kept of a certificate: class or −1 (H, W), radius (H, W), level (H, W) or None, score."""

    classes: Tensor
    radius: Tensor
    level: Tensor | None
    promise: str
    score: Score


@dataclass(frozen=True, eq=False)
class Polled:
    """What votes on noisy copies of an image said.

    Attributes:
        guess: (H, W) the class that was tested.
        votes: (H, W) how many of the n copies voted for it.
        majority: (H, W) the class with most votes, the smoothed model's prediction.
        majority_score: What that is worth.
        n0: Copies that named classes.
        n: Copies that tested them.
    """

    guess: Tensor
    votes: Tensor
    majority: Tensor
    majority_score: Score
    n0: int
    n: int


@dataclass(frozen=True, eq=False)
class Record:
    """All that is kept of an image.

    Attributes:
        image: Its id.
        base: (H, W) the model's own prediction.
        base_score: What that is worth.
        kinds: The certificates by name; the first, or groups of classes where there are any, is that of maps.
        polled: Votes behind them; None where there were none.
        finite: Whether all answers were; if not, the image is in no figure.
        passes: ``{purpose: [forward, backward]}``.
        studies: What attacks on the certificates found, under ``crosscheck``.
        whole: What is certified of all pixels of the image together, as plain numbers; empty where nothing is.
    """

    image: str
    base: Tensor
    base_score: Score
    kinds: Mapping[str, Kind]
    polled: Polled | None = None
    finite: bool = True
    passes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    studies: Mapping[str, Any] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finest(self) -> Kind:
        """The certificate that says most of classes."""
        return self.kinds.get("adaptive") or next(iter(self.kinds.values()))

    @property
    def copies(self) -> int:
        """Noisy copies that were drawn."""
        return 0 if self.polled is None else self.polled.n0 + self.polled.n

    def checked(self, study: Mapping[str, Any]) -> Record:
        """With what attacks on it found, and their passes."""
        return replace(self, studies={"crosscheck": study}, passes={**self.passes, **_pairs(study["passes"])})


def pack(record: Record) -> bytes:
    """The content of ``certificates/ID.npz``: everything as arrays, numbers as one JSON text; `unpack` reads it."""
    arrays: dict[str, Any] = {"base": _small(record.base)}
    polled = record.polled
    if polled is not None:
        arrays |= {"guess": _small(polled.guess), "majority": _small(polled.majority)}
        arrays["votes"] = polled.votes.cpu().numpy().astype(np.int32)
    for name, kind in record.kinds.items():
        arrays |= {f"{name}.class": _small(kind.classes), f"{name}.radius": kind.radius.cpu().float().numpy()}
        if kind.level is not None:
            arrays[f"{name}.level"] = _small(kind.level)
    numbers: dict[str, Any] = {"image": record.image, "base": _plain(record.base_score), "done": True}
    books = {purpose: dict(zip(("forward", "backward"), book, strict=True)) for purpose, book in record.passes.items()}
    numbers["passes"] = books
    if polled is not None:
        numbers |= {"majority": _plain(polled.majority_score), "n0": polled.n0, "n": polled.n}
    numbers["kinds"] = {name: [kind.promise, _plain(kind.score)] for name, kind in record.kinds.items()}
    numbers |= {"finite": record.finite, "studies": record.studies}
    if record.whole:
        numbers["whole"] = record.whole
    file = io.BytesIO()
    np.savez_compressed(file, **arrays, numbers=np.array(json.dumps(numbers)))
    return file.getvalue()


def _plain(score: Score) -> dict[str, Any]:
    """For JSON, as earlier versions had it where the classes are no sets."""
    return asdict(score) | {"pixels": score.pixels.plain}


def unpack(packed: bytes) -> Record:
    """The record that `pack` was given."""
    with np.load(io.BytesIO(packed)) as found:
        arrays = {name: found[name] for name in found.files}
    numbers = json.loads(str(arrays["numbers"]))
    return Record(
        numbers["image"],
        _classes(arrays["base"]),
        _score(numbers["base"]),
        {name: _kind(name, arrays, told, found) for name, (told, found) in numbers["kinds"].items()},
        _polled(arrays, numbers) if "votes" in arrays else None,
        numbers["finite"],
        _pairs(numbers["passes"]),
        numbers["studies"],
        numbers.get("whole", {}),
    )


def _polled(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]) -> Polled:
    votes = torch.from_numpy(arrays["votes"].astype(np.int64))
    guess, majority, score = _classes(arrays["guess"]), _classes(arrays["majority"]), _score(numbers["majority"])
    return Polled(guess, votes, majority, score, numbers["n0"], numbers["n"])


def take_over(folder: Path, store: Store, keys: Sequence[str]) -> None:
    """Put the files of a certification of an earlier version, which had no store, into one.

    Args:
        folder: Of the files.
        store: Where they go.
        keys: Of the certificates, and of attacks on them where there are any.
    """
    for file in sorted(folder.glob("[!.]*.npz")):
        readable(partial(_taken_over, file, store, keys), file, "a certificate; remove it, and it is made again")


def _taken_over(file: Path, store: Store, keys: Sequence[str]) -> None:
    numbers, base = _begun(file)
    image, passes = numbers["image"], _pairs(numbers["passes"])
    clean = ImageResult(image, Pixels(*numbers["base"]["pixels"]), passes={"judging": passes["judging"]})
    record = unpack(file.read_bytes()) if numbers["done"] else None
    store.add(CLEAN, [clean], Kept(predictions={image: base}))
    if record is None:
        return
    alone = {p: passes[p] for p in ("judging", "certification")}
    study, spent = json.dumps(record.studies.get("crosscheck")).encode(), passes.get("crosscheck", (0, 0))
    kept = {image: pack(replace(record, studies={}, passes=alone))}, {image: study} if record.studies else {}
    pixels = next(iter(record.kinds.values())).score.pixels, Pixels((), (), ())
    for key, each, purpose, counted in zip(keys, kept, ("certification", "crosscheck"), pixels, strict=False):
        if each or not record.finite:
            passes_of = {purpose: alone.get(purpose, spent)}
            result = ImageResult(image, counted, passes=passes_of, valid=record.finite)
            store.add(key, [result], Kept(records=each))


def _begun(file: Path) -> tuple[dict[str, Any], Tensor]:
    """The numbers and the model's prediction in a file of an earlier version, which may lack the rest."""
    with file.open("rb") as stream, np.load(stream) as found:
        return json.loads(str(found["numbers"])), torch.from_numpy(found["base"])


def _pairs(passes: Mapping[str, Mapping[str, int]]) -> dict[str, Sequence[int]]:
    return {purpose: [book["forward"], book["backward"]] for purpose, book in passes.items()}


def _kind(name: str, arrays: Mapping[str, NDArray[Any]], promise: str, score: Mapping[str, Any]) -> Kind:
    level = _classes(arrays[f"{name}.level"]) if f"{name}.level" in arrays else None
    radius = torch.from_numpy(arrays[f"{name}.radius"])
    return Kind(_classes(arrays[f"{name}.class"]), radius, level, promise, _score(score))


def _score(found: Mapping[str, Any]) -> Score:
    """From what JSON made of a `Score`: lists for tuples."""
    parts: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    parts["pixels"] = _worst(Pixels(*found["pixels"]))
    return Score(**parts)


def _worst(pixels: Pixels) -> Pixels:
    """Of two classes, what is not right is the other one; earlier versions left abstained pixels out of it."""
    if len(pixels.labelled) != 2:
        return pixels
    (none, one), (unlike, like) = pixels.intersection, pixels.labelled
    return pixels._replace(predicted=[none + like - one, one + unlike - none])


def _small(classes: Tensor) -> NDArray[np.int16]:
    return classes.cpu().numpy().astype(np.int16)


def _classes(values: NDArray[np.int16]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))
