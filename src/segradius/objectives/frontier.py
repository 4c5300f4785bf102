"""Class quotas: of each class, the pixels that are nearest to being fooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.core.declared import Share, check_fields
from segradius.objectives.view import View
from segradius.objectives.weightings import WEIGHTINGS, Weighting

#: A float32 of at least zero is in the order of its bits, of which 31 may be set: so many at a time, high ones first.
_BITS = (11, 10, 10)


@WEIGHTINGS.register("frontier")
@dataclass(frozen=True)
class Frontier(Weighting):
    """A quota for each class (BLADE's frontier, 2026): 1 for the share ``k`` of smallest margins, 0 for other pixels.

    Of the pixels of a class that are not fooled yet, in each image, those whose margin is among the ⌈k·n⌉ smallest
    weigh 1, and so do pixels that tie with the last of them in float32. BLADE raises the negative mean margin of each
    class on them: ``loss=margin,weighting=frontier*balanced`` is near it, which weighs classes by all their pixels.

    Args:
        k: Share of a class.
    """

    k: Share = 0.1

    def __post_init__(self) -> None:
        check_fields(self)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """The quotas as numbers."""
        left = view.pending()
        margins = view.margin().float()
        chosen = smallest(margins.flatten(1), view.goal.reference.flatten(1), left.flatten(1), self.k, view.num_classes)
        return view.number(chosen.view_as(left)), None


def smallest(values: Tensor, groups: Tensor, among: Tensor, share: float, count: int) -> Tensor:
    """Which values are among the ⌈share·n⌉ smallest of the n of their group that are looked at.

    Instead of a sort, which takes longer than a step of an attack's other work, the digits of each group's threshold
    are found one after another by counting. No group and no row is looped over, and no device is waited for.

    Args:
        values: (N, P) float32, at least zero where they are looked at.
        groups: (N, P) int64 in [0, count); of one row they have nothing to do with those of another.
        among: (N, P) bool: which values are looked at.
        share: In (0, 1].
        count: Number of groups.

    Returns:
        (N, P) bool, with all that tie with the last.

    Example:
        >>> values, groups = torch.tensor([[0.5, 0.1, 0.3, 9.0, 7.0]]), torch.tensor([[0, 0, 0, 0, 1]])
        >>> smallest(values, groups, torch.tensor([[True, True, True, False, True]]), 0.5, 2)
        tensor([[False,  True,  True, False,  True]])
    """
    rows = len(values)
    keys = values.clamp_min(0).contiguous().view(torch.int32)
    here = among.to(torch.int32)
    total = here.new_zeros(rows, count).scatter_add_(1, groups, here)
    wanted = (total.double() * share - 1e-9).ceil_().int()  # 0.1 · 30 is 3, whatever the rounding
    found, shift = torch.zeros_like(total), 31
    for bits in _BITS:
        shift -= bits
        digit = keys >> shift
        place = (groups << bits).add_(digit & (1 << bits) - 1)
        # Only those whose higher digits are the threshold's are counted.
        alike = here * (digit >> bits == found.gather(1, groups))
        table = here.new_zeros(rows, count << bits).scatter_add_(1, place, alike).view(rows, count, -1)
        running = table.cumsum(2, dtype=torch.int32)
        below = running < wanted.unsqueeze(2)
        wanted = wanted - (running * below).amax(2)
        found = (found << bits) + below.sum(2, dtype=torch.int32).clamp_max_((1 << bits) - 1)
    return among & (keys <= found.gather(1, groups))
