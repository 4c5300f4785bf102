"""Some samples of a data set, each put through a preparation: what a limit, a stride, a size or a fault leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from segradius.core.digests import Parts
from segradius.data.listing import LeftOut
from segradius.data.marks import meaning_of, parts_of
from segradius.data.sample import Sample, SegmentationData, is_thread_safe
from segradius.data.void import VoidAs, filled

Preparation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of image (B, H, W) in [0, 1] and label (H, W) that gives both at another size."""


def spread(count: int) -> list[int]:
    """Places of so many samples in an order of which every beginning is spread evenly over all of them.

    Bits in reverse (van der Corput 1935): the first n are at most about twice as far apart as n could be at best, and
    the first n + 1 are those n and one more, which a stride is not.

    Example:
        >>> spread(10)
        [0, 8, 4, 2, 6, 1, 9, 5, 3, 7]
    """
    bits = max(1, (count - 1).bit_length())
    places = (int(f"{index:0{bits}b}"[::-1], 2) for index in range(2**bits))
    return [place for place in places if place < count]


class Prepared:
    """The samples of a data set at some places, each put through a preparation.

    Args:
        source: The data set.
        places: Of the samples, in order.
        preparation: What is done to image and label; None for nothing.
        void: What pixels without a class count as: nothing, or the background (`segradius.data.void`).

    Raises:
        InputError: Void cannot be background, as there are no masks, or classes of structures.
    """

    def __init__(
        self,
        source: SegmentationData,
        places: Sequence[int],
        preparation: Preparation | None = None,
        void: VoidAs = "ignore",
    ) -> None:
        self.source, self.places, self.preparation = source, places, preparation
        ids = source.ids  # once: a data set may make them anew each time
        self.name, self.ids = source.name, tuple(ids[place] for place in places)
        self._filled = filled(source.classes) if void == "background" else None
        self.classes = source.classes if self._filled is None else self._filled.classes

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[self.places[index]]
        if self.preparation is not None:
            sample = Sample(sample.id, *self.preparation(sample.image, sample.label))
        if self._filled is not None:
            sample = Sample(sample.id, sample.image, self._filled.labels(sample.label))
        return sample

    @property
    def meaning(self) -> Mapping[str, Any]:
        """As of the data set, with void among the classes where it is one."""
        more = {} if self._filled is None else {"classes": list(self.classes.names), "void": "background"}
        return meaning_of(self.source) | more

    @property
    def thread_safe(self) -> bool:
        """As of the data set."""
        return is_thread_safe(self.source)

    @property
    def told_by(self) -> Path | None:
        """Likewise."""
        return getattr(self.source, "told_by", None)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Files beside those of the data set."""
        return getattr(self.source, "left_out", ())

    def parts(self, index: int) -> Parts:
        """What the sample is made of."""
        return parts_of(self.source, self.places[index])
