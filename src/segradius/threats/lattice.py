"""What a file can hold: images x + δ whose values are whole levels, {0, 1/L, …, 1}, L = 255 for 8 bits.

An attack keeps a real-valued iterate, so that small steps add up, and what the model is shown, what is judged and what
is returned is the lattice point nearest to it, inside ball and box. Its gradient is taken there and followed as it is.

Everything is said in levels: o = L·image, and a lattice point is j, whole, with change n = j − o. In l∞ the ball is an
interval of levels a value, and the nearest point is one rounding and one clamp. In l2 and l1 the ball ties the values
together. There the point is looked for where the Lagrangian of the nearest point has its minima: the rounding of a δ
that was shrunk, s·δ in l2 and a soft threshold in l1, with the largest share that fits. Values that turn at that
very share are then given back as far as the budget goes. So it lies in the ball always, and is as near as can be up
to one value's turn.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.threats.projections import Box, choose, column, done

#: What float32 makes of a length that is ε exactly; the ball holds to this part of it.
_SLACK = 2.0**-20
_ROUNDS = 4


@dataclass(frozen=True)
class Lattice:
    """The images of whole levels in a ball around others; every δ is (N, …), in the unit of images in [0, 1].

    Attributes:
        levels: L.
        norm: Name of the norm.
        origin: (N, …) o, the images in levels; whole where float32 cannot tell them from whole.
        budget: (N,) ε in levels.
        low: (N, …) least j: of the interval in l∞, else 0.
        high: (N, …) largest j.

    Example:
        >>> held = lattice(torch.full((1, 3), 100 / 255), torch.tensor([1.5 / 255]), "linf", 255)
        >>> held.nearest(torch.tensor([[0.004, -0.0015, 0.01]])).tolist()
        [[101.0, 100.0, 101.0]]
    """

    levels: int
    norm: str
    origin: Tensor
    budget: Tensor
    low: Tensor
    high: Tensor

    @property
    def bounds(self) -> Box:
        """The box around the lattice points: where a real-valued iterate can be seen to move."""
        return Box((self.low - self.origin) / self.levels, (self.high - self.origin) / self.levels)

    @torch.no_grad()
    def nearest(self, delta: Tensor) -> Tensor:
        """Levels j of the lattice point in ball and box that is nearest to image + δ."""
        move = delta * self.levels
        return self._whole(move) if self.norm == "linf" else self._fitting(move)

    def images(self, delta: Tensor) -> Tensor:
        """The lattice image nearest to image + δ, j/L to the bit, as it would be read from a file."""
        return self.nearest(delta).div_(self.levels)

    def change(self, delta: Tensor) -> Tensor:
        """What that changes in the image."""
        return self.nearest(delta).sub_(self.origin).div_(self.levels)

    @torch.no_grad()
    def rounded(self, delta: Tensor, dither: Tensor) -> Tensor:
        """A lattice image near image + δ, inside the ball or not: a value is rounded up if ``dither`` says so.

        Args:
            delta: (N, …).
            dither: (N, …) uniform in [0, 1). A value is rounded up with the probability of what is cut off, so that in
                the mean nothing is lost, however short δ is; points with the same dither differ by what they are.
        """
        # A little less than 1, which float32 would add to a whole number as 1.
        found = torch.add(self.origin, delta, alpha=self.levels).add_(dither, alpha=1 - 2.0**-14).floor_()
        return found.clamp_(0, self.levels).div_(self.levels)

    def fits(self) -> Tensor:
        """Whether the ball holds any image of whole levels, (N,)."""
        if self.norm == "linf":
            return (self.low <= self.high).flatten(1).all(1)
        return self._excess(self.origin.round() - self.origin) <= 0

    def _whole(self, move: Tensor) -> Tensor:
        return (self.origin + move).round_().clamp_(self.low, self.high)

    def _sizes(self, change: Tensor) -> Tensor:
        """What each value takes of the budget: squares in l2, magnitudes in l1."""
        return change * change if self.norm == "l2" else change.abs()

    @property
    def _most(self) -> Tensor:
        """What there is of it, (N,)."""
        most = self.budget * (1 + _SLACK)
        return most * most if self.norm == "l2" else most

    def _excess(self, change: Tensor) -> Tensor:
        """What the values take beyond the budget, (N,)."""
        return self._sizes(change).flatten(1).sum(1) - self._most

    def _fitting(self, move: Tensor) -> Tensor:
        """Levels j near o + move within the budget; see the text above."""
        found = self._whole(move)
        above = self._excess(found - self.origin)
        over = above > 0
        if done(~over):
            return found
        shrunk = self._shrinking(move)
        low, high, below = torch.zeros_like(above), torch.ones_like(above), -self._most
        last = torch.zeros_like(above)
        for _ in range(_ROUNDS + self.levels.bit_length() // 8):
            share = low + (high - low) * (-below / (above - below)).clamp(0.01, 0.99)
            excess = self._excess(self._whole(shrunk(share)).sub_(self.origin))
            beyond = excess > 0
            # Illinois: the end that stays twice counts half, so that both close in.
            below = torch.where(beyond, torch.where(last > 0, below / 2, below), excess)
            above = torch.where(beyond, excess, torch.where(last < 0, above / 2, above))
            low, high = torch.where(beyond, low, share), torch.where(beyond, share, high)
            last = torch.where(beyond, 1.0, -1.0)
        near, far = self._whole(shrunk(low)), self._whole(shrunk(high))
        taken = self._sizes(near - self.origin)
        left = self._most - taken.flatten(1).sum(1)
        price = self._sizes(far - self.origin).sub_(taken).flatten(1)
        order, back = (places.expand_as(price) for places in _scattered(price.shape[1], price.device))
        paid = (price.gather(1, order).cumsum(1) <= left.unsqueeze(1)).to(near.dtype).gather(1, back)
        filled = torch.addcmul(near, far - near, paid.view_as(near))
        filled = choose(self._excess(filled - self.origin) > 0, near, filled)  # where the two sums differ by rounding
        return choose(over, filled, found)

    def _shrinking(self, move: Tensor) -> Callable[[Tensor], Tensor]:
        """A share in [0, 1], (N,), of the move."""
        if self.norm == "l2":
            return lambda share: move * column(share, move)
        size = move.abs()
        most = size.flatten(1).amax(1)
        return lambda share: (size - column((1 - share) * most, move)).clamp_(min=0).copysign_(move)


def lattice(images: Tensor, eps: Tensor, norm: str, levels: int) -> Lattice:
    """The lattice around images (N, …) in [0, 1] within ε (N,), which may be inf."""
    origin = images * levels
    whole = origin.round()
    tolerance = 4 * torch.finfo(torch.float32).eps * levels
    origin = torch.where((origin - whole).abs() <= tolerance, whole, origin)
    budget = eps.to(images.dtype) * levels
    low, high = torch.zeros_like(origin), torch.full_like(origin, levels)
    if norm == "linf":
        reach = column(budget * (1 + _SLACK), origin)
        low, high = (origin - reach).ceil_().clamp_(min=0), (origin + reach).floor_().clamp_(max=levels)
    return Lattice(levels, norm, origin, budget, low, high)


def check_held(held: Lattice, changeable: Tensor | None = None) -> None:
    """Raise `InputError` unless each image's ball holds an image of whole levels.

    Args:
        held: The lattice around the images.
        changeable: (N, 1, H, W) 0/1: pixels outside must be on the lattice as they are; None for all.
    """
    fits = held.fits()
    if not fits.all():
        image = int((~fits).nonzero()[0])
        raise InputError(
            f"image {image} has no image of {held.levels} whole levels in its ball of {held.norm} "
            f"{held.budget[image].item() / held.levels:.4g}: it is itself not of such levels (16 bits? resized?), and "
            "rounding it takes more: give a larger eps, or round the images first"
        )
    if changeable is not None:
        off = ((held.origin != held.origin.round()) & (changeable == 0)).any(1)
        if off.any():
            image, row, place = (int(i) for i in off.nonzero()[0])
            raise InputError(
                f"image {image} is not of {held.levels} whole levels at row {row}, column {place}, which may not be "
                "changed: round the images first"
            )


@functools.lru_cache(maxsize=8)
def _scattered(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places 0 … count − 1 in an order that goes everywhere at once, so that no part of an image is served first.

    And where each place stands in it.
    """
    stride = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(stride, count) != 1:
        stride += 1
    with torch.inference_mode(False):
        order = (torch.arange(count, device=device) * stride) % count
        return order, order.argsort()
