"""The smoothed model as a white-box attack sees it: an average over fixed noisy copies, with gradients."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from segradius.certification.views import charged, over_views
from segradius.certification.votes import Noise
from segradius.core.bands import bands_of
from segradius.core.contracts import LOGITS, Model
from segradius.core.declared import Count, Seed, Whole, check_fields
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness


@dataclass(frozen=True, eq=False)
class Smoothed:
    """log of the mean softmax over noisy copies, log 1/M Σ F(x + β_j): a model of its own, to attack like any other.

    Its gradient is the expectation over transformations of Athalye et al. (2018) and Salman et al. (2019), with common
    random numbers: β_1 … β_M are the same for all images and all steps, so an attack climbs one fixed function and
    images do not mix. They are not the copies of a certificate, which an attack must not overfit to.

    Args:
        model: What is smoothed.
        noise: σ, and where and how noise is added.
        samples: Noisy copies M.
        seed: Of the noise.
        keep: Copies whose activations are kept for the backward pass; those of the others are computed again in it.
            Bounds memory, and changes no result.

    Raises:
        InputError: For fewer than one copy, or a negative number to keep.

    Example:
        >>> import segradius as sr
        >>> model = Smoothed(sr.wrap(torch.nn.Conv2d(3, 4, 1), num_classes=4), Noise(0.25))
        >>> image = torch.rand(1, 3, 8, 8)
        >>> bool(torch.allclose(model.logits(image).exp().sum(1), torch.ones(1, 8, 8)))
        True
        >>> sr.make_attack("pgd", eps=0.1, steps=2)(model, image, torch.zeros(1, 8, 8).long()).delta.shape
        torch.Size([1, 3, 8, 8])
    """

    model: Model
    noise: Noise
    samples: Count = 8
    seed: Seed = 0
    keep: Whole = 8

    offers = frozenset({LOGITS})

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.model.num_classes

    @property
    def bands(self) -> int | None:
        """B, if it is known."""
        return bands_of(self.model)

    @property
    def twins(self) -> Any:
        """Those of the model, smoothed; None where it has none."""
        twins = getattr(self.model, "twins", None)
        return None if twins is None else twins.within(lambda model: replace(self, model=model))

    @property
    def name(self) -> str:
        """That of the model, and σ."""
        return f"{getattr(self.model, 'name', 'model')}, smoothed with σ = {self.noise.sigma:g}"

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        """Log-probabilities (N, C, H, W) of images (N, B, H, W), differentiable in them; M passes over each image."""
        part = partial(self._part, images=images, precision=precision)
        return over_views(part, self.samples, self.keep, images).logsumexp(0) - math.log(self.samples)

    def frozen(self) -> AbstractContextManager[object]:
        """The context in which the model is frozen; it must last for backward passes, which make some copies again."""
        return self.model.frozen()

    def charged(self, ledger: Ledger) -> Ledger:
        """Passes over the model behind passes over this: M for each, and those that a backward pass computes again."""
        return charged(ledger, self.samples, self.keep)

    def _part(self, first: int, count: int, images: Tensor, precision: torch.dtype | None) -> Tensor:
        """Log of the summed softmax of a few copies, (N, C, H, W)."""
        keys = Randomness(self.seed, ("",)).spawn("smoothed model")
        # Copies of nothing are the noise alone: drawn once for all images, and the sum has a gradient.
        drawn = replace(self.noise, clamp=False).copies(torch.zeros_like(images[0]), keys, first, count)
        noisy = (images.unsqueeze(1) + drawn).flatten(0, 1)
        found = self.model.logits(noisy.clamp(0, 1) if self.noise.clamp else noisy, precision=precision).log_softmax(1)
        return found.view(len(images), count, *found.shape[1:]).logsumexp(1)
