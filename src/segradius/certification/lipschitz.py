"""Certificates of a whole image in one pass, from a Lipschitz constant of the logits.

If the logits, C·H·W values, move by at most L‖δ‖₂ in l2, a change of l2 length ε has Lε to spend on all pixels of an
image, and what it must spend on a pixel to turn it is a distance in the space of that pixel's logits (Massena et al.
2025). So turned pixels S need Σ_S d_p² ≤ (Lε)²: a sort bounds how many can be turned, for every ε at once. The bound is
about all pixels *together*, and no noise is drawn: it holds with certainty, if L does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.errors import InputError, at_least, positive
from segradius.core.label_sets import members
from segradius.core.prediction import predict

#: Of the largest logit of an image: by how much each margin is taken to be smaller than computed. Logits are sums in
#: float32, and this is 256 roundings of it.
ROUNDING = 2.0**-16


@dataclass(frozen=True, eq=False)
class Distances:
    """How far, in l2 of its logits, each pixel is from another answer; all (…, H, W) float64.

    Attributes:
        guess: (H, W) int64, the predicted class.
        turn: (H, W), to any class but the predicted one.
        become: (C, H, W), to each class; 0 for the predicted one.
    """

    guess: Tensor
    turn: Tensor
    become: Tensor


def distances(logits: Tensor, structures: int = 0) -> Distances:
    """Of logits (C, H, W) of one image: exact distances to the regions of the classes, less what rounding may hide.

    To turn a pixel is to bring a rival level with the largest, m/√2 for a margin of m. To make it one given class means
    to lift that above *all* others: the nearest point sets it and those above it to one common level.

    Args:
        logits: One pixel's C values are as many outputs of the network whose Lipschitz constant is known.
        structures: K where the classes are the 2^K sets of K yes/no channels z, which are the outputs: a set has the
            logit Σ z_k over its members, and to change what channel k says costs |z_k|.

    Raises:
        InputError: For a value that is not finite.

    Example:
        >>> found = distances(torch.tensor([3.0, 1.0, 2.0]).view(3, 1, 1))
        >>> round(found.turn.item(), 3), [round(each.item(), 3) for each in found.become]  # (1/√2), and level 2 for all
        (0.707, [0.0, 1.414, 0.707])
    """
    values = logits.detach().double()
    if not bool(values.isfinite().all()):
        raise InputError("logits are NaN or infinite; expected finite ones")
    guess = predict(logits.detach().unsqueeze(0))[1].squeeze(0)
    turn, become = _of_channels(values, structures, guess) if structures else _of_classes(values, guess)
    hidden = ROUNDING * values.abs().amax()
    become = (become - hidden).clamp_min(0).scatter(0, guess.unsqueeze(0), 0.0)
    return Distances(guess, (turn - hidden).clamp_min(0), become)


def _of_classes(values: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
    ranked = values.sort(0, descending=True).values
    become = torch.stack([_lifted(values, ranked, c) for c in range(len(values))])
    return (ranked[0] - ranked[1]) * math.sqrt(0.5), become


def _of_channels(values: Tensor, structures: int, guess: Tensor) -> tuple[Tensor, Tensor]:
    z = values[[1 << k for k in range(structures)]]
    inside = members(structures, values.device)
    change = (inside.unsqueeze(1) != inside[guess.flatten()].unsqueeze(0)).double()  # (C, H·W, K)
    become = (change * z.flatten(1).T.square()).sum(-1).sqrt()
    return z.abs().amin(0), become.view_as(values)


def _lifted(values: Tensor, ranked: Tensor, c: int) -> Tensor:
    """Distance of each pixel's logits (C, H, W) to where class c is largest, (H, W); ``ranked`` is their sort."""
    own = values[c]
    # Levels after joining the a largest, in order: those above the level join, as in a projection on a simplex.
    count = torch.arange(2, len(ranked) + 2, device=values.device).view(-1, 1, 1)
    level = (ranked.cumsum(0) + own) / count
    joins = ranked > torch.cat([own.unsqueeze(0), level[:-1]])
    joined = joins.sum(0, keepdim=True)
    height = torch.where(joined[0] > 0, level.gather(0, (joined - 1).clamp_min(0))[0], own)
    return ((height - own).square() + (values - height).clamp_min(0).square().sum(0)).sqrt()


def turnable(costs: Tensor, budget: Tensor) -> Tensor:
    """How many pixels can be turned, at most, with each budget (K,): a sort and running sums, (K,) int64.

    Args:
        costs: d² of the pixels, (P,).
        budget: (Lε)².

    Example:
        >>> turnable(torch.tensor([4.0, 1.0, 2.0]), torch.tensor([0.5, 1.0, 3.5, 7.0])).tolist()
        [0, 1, 2, 3]
    """
    return torch.searchsorted(costs.double().sort().values.cumsum(0), budget.double(), right=True)


