"""What an answer or a certificate is worth in one image, in numbers from which every figure follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import torch
from torch import Tensor

from segradius.certification import Certificate, Hierarchy, boundary, certified_counts, information_gain
from segradius.evaluation.store import Pixels
from segradius.metrics.counts import Counts, count

#: Rows and columns from another class within which a pixel is at a boundary.
WIDTH = 3


@dataclass(frozen=True)
class Score:
    """One answer in one image; only labelled pixels count, and an abstained one is wrong.

    Attributes:
        pixels: Of each class.
        abstained: Labelled pixels about which nothing is said.
        boundary: Labelled pixels near another class (`WIDTH`): right ones, all.
        radius: Sum of the radii of the certified labelled pixels.
        certified: Labelled pixels by radius, in the intervals of `edges`; empty for an answer without certificate.
        right: The same of those that are right.
        gain: Sum of `segradius.certification.information_gain`.
    """

    pixels: Pixels
    abstained: int
    boundary: tuple[int, int]
    radius: float = 0.0
    certified: tuple[int, ...] = ()
    right: tuple[int, ...] = ()
    gain: float = 0.0

    @property
    def labelled(self) -> int:
        """Labelled pixels."""
        return sum(self.pixels.labelled)


def score_answer(prediction: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> Score:
    """Of predicted classes (H, W) against labels (H, W)."""
    counts = count(prediction[None], labels[None], num_classes, ignore_index)
    return Score(_pixels(counts), 0, _at_boundary(prediction == labels, labels, ignore_index))


def score_certificate(
    certificate: Certificate,
    labels: Tensor,
    num_classes: int,
    ignore_index: int,
    edges: Sequence[float],
    hierarchy: Hierarchy | None = None,
) -> Score:
    """Of a certificate against labels (H, W); a group is right if the label is in it, and then counts as the label.

    Args:
        certificate: Of the image.
        labels: (H, W) int64.
        num_classes: C.
        ignore_index: Label that does not count.
        edges: Radii between which pixels are counted, growing from 0; see `edges`.
        hierarchy: Groups of classes that were tested; None for single classes.
    """
    labelled = labels != ignore_index
    known = labels.masked_fill(~labelled, 0)
    right = labelled & certificate.certified & _agree(certificate, known, hierarchy)
    meant = replace(certificate, guess=torch.where(right, known, certificate.guess))
    sure = labelled & certificate.certified
    sizes = torch.ones(1, num_classes) if hierarchy is None else hierarchy.sizes()
    return Score(
        _pixels(certified_counts(meant, labels, num_classes, ignore_index, -1.0)),
        int((labelled & ~certificate.certified).sum()),
        _at_boundary(right, labels, ignore_index),
        float(certificate.radius[sure].double().sum()),
        _histogram(certificate.radius[sure], edges),
        _histogram(certificate.radius[right], edges),
        float(information_gain(certificate, sizes, right).sum()),
    )


def edges(sigma: float, n: int, alpha: float, tau: float, bins: int = 64) -> list[float]:
    """Radii from 0 to at least the largest that n votes can certify, for histograms that add up over images.

    Example:
        >>> edges(0.25, 1000, 0.001, 0.75)[-1] > 0.25 * 2.4
        True
    """
    top = sigma * NormalDist().inv_cdf(max(alpha ** (1 / n), tau, 0.55))  # above ½, so that there are intervals
    found: list[float] = torch.linspace(0, top, bins + 1, dtype=torch.float64).tolist()
    return found


def _agree(certificate: Certificate, labels: Tensor, hierarchy: Hierarchy | None) -> Tensor:
    """(H, W) bool, whether the label is in the group of the guess at the level that was tested."""
    if hierarchy is None or certificate.level is None:
        return certificate.guess == labels
    groups = torch.tensor(hierarchy.levels, device=labels.device)
    return groups[certificate.level, certificate.guess] == groups[certificate.level, labels]


def _pixels(counts: Counts) -> Pixels:
    return Pixels(*(part[0].tolist() for part in (counts.intersection, counts.predicted, counts.labelled)))


def _at_boundary(right: Tensor, labels: Tensor, ignore_index: int) -> tuple[int, int]:
    edge = boundary(labels, WIDTH, ignore_index)
    return int((right & edge).sum()), int(edge.sum())


def _histogram(radii: Tensor, edges: Sequence[float]) -> tuple[int, ...]:
    """How many radii lie in each interval (a, b] between two edges; what rounding puts outside is in the end ones."""
    bounds = torch.tensor(edges, dtype=torch.float64, device=radii.device)
    place = torch.bucketize(radii.double(), bounds).sub_(1).clamp_(0, len(edges) - 2)
    return tuple(torch.bincount(place, minlength=len(edges) - 1).tolist())
