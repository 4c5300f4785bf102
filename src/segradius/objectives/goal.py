"""What an attack wants of each pixel: leave its label, or reach a target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.core.randomness import Randomness


@dataclass(frozen=True)
class Goal:
    """The pixels that count, the class each should leave or reach, and the true labels.

    Attributes:
        reference: (N, H, W) int64 in [0, C): the class to leave, or to reach when ``targeted``; 0 where not counted.
        counted: (N, H, W) bool: labelled pixels that the attack must fool. Others have no loss, weight or verdict.
        targeted: Whether the reference is to be reached.
        labels: (N, H, W) int64 true labels, 0 where not counted.

    Example:
        >>> import torch
        >>> labels = torch.tensor([[[0, 1, 255]]])
        >>> goal = Goal.leave(labels, ignore_index=255)
        >>> goal.fooled(torch.tensor([[[1, 1, 1]]])).tolist()
        [[[True, False, False]]]
    """

    reference: Tensor
    counted: Tensor
    targeted: bool
    labels: Tensor

    @staticmethod
    def leave(labels: Tensor, *, ignore_index: int = 255, victims: Tensor | None = None) -> Goal:
        """Every labelled pixel (of ``victims``, where given) should get any class but its own."""
        counted = labels != ignore_index
        if victims is not None:
            counted = counted & victims
        clean = labels.masked_fill(~counted, 0)
        return Goal(clean, counted, targeted=False, labels=clean)

    @staticmethod
    def reach(target: Tensor, labels: Tensor, *, ignore_index: int = 255, victims: Tensor | None = None) -> Goal:
        """Every labelled pixel with a target (not ``ignore_index`` in ``target``) should get that target."""
        counted = (labels != ignore_index) & (target != ignore_index)
        if victims is not None:
            counted = counted & victims
        return Goal(target.masked_fill(~counted, 0), counted, targeted=True, labels=labels.masked_fill(~counted, 0))

    def fooled(self, prediction: Tensor) -> Tensor:
        """Which counted pixels a (N, H, W) prediction has where the attack wants them; (N, H, W) bool."""
        away = prediction != self.reference
        return (~away if self.targeted else away) & self.counted

    def pending(self, prediction: Tensor) -> Tensor:
        """Counted pixels that are not fooled yet; (N, H, W) bool."""
        there = prediction == self.reference
        return (~there if self.targeted else there) & self.counted

    def reached(self, prediction: Tensor, share: float) -> Tensor:
        """Whether this share of an image's counted pixels is fooled; (N,) bool, False where none counts.

        Example:
            >>> import torch
            >>> Goal.leave(torch.tensor([[[0, 1, 1, 255]]])).reached(torch.tensor([[[1, 0, 1, 1]]]), 0.6)
            tensor([True])
        """
        return self.fooled(prediction).flatten(1).sum(1) / self.pixels >= share

    @property
    def sign(self) -> float:
        """+1 where the loss against the reference is to rise (untargeted), −1 where it is to fall."""
        return -1.0 if self.targeted else 1.0

    @cached_property
    def pixels(self) -> Tensor:
        """Counted pixels of each image, at least 1; (N,) int64."""
        return self.counted.flatten(1).sum(1).clamp_min(1)

    def mean(self, per_pixel: Tensor) -> Tensor:
        """Mean of a (N, H, W) map over the counted pixels of each image; (N,), 0 for an image without any."""
        return per_pixel.masked_fill(~self.counted, 0).flatten(1).sum(1) / self.pixels

    def pull(self, weights: Tensor) -> Tensor:
        """What each pixel's loss adds to ``sign`` · mean(weights · loss), its derivative in the losses; (N, H, W)."""
        if weights.dtype not in self._shares:
            share = self.sign / self.pixels.to(weights.dtype)
            self._shares[weights.dtype] = share.view(-1, 1, 1).masked_fill(~self.counted, 0)
        return self._shares[weights.dtype] * weights

    @cached_property
    def _shares(self) -> dict[torch.dtype, Tensor]:
        """``sign`` over the counted pixels, 0 where not counted, by type; the same in every step."""
        return {}


def random_classes(labels: Tensor, num_classes: int, randomness: Randomness, *, ignore_index: int = 255) -> Tensor:
    """A target of one random class for each image (Section 6's targeted attack); void stays void.

    Args:
        labels: (N, H, W) int64.
        num_classes: Number of classes C.
        randomness: Keys of the N images.
        ignore_index: Value of void pixels.

    Returns:
        (N, H, W) int64.
    """
    drawn = randomness.integers(num_classes, "target").to(labels.device)
    return torch.where(labels == ignore_index, labels, drawn.view(-1, 1, 1))


def one_class(labels: Tensor, index: int, num_classes: int, *, ignore_index: int = 255) -> Tensor:
    """A target of one class for every labelled pixel; raises `InputError` when ``index`` is no class.

    Example:
        >>> import torch
        >>> one_class(torch.tensor([[[0, 255]]]), 2, num_classes=3).tolist()
        [[[2, 255]]]
    """
    if not 0 <= index < num_classes:
        raise InputError(f"target class {index} does not exist: classes are 0 to {num_classes - 1}")
    return torch.where(labels == ignore_index, labels, torch.full_like(labels, index))
