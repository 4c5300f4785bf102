"""Procedural street scenes: sky, ground and road, then objects from far to near, each drawn from its own seed.

Lengths are in units of the image height; y runs down from 0 to 1, x from 0 to the aspect ratio.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.core.errors import InputError, unknown_name
from segradius.data.sample import DATA, Classes, Sample

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")
SKY, CLOUD, GRASS, SOIL, ROAD, BUILDING, TREE, BALLOON = range(8)
VOID = 255
# Walls share colours with clouds, soil and leaves, leaves with soil and brick: colour alone does not tell the class.
_WALLS = (
    (0.62, 0.36, 0.28),
    (0.6, 0.58, 0.56),
    (0.78, 0.7, 0.55),
    (0.45, 0.5, 0.62),
    (0.5, 0.45, 0.28),
    (0.34, 0.42, 0.26),
)
_PANES = ((0.2, 0.24, 0.32), (0.92, 0.85, 0.55))
_LEAVES = (
    (0.16, 0.36, 0.16),
    (0.26, 0.45, 0.16),
    (0.36, 0.5, 0.22),
    (0.62, 0.36, 0.16),
    (0.14, 0.3, 0.24),
    (0.55, 0.52, 0.5),
)


@dataclass
class Canvas:
    """A picture being painted, with the label and the instance number of what is seen at each pixel."""

    height: int
    y: Array
    x: Array
    pixels: Array
    label: Ints
    instance: Ints

    def paint(self, distance: Array, colour: Array, label: int, instance: int = 0) -> None:
        """Cover where the signed ``distance`` to a shape's edge is negative, blending over one pixel at the edge."""
        cover = np.clip(0.5 - distance * self.height, 0, 1)[..., None]
        self.pixels[:] = (1 - cover) * self.pixels + cover * colour
        inside = distance < 0
        self.label[inside] = label
        self.instance[inside] = instance

    def window(self, y: float, x: float, tall: float, wide: float) -> Canvas:
        """The part within ``tall`` above or below and ``wide`` beside (y, x); painting it paints this canvas."""
        rows, columns = (
            slice(max(0, int((at - by) * self.height)), max(0, int((at + by) * self.height) + 2))
            for at, by in ((y, tall), (x, wide))
        )
        part = rows, columns
        layers = self.pixels[part], self.label[part], self.instance[part]
        return Canvas(self.height, self.y[part], self.x[part], *layers)


