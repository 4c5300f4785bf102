"""An image with its mask, classes with their colours, and what a data set is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from segradius.core.errors import InputError
from segradius.core.label_sets import set_names
from segradius.core.registry import Registry


def voc_palette(classes: int) -> tuple[RGB, ...]:
    """The colour map of the Pascal VOC toolkit: the bits of the index, dealt in turn to red, green and blue.

    Bit 3k, 3k + 1, 3k + 2 of the index become bit 7 − k of red, green and blue. Distinct for the first 256 indices.

    Args:
        classes: How many colours.

    Example:
        >>> voc_palette(4)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    return tuple((_channel(i, 0), _channel(i, 1), _channel(i, 2)) for i in range(classes))


def _channel(index: int, channel: int) -> int:
    return sum((index >> (3 * k + channel) & 1) << (7 - k) for k in range(8))


RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """One image and its labels.

    Attributes:
        id: Name of the image, unique in its data set.
        image: Shape (B, H, W), float32 in [0, 1].
        label: Shape (H, W), int64: a class index or the data set's ``ignore_index``.
    """

    id: str
    image: Tensor
    label: Tensor


@dataclass(frozen=True)
class Classes:
    """Names and colours of the classes of a data set; ``len`` is their number.

    Args:
        names: One name a class, in label order.
        palette: One (red, green, blue) colour in 0–255 a class, for pictures.
        ignore_index: The label of pixels without a class.
        structures: Names of yes/no maps that may overlap, where the classes are the sets of them
            (`segradius.core.label_sets`); none for classes of which each pixel has one.

    Raises:
        InputError: The palette has another length than the names, ``ignore_index`` is a class, or the classes are not
            the sets of the structures.

    Example:
        >>> len(Classes(("sky", "ground"), ((0, 0, 255), (0, 255, 0))))
        2
    """

    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    ignore_index: int = 255
    structures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.names):
            raise InputError(f"a palette of {len(self.palette)} colours was given for {len(self.names)} classes")
        if 0 <= self.ignore_index < len(self.names):
            raise InputError(f"ignore_index {self.ignore_index} is the class {self.names[self.ignore_index]!r}")
        if self.structures and self.names != set_names(self.structures):
            raise InputError(f"the classes {self.names} are not the sets of the structures {self.structures}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def foreground(self) -> tuple[str, ...]:
        """What is asked of each pixel with yes or no: the structures, or the second of two classes; else nothing.

        Example:
            >>> Classes(("background", "cell"), ((0, 0, 0), (255, 255, 255))).foreground
            ('cell',)
        """
        return self.structures or (self.names[1:] if len(self.names) == 2 else ())


class SegmentationData(Protocol):
    """A sequence of samples that reads one when it is asked for, and can be sent to worker processes.

    By ``parts(index)``, a mapping of roles to files or tensors, it may say what a sample is made of, so that a change
    is seen without reading it; by ``meaning``, as JSON holds it, what masks mean beside the classes, and by ``told_by``
    in which file that stands (`segradius.data.marks`). By ``thread_safe``, true, it says that a thread may read samples
    while others do, so that they are read ahead of when they are needed.
    """

    @property
    def name(self) -> str:
        """Data set and split, without any path."""

    @property
    def classes(self) -> Classes:
        """Names and colours of the classes."""

    @property
    def ids(self) -> Sequence[str]:
        """The id of every sample, in order, known without reading one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def is_thread_safe(data: object) -> bool:
    """Whether something with samples says that a thread may read them while others do; not by default.

    Example:
        >>> is_thread_safe([])
        False
    """
    return bool(getattr(data, "thread_safe", False))


class BadSampleError(InputError):
    """One sample cannot be used, while the rest of its data set may.

    Args:
        sample_id: Name of the sample.
        path: The file at fault.
        reason: What is wrong with it.
    """

    def __init__(self, sample_id: str, path: Path, reason: str) -> None:
        super().__init__(f"sample {sample_id!r}: {reason} ({path})")
        self.sample_id = sample_id
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[BadSampleError], tuple[str, Path, str]]:
        return BadSampleError, (self.sample_id, self.path, self.reason)


DATA: Registry[Callable[[str, str | None], SegmentationData]] = Registry("data set", "segradius.data")
"""Data sets by name; each is a function of (path, split)."""


class Samples(NamedTuple):
    """Samples of one size in a batch.

    Args:
        images: Shape (N, B, H, W).
        labels: Shape (N, H, W).
        ids: The N ids.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]


def collate(samples: Sequence[Sample]) -> Samples:
    """Stack samples of one size into a batch; what ``torch.utils.data.DataLoader`` does of itself with samples.

    Returns:
        Images (N, B, H, W), labels (N, H, W) and the N ids.

    Raises:
        InputError: There is no sample, or two differ in size.

    Example:
        >>> one = Sample("a", torch.zeros(3, 2, 4), torch.zeros(2, 4, dtype=torch.int64))
        >>> images, labels, ids = collate([one, one])
        >>> tuple(images.shape), tuple(labels.shape), ids
        ((2, 3, 2, 4), (2, 2, 4), ('a', 'a'))
    """
    if not samples:
        raise InputError("a batch needs at least one sample")
    first = samples[0]
    for sample in samples:
        if sample.label.shape != first.label.shape:
            raise InputError(
                f"samples {first.id!r} and {sample.id!r} differ in size, {_size(first)} and {_size(sample)} "
                "(height × width): give size= or protocol=, or use a batch size of 1"
            )
    ids = tuple(sample.id for sample in samples)
    return Samples(torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples]), ids)


# The way that torch.utils.data.default_collate documents for types of one's own.
default_collate_fn_map[Sample] = lambda batch, *, collate_fn_map=None: collate(batch)


def class_counts(data: SegmentationData, *, readable_only: bool = False) -> Tensor:
    """Labelled pixels of each class over the whole data set; shape (C,), int64.

    Reads every sample once; ignored pixels count nowhere.

    Args:
        data: The data set.
        readable_only: Whether samples that cannot be read count nowhere.

    Raises:
        BadSampleError: A sample cannot be read.

    Example:
        >>> from segradius.data import Scenes
        >>> class_counts(Scenes((32, 48), length=2)).shape
        torch.Size([8])
    """
    classes = len(data.classes)
    total = torch.zeros(classes, dtype=torch.int64)
    for index in range(len(data)):
        try:
            label = data[index].label
        except BadSampleError:
            if readable_only:
                continue
            raise
        total += torch.bincount(label[(label >= 0) & (label < classes)], minlength=classes)
    return total


def _size(sample: Sample) -> str:
    return "×".join(map(str, sample.label.shape))
