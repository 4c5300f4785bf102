"""Where random directions live: every value of the image, tiles of equal values, or low frequencies.

A set of directions is a linear map from coordinates, (…, N, c, h, w), to images, (…, N, B, H, W). Its columns are
orthogonal, and orthonormal for exponent ½, so that an unbiased estimate in coordinates, lifted, is an unbiased estimate
of P∇L, the orthogonal projection of the gradient on the subspace. Fewer coordinates n' mean less variance (n' times
‖P∇L‖² for `TPGE`) and the loss of what lies outside the subspace.

On tiles, a column with exponent e is 1 on its tile, divided by (pixels of the tile)ᵉ. A point drawn on the lp sphere in
coordinates and lifted with e = 1/p lies on the lp sphere of images; its estimate has to be lifted with the dual
exponent, 1 − 1/p.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import torch
from torch import Tensor

from segradius.core.declared import Share, Side, check_fields
from segradius.core.errors import InputError, unknown_name
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry
from segradius.core.text import number


class Directions(Protocol):
    """A subspace of images with orthogonal coordinates: a frozen dataclass with this base."""

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Shape (c, h, w) of the coordinates of an image of ``shape`` (B, H, W)."""

    def lift(
        self, values: Tensor, shape: Sequence[int], exponent: float, randomness: Randomness, step: int = 0
    ) -> Tensor:
        """Images from coordinates.

        Args:
            values: Coordinates, (…, N, c, h, w).
            shape: (B, H, W) of an image.
            exponent: In [0, 1]; see the module. Matters to tiles alone.
            randomness: Keys of the N images, for directions that change from round to round.
            step: The round.

        Returns:
            (…, N, B, H, W).
        """

    def unit(self, places: Tensor, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """The image of one coordinate, of length 1 in l2: that at place (N,) of the flat grid; like images ``like``."""
        return self.lift(_one_hot(self, places, like), like.shape[1:], 0.5, randomness, step)


DIRECTIONS: Registry[type[Directions]] = Registry("set of directions")


def dimension(directions: Directions, shape: Sequence[int]) -> int:
    """Dimension n' of the subspace for images of ``shape`` (B, H, W).

    Example:
        >>> dimension(Tiles(8), (3, 20, 24)), dimension(Pixel(), (3, 20, 24))
        (27, 1440)
    """
    return math.prod(directions.grid(shape))


@DIRECTIONS.register("pixel")
@dataclass(frozen=True)
class Pixel(Directions):
    """Every value of the image is a coordinate, n' = BHW; the paper's choice.

    Example:
        >>> Pixel().grid((3, 4, 5))
        (3, 4, 5)
    """

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape of the image."""
        channels, height, width = shape
        return channels, height, width

    def lift(
        self, values: Tensor, shape: Sequence[int], exponent: float, randomness: Randomness, step: int = 0
    ) -> Tensor:
        """The coordinates themselves, not a copy."""
        return values


@DIRECTIONS.register("tiles")
@dataclass(frozen=True)
class Tiles(Directions):
    """Equal values on squares of side × side pixels, for each channel; n' = B·⌈H/side⌉·⌈W/side⌉.

    Tiles at the right and lower border are cut where the side does not divide the image's.

    Args:
        side: Side of a tile in pixels, at least 1.

    Example:
        >>> values = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
        >>> Tiles(2).lift(values, (1, 2, 3), 0.0, Randomness(0, ("a",))).tolist()
        [[[[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]]]
    """

    side: Side = 8

    def __post_init__(self) -> None:
        check_fields(self)

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Tiles along each side of the image."""
        return _tiles(shape, self.side)

    def lift(
        self, values: Tensor, shape: Sequence[int], exponent: float, randomness: Randomness, step: int = 0
    ) -> Tensor:
        """Each coordinate on its tile, over (pixels of the tile)^exponent."""
        rows, columns = (torch.arange(length, device=values.device) // self.side for length in shape[1:])
        scaled = values * _tile_sizes(values, shape, self.side).pow_(-exponent)
        return scaled.index_select(-2, rows).index_select(-1, columns)


@DIRECTIONS.register("shifted_tiles")
@dataclass(frozen=True)
class ShiftedTiles(Directions):
    """Tiles whose grid is moved by a random offset in every round, so that no edge of a tile stays in place.

    The grid is moved around the image's borders: what it pushes out on one side comes in on the other. So a tile that
    crosses a border goes on at the opposite one, and n' is that of `Tiles` in every round.

    Args:
        side: Side of a tile in pixels, at least 1.

    Example:
        >>> values = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
        >>> ShiftedTiles(2).lift(values, (1, 1, 4), 0.0, Randomness(0, ("a",)), step=1).tolist()
        [[[[1.0, 2.0, 2.0, 1.0]]]]
    """

    side: Side = 8

    def __post_init__(self) -> None:
        check_fields(self)

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Tiles along each side of the image."""
        return _tiles(shape, self.side)

    def lift(
        self, values: Tensor, shape: Sequence[int], exponent: float, randomness: Randomness, step: int = 0
    ) -> Tensor:
        """Each coordinate on its tile of this round, over (pixels of the tile)^exponent."""
        scaled = values * _tile_sizes(values, shape, self.side).pow_(-exponent)
        for axis, length, purpose in ((-2, shape[1], "tile rows"), (-1, shape[2], "tile columns")):
            offset = randomness.integers(self.side, purpose, step).to(values.device, non_blocking=True)
            tile = (torch.arange(length, device=values.device) + offset.unsqueeze(1)) % length // self.side
            place = tile.view(-1, 1, *((length, 1) if axis == -2 else (1, length)))
            sizes = list(scaled.shape)
            sizes[axis] = length
            scaled = scaled.gather(axis, place.expand(sizes))
        return scaled


@DIRECTIONS.register("dct")
@dataclass(frozen=True)
class Dct(Directions):
    """The lowest frequencies of the cosine transform (DCT-II, orthonormal); n' = B·⌈fH⌉·⌈fW⌉.

    For p ≠ 2 the lp sphere is that of the coefficients, and ‖u‖_p of the image is not 1.

    Args:
        fraction: Part f of the frequencies along each side, in (0, 1].

    Example:
        >>> values = torch.tensor([2.0]).view(1, 1, 1, 1)  # the mean
        >>> Dct(0.25).lift(values, (1, 1, 4), 0.5, Randomness(0, ("a",))).tolist()
        [[[[1.0, 1.0, 1.0, 1.0]]]]
    """

    fraction: Share = 0.125

    def __post_init__(self) -> None:
        check_fields(self)

    def grid(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Frequencies along each side of the image."""
        channels, height, width = shape
        return channels, math.ceil(self.fraction * height), math.ceil(self.fraction * width)

    def lift(
        self, values: Tensor, shape: Sequence[int], exponent: float, randomness: Randomness, step: int = 0
    ) -> Tensor:
        """The inverse transform."""
        rows, columns = (
            _cosines(length, count, values.dtype, values.device)
            for length, count in zip(shape[1:], values.shape[-2:], strict=True)
        )
        return rows @ values @ columns.T

    def unit(self, places: Tensor, like: Tensor, randomness: Randomness, step: int = 0) -> Tensor:
        """One wave, the product of its two cosines."""
        channels, height, width = self.grid(like.shape[1:])
        rows, columns = (
            _cosines(length, count, like.dtype, like.device)
            for length, count in zip(like.shape[2:], (height, width), strict=True)
        )
        across, down = rows[:, places // width % height].T, columns[:, places % width].T
        own = places.unsqueeze(1) // (height * width) == torch.arange(channels, device=places.device)
        return torch.where(own[..., None, None], (across.unsqueeze(2) * down.unsqueeze(1)).unsqueeze(1), 0)


def walk(size: int, randomness: Randomness, purpose: str) -> tuple[Tensor, Tensor]:
    """A random order of ``size`` places for each image that needs no list of them; on the CPU.

    The place at turn t is (start + stride · t) mod size; every place has its turn, as stride and size have no factor in
    common.

    Args:
        size: At least 1.
        randomness: Keys of the N images.
        purpose: What the order is for.

    Returns:
        Start and stride, (N,) int64 each.

    Example:
        >>> start, stride = walk(5, Randomness(0, ("a",)), "example")
        >>> sorted((int(start) + int(stride) * t) % 5 for t in range(5))
        [0, 1, 2, 3, 4]
    """
    start = randomness.integers(size, f"{purpose} start")
    drawn = randomness.integers(size, f"{purpose} stride").tolist()
    return start, torch.tensor([coprime(each, size) for each in drawn])


def coprime(value: int, size: int) -> int:
    """The next number from ``value`` on that shares no factor with ``size``.

    Example:
        >>> [coprime(value, 12) for value in (0, 2, 4)]
        [1, 5, 5]
    """
    return next(n for n in count(value) if math.gcd(n, size) == 1)


@dataclass(frozen=True)
class Units:
    """Images of single coordinates, each made when it is looked at, so that k of them take k numbers an image.

    Attributes:
        directions: Whose coordinates.
        places: (k, N) places in their flat grid.
        like: (N, B, H, W) images of the shape, type and device that are wanted.
        randomness: Keys of the N images.
        step: The round.

    Example:
        >>> units = Units(Pixel(), torch.tensor([[0], [2]]), torch.zeros(1, 3, 1, 1), Randomness(0, ("a",)))
        >>> len(units), units[1:].flatten().tolist()
        (2, [0.0, 0.0, 1.0])
    """

    directions: Directions
    places: Tensor
    like: Tensor
    randomness: Randomness
    step: int = 0

    @property
    def dimension(self) -> int:
        """Number of coordinates n'."""
        return dimension(self.directions, self.like.shape[1:])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: slice, /) -> Tensor:
        """Those at places in a row, (k, N, B, H, W)."""
        each = [self.directions.unit(where, self.like, self.randomness, self.step) for where in self.places[place]]
        return each[0].unsqueeze(0) if len(each) == 1 else torch.stack(each)


def _one_hot(directions: Directions, places: Tensor, like: Tensor) -> Tensor:
    """Coordinates (N, c, h, w) that are 1 at place (N,) and 0 elsewhere."""
    grid = directions.grid(like.shape[1:])
    flat = like.new_zeros(len(places), math.prod(grid)).scatter_(1, places.unsqueeze(1), 1.0)
    return flat.view(-1, *grid)


def _tiles(shape: Sequence[int], side: int) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, math.ceil(height / side), math.ceil(width / side)


def _tile_sizes(values: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """Pixels of each tile, (h, w)."""
    rows, columns = (
        (length - side * torch.arange(count, dtype=values.dtype, device=values.device)).clamp_(max=side)
        for length, count in zip(shape[1:], values.shape[-2:], strict=True)
    )
    return torch.outer(rows, columns)


# A few hundred kilobytes each; a batch of one size needs two.
@functools.lru_cache(maxsize=16)
def _cosines(length: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The first ``count`` columns of the orthonormal DCT-II basis of ``length`` values, (length, count)."""
    place = torch.arange(length, dtype=torch.float64).unsqueeze(1) + 0.5
    basis = (place * torch.arange(count, dtype=torch.float64) * (math.pi / length)).cos_() * math.sqrt(2 / length)
    basis[:, 0] = math.sqrt(1 / length)
    return basis.to(device=device, dtype=dtype)


def parse_directions(text: str) -> Directions:
    """Directions from ``"pixel"``, ``"tiles:16"``, ``"shifted_tiles:16"`` or ``"dct:0.125"``.

    Raises:
        InputError: For an unknown name or a number that does not fit.

    Example:
        >>> parse_directions("tiles:2"), parse_directions("dct:1/8")
        (Tiles(side=2), Dct(fraction=0.125))
    """
    name, colon, value = text.partition(":")
    if name not in DIRECTIONS:
        raise unknown_name("set of directions", name, DIRECTIONS)
    kind: Callable[..., Directions] = DIRECTIONS[name]
    if not colon:
        return kind()
    given = number(f"the number of directions {text!r}", value)
    try:
        return kind(int(given) if given.is_integer() and name != "dct" else given)
    except TypeError as error:
        raise InputError(
            f"directions {text!r}: {error}; expected pixel, tiles:16, shifted_tiles:16 or dct:1/8"
        ) from error
