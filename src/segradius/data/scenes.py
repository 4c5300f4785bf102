"""Procedural scenes: a data set that needs no download, the same on every machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch

from segradius.data.drawing import draw_scene
from segradius.data.sample import DATA, Classes, Sample
from segradius.errors import InputError, unknown_name

SPLITS = ("train", "val", "test")
SCENE_CLASSES = Classes(
    names=("sky", "cloud", "grass", "soil", "road", "building", "tree", "balloon"),
    palette=(
        (110, 170, 220),
        (215, 225, 235),
        (150, 170, 80),
        (190, 150, 100),
        (110, 100, 120),
        (170, 90, 70),
        (40, 120, 60),
        (240, 180, 40),
    ),
)


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
    def classes(self) -> Classes:
        """Eight classes; pixels on the borders of objects are 255."""
        return SCENE_CLASSES

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
    match = re.fullmatch(r"(\d+)x(\d+)(?:,(\d+))?", path or "120x160")
    if match is None:
        raise InputError(f"scenes:{path}: expected scenes:HEIGHTxWIDTH, such as scenes:120x160")
    height, width, length = match.groups()
    return Scenes((int(height), int(width)), int(length or 64), split or "val")