def draw_scene(rng: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.uint8], Ints]:
    """Draw one scene.

    Args:
        rng: Where every choice comes from.
        height: Pixels.
        width: Pixels.

    Returns:
        Pixels (H, W, 3), uint8, and labels (H, W), int64, with 255 on the borders of objects.
    """
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / height, indexing="ij")
    shape = (height, width)
    canvas = Canvas(height, y, x, np.zeros((*shape, 3)), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    horizon = _land(rng, canvas, width / height)
    _objects(rng, canvas, horizon, width / height)
    light = _between(rng, (0.82, 0.8, 0.82), (1.08, 1.02, 1.0))
    pixels = canvas.pixels * light + 0.03 * rng.standard_normal((*shape, 3))
    return (pixels.clip(0, 1) * 255).round().astype(np.uint8), _with_borders(canvas)


def smooth_noise(rng: np.random.Generator, y: Array, x: Array, cells: int, octaves: int = 3) -> Array:
    """Value noise in [0, 1] at (y, x): ``octaves`` layers, each twice as fine and half as strong."""
    total = np.zeros(np.broadcast_shapes(y.shape, x.shape))
    for octave in range(octaves):
        grid = rng.random((64, 64))
        scale = cells * 2**octave
        total += _lattice(grid, y * scale, x * scale) / 2**octave
    return total / (2 - 2.0 ** (1 - octaves))


def _lattice(grid: Array, v: Array, u: Array) -> Array:
    """The grid's values, periodic, blended smoothly between its points."""
    top, left = np.floor(v).astype(int), np.floor(u).astype(int)
    fy, fx = (f * f * (3 - 2 * f) for f in (v - top, u - left))
    size = len(grid)
    corner = [[grid[(top + i) % size, (left + j) % size] for j in (0, 1)] for i in (0, 1)]
    upper, lower = (row[0] * (1 - fx) + row[1] * fx for row in corner)
    return np.asarray(upper * (1 - fy) + lower * fy)


def _land(rng: np.random.Generator, canvas: Canvas, aspect: float) -> Array:
    """Sky, clouds, soil, grass and road; gives the height of the horizon at every column, shape (1, W)."""
    y, x = canvas.y, canvas.x
    top, low = _between(rng, (0.2, 0.35, 0.6), (0.45, 0.6, 0.9)), _between(rng, (0.7, 0.6, 0.55), (0.98, 0.88, 0.85))
    clouds = (smooth_noise(rng, y * 1.6, x, 3) * 2.6 - 1.0).clip(0, 0.85)
    white = _between(rng, (0.7, 0.7, 0.72), (0.98, 0.97, 0.97))
    canvas.pixels[:] = _blend(_blend(top, low, (y / 0.6).clip(0, 1)), white, clouds)
    canvas.label[:] = np.where(clouds > 0.3, CLOUD, SKY)
    level = rng.uniform(0.42, 0.58)
    horizon = level + 0.12 * (smooth_noise(rng, np.zeros((1, 1)), x[:1], 3, 2) - 0.5)
    dry, lush = _between(rng, (0.45, 0.4, 0.2), (0.7, 0.58, 0.35)), _between(rng, (0.22, 0.4, 0.14), (0.42, 0.58, 0.26))
    patches, grain = smooth_noise(rng, y * 3, x, 4), smooth_noise(rng, y * 2, x, 24, 2)
    growth = (2 * patches - 0.5).clip(0, 1)
    colour = (_blend(dry, lush, growth) + 0.12 * (grain - 0.5)[..., None]) * (0.75 + 0.35 * y[..., None])
    canvas.paint(horizon - y, colour, SOIL)
    canvas.label[(y > horizon) & (growth > 0.5)] = GRASS
    _road(rng, canvas, horizon, aspect, (dry + lush) / 2)
    return horizon


def _road(rng: np.random.Generator, canvas: Canvas, horizon: Array, aspect: float, soil: Array) -> None:
    """A road of asphalt or nearly of the soil's colour, narrowing to the horizon, often with a dashed line."""
    depth = ((canvas.y - horizon) / (1 - horizon)).clip(0, 1)
    far, near, bend = rng.uniform(0.2, 0.8) * aspect, rng.uniform(0.2, 0.8) * aspect, rng.uniform(-0.2, 0.2)
    centre = far + (near - far) * depth + bend * np.sin(np.pi * depth)
    half = 0.01 + rng.uniform(0.15, 0.32) * depth
    asphalt = _between(rng, (0.34, 0.33, 0.34), (0.55, 0.52, 0.5))
    base = asphalt + rng.choice((0.0, 0.35, 0.8)) * (soil - asphalt)
    colour = base * (0.85 + 0.3 * smooth_noise(rng, canvas.y, canvas.x, 16, 2))[..., None]
    dashes = (np.abs(canvas.x - centre) < 0.06 * half) & (np.log(depth + 0.05) * 5 % 1 < 0.55)
    dashes &= rng.random() < 0.7
    canvas.paint(
        np.maximum(np.abs(canvas.x - centre) - half, horizon - canvas.y),
        np.where(dashes[..., None], 0.88, colour),
        ROAD,
    )


def _objects(rng: np.random.Generator, canvas: Canvas, horizon: Array, aspect: float) -> None:
    """Buildings and trees from far to near, then perhaps a balloon."""
    feet = np.sort(rng.random(int(rng.integers(8, 17)))) ** 1.5
    for number, foot in enumerate(feet, start=1):
        draw = _building if rng.random() < 0.45 else _tree
        x = rng.random() * aspect
        ground = float(np.interp(x, canvas.x[0], horizon[0]))
        draw(rng, canvas, x, ground + 0.015 + 0.33 * float(foot), 0.55 + 0.85 * float(foot), number)
    if rng.random() < 0.6:
        _balloon(rng, canvas, rng.uniform(0.15, 0.85) * aspect, rng.uniform(0.12, 0.4), len(feet) + 1)


def _building(rng: np.random.Generator, canvas: Canvas, x: float, foot: float, scale: float, number: int) -> None:
    width, height = rng.uniform(0.07, 0.16) * scale, rng.uniform(0.18, 0.42) * scale
    part = canvas.window(foot - height / 2, x, height, 2 * width)
    u, v = (part.x - x) / width, (foot - part.y) / height
    wall = np.array(_pick(rng, _WALLS))
    pane = _pick(rng, (np.array(_PANES[0]), np.array(_PANES[1]), wall * 0.8))
    across, up = (int(n) for n in rng.integers((2, 3), (5, 8)))
    windows = _pick(rng, (_windows, _bands, _stripes, _windows))(u * across, v * up)
    shade = (0.82 + 0.3 * (u > rng.uniform(-0.6, 0.6)))[..., None]
    distance = np.maximum(np.maximum(np.abs(part.x - x) - width, part.y - foot), foot - height - part.y)
    part.paint(distance, np.where(windows[..., None], pane, wall * shade), BUILDING, number)


def _windows(u: Array, v: Array) -> NDArray[np.bool_]:
    return _bands(u, v) & (np.abs(u % 1 - 0.5) < 0.26)


def _bands(u: Array, v: Array) -> NDArray[np.bool_]:
    return np.asarray(np.abs(v % 1 - 0.5) < 0.26)


def _stripes(u: Array, v: Array) -> NDArray[np.bool_]:
    return _bands(v, u)


def _tree(rng: np.random.Generator, canvas: Canvas, x: float, foot: float, scale: float, number: int) -> None:
    radius, height = rng.uniform(0.05, 0.11) * scale, rng.uniform(0.12, 0.24) * scale
    part = canvas.window(foot - height / 2, x, height / 2 + 3 * radius, 2 * radius)
    leaf, texture = np.array(_pick(rng, _LEAVES)), smooth_noise(rng, part.y * 2, part.x * 2, 12, 3)
    trunk = np.maximum(np.abs(part.x - x) - 0.14 * radius, np.abs(part.y - foot + height / 2) - height / 2)
    part.paint(trunk, np.array((0.32, 0.23, 0.17)) * (0.7 + 0.6 * texture)[..., None], TREE, number)
    dy, dx = (part.y - foot + height) / rng.uniform(1.0, 1.7), part.x - x
    lit = (1.0 - 0.5 * (dx + dy) / radius).clip(0.6, 1.4) * (0.45 + 1.1 * texture)
    part.paint(np.hypot(dy, dx) - radius * (0.7 + 0.6 * texture), leaf * lit[..., None], TREE, number)


def _balloon(rng: np.random.Generator, canvas: Canvas, x: float, y: float, number: int) -> None:
    radius = rng.uniform(0.05, 0.1)
    part = canvas.window(y, x, 2 * radius, 1.2 * radius)
    first, second = _between(rng, (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)), _between(rng, (0.4, 0.3, 0.2), (1.0, 1.0, 1.0))
    dy, dx = part.y - y, part.x - x
    bulge = np.sqrt(np.clip(1 - (dy / (1.3 * radius)) ** 2, 0.02, 1))
    gores, rings = np.floor(np.arcsin((dx / (radius * bulge)).clip(-1, 1)) * 2), np.floor(dy / radius * 3)
    pattern = _pick(rng, (gores, gores + rings, rings))
    shade = (1.0 - 0.35 * dx / radius)[..., None].clip(0.6, 1.3)
    basket = np.maximum(np.abs(dx) - 0.22 * radius, np.abs(dy - 1.65 * radius) - 0.18 * radius)
    body = np.hypot(dx, dy / np.where(dy > 0, 1.3, 1.0)) - radius
    colour = np.where((pattern % 2 == 0)[..., None], first, second) * shade
    colour = np.where((basket < body)[..., None], (0.4, 0.28, 0.16), colour)
    part.paint(np.minimum(body, basket), colour, BALLOON, number)


def _with_borders(canvas: Canvas) -> Ints:
    """The labels, with void where an object meets anything else, about 1/120 of the height wide."""
    objects = np.where(canvas.label >= BUILDING, canvas.instance, 0)
    edge = np.zeros(objects.shape, dtype=bool)
    for reach in range(1, max(1, round(len(objects) / 240)) + 1):
        for axis in (0, 1):
            ahead = np.moveaxis(edge, axis, 0), np.moveaxis(objects, axis, 0)
            differs = ahead[1][reach:] != ahead[1][:-reach]
            ahead[0][reach:] |= differs
            ahead[0][:-reach] |= differs
    return np.where(edge, VOID, canvas.label)


def _between(rng: np.random.Generator, low: tuple[float, ...], high: tuple[float, ...]) -> Array:
    """A colour between two, each channel on its own."""
    return np.asarray(np.array(low) + (np.array(high) - np.array(low)) * rng.random(3))


def _blend(first: Array, second: Array, share: Array) -> Array:
    return np.asarray(first * (1 - share[..., None]) + second * share[..., None])


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


SPLITS = ("train", "val", "test")
_COLOURS = {
    "sky": (110, 170, 220),
    "cloud": (215, 225, 235),
    "grass": (150, 170, 80),
    "soil": (190, 150, 100),
    "road": (110, 100, 120),
    "building": (170, 90, 70),
    "tree": (40, 120, 60),
    "balloon": (240, 180, 40),
}
SCENE_CLASSES = Classes(tuple(_COLOURS), tuple(_COLOURS.values()))


@dataclass(frozen=True)
class Scenes:
    """Drawn landscapes with textured, overlapping objects, a rare class and thin void borders.

    Sample i depends on (seed, split, i) alone and shows the same scene at every size. Colours overlap between classes,
    so texture, shape and place matter; clouds and grass fade into sky and soil, so no network is right everywhere.
    Pixel values are multiples of 1/255.

    Args:
        size: (height, width), each at least 16.
        length: How many samples; any number.
        split: ``train``, ``val`` or ``test``: streams that share no scene.
        seed: Seed of all streams.

    Raises:
        InputError: A size, length or split out of range.

    Example:
        >>> data = Scenes((48, 64), length=1000, split="train")
        >>> data[999].id, tuple(data[999].image.shape), data.classes.names[7]
        ('train-00999', (3, 48, 64), 'balloon')
    """

    classes: ClassVar[Classes] = SCENE_CLASSES
    thread_safe: ClassVar[bool] = True

    size: tuple[int, int] = (120, 160)
    length: int = 64
    split: str = "val"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.size) < 16:
            raise InputError(f"scenes of size {self.size[0]}×{self.size[1]}: both sides must be at least 16")
        if self.length < 1 or self.seed < 0:
            raise InputError(f"scenes: length {self.length} must be at least 1 and seed {self.seed} at least 0")
        if self.split not in SPLITS:
            raise unknown_name("scenes split", self.split, SPLITS)

    @property
    def name(self) -> str:
        """Scenes and split."""
        return f"scenes/{self.split}"

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every sample."""
        return tuple(self._id(index) for index in range(self.length))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        index = range(self.length)[index]
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        pixels, label = draw_scene(rng, *self.size)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)
        return Sample(self._id(index), image, torch.from_numpy(label))

    def _id(self, index: int) -> str:
        return f"{self.split}-{index:05d}"


@DATA.register("scenes")
def scenes(path: str, split: str | None = None) -> Scenes:
    """Procedural scenes, 8 classes, 64 of them: ``scenes`` or ``scenes:HEIGHTxWIDTH``; nothing to download.

    Args:
        path: Size as ``HEIGHTxWIDTH``, 120x160 where empty; ``HEIGHTxWIDTH,LENGTH`` gives another number of scenes.
        split: ``train``, ``val`` (default) or ``test``.

    Raises:
        InputError: The size or split is not understood.
    """
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})(?:,(\d{1,6}))?", path or "120x160")
    if match is None:
        raise InputError(f"scenes:{path}: expected scenes:HEIGHTxWIDTH, such as scenes:120x160")
    height, width, length = match.groups()
    return Scenes((int(height), int(width)), int(length or 64), split or "val")
