"""Grey 16-bit images of cells as a microscope gives them, with masks of 0 and 255; and a U-Net with one channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

#: What the detector counts at most.
TOP = 40000


def cells(seed: int, side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """An image (side, side) uint16 with bright discs on an uneven, noisy ground, and where the discs are, bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    inside = np.zeros((side, side), dtype=bool)
    for _ in range(3):
        cy, cx, r = rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.2)
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    values = 0.25 + 0.1 * x + 0.4 * inside + rng.normal(0, 0.06, inside.shape)
    return (values.clip(0, 1) * TOP).astype(np.uint16), inside


def write(folder: Path, parts: dict[str, int], side: int = 32) -> Path:
    """A folder of such images in sub-folders of ``images`` and ``masks``, so many in each part, with its YAML."""
    seed = 0
    for part, number in parts.items():
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for place in range(number):
            image, inside = cells(seed := seed + 1, side)
            tifffile.imwrite(folder / "images" / part / f"{place:03d}.tif", image)
            Image.fromarray(inside.astype(np.uint8) * 255).save(folder / "masks" / part / f"{place:03d}.png")
    (folder / "segradius.yaml").write_text(
        f"classes: [background, cell]\nvalues: [0, 255]\nbands: 1\nrange: [0, {TOP}]\n"
    )
    return folder


#: Structures that overlap, by what of an image (side, side) they are.
STRUCTURES = ("cell", "left", "bright")


def write_structures(folder: Path, parts: dict[str, int], side: int = 32) -> Path:
    """The same images with three structures that overlap, one mask file each."""
    write(folder, parts, side)
    for file in sorted((folder / "masks").rglob("*.png")):
        part, inside = file.parent.name, np.asarray(Image.open(file)) > 0
        image = tifffile.imread(folder / "images" / part / f"{file.stem}.tif")
        maps = inside, np.broadcast_to(np.arange(side) < side // 2, inside.shape), image > 0.55 * TOP
        for name, mask in zip(STRUCTURES, maps, strict=True):
            (folder / "masks" / name / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / name / part / file.name)
        file.unlink()
    (folder / "segradius.yaml").write_text(
        f"structures: [{', '.join(STRUCTURES)}]\nmasks: 'masks/{{structure}}/{{split}}'\nimages: 'images/{{split}}'\n"
        f"bands: 1\nrange: [0, {TOP}]\n"
    )
    return folder


class UNet(nn.Module):
    """One level down and up again: from (N, bands, H, W) to the logits (N, outputs, H, W) of yes."""

    def __init__(self, bands: int = 1, outputs: int = 1, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(bands, width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(3 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 1))

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images)
        coarse = self.deep(functional.max_pool2d(fine, 2))
        return self.head(torch.cat([fine, functional.interpolate(coarse, size=fine.shape[-2:])], 1))
