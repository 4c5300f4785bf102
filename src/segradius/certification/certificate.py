"""A certificate of one image: what it says of each pixel, how far that holds, what it promises and is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from segradius.metrics.counts import Counts, count

#: Class of a pixel about which nothing is said.
ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is promised of the smoothed model around an image.

    For a certified pixel, the class that the smoothed model gives it is ``guess`` (or lies in its group, where classes
    were grouped) for every perturbation with ‖δ‖₂ < ``radius``; pixels that are not certified are abstained from. The
    promise fails with a probability, over the noise drawn, of at most ``alpha`` in the sense of ``promise``.

    Attributes:
        guess: (H, W) int64, the class that was tested.
        certified: (H, W) bool.
        radius: (H, W) float32, in pixel units: an l2 length over the whole image; 0 where abstained.
        sigma: σ of the smoothed model.
        alpha: Error rate.
        promise: To what the error rate refers: ``pixel``, ``image``, ``fewer than k pixels``, ``share``.
        level: (H, W) int64, how coarse the group of classes is that was certified; None where all are single classes.
    """

    guess: Tensor
    certified: Tensor
    radius: Tensor
    sigma: float
    alpha: float
    promise: str
    level: Tensor | None = None

    @property
    def prediction(self) -> Tensor:
        """(H, W) int64: the class of certified pixels, `ABSTAIN` elsewhere."""
        return torch.where(self.certified, self.guess, ABSTAIN)

    @property
    def abstained(self) -> float:
        """Share of the pixels of the image about which nothing is said."""
        return 1 - float(self.certified.double().mean())

    def at(self, eps: float) -> Tensor:
        """(H, W) bool, the pixels certified against perturbations of length ``eps``."""
        return self.certified & (self.radius > eps)


def rounded_down(radius: Tensor) -> Tensor:
    """The largest float32 that is no larger than a float64 radius, as a radius may not be rounded up.

    Example:
        >>> radius = torch.tensor([0.1, 0.25], dtype=torch.float64)
        >>> (rounded_down(radius) <= radius).tolist(), rounded_down(radius)
        ([True, True], tensor([0.1000, 0.2500]))
    """
    near = radius.float()
    return torch.where(near.double() > radius, torch.nextafter(near, near.new_zeros(())), near)


def certified_counts(
    certificate: Certificate,
    labels: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    eps: float = 0.0,
    structures: int = 0,
) -> Counts:
    """Counts of one image in which an abstained pixel is wrong, but abstention is no class.

    What is asked with yes or no is counted at its guaranteed worst: an abstained pixel has the wrong answer, of two
    classes the other one, of structures that of each of them. No answer that agrees with the certificate has less Dice.

    Args:
        certificate: Of the image.
        labels: (H, W) int64.
        num_classes: C.
        ignore_index: Label that does not count.
        eps: Count only certificates of a radius above this.
        structures: K where the classes are the sets of K structures.

    Returns:
        Of one image and C classes. `pooled_accuracy` of it is the certified pixel accuracy, and `miou` is its MIoU
        (`segradius.metrics.statistics`), in which an abstained pixel is in the union of its label's class, and of two
        classes in that of the other too.

    Example:
        >>> guess, sure = torch.tensor([[0, 1, 1]]), torch.tensor([[False, True, False]])
        >>> found = Certificate(guess, sure, 0.2 * sure, 0.25, 0.001, "image")
        >>> certified_counts(found, torch.tensor([[0, 1, 1]]), num_classes=2).predicted.tolist()
        [[1, 2]]
    """
    sets = 2**structures if structures else num_classes
    wrong = (sets - 1 - labels.masked_fill(labels == ignore_index, 0)).clamp_min(0)
    otherwise = wrong if structures or num_classes == 2 else torch.full_like(labels, num_classes)
    prediction = torch.where(certificate.at(eps), certificate.guess, otherwise)
    found = count(prediction.unsqueeze(0), labels.unsqueeze(0), num_classes + 1, ignore_index, structures)
    right, predicted, labelled = (part[:, :-1] for part in (found.intersection, found.predicted, found.labelled))
    return Counts(right, predicted, labelled, found.structures)


def boundary(labels: Tensor, width: int = 3, ignore_index: int = 255) -> Tensor:
    """(…, H, W) bool: labelled pixels with another class within ``width`` rows and columns; void is no class.

    Example:
        >>> boundary(torch.tensor([[0, 0, 0, 1, 1, 255]]), width=1)
        tensor([[False, False,  True,  True, False, False]])
    """
    void = labels == ignore_index
    flat = labels.reshape(-1, 1, *labels.shape[-2:]).double()
    empty = void.reshape(flat.shape)
    side = 2 * width + 1
    high = functional.max_pool2d(flat.masked_fill(empty, -math.inf), side, stride=1, padding=width)
    low = -functional.max_pool2d((-flat).masked_fill(empty, -math.inf), side, stride=1, padding=width)
    differing: Tensor = high > low
    return differing.reshape(labels.shape) & ~void


def information_gain(certificate: Certificate, sizes: Tensor, right: Tensor) -> Tensor:
    """How much certified, right answers tell: 1 for a class, log(C/|group|)/log C for a group, 0 for none; (H, W).

    Args:
        certificate: Of one image.
        sizes: From `Hierarchy.sizes`.
        right: (H, W) bool, whether the label is in the certified group.
    """
    classes = sizes.shape[1]
    level = torch.zeros_like(certificate.guess) if certificate.level is None else certificate.level
    gain = (math.log(classes) - sizes.to(level.device)[level, certificate.guess].double().log()) / math.log(classes)
    return torch.where(certificate.certified & right, gain, 0.0)
