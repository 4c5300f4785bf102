"""Integer counts of each image by class, from which every metric follows without looking at a pixel again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.label_sets import members


class Pixels(NamedTuple):
    """A row of `Counts` as plain numbers, for a file: C integers each, and K where the classes are sets."""

    intersection: Sequence[int]
    predicted: Sequence[int]
    labelled: Sequence[int]
    structures: Sequence[int] = ()

    @property
    def plain(self) -> list[list[int]]:
        """As lists, three where the classes are no sets of structures: what files of earlier versions have.

        Example:
            >>> Pixels([1], [2], [3]).plain, Pixels([1, 1], [2, 1], [3, 0], [1]).plain
            ([[1], [2], [3]], [[1, 1], [2, 1], [3, 0], [1]])
        """
        return [list(part) for part in (self if self.structures else self[:3])]


@dataclass(frozen=True, eq=False)
class Counts:
    """Pixels of each image by class; only labelled pixels count, ignored ones enter nowhere.

    Args:
        intersection: Pixels of a class that are predicted as it, (N, C) int64.
        predicted: Pixels predicted as the class, (N, C) int64.
        labelled: Pixels of the class, (N, C) int64.
        structures: Where the classes are the sets of K structures, pixels of a structure that are predicted as part of
            it, in whatever set, (N, K) int64; None elsewhere.

    Example:
        >>> counts = count(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]]), num_classes=2)
        >>> counts.intersection.tolist(), counts.predicted.tolist(), counts.labelled.tolist()
        ([[1, 0]], [[1, 1]], [[2, 0]])
    """

    intersection: Tensor
    predicted: Tensor
    labelled: Tensor
    structures: Tensor | None = None

    def __len__(self) -> int:
        return len(self.intersection)

    @property
    def union(self) -> Tensor:
        """Pixels of a class or predicted as it, (N, C) int64."""
        return self.predicted + self.labelled - self.intersection

    def select(self, rows: Tensor | Sequence[int]) -> Counts:
        """Counts of some images, by index; an image may be taken more than once."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        return _each([self], lambda parts: parts[0][rows])

    @property
    def foreground(self) -> Counts | None:
        """Of what is asked with yes or no, a column each: the structures, or the second of two classes; else None.

        Example:
            >>> prediction, labels = torch.tensor([[[3, 1, 0]]]), torch.tensor([[[1, 3, 2]]])
            >>> found = count(prediction, labels, 4, structures=2).foreground
            >>> found.intersection.tolist(), found.predicted.tolist(), found.labelled.tolist()
            ([[2, 0]], [[2, 1]], [[2, 2]])
        """
        if self.structures is not None:
            inside = members(self.structures.shape[1]).long()
            return Counts(self.structures, self.predicted @ inside, self.labelled @ inside)
        if self.intersection.shape[1] == 2:
            return Counts(self.intersection[:, 1:], self.predicted[:, 1:], self.labelled[:, 1:])
        return None

    @property
    def images(self) -> list[Pixels]:
        """The rows as plain numbers."""
        parts = (
            part for part in (self.intersection, self.predicted, self.labelled, self.structures) if part is not None
        )
        return [Pixels(*row) for row in zip(*(part.tolist() for part in parts), strict=True)]

    @staticmethod
    def of(images: Sequence[Pixels]) -> Counts:
        """The table with these rows.

        Example:
            >>> Counts.of([Pixels([1], [2], [3])]).images[0].plain
            [[1], [2], [3]]
        """
        if not images:
            return Counts(*(torch.zeros(0, 0, dtype=torch.int64) for _ in range(3)))
        right, predicted, labelled, both = (torch.tensor(part, dtype=torch.int64) for part in zip(*images, strict=True))
        return Counts(right, predicted, labelled, both if both.shape[1] else None)

    @staticmethod
    def joined(parts: Iterable[Counts]) -> Counts:
        """One table for the images of several, in order."""
        return _each(list(parts), torch.cat)

    @staticmethod
    def chosen(alternatives: Sequence[Counts], choice: Tensor) -> Counts:
        """Of each image those of one alternative, by its place, (N,) int64."""
        rows = torch.arange(len(choice))
        return _each(alternatives, lambda parts: torch.stack(parts)[choice, rows])


