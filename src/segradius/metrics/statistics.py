"""Pixel accuracy and mean IoU, as the paper and as the field define them, and worst cases over attacks.

Everything follows from the counts of each image, so it holds for any subset of images and any choice of attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.metrics.counts import Counts, count  # noqa: F401  # the examples count


def pixel_accuracy(counts: Counts) -> Tensor:
    """Share of the labelled pixels that are right, of each image; (N,) float64, NaN where no pixel is labelled.

    Example:
        >>> pixel_accuracy(count(torch.tensor([[[0, 1]], [[1, 1]]]), torch.tensor([[[0, 0]], [[255, 255]]]), 2))
        tensor([0.5000,    nan], dtype=torch.float64)
    """
    return counts.intersection.sum(1).double() / counts.labelled.sum(1)


def class_iou(counts: Counts) -> Tensor:
    """IoU of each class over the data set, pixels of all images pooled; (C,) float64, NaN for a class that is absent.

    Example:
        >>> class_iou(count(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 3))
        tensor([0.5000, 0.0000,    nan], dtype=torch.float64)
    """
    return counts.intersection.sum(0).double() / counts.union.sum(0)


def class_dice(counts: Counts) -> Tensor:
    """Dice of each class over the data set, 2|A ∩ B| / (|A| + |B|); (C,) float64, NaN for a class that is absent.

    Example:
        >>> class_dice(count(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 3))
        tensor([0.6667, 0.0000,    nan], dtype=torch.float64)
    """
    return 2 * counts.intersection.sum(0).double() / (counts.predicted + counts.labelled).sum(0)


@dataclass(frozen=True)
class Statistic:
    """A number for a set of images that follows from sums over them, which makes leaving images out a subtraction.

    Args:
        name: Its name.
        parts: What is summed, from counts: (N, K) float64.
        finish: From sums, (…, K), to the number, (…).

    Example:
        >>> counts = count(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 2)
        >>> pooled_accuracy(counts), miou(counts)
        (0.5, 0.25)
    """

    name: str
    parts: Callable[[Counts], Tensor]
    finish: Callable[[Tensor], Tensor]

    def __call__(self, counts: Counts) -> float:
        """The number for the images counted; NaN if it has no value."""
        return float(self.finish(self.parts(counts).sum(0)))


def _pooled_parts(counts: Counts) -> Tensor:
    return torch.stack([counts.intersection.sum(1), counts.labelled.sum(1)], 1).double()


def _image_parts(counts: Counts) -> Tensor:
    accuracy = pixel_accuracy(counts)
    return torch.stack([accuracy.nan_to_num(0.0), (~accuracy.isnan()).double()], 1)


def _class_parts(counts: Counts) -> Tensor:
    return torch.cat([counts.intersection, counts.union], 1).double()


def _dice_parts(counts: Counts) -> Tensor:
    return torch.cat([2 * counts.intersection, counts.predicted + counts.labelled], 1).double()


def _pair_parts(counts: Counts) -> Tensor:
    iou = counts.intersection.double() / counts.union
    return torch.stack([iou.nan_to_num(0.0).sum(1), (~iou.isnan()).sum(1).double()], 1)


def _pair_dice_parts(counts: Counts) -> Tensor:
    found = 2 * counts.intersection.double() / (counts.predicted + counts.labelled)
    return torch.stack([found.nan_to_num(0.0).sum(1), (~found.isnan()).sum(1).double()], 1)


def _ratio(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


def _mean_ratio(sums: Tensor) -> Tensor:
    intersection, union = sums.chunk(2, dim=-1)
    return (intersection / union).nanmean(-1)


pooled_accuracy = Statistic("pooled_accuracy", _pooled_parts, _ratio)
"""Share of all labelled pixels of the data set that are right: the paper's PixAcc ("over the testing set")."""

accuracy_image = Statistic("accuracy_image", _image_parts, _ratio)
"""Mean over images of their pixel accuracy, images without a labelled pixel left out: what SEA reports as accuracy."""

miou = Statistic("miou", _class_parts, _mean_ratio)
"""Mean of `class_iou` over the classes that occur in labels or predictions: the field's data-set MIoU."""

dice = Statistic("dice", _dice_parts, _mean_ratio)
"""Mean of `class_dice` over the classes that occur in labels or predictions."""

