"""What certificates are worth against labels: certified accuracy, IoU, abstention, by class, at and off boundaries."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from segradius.certification.certificate import Certificate
from segradius.counts import Counts, count


def certified_counts(
    certificate: Certificate, labels: Tensor, num_classes: int, ignore_index: int = 255, eps: float = 0.0
) -> Counts:
    """Counts of one image in which an abstained pixel is wrong, but abstention is no class.

    Args:
        certificate: Of the image.
        labels: (H, W) int64.
        num_classes: C.
        ignore_index: Label that does not count.
        eps: Count only certificates of a radius above this.

    Returns:
        Of one image and C classes. `segradius.metrics.pooled_accuracy` of it is the certified pixel accuracy, and
        `segradius.metrics.miou` the certified MIoU, in which an abstained pixel is in the union of its label's class.
    """
    prediction = torch.where(certificate.at(eps), certificate.guess, num_classes)
    found = count(prediction.unsqueeze(0), labels.unsqueeze(0), num_classes + 1, ignore_index)
    return Counts(*(part[:, :-1] for part in (found.intersection, found.predicted, found.labelled)))


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
