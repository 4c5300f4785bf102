"""Structures that may overlap as one map of labels: that of a pixel is the set of the structures it is part of.

With K yes/no channels of logits z, each set S of structures is a class with the logit Σ_{k ∈ S} z_k. The softmax over
the 2^K sets is the product of the K sigmoids, its cross-entropy the sum of the K binary ones, its argmax the set of the
channels above zero; so losses, radii, attacks and certificates for classes hold for sets, of a whole set at a time. One
channel is the case K = 1: the classes ∅ and {foreground} with logits 0 and z.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from segradius.core.errors import InputError

#: Structures at most: 256 sets.
MOST = 8


def check_structures(structures: int) -> None:
    """Raise `InputError` unless so many structures can be told in sets.

    Example:
        >>> check_structures(9)
        Traceback (most recent call last):
        segradius.core.errors.InputError: 9 yes/no channels make 2^9 sets of structures; expected 1 to 8 channels: ...
    """
    if not 1 <= structures <= MOST:
        raise InputError(
            f"{structures} yes/no channels make 2^{structures} sets of structures; expected 1 to {MOST} channels: "
            "choose some with channels=[…]"
        )


def members(structures: int, device: torch.device | None = None) -> Tensor:
    """Which structures are in which set, (2^K, K) bool; bit k of a set's number is structure k.

    Raises:
        InputError: There are none, or more than `MOST`.

    Example:
        >>> members(2).int().tolist()
        [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    check_structures(structures)
    sets = torch.arange(2**structures, device=device).unsqueeze(1)
    return (sets >> torch.arange(structures, device=device)).bitwise_and_(1).bool()


def set_names(structures: Sequence[str]) -> tuple[str, ...]:
    """A name for each set, in order of their numbers.

    Example:
        >>> set_names(["organ", "vessel"])
        ('background', 'organ', 'vessel', 'organ + vessel')
    """
    inside = members(len(structures)).tolist()
    named = (" + ".join(name for name, has in zip(structures, row, strict=True) if has) for row in inside)
    return tuple(name or "background" for name in named)


def to_sets(masks: Tensor) -> Tensor:
    """Numbers of sets (…, H, W) int64 from yes/no maps (…, K, H, W).

    Example:
        >>> to_sets(torch.tensor([[[1, 1, 0]], [[0, 1, 1]]]))
        tensor([[1, 3, 2]])
    """
    masks = masks.bool()
    members(masks.shape[-3])
    weights = 1 << torch.arange(masks.shape[-3], device=masks.device)
    return (masks * weights.view(-1, 1, 1)).sum(-3)


def to_masks(sets: Tensor, structures: int) -> Tensor:
    """Yes/no maps (…, K, H, W) bool from numbers of sets (…, H, W); void must be taken out before.

    Example:
        >>> to_masks(torch.tensor([[1, 3, 2]]), 2).int().tolist()
        [[[1, 1, 0]], [[0, 1, 1]]]
    """
    return (sets.unsqueeze(-3) >> torch.arange(structures, device=sets.device).view(-1, 1, 1)).bitwise_and(1).bool()


def set_logits(logits: Tensor) -> Tensor:
    """Logits of the sets (N, 2^K, h, w), differentiable, from logits of K yes/no channels (N, K, h, w).

    Example:
        >>> z = torch.tensor([0.5, -2.0]).view(1, 2, 1, 1)
        >>> set_logits(z).flatten().tolist()
        [0.0, 0.5, -2.0, -1.5]
        >>> p = z.sigmoid().flatten()
        >>> torch.allclose(set_logits(z).softmax(1)[0, 3], p[0] * p[1])
        True
    """
    check_structures(logits.shape[1])
    # Doubled channel by channel, not a matrix product, so that an infinite logit stays out of the sets without it.
    sets = torch.zeros_like(logits[:, :1])
    for channel in range(logits.shape[1]):
        sets = torch.cat([sets, sets + logits[:, channel : channel + 1]], 1)
    return sets