miou_image = Statistic("miou_image", _pair_parts, _ratio)
"""Mean IoU over the pairs of an image and a class that occurs in it, labelled or predicted: the paper's Section 5.1."""

dice_image = Statistic("dice_image", _pair_dice_parts, _ratio)
"""Mean Dice over the pairs of an image and a class that occurs in it, labelled or predicted."""


def success(before: Tensor, after: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Attack success: of the pixels right before, the share wrong after, of each image.

    Args:
        before: Classes predicted for the images, (N, H, W).
        after: Classes predicted for the adversarial images, (N, H, W).
        labels: True classes, (N, H, W).
        ignore_index: Label of pixels that do not count.

    Returns:
        (N,) float64; NaN where no pixel was right.

    Example:
        >>> success(torch.tensor([[[0, 0, 1]]]), torch.tensor([[[0, 1, 0]]]), torch.tensor([[[0, 0, 0]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    right = (before == labels) & (labels != ignore_index)
    fooled = right & (after != labels)
    return fooled.flatten(1).sum(1).double() / right.flatten(1).sum(1)


def worst_accuracy(members: Sequence[Counts]) -> Tensor:
    """For each image the member with the least pixel accuracy, the first of equals; (N,) int64.

    Args:
        members: Counts of the same images after different attacks.

    Raises:
        InputError: There is no member, or they are not counts of the same images.

    Example:
        >>> labels = torch.zeros(2, 1, 2, dtype=torch.int64)
        >>> first, second = torch.tensor([[[0, 1]], [[0, 0]]]), torch.tensor([[[0, 0]], [[0, 1]]])
        >>> worst_accuracy([count(first, labels, 2), count(second, labels, 2)])
        tensor([0, 1])
    """
    _check_members(members)
    return torch.stack([member.intersection.sum(1) for member in members]).argmin(0)


def worst_miou(
    members: Sequence[Counts], *, statistic: Statistic = miou, tolerance: float = 1e-6, seed: int = 0
) -> Tensor:
    """For each image a member such that the data-set MIoU of the choice is small, by SEA's greedy search.

    It starts from the best of every member alone and `worst_accuracy`, then passes over the images in random order and
    gives each the member that lowers the MIoU most, until a whole pass gains no more than ``tolerance``. The MIoU of
    the choice is no larger than any member's; the least one possible may be lower, as it takes a combinatorial search.

    Args:
        members: Counts of the same images after different attacks.
        statistic: What is to be small.
        tolerance: Gain of a pass at which to stop, > 0.
        seed: Seed of the order.

    Returns:
        The choice, (N,) int64.

    Raises:
        InputError: There is no member, or they are not counts of the same images.
    """
    starts = [torch.full_like(worst_accuracy(members), k) for k in range(len(members))] + [worst_accuracy(members)]
    shares = torch.stack([statistic.parts(member) for member in members])  # (members, N, K)
    images = torch.arange(shares.shape[1])
    best = torch.stack([statistic.finish(shares[start, images].sum(0)) for start in starts]).argmin()
    choice, generator = starts[int(best)], torch.Generator().manual_seed(seed)
    before = float("inf")
    while before - (now := _descend(choice, shares, statistic.finish, generator)) > tolerance:
        before = now
    return choice


def _descend(choice: Tensor, shares: Tensor, finish: Callable[[Tensor], Tensor], generator: torch.Generator) -> float:
    """One pass over the images in random order, improving ``choice`` in place; the number that it reaches."""
    images = torch.arange(shares.shape[1])
    sums = shares[choice, images].sum(0)
    for image in torch.randperm(len(images), generator=generator).tolist():
        rest = sums - shares[choice[image], image]
        reached = finish(rest + shares[:, image])
        pick = reached.argmin()
        if reached[pick] < reached[choice[image]]:
            choice[image], sums = pick, rest + shares[pick, image]
    return float(finish(sums))


def _check_members(members: Sequence[Counts]) -> None:
    if not members:
        raise InputError("a worst case needs the counts of at least one attack; got none")
    for k, member in enumerate(members):
        if not torch.equal(member.labelled, members[0].labelled):
            raise InputError(f"member {k} counts other images than member 0: their labelled pixels differ")
