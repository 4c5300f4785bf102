"""Expected flips on the network's own scale: τ in units of the mean radius of each image, at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from segradius.core.declared import Positive, check_fields
from segradius.objectives.losses import LOSSES, Loss
from segradius.radius.gaussian import radius_slope, signed_radius


@LOSSES.register("scaled_flips")
@dataclass(frozen=True)
class ScaledFlips(Loss):
    """Expected flips Φ(−r/(τ·s)), r the signed normalised radius and s the mean of |r| over an image's pixels.

    With s the sum over pixels is a smooth count of flips (Eq. 5) whose softness is that of the network: one that is
    surer of all its pixels is not seen as harder. s is taken anew in each step, over the pixels that count, and has no
    gradient. τ falls linearly from ``tau`` to ``tau_end`` over the run.

    Args:
        tau: τ at the start, in units of the mean radius, > 0.
        tau_end: τ at the end, > 0.

    Example:
        >>> logits, labels = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
        >>> round(ScaledFlips(tau=1.0)(logits, labels).item(), 4)  # Φ(−1), whatever the logits are multiplied by
        0.1587
        >>> round(ScaledFlips(tau=1.0)(5 * logits, labels).item(), 4)
        0.1587
    """

    annealed: ClassVar[bool] = True

    tau: Positive = 0.7
    tau_end: Positive = 0.05

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, logits: Tensor, labels: Tensor, progress: float = 0.0) -> Tensor:
        """Loss of each pixel, (N, H, W), where all pixels count."""
        radius = signed_radius(logits, labels)
        scale = scale_of(radius.detach(), torch.ones_like(radius), annealed(self.tau, self.tau_end, progress))
        flips: Tensor = torch.special.ndtr(-radius / scale)
        return flips

    @torch.no_grad()
    def slope(self, logits: Tensor, labels: Tensor, pull: Tensor, progress: float = 0.0) -> Tensor:
        """As `Loss.slope`; pixels that do not pull do not count for the scale either."""

        def falling(radius: Tensor) -> Tensor:
            scale = scale_of(radius, pull != 0, annealed(self.tau, self.tau_end, progress))
            # Products with numbers below float32's normal ones take a CPU long, and e⁻⁵⁰ moves nothing.
            density = (radius / scale).square_().div_(-2).clamp_min_(-50).exp_()
            return density.mul_(pull).div_(scale.mul_(-math.sqrt(2 * math.pi)))

        return radius_slope(logits, labels, falling)


def scale_of(values: Tensor, counts: Tensor, tau: float) -> Tensor:
    """τ times the mean size of each image's values (N, H, W) where ``counts``, (N, 1, 1); above zero where all are 0.

    Example:
        >>> scale_of(torch.tensor([[[1.0, -3.0, 9.0]]]), torch.tensor([[[True, True, False]]]), 0.5).item()
        1.0
    """
    total, pixels = (values.abs() * counts).sum((1, 2)), counts.sum((1, 2)).clamp_min(1)
    return (tau * total / pixels).clamp_min(1e-6).view(-1, 1, 1)


def annealed(first: float, last: float, progress: float) -> float:
    """A τ that falls linearly over the run.

    Example:
        >>> annealed(1.0, 0.5, 0.5)
        0.75
    """
    return first + (last - first) * progress
