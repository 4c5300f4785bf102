"""Samples kept in memory, in as few bytes as give them back to the bit, within a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segradius.core.memory import available
from segradius.data.sample import Sample, SegmentationData

#: Of the memory that is free, what kept samples take where nothing else is said.
SHARE_OF_FREE = 0.5
GIB = 2**30


@dataclass(frozen=True)
class Packed:
    """A sample, its image in whole numbers where 8 bits give it back to the bit, its labels in the least whole type.

    Attributes:
        id: Of the sample.
        image: (B, H, W), uint8 of 1/255 each, or as the sample has it.
        label: (H, W), whole numbers.

    Example:
        >>> image = torch.arange(256).view(1, 16, 16).float() / 255
        >>> packed = Packed.of(Sample("a", image, torch.zeros(16, 16, dtype=torch.int64)))
        >>> packed.bytes, torch.equal(packed.sample().image, image)
        (512, True)
    """

    id: str
    image: Tensor
    label: Tensor

    @classmethod
    def of(cls, sample: Sample) -> Packed:
        """What a sample is kept as; shares no memory with it."""
        return cls(sample.id, _packed_image(sample.image), _packed_label(sample.label))

    def sample(self) -> Sample:
        """The sample, as it was."""
        image = self.image.float() / 255 if self.image.dtype == torch.uint8 else self.image
        return Sample(self.id, image, self.label.long())

    @property
    def bytes(self) -> int:
        """That it takes."""
        return self.image.nbytes + self.label.nbytes


class Kept:
    """A data set of which samples were read once and are kept; the others are read when they are asked for.

    Args:
        kept: Samples by their place.
        source: Where they come from.
    """

    def __init__(self, kept: Mapping[int, Packed], source: SegmentationData) -> None:
        self.kept, self.source = kept, source
        self.name, self.classes, self.ids = source.name, source.classes, source.ids

    @classmethod
    def read(cls, source: SegmentationData, most: float | None = None, *, workers: int = 0) -> Kept:
        """Keep samples in their order until the next one would not fit.

        Args:
            source: A data set.
            most: Bytes that they may take; None for as many as there are.
            workers: Processes that read; 0 for this one.

        Example:
            >>> from segradius.data import Scenes
            >>> scenes = Scenes((16, 16), length=3)
            >>> [len(Kept.read(scenes, most).kept) for most in (None, 2 * Packed.of(scenes[0]).bytes, 0)]
            [3, 2, 0]
        """
        kept, taken = dict[int, Packed](), 0
        for place, packed in enumerate(_packing(source, workers)):
            taken += packed.bytes
            if most is not None and taken > most:
                break
            # What comes from another process lies in memory that holds an open file.
            kept[place] = Packed(packed.id, packed.image.clone(), packed.label.clone()) if workers else packed
        return cls(kept, source)

    @property
    def bytes(self) -> int:
        """That the kept samples take."""
        return sum(packed.bytes for packed in self.kept.values())

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.kept[index].sample() if index in self.kept else self.source[index]

    def parts(self, index: int) -> dict[str, Tensor]:
        """The tensors of a sample."""
        sample = self[index]
        return {"image": sample.image, "label": sample.label}

    def __str__(self) -> str:
        """How many are kept, in a line."""
        kept, total, size = len(self.kept), len(self), f"{self.bytes / GIB:.2g} GiB"
        rest = "" if kept == total else "; the others are read in every epoch, as they would not fit"
        return f"{kept} of {total} images are kept in memory, {size}{rest}"


def room(given: float | None, processes: int = 1) -> float | None:
    """Bytes that each of so many processes may keep.

    Args:
        given: GiB for all of them together; None for half of what is free.
        processes: On this machine.

    Example:
        >>> room(2.0, processes=4) == 2**29
        True
    """
    if given is not None:
        return given * GIB / processes
    free = available()
    return None if free is None else SHARE_OF_FREE * free / processes


@dataclass(frozen=True)
class _Packing(Dataset[Packed]):
    source: SegmentationData

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: int) -> Packed:
        return Packed.of(self.source[place])


def _packing(source: SegmentationData, workers: int) -> Sequence[Packed]:
    """All samples packed, in order, each when it is asked for."""
    return cast("Sequence[Packed]", DataLoader(_Packing(source), batch_size=None, num_workers=workers))


def _packed_image(image: Tensor) -> Tensor:
    if image.dtype == torch.float32:
        whole = (image * 255).round_().clamp_(0, 255).to(torch.uint8)
        if torch.equal((whole.float() / 255).view(torch.int32), image.contiguous().view(torch.int32)):
            return whole
    return image.clone()


def _packed_label(label: Tensor) -> Tensor:
    low, high = (int(end) for end in label.aminmax()) if label.numel() else (0, 0)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return label.to(dtype)
    return label.clone()