def _each(tables: Sequence[Counts], make: Callable[[list[Tensor]], Tensor]) -> Counts:
    """The table of which each part is made from those of others."""
    structures = [each.structures for each in tables if each.structures is not None]
    return Counts(
        make([each.intersection for each in tables]),
        make([each.predicted for each in tables]),
        make([each.labelled for each in tables]),
        make(structures) if structures else None,
    )


def count(prediction: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255, structures: int = 0) -> Counts:
    """Count the pixels of each image by class.

    Args:
        prediction: Predicted classes in [0, C), (N, H, W) integer.
        labels: Classes in [0, C) or ``ignore_index``, (N, H, W) integer.
        num_classes: C.
        ignore_index: Label of pixels that do not count.
        structures: K where the classes are the sets of K structures (`segradius.core.label_sets`), classes beyond those
            being part of none; 0 where they are no sets.

    Returns:
        The counts, on the CPU.

    Raises:
        InputError: Shapes differ, or a class is out of range.

    Example:
        >>> count(torch.tensor([[[0, 5]]]), torch.tensor([[[0, 1]]]), num_classes=2)
        Traceback (most recent call last):
        segradius.core.errors.InputError: the prediction of image 0 holds class 5; expected classes from 0 to 1
    """
    if prediction.shape != labels.shape:
        raise InputError(f"prediction has shape {tuple(prediction.shape)} and labels {tuple(labels.shape)}")
    if structures and num_classes < 2**structures:
        raise InputError(f"{num_classes} classes are not the {2**structures} sets of {structures} structures")
    counted = labels != ignore_index
    check_classes("the prediction", prediction, num_classes)
    check_classes("the label", labels.masked_fill(~counted, 0), num_classes)
    right = counted & (prediction == labels)
    return Counts(
        _histogram(labels, right, num_classes),
        _histogram(prediction, counted, num_classes),
        _histogram(labels, counted, num_classes),
        _overlaps(prediction, labels, counted, structures) if structures else None,
    )


def _overlaps(prediction: Tensor, labels: Tensor, counted: Tensor, structures: int) -> Tensor:
    """Pixels of each structure that are predicted as part of it; (N, K) int64 on the CPU."""
    sets = 2**structures
    both = (prediction & labels).bitwise_and_(sets - 1).where((prediction < sets) & counted, 0)
    return _histogram(both, counted, sets) @ members(structures).long()


def check_classes(what: str, classes: Tensor, num_classes: int) -> None:
    """Raise `InputError` naming the first image with a class outside [0, C)."""
    if classes.is_floating_point():
        raise InputError(f"{what} has type {classes.dtype}; expected integer classes of shape (N, H, W)")
    if not classes.numel() or (int(classes.min()) >= 0 and int(classes.max()) < num_classes):
        return
    outside = (classes < 0) | (classes >= num_classes)
    image = int(outside.flatten(1).any(1).nonzero()[0])
    found = int(classes[image][outside[image]][0])
    raise InputError(f"{what} of image {image} holds class {found}; expected classes from 0 to {num_classes - 1}")


def _histogram(classes: Tensor, counted: Tensor, num_classes: int) -> Tensor:
    """How often each class occurs in each image among the pixels ``counted``; (N, C) int64 on the CPU."""
    images = len(classes)
    # One bincount for the batch: image n owns the bins from n·C, and pixels that do not count share the last one.
    offset = num_classes * torch.arange(images, device=classes.device).view(-1, *[1] * (classes.dim() - 1))
    bins = torch.where(counted, classes + offset, images * num_classes)
    totals = torch.bincount(bins.flatten(), minlength=images * num_classes + 1)[:-1]
    return totals.view(images, num_classes).cpu()
