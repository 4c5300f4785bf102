"""Certificates of a whole image in one pass, from a Lipschitz constant of the logits.

If the logits, C·H·W values, move by at most L‖δ‖₂ in l2, a change of l2 length ε has Lε to spend on all pixels of an
image, and what it must spend on a pixel to turn it is a distance in the space of that pixel's logits (Massena et al.
2025). So turned pixels S need Σ_S d_p² ≤ (Lε)²: a sort bounds how many can be turned, for every ε at once. The bound is
about all pixels *together*, and no noise is drawn: it holds with certainty, if L does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.certification.votes import by_rows
from segradius.core.errors import InputError, at_least, positive
from segradius.core.label_sets import members
from segradius.core.prediction import predict

#: Of the largest logit of an image: by how much each margin is taken to be smaller than computed. Logits are sums in
#: float32, and this is 256 roundings of it.
ROUNDING = 2.0**-16


@dataclass(frozen=True, eq=False)
class Distances:
    """How far, in l2 of its logits, each pixel is from another answer.

    Attributes:
        guess: (H, W) int64, the predicted class.
        turn: (H, W) float64, to any class but the predicted one.
        logits: (C, H, W) float64.
        structures: K, as `distances` has it.
    """

    guess: Tensor
    turn: Tensor
    logits: Tensor
    structures: int = 0

    @cached_property
    def become(self) -> Tensor:
        """(C, H, W) float64, to each class; 0 for the predicted one. Dearer than the others: made where asked for."""
        found = _to_sets(self) if self.structures else by_rows(_lifted, self.logits)
        return (found - hidden(self.logits)).clamp_min(0).scatter(0, self.guess.unsqueeze(0), 0.0)


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
    if structures:
        turn = _channels(values, structures).abs().amin(0)
    else:
        top = values.topk(2, 0).values
        turn = (top[0] - top[1]) * math.sqrt(0.5)
    return Distances(guess, (turn - hidden(values)).clamp_min(0), values, structures)


def hidden(logits: Tensor) -> Tensor:
    """What rounding may hide of a distance."""
    return ROUNDING * logits.abs().amax()


def _channels(logits: Tensor, structures: int) -> Tensor:
    """The K yes/no channels of the logits of their sets, (K, H, W)."""
    return logits[[1 << k for k in range(structures)]]


def _to_sets(found: Distances) -> Tensor:
    """Distance to each set of structures: the root of the squares of the channels that must change, (2^K, H, W)."""
    z, inside = _channels(found.logits, found.structures), members(found.structures, found.logits.device)
    change = (inside.unsqueeze(1) != inside[found.guess.flatten()].unsqueeze(0)).double()  # (C, H·W, K)
    return (change * z.flatten(1).T.square()).sum(-1).sqrt().view_as(found.logits)


def _lifted(values: Tensor) -> Tensor:
    """Distance of each pixel's logits (C, H, W) to where each class is largest, (C, H, W).

    As in a projection on a simplex: with r_1 ≥ r_2 … the sorted logits, the a-th joins the common level of the class z
    and the a − 1 above it where r_a > (z + r_1 + … + r_{a−1})/a, that is where z < a·r_a − Σ, which falls with a.
    """
    z = values.movedim(0, -1).contiguous()
    ranked = z.sort(-1, descending=True).values
    sums, squares = ranked.cumsum(-1), ranked.square().cumsum(-1)
    count = torch.arange(1, len(values) + 1, device=values.device)
    bars = count * ranked - (sums - ranked)
    joined = torch.searchsorted(-bars, -z)
    last = (joined - 1).clamp_min(0)
    total, square = (torch.where(joined > 0, part.gather(-1, last), 0.0) for part in (sums, squares))
    level = (z + total) / (joined + 1)
    above = square - 2 * level * total + joined * level.square()  # Σ (r − level)² of those that joined
    return ((level - z).square() + above).clamp_min(0).sqrt().movedim(-1, 0)


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


def class_worst(
    found: Distances, labels: Tensor, c: int, budget: Sequence[float], ignore_index: int = 255
) -> list[ClassWorst]:
    """The corners of one class with each budget (Lε)²: each lost pixel leaves less for pixels to be won.

    Args:
        found: Of the image.
        labels: (H, W) int64.
        c: The class.
        budget: (Lε)² of each ε, what all pixels together may cost.
        ignore_index: Label of pixels that do not count.
    """
    mine, predicted = labels == c, found.guess == c
    others = (labels != ignore_index) & ~mine
    loses = _running(found.turn[mine & predicted])
    wins = _running(found.become[c][others & ~predicted])
    right, false = int((mine & predicted).sum()), int((others & predicted).sum())
    labelled, made = int(mine.sum()), []
    for most in budget:
        at_least(0.0, budget=most)
        lost = np.arange(np.searchsorted(loses, most, side="right"))  # the running sums begin with 0
        won = np.searchsorted(wins, most - loses[: len(lost)], side="right") - 1
        kept = _corners(lost, won)
        made.append(
            ClassWorst(right, labelled + false, labelled, tuple(lost[kept].tolist()), tuple(won[kept].tolist()))
        )
    return made


def _running(distance: Tensor) -> NDArray[np.float64]:
    """0 and the running sums of the sorted squares, (P + 1,)."""
    sums: NDArray[np.float64] = distance.square().sort().values.cumsum(0).cpu().numpy()
    return np.concatenate([[0.0], sums])


def _corners(lost: NDArray[np.int64], won: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of points with growing ``lost``, the places of the corners of their upper hull.

    A point that is not above the line between its neighbours is none. Costs are sorted, so the points lie on a concave
    curve but for rounding to whole pixels, and a few rounds leave the corners alone.
    """
    places = np.arange(len(lost))
    while len(places) > 2:
        x, y = lost[places], won[places]
        turn = (x[1:-1] - x[:-2]) * (y[2:] - y[:-2]) - (y[1:-1] - y[:-2]) * (x[2:] - x[:-2])
        kept = np.concatenate([[True], turn < 0, [True]])
        if kept.all():
            break
        places = places[kept]
    return places


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
        best = [_most(each, gain) for each in images]
        found = (right - sum(lost for lost, _ in best)) / (union + sum(won for _, won in best))
        if found >= ratio:
            return ratio
        ratio = found


def _most(image: ClassWorst, gain: float) -> tuple[int, int]:
    """The corner of most lost + gain·won."""
    place = int(np.argmax(np.array(image.lost) + gain * np.array(image.won)))
    return image.lost[place], image.won[place]


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
