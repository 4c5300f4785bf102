"""Point-wise spatial attention: every position of a map weighs every other one (Zhao et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.models.networks.resnet import STRIDE, check_count, convolution, rectified, resize

COLLECT, DISTRIBUTE, BOTH = 0, 1, 2


def pair_weights(masks: Tensor, mask: tuple[int, int]) -> Tensor:
    """What each position's mask, laid with its centre on that position, says of every position.

    Args:
        masks: (N, a·b, h, w): at each of the h·w positions, a mask of a × b values in row-major order.
        mask: (a, b), both odd. A mask of (2h - 1, 2w - 1) reaches every position from everywhere.

    Returns:
        W (N, h·w, h·w), positions in row-major order: W[n, s, t] is the value that the mask at s has over t, 0 where it
        does not reach t.

    Raises:
        InputError: If ``mask`` is not two odd numbers, or ``masks`` is not (N, a·b, h, w).

    Example:
        >>> masks = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])  # a row for each offset -1, 0, 1
        >>> pair_weights(masks.view(1, 3, 1, 3), (1, 3))[0]
        tensor([[4., 7., 0.],
                [2., 5., 8.],
                [0., 3., 6.]])
    """
    check_mask(mask)
    if masks.ndim != 4 or masks.shape[1] != mask[0] * mask[1]:
        raise InputError(
            f"masks of shape {tuple(masks.shape)}: expected (N, {mask[0] * mask[1]}, h, w) for mask={mask}"
        )
    rows, near_rows = _offsets(masks.shape[2], mask[0], masks.device)
    columns, near_columns = _offsets(masks.shape[3], mask[1], masks.device)
    chosen = _outer(rows * mask[1], columns, torch.add)
    weights = masks.flatten(2).mT.gather(2, chosen.expand(len(masks), -1, -1))
    # The largest mask reaches everything: nothing to blank, and these matrices are the largest tensors of the network.
    if mask[0] >= 2 * masks.shape[2] - 1 and mask[1] >= 2 * masks.shape[3] - 1:
        return weights
    return weights.masked_fill(~_outer(near_rows, near_columns, torch.logical_and), 0)


def collect(masks: Tensor, mask: tuple[int, int]) -> Tensor:
    """Attention maps of positions that collect: what position (r, c) takes from each position, along the channels.

    Args:
        masks: (N, a·b, h, w), as in `pair_weights`.
        mask: (a, b), both odd.

    Returns:
        (N, h·w, h, w): ``out[n, R·w + C, r, c]`` is the value that the mask at (r, c) has over (R, C).

    Raises:
        InputError: As in `pair_weights`.

    Example:
        >>> collect(torch.ones(1, 9, 2, 2), (3, 3)).sum()  # each of four positions reaches all four
        tensor(16.)
    """
    return _as_maps(pair_weights(masks, mask).mT, masks)


def distribute(masks: Tensor, mask: tuple[int, int]) -> Tensor:
    """Attention maps of positions that distribute: what position (R, C) is given by each position, along the channels.

    As matrices of h·w × h·w, these maps are the transposed ones of `collect`.

    Args:
        masks: (N, a·b, h, w), as in `pair_weights`.
        mask: (a, b), both odd.

    Returns:
        (N, h·w, h, w): ``out[n, r·w + c, R, C]`` is the value that the mask at (r, c) has over (R, C).

    Raises:
        InputError: As in `pair_weights`.

    Example:
        >>> masks = torch.rand(1, 9, 2, 2)
        >>> torch.equal(distribute(masks, (3, 3)).flatten(2), collect(masks, (3, 3)).flatten(2).mT)
        True
    """
    return _as_maps(pair_weights(masks, mask), masks)


class PointwiseSpatialAttention(nn.Module):
    """Attention whose weights are predicted for each position over a mask around it; appended to the input.

    ``collect`` gathers at a position what others hold, by that position's mask; ``distribute`` spreads what a position
    holds by its mask. Layout and names of hszhao/semseg.

    Args:
        channels: Channels that come in. A quarter of them, at least 64, go through the attention.
        psa_type: 0 collect, 1 distribute, 2 both.
        compact: Whether a mask is the map itself, position by position, rather than centred on the position that it
            belongs to. Such a network takes maps of one size.
        shrink: Factor ≥ 1 by which the sides of the map shrink before the attention.
        mask: (height, width) of the masks; both odd unless ``compact``, where they are those of the shrunk map.
        normalisation_factor: Above zero; the attended values are divided by it.
        softmax: Whether the weights that a value is composed with are normalised. Positions out of a mask's reach take
            part with weight exp(0), as they do in the public implementation.

    Raises:
        InputError: If an argument is outside its range.

    Example:
        >>> PointwiseSpatialAttention(8, mask=(5, 9)).eval()(torch.rand(2, 8, 5, 9)).shape
        torch.Size([2, 16, 5, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        psa_type: int = BOTH,
        compact: bool = False,
        shrink: int = 2,
        mask: Sequence[int] = (59, 59),
        normalisation_factor: float = 1.0,
        softmax: bool = True,
    ) -> None:
        super().__init__()
        if psa_type not in (COLLECT, DISTRIBUTE, BOTH):
            raise InputError(f"psa_type={psa_type!r}: expected 0 (collect), 1 (distribute) or 2 (both)")
        check_count("shrink", shrink)
        if not normalisation_factor > 0:
            raise InputError(f"normalisation_factor={normalisation_factor!r}: expected a number above zero")
        self.mask = check_mask(mask, odd=not compact)
        self.psa_type, self.compact, self.shrink = psa_type, compact, shrink
        self.normalisation_factor, self.softmax = normalisation_factor, softmax
        middle, size = max(64, channels // 4), self.mask[0] * self.mask[1]
        self.reduce, self.attention = _reduction(channels, middle), _attention(middle, size)
        if psa_type == BOTH:
            self.reduce_p, self.attention_p = _reduction(channels, middle), _attention(middle, size)
        self.proj = _reduction(middle * (2 if psa_type == BOTH else 1), channels)
        self.outputs = 2 * channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, 2·channels, h, w), the input first.

        Raises:
            InputError: If the attention is compact and the map does not shrink to the size of the mask.
        """
        height, width = x.shape[-2:]
        if self.compact:
            self._check_size(height, width)
        if self.psa_type == BOTH:
            collected = self._attend(self.reduce(x), self.attention, COLLECT)
            distributed = self._attend(self.reduce_p(x), self.attention_p, DISTRIBUTE)
            attended = torch.cat([collected, distributed], dim=1)
        else:
            attended = self._attend(self.reduce(x), self.attention, self.psa_type)
        return torch.cat([x, resize(self.proj(attended), height, width)], dim=1)

    def _attend(self, values: Tensor, attention: nn.Sequential, direction: int) -> Tensor:
        values = resize(values, *(self._shrunk(side) for side in values.shape[-2:]))
        masks = attention(values)
        weights = masks.flatten(2).mT if self.compact else pair_weights(masks, self.mask)
        if self.softmax:  # each composed value's weights sum to 1: over t where s collects, over s where t is given to
            weights = weights.softmax(2 if direction == COLLECT else 1)
        composed = values.flatten(2) @ (weights.mT if direction == COLLECT else weights)
        return _as_maps(composed, values) / self.normalisation_factor

    def _shrunk(self, side: int) -> int:
        return (side - 1) // self.shrink + 1

    def _check_size(self, height: int, width: int) -> None:
        if (self._shrunk(height), self._shrunk(width)) != self.mask:
            sides = [(side - 1) * self.shrink + 1 for side in self.mask]
            image = "x".join(str((side - 1) * STRIDE + 1) for side in sides)
            raise InputError(
                f"compact attention over {self.mask[0]}x{self.mask[1]} positions got a map of {height}x{width}; "
                f"expected {sides[0]}x{sides[1]} (height x width), which an image of {image} gives at stride {STRIDE}"
            )


def check_mask(mask: Sequence[int], odd: bool = True) -> tuple[int, int]:
    """(height, width) of a mask, after a check.

    Args:
        mask: Two whole numbers above zero.
        odd: Whether they must be odd, so that there is a centre.

    Raises:
        InputError: If they are not.

    Example:
        >>> check_mask([59, 59])
        (59, 59)
    """
    sides = tuple(mask)
    if len(sides) != 2 or not all(isinstance(s, int) and s > 0 and (s % 2 or not odd) for s in sides):
        kind = "odd numbers above zero, (height, width)" if odd else "whole numbers above zero, (height, width)"
        raise InputError(f"mask={sides!r}: expected two {kind}")
    return sides


def _offsets(side: int, mask: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For positions s and t along one side: t's place in the mask at s, held inside it, and whether it is inside."""
    positions = torch.arange(side, device=device)
    places = positions - positions.unsqueeze(1) + mask // 2
    held = places.clamp(0, mask - 1)
    return held, held == places


def _outer(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(h, h) and (w, w) combined to (h·w, h·w)."""
    return combine(rows[:, None, :, None], columns[None, :, None, :]).flatten(2).flatten(0, 1)


def _reduction(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*rectified(inputs, outputs))


def _attention(middle: int, size: int) -> nn.Sequential:
    return nn.Sequential(*rectified(middle, middle), convolution(middle, size, 1))


def _as_maps(flat: Tensor, like: Tensor) -> Tensor:
    """(N, C, h·w) as (N, C, h, w), h and w those of ``like``."""
    return flat.reshape(*flat.shape[:2], *like.shape[2:])