@dataclass(frozen=True)
class ClassWorst:
    """What a change may do to one class of an image, at most: the corners of (lost, won) that it can reach.

    Attributes:
        right: Pixels of the class that are predicted as it.
        union: Pixels of the class or predicted as it.
        labelled: Pixels of the class.
        lost: Of the corners, how many right pixels are lost; growing.
        won: How many pixels of other classes are then won for it; falling.
    """

    right: int
    union: int
    labelled: int
    lost: tuple[int, ...]
    won: tuple[int, ...]


def class_worst(found: Distances, labels: Tensor, c: int, budget: float, ignore_index: int = 255) -> ClassWorst:
    """The corners of one class with a budget (Lε)²: each lost pixel leaves less for pixels to be won.

    Args:
        found: Of the image.
        labels: (H, W) int64.
        c: The class.
        budget: (Lε)², what all pixels together may cost.
        ignore_index: Label of pixels that do not count.
    """
    at_least(0.0, budget=budget)
    mine, predicted = labels == c, found.guess == c
    others = (labels != ignore_index) & ~mine
    loses = _running(found.turn[mine & predicted])
    wins = _running(found.become[c][others & ~predicted])
    lost = torch.arange(int((loses <= budget).sum()), device=loses.device)  # the running sums begin with 0
    won = torch.searchsorted(wins, budget - loses[: len(lost)], right=True) - 1
    right, false = int((mine & predicted).sum()), int((others & predicted).sum())
    labelled = int(mine.sum())
    corners = _corners(lost.tolist(), won.tolist())
    return ClassWorst(right, labelled + false, labelled, *map(tuple, zip(*corners, strict=True)))


def _running(distance: Tensor) -> Tensor:
    """0 and the running sums of the sorted squares, (P + 1,)."""
    return torch.nn.functional.pad(distance.square().sort().values.cumsum(0), (1, 0))


def _corners(lost: list[int], won: list[int]) -> list[tuple[int, int]]:
    """Of points with growing ``lost``, the corners of the upper hull: no line of slope ≤ 0 is highest elsewhere."""
    hull: list[tuple[int, int]] = []
    for point in zip(lost, won, strict=True):
        while len(hull) > 1 and _turns_left(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _turns_left(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) >= (b[1] - a[1]) * (c[0] - a[0])


def least_iou(images: list[ClassWorst]) -> float:
    """The least IoU that a class can have over images, each with a change of its own; NaN where there is no pixel.

    min Σ (right − lost) / Σ (union + won) over a corner of each image, by Dinkelbach's steps: for a ratio λ every image
    takes its corner of most lost + λ·won, and the ratio that those give is the next λ. It falls to the exact least.

    Example:
        >>> two = [ClassWorst(10, 12, 11, (0, 2), (3, 0)), ClassWorst(5, 5, 5, (0,), (0,))]
        >>> least_iou(two)  # (10 + 5) / (12 + 3 + 5)
        0.75
    """
    right, union = sum(each.right for each in images), sum(each.union for each in images)
    if union == 0 and not any(max(each.won) for each in images):
        return math.nan
    ratio = math.inf
    while True:
        gain = 1.0 if math.isinf(ratio) else ratio
        best = [max(zip(each.lost, each.won, strict=True), key=lambda at: at[0] + gain * at[1]) for each in images]
        found = (right - sum(lost for lost, _ in best)) / (union + sum(won for _, won in best))
        if found >= ratio:
            return ratio
        ratio = found


def least_recall(images: list[ClassWorst]) -> float:
    """The least share of a class's pixels that stay right over images; one less it is the miss rate. NaN without any.

    Example:
        >>> least_recall([ClassWorst(10, 12, 11, (0, 2), (3, 0))])
        0.7272727272727273
    """
    labelled = sum(each.labelled for each in images)
    return sum(each.right - max(each.lost) for each in images) / labelled if labelled else math.nan


def pixel_radii(found: Distances, lipschitz: float) -> Tensor:
    """(H, W) float64: how far, in l2 of the image, each pixel keeps its class, whatever becomes of the others: d/L.

    Raises:
        InputError: For an L that is not above 0.
    """
    positive(lipschitz=lipschitz)
    return found.turn / lipschitz


def budgets(lipschitz: float, eps: Tensor) -> Tensor:
    """(Lε)² of each ε.

    Example:
        >>> budgets(2.0, torch.tensor([0.0, 0.5])).tolist()
        [0.0, 1.0]
    """
    return (lipschitz * eps.double()).square()
