"""How far predictions and labels agree beyond chance, and whether a predictor says one class everywhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segradius.metrics.counts import Counts

#: Share of the pixels from which on one class is said everywhere, and share of the others that may still be found.
EVERYWHERE, FOUND = 0.98, 0.1


def kappa(counts: Counts) -> float:
    """Cohen's kappa over all images: the agreement of labels and predictions beyond that of independent ones.

    1 at best, 0 for a predictor that does not look; NaN where only one class is labelled and predicted.

    Example:
        >>> import torch
        >>> from segradius.metrics import count
        >>> labels = torch.tensor([[[0, 0, 1]]])
        >>> kappa(count(labels, labels, 2)), kappa(count(torch.zeros_like(labels), labels, 2))
        (1.0, 0.0)
    """
    right, predicted, labelled = (p.sum(0).double() for p in (counts.intersection, counts.predicted, counts.labelled))
    pixels = labelled.sum()
    by_chance = (predicted * labelled).sum() / pixels**2
    return float((right.sum() / pixels - by_chance) / (1 - by_chance)) if by_chance < 1 else math.nan


def one_class(counts: Counts) -> int | None:
    """The class that nearly every pixel is predicted as, though others are labelled and nearly never found; or None.

    Such a predictor looks accurate where that class is common, and robust, as no small change turns it.

    Example:
        >>> import torch
        >>> from segradius.metrics import count
        >>> labels = torch.tensor([[[0, 0, 0, 1]]])
        >>> one_class(count(torch.zeros_like(labels), labels, 2)), one_class(count(labels, labels, 2))
        (0, None)
    """
    right, predicted, labelled = (part.sum(0) for part in (counts.intersection, counts.predicted, counts.labelled))
    if not labelled.any():
        return None
    top = int(predicted.argmax())
    others, found = int(labelled.sum() - labelled[top]), int(right.sum() - right[top])
    everywhere = predicted[top] >= EVERYWHERE * predicted.sum()
    return top if everywhere and others and found <= FOUND * others else None


def renaming(pairs: Tensor) -> tuple[int, ...]:
    """For each class of one map the class of another that it would be called there, so that most pixels agree.

    The exact optimum over all one-to-one renamings (Kuhn 1955); of equals one that renames little.

    Args:
        pairs: (C, C) int64, pixels by the class of the one and of the other.

    Example:
        >>> renaming(torch.tensor([[0, 5, 0], [4, 1, 0], [0, 0, 0]]))
        (1, 0, 2)
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    # Half a pixel for all names that stay can turn no optimum into another number of pixels.
    gain = pairs.double() + torch.eye(len(pairs), dtype=torch.float64) / (2 * len(pairs))
    return tuple(linear_sum_assignment(gain.numpy(), maximize=True)[1].tolist())
