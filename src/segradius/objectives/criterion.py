"""The certified-radius-guided loss as an ordinary module, for any other library's attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.objectives.goal import Goal
from segradius.objectives.losses import LOSSES, Loss
from segradius.objectives.weightings import CertifiedRadius, top_probability
from segradius.radius.smoothing import smoothed_probabilities


class CertifiedRadiusLoss(nn.Module):
    """Certified-radius-guided loss (Eq. 9), ``(logits, labels) -> scalar``, to be maximised by any attack.

    With ``samples=0``, the default here, the radius comes from the logits that the loss is given: nothing else is
    needed. With ``samples=M`` it comes from M noisy forward passes of ``network``, whose inputs the loss sees through
    a hook; weights are then refreshed every ``every`` calls, and when the batch's size changes. `close` removes the
    hook.

    Args:
        network: The module that the other library attacks; needed for ``samples > 0`` only. Its inputs must lie in
            [0, 1] and its output be logits (N, C, H, W).
        loss: Name of the per-pixel loss.
        ignore_index: Label of void pixels, which have no loss.
        seed: Seed of the noise.
        samples: Noisy passes M, or 0.
        **options: Other fields of `CertifiedRadius`: a, b, sigma, every, radius_unit, precision, clamp.

    Raises:
        InputError: For ``samples > 0`` without a network, or a call before the network has run.

    Example:
        >>> import torch
        >>> guided = CertifiedRadiusLoss()
        >>> logits = torch.zeros(1, 2, 1, 1, requires_grad=True)
        >>> loss = guided(logits, torch.zeros(1, 1, 1, dtype=torch.long))
        >>> round(loss.item(), 4)  # log 2, weighted by 1 / (1 + exp(-4))
        0.6807
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        loss: str = "ce",
        ignore_index: int = 255,
        seed: int = 0,
        samples: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if samples > 0 and network is None:
            raise InputError("samples > 0 takes noisy passes: give the network, or use samples=0")
        kind: Callable[..., Loss] = LOSSES[loss]
        self.loss = kind()
        self.ignore_index = ignore_index
        self.seed = seed
        self.weighting = CertifiedRadius(samples=samples, **options)
        self._watched = _Watched(network) if network is not None and samples > 0 else None
        self._calls = 0
        self._weights: Tensor | None = None

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over labelled pixels of w_n · ℓ_n; gradients flow through the loss, not the weights."""
        goal = Goal.leave(labels, ignore_index=self.ignore_index)
        per_pixel = self.loss(logits, goal.reference) * self._weigh(logits)
        return per_pixel.masked_fill(~goal.counted, 0).sum() / goal.counted.sum().clamp_min(1)

    def close(self) -> None:
        """Remove the hook from the network."""
        if self._watched is not None:
            self._watched.handle.remove()

    def _weigh(self, logits: Tensor) -> Tensor:
        if self._watched is None:
            return self.weighting.of_probability(top_probability(logits.detach()))
        images = self._watched.images
        if images is None or len(images) != len(logits):
            raise InputError("the network has not run on these images: the loss sees them through its forward pass")
        stale = self._weights is None or len(self._weights) != len(logits)
        if stale or self._calls % self.weighting.interval == 0:
            found = smoothed_probabilities(
                self._watched,
                images,
                Randomness(self.seed, tuple(map(str, range(len(images))))),
                sigma=self.weighting.sigma,
                samples=self.weighting.samples,
                step=self._calls,
                clamp=self.weighting.clamp,
                precision=torch.bfloat16 if self.weighting.precision == "bfloat16" else None,
            )
            self._weights = self.weighting.of_probability(found.amax(1).to(logits.dtype))
        self._calls += 1
        assert self._weights is not None
        return self._weights


@dataclass
class _Watched:
    """A network whose last input is remembered, except those of the noisy passes."""

    network: nn.Module
    images: Tensor | None = None
    handle: Any = field(init=False)

    def __post_init__(self) -> None:
        self.handle = self.network.register_forward_pre_hook(self._remember)
        self._noisy = False

    def logits(self, images: Tensor, precision: torch.dtype | None = None) -> Tensor:
        self._noisy = True
        try:
            with torch.autocast(images.device.type, precision or torch.bfloat16, enabled=precision is not None):
                found: Tensor = self.network(images)
        finally:
            self._noisy = False
        return found.float() if precision is not None else found

    def _remember(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not self._noisy:
            self.images = inputs[0].detach()
