"""A folder of drawn fluorescence micrographs with masks, as ``--data folder:PATH`` reads it.

    python studies/draw_micrographs.py --out microscopy
    segradius data check folder:microscopy --split val

For networks and attacks that were made on photographs: another kind of image, with nothing to download. A cell has a
body (green, of fibres), a nucleus (blue, of clumped chromatin, with dark nucleoli) or, where it divides, a bright plate
or a pair of plates in a rounded body. Cells crowd together and press each other flat. The microscope blurs, adds haze
from what is out of focus, lights the field unevenly, and counts photons. Specks of debris are background, though they
are as bright as what is not.

The masks have four classes; the rim along which two bodies touch is void (255), as annotators leave it. An image
depends on the seed, its part and its number alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from PIL import Image
from scipy.ndimage import gaussian_filter

import segradius as sr

CLASSES = ("background", "body", "nucleus", "dividing")
PALETTE = ((0, 0, 0), (70, 160, 70), (60, 90, 220), (230, 120, 200))
PARTS = ("train", "val", "test")
VOID = 255
#: Photons of a value of 1, and the detector's own noise in values.
PHOTONS, READ_NOISE = 160.0, 0.012

Array = np.ndarray


@dataclass(frozen=True)
class Cell:
    """A cell: where, how large, of which outline, and whether it divides; lengths in pixels.

    Attributes:
        y: Row of its middle.
        x: Column of its middle.
        radius: Of its body.
        stretch: Long axis over short axis, ≥ 1.
        angle: Of the long axis.
        waves: (K, 2) amplitude and phase of the outline's waves, of 2, 3, … a turn.
        nucleus: Radius of the nucleus over that of the body.
        offset: (2,) of the nucleus from the middle, in radii.
        dividing: 0 for a nucleus, 1 for a plate, 2 for a pair of plates.
        light: Brightness of body and nucleus.
    """

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    waves: Array
    nucleus: float
    offset: Array
    dividing: int
    light: Array


def drawn_cell(rng: np.random.Generator, y: float, x: float) -> Cell:
    """A cell at a place."""
    dividing = int(rng.choice(3, p=(0.72, 0.16, 0.12)))
    waves = np.stack([rng.normal(0, 0.09 if not dividing else 0.03, 3) / np.arange(1, 4), rng.uniform(0, 6.28, 3)], 1)
    return Cell(
        y,
        x,
        radius=rng.uniform(12, 19) if not dividing else rng.uniform(11, 14),
        stretch=rng.uniform(1, 1.6) if not dividing else rng.uniform(1, 1.15),
        angle=rng.uniform(0, np.pi),
        waves=waves,
        nucleus=rng.uniform(0.42, 0.56),
        offset=rng.normal(0, 0.1, 2) * (not dividing),
        dividing=dividing,
        light=rng.uniform((0.55, 0.65), (1.0, 1.0)),
    )


def crowd(rng: np.random.Generator, height: int, width: int) -> list[Cell]:
    """Cells whose middles keep a distance, denser in some places than in others."""
    density = gaussian_filter(rng.normal(size=(height, width)), 24, mode="wrap")
    density = 0.5 + 0.5 * np.clip(density / (np.abs(density).max() + 1e-9) + 0.35, 0, 1)
    cells: list[Cell] = []
    for _ in range(60):
        y, x = rng.uniform(-6, height + 6), rng.uniform(-6, width + 6)
        place = density[int(np.clip(y, 0, height - 1)), int(np.clip(x, 0, width - 1))]
        new = drawn_cell(rng, y, x)
        far = all(np.hypot(y - c.y, x - c.x) > 0.74 * (new.radius + c.radius) for c in cells)
        if far and rng.random() < place:
            cells.append(new)
    return cells


def depth(cell: Cell, y: Array, x: Array) -> Array:
    """How far inside the body a pixel is: 1 at its middle, 0 on its outline, below outside; (H, W)."""
    dy, dx = y - cell.y, x - cell.x
    along = (dx * np.cos(cell.angle) + dy * np.sin(cell.angle)) / np.sqrt(cell.stretch)
    across = (dy * np.cos(cell.angle) - dx * np.sin(cell.angle)) * np.sqrt(cell.stretch)
    turn = np.arctan2(across, along)
    outline = sum(a * np.cos(k * turn + phase) for k, (a, phase) in enumerate(cell.waves, 2))
    return np.asarray(1 - np.hypot(along, across) / (cell.radius * (1 + outline)))


def core(cell: Cell, y: Array, x: Array) -> Array:
    """The same of the nucleus, or of the plates where the cell divides; (H, W)."""
    if not cell.dividing:
        dy, dx = y - cell.y - cell.offset[0] * cell.radius, x - cell.x - cell.offset[1] * cell.radius
        along = (dx * np.cos(cell.angle) + dy * np.sin(cell.angle)) / cell.stretch**0.3
        across = (dy * np.cos(cell.angle) - dx * np.sin(cell.angle)) * cell.stretch**0.3
        return np.asarray(1 - np.hypot(along, across) / (cell.nucleus * cell.radius))
    apart = 0.0 if cell.dividing == 1 else 0.36 * cell.radius
    dy, dx = y - cell.y, x - cell.x
    along, across = dx * np.cos(cell.angle) + dy * np.sin(cell.angle), dy * np.cos(cell.angle) - dx * np.sin(cell.angle)
    plates = [np.hypot(along / 0.52, (across - side) / 0.21) / cell.radius for side in {-apart, apart}]
    return np.asarray(1 - np.minimum.reduce(plates))


def texture(rng: np.random.Generator, shape: tuple[int, int], *scales: float) -> Array:
    """Noise of mean 0 and deviation 1, smooth over each of some lengths in pixels; (H, W)."""
    found = sum(_unit(gaussian_filter(rng.normal(size=shape), scale, mode="wrap")) for scale in scales)
    return _unit(np.asarray(found))


def _unit(values: Array) -> Array:
    return np.asarray((values - values.mean()) / values.std())


def micrograph(seed: int, part: str, number: int, height: int = 128, width: int = 128) -> tuple[Array, Array]:
    """An image and its mask.

    Args:
        seed: Of the data set.
        part: One of `PARTS`.
        number: Of the image in its part.
        height: H in pixels.
        width: W in pixels.

    Returns:
        (H, W, 3) uint8, and (H, W) uint8 of classes, 255 where two bodies touch.

    Example:
        >>> image, mask = micrograph(0, "val", 3)
        >>> image.shape, sorted(set(mask.ravel().tolist()))
        ((128, 128, 3), [0, 1, 2, 3, 255])
    """
    rng = np.random.default_rng((seed, PARTS.index(part), number))
    y, x = np.mgrid[:height, :width].astype(float)
    cells = crowd(rng, height, width)
    depths = np.stack([depth(cell, y, x) for cell in cells] or [np.full((height, width), -9.0)])
    owner, body = depths.argmax(0), depths.max(0) > 0
    mask = np.where(body, 1, 0)
    green, blue = np.zeros((height, width)), np.zeros((height, width))
    fibres, grain = texture(rng, y.shape, 0.8, 2.5), texture(rng, y.shape, 1.3)
    for k, cell in enumerate(cells):
        own = owner == k
        d, c = depths[k], core(cell, y, x)
        inside = own & (c > 0) & (d > 0)
        mask[inside] = 3 if cell.dividing else 2
        # A body is thickest around its nucleus and thins out to a lamella; one that divides is a ball.
        thick = np.clip(d, 0, 1) ** (0.6 if not cell.dividing else 0.35)
        green += own * (d > 0) * cell.light[0] * (0.16 + 0.5 * thick) * (1 + 0.22 * fibres) * (1 - 0.35 * inside)
        if cell.dividing:
            blue += inside * cell.light[1] * (0.95 + 0.1 * grain)
        else:
            spots = rng.normal(0, 0.28 * cell.nucleus * cell.radius, (int(rng.integers(1, 4)), 2))
            dark = sum(np.exp(-((y - cell.y - a) ** 2 + (x - cell.x - b) ** 2) / 3.5) for a, b in spots)
            blue += inside * cell.light[1] * 0.52 * (1 + 0.16 * grain) * (1 - 0.45 * np.clip(dark, 0, 1))
    image = exposed(rng, green, blue)
    mask[touching(owner, body)] = VOID
    return image, mask.astype(np.uint8)


def touching(owner: Array, body: Array) -> Array:
    """Pixels of a body beside those of another; (H, W) bool.

    Args:
        owner: (H, W) whose body it would be.
        body: (H, W) bool, where there is one.
    """
    rim = np.zeros(body.shape, bool)
    for here, there in (((slice(1, None),), (slice(-1),)), ((slice(None), slice(1, None)), (slice(None), slice(-1)))):
        meet = (owner[here] != owner[there]) & body[here] & body[there]
        rim[here] |= meet
        rim[there] |= meet
    return rim


def exposed(rng: np.random.Generator, green: Array, blue: Array) -> Array:
    """What the microscope makes of two dyes, (H, W) each: (H, W, 3) uint8."""
    shape = green.shape
    y, x = (grid / max(shape) for grid in np.mgrid[: shape[0], : shape[1]])
    for _ in range(int(rng.integers(2, 8))):  # debris: specks that took either dye, or both
        cy, cx, size, bright = *rng.uniform(0, 1, 2), rng.uniform(0.7, 1.9), rng.uniform(0.3, 1.1)
        speck = bright * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) * max(shape) ** 2 / (2 * size**2))
        dye = rng.integers(3)
        green, blue = green + speck * (dye != 1), blue + speck * (dye != 0)
    # Above and below the focus the same dyes are seen as haze.
    haze = [gaussian_filter(each, 7, mode="reflect") for each in (green, blue)]
    stain = 0.02 + 0.02 * np.clip(texture(rng, shape, 14) + 1, 0, 3)
    centre = rng.uniform(0.25, 0.75, 2)
    lamp = 1.1 - 0.9 * ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) - rng.uniform(0, 0.25) * x
    blur, gain = rng.uniform(0.7, 1.15), rng.uniform(0.75, 1.05, 2)
    planes = []
    for each, out_of_focus, level in zip((green, blue), haze, gain, strict=True):
        seen = (gaussian_filter(each, blur) + 0.22 * out_of_focus + stain) * lamp * level
        counted = rng.poisson(np.clip(seen, 0, None) * PHOTONS) / PHOTONS + rng.normal(0, READ_NOISE, shape)
        planes.append(np.clip(counted, 0, 1) ** 0.8)
    green, blue = planes
    # The usual false colours, which leak: DAPI is shown a little green, and red holds what both filters let through.
    merged = np.stack([0.12 * green + 0.18 * blue, 0.9 * green + 0.22 * blue, 0.1 * green + 0.95 * blue], 2)
    return np.asarray((np.clip(merged, 0, 1) * 255).round(), np.uint8)


def write(folder: Path, parts: Mapping[str, int], seed: int = 0, height: int = 128, width: int = 128) -> None:
    """Images, masks and ``segradius.yaml``.

    Args:
        folder: Where.
        parts: Images of each of `PARTS`.
        seed: Of the data set.
        height: H in pixels.
        width: W in pixels.

    Raises:
        InputError: The folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise sr.InputError(f"{folder} is not empty; micrographs are written into a new folder")
    for part, images in parts.items():
        for kind in ("images", "masks"):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            for kind, array in zip(("images", "masks"), micrograph(seed, part, number, height, width), strict=True):
                Image.fromarray(array).save(folder / kind / part / f"{number:03d}.png")
    about = [f"classes: [{', '.join(CLASSES)}]", f"ignore_index: {VOID}", f"palette: {[list(c) for c in PALETTE]}"]
    (folder / "segradius.yaml").write_text("\n".join(about) + "\n", encoding="utf-8")


def main(out: str = "microscopy", train: int = 160, val: int = 20, test: int = 60, seed: int = 0) -> None:
    """Draw the images.

    Args:
        out: Folder, new or empty.
        train: Images of the part train.
        val: Of val.
        test: Of test.
        seed: Of the data set.
    """
    parts = dict(zip(PARTS, (train, val, test), strict=True))
    if min(parts.values()) < 0:
        raise sr.InputError(f"expected numbers of images of 0 or more, got {parts}")
    write(Path(out), parts, seed)
    print(f"{out}: {', '.join(f'{n} {part}' for part, n in parts.items())} of 128 × 128")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
