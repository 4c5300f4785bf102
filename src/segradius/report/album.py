"""Pictures of the page: images as WebP, classes and radii as exact ones that a script reads, each of them once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segradius.core.seal import readable
from segradius.core.sums import checked, sum_of
from segradius.report.attack import magnification
from segradius.report.panels import visible_bands
from segradius.report.story import Shot, Story

#: Of photographs: little is seen to be lost, and what the network saw is in the run's folder.
QUALITY = 82
#: Up to so many pixels a photograph is kept exactly, as it costs next to nothing.
SMALL = 64 * 64
#: Steps of a radius that a page tells apart.
STEPS = 63


@dataclass
class Album:
    """Pictures by what is in them, as data URIs; the same picture is kept once.

    Attributes:
        side: Longest side of a picture, in pixels.
        pictures: By key.
    """

    side: int = 320
    pictures: dict[str, str] = field(default_factory=dict)

    def add(self, story: Story, shot: Shot) -> dict[str, Any]:
        """Keep the pictures of a shot, and tell their keys.

        Args:
            story: Of the run whose gallery it is in.
            shot: The shot.

        Returns:
            Keys by what they are, what a pixel of the radius map and the perturbation is, and how much smaller the
            pictures are than the image.

        Raises:
            DamagedError: Its file is not what was written.
        """
        file = story.run.path / shot.file
        content = checked(story.run.path, shot.file)
        arrays = readable(partial(_arrays, content), file, "an image of the gallery")
        return readable(partial(self._kept, arrays), file, "an image of the gallery")

    def _kept(self, found: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        height, width = found["label"].shape
        scale = max(1.0, max(height, width) / self.side)
        size = max(1, round(width / scale)), max(1, round(height / scale))
        kept: dict[str, Any] = {"width": size[0], "height": size[1], "scale": scale}
        for name in ("clean", "adversarial"):
            kept[name] = self._photo(found[name], size)
        for name in ("label", "before", "after"):
            kept[name] = self._exact(_in_two_bytes(found[name]), size)
        delta = torch.from_numpy(found["delta"].astype(np.float32))
        factor = magnification(delta)
        seen = visible_bands(0.5 + factor * delta).expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()
        kept |= {"delta": self._photo((255 * seen).round().astype(np.uint8), size), "factor": factor}
        kept["length"] = float(delta.abs().max())
        if "radius" in found:
            radius = np.nan_to_num(found["radius"].astype(np.float32), posinf=0.0)
            top = float(radius.max()) or 1.0
            steps = (STEPS * radius.clip(0, top) / top).round().astype(np.uint8)
            kept |= {"radius": self._exact(np.repeat(steps[..., None], 3, -1), size), "top": top, "steps": STEPS}
        return kept

    def _photo(self, pixels: NDArray[np.uint8], size: tuple[int, int]) -> str:
        picture = Image.fromarray(pixels)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        return self._keep(picture, lossless=size[0] * size[1] <= SMALL)

    def _exact(self, pixels: NDArray[np.uint8], size: tuple[int, int]) -> str:
        picture = Image.fromarray(pixels)
        return self._keep(picture.resize(size, Image.Resampling.NEAREST) if picture.size != size else picture)

    def _keep(self, picture: Image.Image, *, lossless: bool = True) -> str:
        file = io.BytesIO()
        picture.save(file, format="WEBP", lossless=lossless, quality=100 if lossless else QUALITY, method=4)
        content = file.getvalue()
        key = sum_of(content)[:16]
        self.pictures[key] = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        return key


def _arrays(content: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _in_two_bytes(classes: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Classes (H, W) as red + 256 green, (H, W, 3).

    Example:
        >>> _in_two_bytes(np.array([[3, 300, -1]], dtype=np.int16)).tolist()
        [[[3, 0, 0], [44, 1, 0], [255, 255, 0]]]
    """
    whole = classes.astype(np.int16).view(np.uint16)
    return np.stack([whole & 255, whole >> 8, np.zeros_like(whole)], -1).astype(np.uint8)


def chosen(story: Story, most: int) -> list[Shot]:
    """Of each attack so many of the images that it hurt most, and of those that it hurt least, in halves.

    Args:
        story: Of a run.
        most: Images an attack.
    """
    found: list[Shot] = []
    for plan in dict.fromkeys(shot.plan for shot in story.shots):
        ranks = [[s for s in story.shots if (s.plan, s.rank) == (plan, rank)] for rank in ("most", "least")]
        hurt = ranks[0][: most - min(most // 2, len(ranks[1]))]
        found += [*hurt, *ranks[1][: most - len(hurt)]]
    return found
