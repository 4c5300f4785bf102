"""Passes over many views of an image, noisy or masked, whose answers are combined, with gradients in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segradius.core.ledger import Ledger
from segradius.radius.smoothing import passes


def over_views(part: Callable[[int, int], Tensor], views: int, keep: int, images: Tensor) -> Tensor:
    """What is made of a few views at a time, stacked: (parts, N, C, H, W), differentiable.

    Args:
        part: From the first view and how many to (N, C, H, W).
        views: How many there are.
        keep: Views whose activations are kept for the backward pass; those of the others are computed again in it.
        images: (N, B, H, W), of which the views are.

    Example:
        >>> part = lambda first, count: torch.full((1, 1, 2, 2), count)
        >>> over_views(part, 9, 4, torch.zeros(1, 3, 2, 2))[:, 0, 0, 0, 0]
        tensor([4, 4, 1])
    """
    kept, size = min(keep, views), (images.device, len(images))
    # What is random is keyed and the network frozen, so there is no random state to restore.
    again = partial(checkpoint, part, use_reentrant=False, preserve_rng_state=False)
    parts = [part(*some) for some in passes(0, kept, *size)]
    return torch.stack(parts + [again(*some) for some in passes(kept, views, *size)])


def charged(ledger: Ledger, views: int, keep: int) -> Ledger:
    """Passes over the model behind passes over all its views: each of them, and those that a backward pass makes again.

    Args:
        ledger: Of passes over all views at once.
        views: How many there are.
        keep: As for `over_views`.
    """
    found = Ledger(ledger.images)
    for purpose, (forward, backward) in ledger.passes.items():
        found.enter(purpose)
        found.passes[purpose][0] = forward * views + backward * max(views - keep, 0)
        found.passes[purpose][1] = backward * views
    return found
