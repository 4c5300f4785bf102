"""From a specification such as ``voc:PATH`` to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segradius.core.errors import InputError, at_least
from segradius.data.protocols import PROTOCOLS, Preparation, Resize
from segradius.data.sample import DATA, Classes, Sample, SegmentationData


@dataclass(frozen=True)
class Prepared:
    """Every ``stride``-th sample of a data set, ``length`` of them, each put through a preparation.

    Args:
        source: The data set.
        preparation: What is done to image and label.
        length: How many samples.
        stride: Distance between samples.
    """

    source: SegmentationData
    preparation: Preparation
    length: int
    stride: int = 1

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def classes(self) -> Classes:
        """The source's classes."""
        return self.source.classes

    @property
    def ids(self) -> Sequence[str]:
        """The ids of the samples that are left."""
        return self.source.ids[:: self.stride][: self.length]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[range(self.length)[index] * self.stride]
        return Sample(sample.id, *self.preparation(sample.image, sample.label))


def open_data(
    spec: str,
    *,
    split: str | None = None,
    size: tuple[int, int] | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    stride: int = 1,
) -> SegmentationData:
    """Open a data set by name; files are listed now and read one by one when asked for.

    Args:
        spec: ``NAME:PATH``, as ``voc:PATH``, of a name in `DATA`; ``scenes`` or ``scenes:HEIGHTxWIDTH``.
        split: Which part, by the data set's own names; its evaluation part by default.
        size: (height, width) to which all images are resized; excludes ``protocol``.
        protocol: Name of an evaluation protocol in `PROTOCOLS`.
        limit: Keep at most this many samples, from the first.
        stride: Keep only every stride-th sample, as neighbouring frames of a video look alike; before ``limit``.

    Raises:
        InputError: The name, path, split, size, protocol or limit is not usable, or an image has no mask.

    Example:
        >>> data = open_data("scenes:60x80", split="test", limit=3)
        >>> len(data), data.ids[0], tuple(data[0].image.shape)
        (3, 'test-00000', (3, 60, 80))
    """
    preparation = _preparation(size, protocol)
    at_least(1, stride=stride, limit=1 if limit is None else limit)
    name, _, path = spec.partition(":")
    source = DATA[name](path, split)
    length = -(-len(source) // stride)
    return Prepared(source, preparation, length if limit is None else min(limit, length), stride)


def _preparation(size: tuple[int, int] | None, protocol: str | None) -> Preparation:
    if size is None:
        return PROTOCOLS[protocol or "native"]
    if protocol is not None:
        raise InputError(f"size {size} and protocol {protocol!r} exclude each other: a protocol sets the size")
    if len(size) != 2:
        raise InputError(f"size {size}: expected (height, width)")
    return Resize(*size)
