"""The local two-point estimator: each part of an image listens to the loss of its own surroundings only.

A segmentation model answers a query with a loss for every pixel. `TPGE` adds them up and multiplies every direction by
that one number, so that each value of the estimate carries the noise of all the others. Here the direction at a
position i is multiplied by the change of the loss in a window W(i) around it:

    ĝ_i = v_i · Σ_{p ∈ W(i)} (ℓ_p(δ + γu) − ℓ_p(δ − γu)) / 2γ,        E[ĝ_i] = Σ_{p ∈ W(i)} ∂ℓ_p/∂δ_i  (to first order).

- **Bias.** What is left out is the part of the gradient that reaches i from pixels outside W(i): nothing, where the
  window covers the footprint of the model (how far a change of one position reaches in the output). A smaller window
  trades bias for variance.
- **Variance.** With J = ∂ℓ/∂δ and independent u, Var ĝ_i ≈ n'·Σ_j (Σ_{p ∈ W(i)} J_pj)²·E[u_i²]: only directions j
  whose footprint meets W(i) count. `TPGE` has the sum over all j with W the whole image. With a local footprint the
  variance is that of a problem of the size of window + footprint, however large the image is.

The window is a box in pixels whose sums are taken on the grid of the tiles where the directions have one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone knows)
from torch import Tensor

from segradius.core.declared import OddSide, check_fields
from segradius.gradients.estimator import ESTIMATORS, Draw, central_differences
from segradius.gradients.estimators import OnSphere


@ESTIMATORS.register("local")
@dataclass(frozen=True)
class LocalTPGE(OnSphere):
    """Two points, and for each position the loss in a window around it (ours).

    - **Queries** in a round: 2·samples.
    - **Bias**, **variance**: see the module; with a window over the whole image it is `TPGE` with one sample.

    Attributes:
        window: Side of the window in pixels, odd, at least 1; the others are those of `OnSphere`.

    Raises:
        InputError: A number is not above zero, or the window is even.

    Example:
        >>> from segradius.core.randomness import Randomness
        >>> from segradius.gradients.estimator import estimate
        >>> own = lambda points: points.sum(2)  # each pixel's loss is its own business
        >>> keys = Randomness(0, tuple(map(str, range(500))))
        >>> one, all = (
        ...     estimate(LocalTPGE(0.1, window=window), own, torch.zeros(500, 3, 6, 6), keys).flatten(1)
        ...     for window in (1, 11)
        ... )
        >>> round(one.mean().item(), 1), round(all.mean().item(), 1)
        (1.0, 1.0)
        >>> bool(one.var() < all.var() / 10)
        True
    """

    window: OddSide = 41

    def __post_init__(self) -> None:
        check_fields(self)

    def gradient(self, losses: Tensor, draw: Draw) -> Tensor:
        """Mean over the samples of the windowed central difference times v."""
        return listen(losses, draw, self.gamma, self.window // 2)


def listen(losses: Tensor, draw: Draw, gamma: float, reach: int | Tensor) -> Tensor:
    """The estimate from losses (2D, N, H, W) on both sides, with windows of ``reach`` pixels on each side.

    Args:
        losses: Of the pixels.
        draw: The directions.
        gamma: γ.
        reach: One number, or one for each image, (N,) int64.

    Returns:
        (N, B, H, W).
    """
    near = window_sum(central_differences(losses, gamma), reach)
    total = draw.dual[0] * near[0].unsqueeze(1)
    for dual, sums in zip(draw.dual[1:], near[1:], strict=True):
        total.addcmul_(dual, sums.unsqueeze(1))
    return total if len(near) == 1 else total.div_(len(near))


def window_sum(maps: Tensor, reach: int | Tensor) -> Tensor:
    """Sum over the pixels at most ``reach`` rows and columns away, cut at the border; (…, H, W).

    Args:
        maps: (…, H, W), with a number for each image (…, N, H, W).
        reach: One number, or one for each image, (N,) int64.

    Example:
        >>> window_sum(torch.tensor([[1.0, 2.0, 4.0]]), 1).tolist()
        [[3.0, 7.0, 6.0]]
    """
    for axis in (-2, -1):
        maps = _running_sum(maps, reach, axis)
    return maps


def _running_sum(values: Tensor, reach: int | Tensor, axis: int) -> Tensor:
    """Sum over the ``reach`` neighbours on both sides and the value itself, along one axis."""
    length = values.shape[axis]
    if isinstance(reach, int):
        reach = min(reach, length - 1)
        sums = F.pad(values, (reach + 1, reach) if axis == -1 else (0, 0, reach + 1, reach)).cumsum(axis)
        return sums.narrow(axis, 2 * reach + 1, length) - sums.narrow(axis, 0, length)
    sums = F.pad(values.cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
    place = torch.arange(length, device=values.device)
    place = place.view(1, -1, 1) if axis == -2 else place.view(1, 1, -1)
    reach = reach.view(-1, 1, 1)
    above, below = (place + reach + 1).clamp_(max=length), (place - reach).clamp_(min=0)
    return sums.gather(axis, above.expand_as(values)).sub_(sums.gather(axis, below.expand_as(values)))
