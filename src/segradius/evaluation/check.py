"""A data set read from end to end before anything is run on it: each sample's account, and what the whole has."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from segradius.core.label_sets import members
from segradius.data.sample import Classes, Sample, SegmentationData
from segradius.data.stored import Held, sample_and_file
from segradius.data.usable import usable
from segradius.evaluation.facts import Finding
from segradius.evaluation.preflight import of_data


@dataclass(frozen=True)
class Looked:
    """What a sample is.

    Attributes:
        id: Its name.
        fault: Why it cannot be used; None where it can.
        height: Rows, as a model sees it.
        width: Columns.
        bands: Input channels.
        file: What its image file holds; None where there is none, or it cannot be read.
        pixels: Labelled pixels of each class.
        void: Pixels without a class.
        image: Digest of the image as a model sees it.
        label: Digest of its labels.
    """

    id: str
    fault: str | None = None
    height: int = 0
    width: int = 0
    bands: int = 0
    file: Held | None = None
    pixels: tuple[int, ...] = ()
    void: int = 0
    image: str = ""
    label: str = ""

    @property
    def labelled(self) -> int:
        """Pixels with a class."""
        return sum(self.pixels)


@dataclass(frozen=True)
class Part:
    """Of a class, or a structure: labelled pixels over all samples, and the samples that have any."""

    name: str
    pixels: int
    images: int


@dataclass(frozen=True)
class Looks:
    """A data set that was read.

    Attributes:
        name: Of the data set.
        classes: Its classes.
        samples: In order.
        findings: What is probably a mistake.
        also: For each sample of another data set whose image is one of this too: its id there, and that here.
        against: Name of that data set.
    """

    name: str
    classes: Classes
    samples: tuple[Looked, ...]
    findings: tuple[Finding, ...] = ()
    also: tuple[tuple[str, str], ...] = ()
    against: str = ""

    @cached_property
    def good(self) -> tuple[Looked, ...]:
        """Samples that can be used."""
        return tuple(each for each in self.samples if each.fault is None)

    @cached_property
    def faults(self) -> dict[str, str]:
        """Why the others cannot, by id."""
        return {each.id: each.fault for each in self.samples if each.fault is not None}

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Of the structures where there are any, else of the classes."""
        names, pixels = self.classes.names, torch.tensor([each.pixels for each in self.good], dtype=torch.int64)
        pixels = pixels.view(len(self.good), len(self.classes))
        if self.classes.structures:
            names, pixels = self.classes.structures, pixels @ members(len(self.classes.structures)).long()
        if not len(names):
            return ()
        totals, images = pixels.sum(0).tolist(), (pixels > 0).sum(0).tolist()
        return tuple(map(Part, names, totals, images))

    @cached_property
    def empty(self) -> tuple[str, ...]:
        """Usable samples in which what is asked with yes or no is nowhere; none where nothing is asked so."""
        if not self.classes.foreground:
            return ()
        return tuple(each.id for each in self.good if each.pixels[0] == each.labelled)

    @cached_property
    def void(self) -> float:
        """Share of the pixels without a class; NaN without pixels."""
        pixels = sum(each.height * each.width for each in self.good)
        return sum(each.void for each in self.good) / pixels if pixels else math.nan

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Samples by height × width × bands, the commonest first."""
        return dict(Counter(f"{each.height}×{each.width}×{each.bands}" for each in self.good).most_common())

    @cached_property
    def types(self) -> Mapping[str, tuple[int, float, float]]:
        """By type of the numbers in image files: how many files, the least and the largest number."""
        found: dict[str, tuple[int, float, float]] = {}
        for file in (each.file for each in self.samples if each.file is not None):
            count, low, high = found.get(file.dtype, (0, math.nan, math.nan))
            found[file.dtype] = (count + 1, float(np.fmin(low, file.low)), float(np.fmax(high, file.high)))
        return found

    @cached_property
    def twins(self) -> tuple[tuple[str, ...], ...]:
        """Ids of samples with the same image."""
        groups: dict[str, list[str]] = {}
        for each in self.good:
            groups.setdefault(each.image, []).append(each.id)
        return tuple(tuple(ids) for ids in groups.values() if len(ids) > 1)

    @cached_property
    def torn(self) -> tuple[tuple[str, ...], ...]:
        """Those of `twins` whose labels differ."""
        labels = {each.id: each.label for each in self.good}
        return tuple(ids for ids in self.twins if len({labels[each] for each in ids}) > 1)


def check_data(
    data: SegmentationData,
    against: SegmentationData | None = None,
    progress: Callable[[int, str], None] = lambda done, what: None,
) -> Looks:
    """Read every sample once.

    Args:
        data: The data set.
        against: Another, as the part that a network learns from, whose images are compared with those.
        progress: Told of each sample.

    Example:
        >>> from segradius.data import open_data
        >>> found = check_data(open_data("scenes:24x32", limit=3), open_data("scenes:24x32", limit=2))
        >>> found.sizes, found.faults, len(found.also)
        ({'24×32×3': 3}, {}, 2)
    """
    samples = []
    for place in range(len(data)):
        samples.append(looked(data, place))
        progress(1, data.ids[place])
    places: dict[str, str] = {}
    for each in samples:
        if each.fault is None:
            places.setdefault(each.image, each.id)
    also = []
    for place in range(0 if against is None else len(against)):
        assert against is not None
        image = _image(against, place)
        if image in places:
            also.append((against.ids[place], places[image]))
        progress(1, against.ids[place])
    found = of_data(data) if len(data.classes) and any(each.fault is None for each in samples) else ()
    return Looks(data.name, data.classes, tuple(samples), found, tuple(also), against.name if against else "")


def looked(data: SegmentationData, place: int) -> Looked:
    """The account of one sample."""
    classes = data.classes
    sample, file = sample_and_file(data, place, len(classes))
    if isinstance(sample, str):
        return Looked(data.ids[place], sample.removeprefix(f"sample {data.ids[place]!r}: "), file=file)
    image, label, (bands, height, width) = sample.image, sample.label, sample.image.shape
    pixels, void = (), 0
    if len(classes):
        known = label != classes.ignore_index
        pixels, void = tuple(torch.bincount(label[known], minlength=len(classes)).tolist()), int((~known).sum())
    return Looked(sample.id, None, height, width, bands, file, pixels, void, _digest(image), _digest(label))


def _image(data: SegmentationData, place: int) -> str:
    sample = usable(data, place, len(data.classes), labels=False)
    return _digest(sample.image) if isinstance(sample, Sample) else ""


def _digest(values: Tensor) -> str:
    """Of a tensor's shape and values."""
    told = repr(tuple(values.shape)).encode()
    return hashlib.sha256(told + values.contiguous().numpy().tobytes()).hexdigest()[:32]
