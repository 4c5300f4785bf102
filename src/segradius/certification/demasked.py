"""A model under all masks at once, as an attack sees it that knows of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segradius.certification.masks import Fill, hidden
from segradius.certification.views import charged, over_views
from segradius.core.bands import bands_of
from segradius.core.contracts import LOGITS, Model
from segradius.core.ledger import Ledger


@dataclass(frozen=True, eq=False)
class Demasked:
    """Mean log-softmax over the views of an image under each of k masks: what an attack on masked predictions climbs.

    Differentiable through the fills. It is no defended model but what all its first looks share: to change what most
    masks say is to change this.

    Args:
        model: What is defended.
        masks: (k, H, W) bool.
        fill: What is seen in the place of hidden pixels.
        keep: Views whose activations are kept for the backward pass; those of the others are computed again in it.
            Bounds memory, and changes no result.

    Example:
        >>> import segradius as sr
        >>> from segradius.certification.masks import FILLS, covering
        >>> model = Demasked(sr.wrap(torch.nn.Conv2d(3, 4, 1), num_classes=4), covering(2, 8, 8, 2, 2), FILLS["mean"])
        >>> model.logits(torch.rand(1, 3, 8, 8)).shape
        torch.Size([1, 4, 8, 8])
    """

    model: Model
    masks: Tensor
    fill: Fill
    keep: int = 8

    offers = frozenset({LOGITS})

    @property
    def num_classes(self) -> int:
        """C."""
        return self.model.num_classes

    @property
    def bands(self) -> int | None:
        """B, if it is known."""
        return bands_of(self.model)

    @property
    def name(self) -> str:
        """That of the model, and how many masks."""
        return f"{getattr(self.model, 'name', 'model')} under {len(self.masks)} masks"

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Mean log-probabilities (N, C, H, W) of images (N, B, H, W), differentiable in them; k passes over each."""
        part = partial(self._part, images=images, precision=precision)
        return over_views(part, len(self.masks), self.keep, images).sum(0) / len(self.masks)

    def frozen(self) -> AbstractContextManager[object]:
        """The context in which the model is frozen; it must last for backward passes, which make some views again."""
        return self.model.frozen()

    def charged(self, ledger: Ledger) -> Ledger:
        """Passes over the model behind passes over this: k for each, and those that a backward pass computes again."""
        return charged(ledger, len(self.masks), self.keep)

    def _part(self, first: int, count: int, images: Tensor, precision: torch.dtype | None) -> Tensor:
        """Summed log-softmax of a few views, (N, C, H, W)."""
        where = self.masks[first : first + count].to(images.device).repeat(len(images), 1, 1)
        views = hidden(images.repeat_interleave(count, 0), where, self.fill)
        found = self.model.logits(views, precision=precision).log_softmax(1)
        return found.view(len(images), count, *found.shape[1:]).sum(1)
