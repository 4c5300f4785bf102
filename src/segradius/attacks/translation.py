"""Translation invariance: a step along the gradient smoothed by a kernel, in place of gradients of moved images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.attacks.base import Method
from segradius.attacks.loop import Observation, Room, Step
from segradius.attacks.make import white_box
from segradius.attacks.pgd import Momentum
from segradius.attacks.settings import Settings
from segradius.core.declared import LossName, OddSide, Weight, WeightingName, check_fields
from segradius.objectives.objective import objective
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Smoothed:
    """TI (Dong et al. 2019): any step, on the gradient convolved with a Gaussian kernel in each band.

    The kernel ends at three standard deviations, and beyond the image the gradient counts as 0, as in public code.
    Pixels that may not change stay so.

    Attributes:
        step: The step.
        kernel: Side of the kernel in pixels, odd; 1 smooths nothing.
    """

    step: Step
    kernel: OddSide = 15

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def compares(self) -> bool:
        """Whether the step compares what it sees."""
        return getattr(self.step, "compares", True)

    def ahead(self, delta: Tensor, room: Room, state: Any) -> Tensor:
        """Where the step wants its gradient."""
        ahead = getattr(self.step, "ahead", None)
        return delta if ahead is None else ahead(delta, room, state)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Smooth, then step."""
        gradient = room.task.confine(smoothed(seen.gradient, self.kernel))
        return self.step.advance(replace(seen, gradient=gradient), room, state)


def smoothed(maps: Tensor, side: int) -> Tensor:
    """Maps (N, B, H, W) convolved with a Gaussian of ``side`` pixels, three standard deviations to either side.

    Example:
        >>> point = torch.zeros(1, 1, 3, 3)
        >>> point[0, 0, 1, 1] = 1.0
        >>> found = smoothed(point, 3)
        >>> round(found.sum().item(), 4), round(found[0, 0, 1, 1].item(), 4)
        (1.0, 0.957)
    """
    if side == 1:
        return maps
    line = torch.linspace(-3, 3, side, dtype=maps.dtype, device=maps.device).square_().div_(-2).exp_()
    line /= line.sum()
    bands = maps.shape[1]
    down, across = (line.view(shape).expand(bands, 1, *shape[2:]) for shape in ((1, 1, side, 1), (1, 1, 1, side)))
    once = F.conv2d(maps, down, padding=(side // 2, 0), groups=bands)
    return F.conv2d(once, across, padding=(0, side // 2), groups=bands)


@white_box("ti_fgsm", fixed=("sparse",))
def ti_fgsm(
    threat: Threat,
    settings: Settings,
    *,
    kernel: OddSide = 15,
    decay: Weight = 1.0,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Method:
    """TI-MI-FGSM (Dong et al. 2019), α = ε/T: momentum on gradients smoothed by a Gaussian kernel.

    Args:
        threat: Ball and box.
        settings: Shared settings.
        kernel: Side of the kernel in pixels, odd; 1 for none.
        decay: Momentum μ; 0 for TI-FGSM.
        loss: Name of the loss.
        weighting: Name of the weighting.
    """
    step = Smoothed(Momentum(settings.size(threat.norm.name, 1.0), decay), kernel)
    return settings.iterate(objective(loss, weighting), threat, step)
