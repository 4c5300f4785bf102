"""From a data set to batches: order, augmentation and sharding, all of them functions of (seed, epoch, image id)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segradius.core.randomness import Randomness
from segradius.data.sample import Sample, SegmentationData, collate
from segradius.training.adversaries import Lesson
from segradius.training.augment import Augmentation


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's.

    Args:
        rank: Number of the process.
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    def of(self, batch: Sequence[int]) -> list[int]:
        """Every ``world``-th entry.

        Example:
            >>> Share(1, 2).of([7, 8, 9])
            [8]
        """
        return list(batch[self.rank :: self.world])


@dataclass(frozen=True)
class Epochs(Dataset[Sample]):
    """The augmented samples of all epochs, by epoch and place, so that one loader reads on from each to the next.

    A sample is the same in whatever order and process it is asked for.
    """

    data: SegmentationData
    augmentation: Augmentation
    seed: int

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, place = index
        sample = self.data[place]
        key = f"{epoch}/{sample.id}"
        generator = torch.Generator().manual_seed(int(Randomness(self.seed, (key,)).integers(2**62, "augmentation")))
        image, label = self.augmentation(sample.image, sample.label, generator, self.data.classes.ignore_index)
        return Sample(key, image, label)


def order(images: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the images for one epoch.

    Example:
        >>> sorted(order(5, seed=0, epoch=3)) == list(range(5)) and order(50, 0, 1) != order(50, 0, 2)
        True
    """
    generator = torch.Generator().manual_seed(int(Randomness(seed, (str(epoch),)).integers(2**62, "order")))
    return torch.randperm(images, generator=generator).tolist()


def lessons(
    data: SegmentationData,
    augmentation: Augmentation,
    seed: int,
    epoch: int,
    batch_size: int,
    *,
    until: int | None = None,
    share: Share = Share(),
    skip: int = 0,
    workers: int = 0,
) -> Generator[Lesson]:
    """The batches of an epoch, from batch number ``skip`` on, and of those after it.

    With workers, what comes next is read and augmented while a lesson is learnt, also over the end of an epoch.

    Args:
        data: The training set.
        augmentation: Change of every image.
        seed: Of the run.
        epoch: Number of the first epoch, from 0.
        batch_size: Images in a batch over all processes; what does not fill one is left out in this epoch.
        until: Number of the epoch at which it ends, not included; None for one epoch.
        share: Which part of every batch is wanted.
        skip: Batches that were learnt already, in the first epoch.
        workers: Processes that read and augment; 0 for this one, when a lesson is asked for.

    Yields:
        Lessons on the CPU; ids are ``EPOCH/ID``.
    """
    loader = DataLoader(
        Epochs(data, augmentation, seed),
        batch_sampler=_Batches(len(data), seed, epoch, epoch + 1 if until is None else until, batch_size, share, skip),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )
    for images, labels, ids in loader:
        yield Lesson(images, labels, ids, seed, data.classes.ignore_index)


@dataclass(frozen=True)
class _Batches:
    """Epoch and place of the images in every batch."""

    images: int
    seed: int
    epoch: int
    until: int
    size: int
    share: Share
    skip: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skip, last = self.skip, self.images - self.images % self.size
        for epoch in range(self.epoch, self.until):
            shuffled = order(self.images, self.seed, epoch)
            for at in range(skip * self.size, last, self.size):
                yield [(epoch, place) for place in self.share.of(shuffled[at : at + self.size])]
            skip = 0


def even(samples: Iterable[Sample]) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
    """Batches of the neighbours that have one size, in order: images and labels at their own sizes mix.

    Yields:
        What `collate` gives.

    Example:
        >>> samples = [Sample(str(w), torch.zeros(3, 2, w), torch.zeros(2, w, dtype=torch.int64)) for w in (4, 4, 5)]
        >>> [tuple(images.shape) for images, _, _ in even(samples)]
        [(2, 3, 2, 4), (1, 3, 2, 5)]
    """
    for _, neighbours in groupby(samples, key=lambda sample: sample.label.shape):
        yield collate(list(neighbours))
