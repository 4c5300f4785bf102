"""Masks in pictures: a colour a class, or what is asked with yes or no laid over the image, so that overlaps show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segradius.core.label_sets import to_masks
from segradius.data.sample import Classes
from segradius.report.panels import NOT_COUNTED, VOID, colours, full_palette, legend, photo, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

#: Of structures in their order: told apart on grey, also by the colour-blind (Okabe and Ito, and a brown).
STRUCTURES = (
    (0, 158, 115),
    (240, 228, 66),
    (86, 180, 233),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
    (230, 159, 0),
    (120, 60, 20),
)

#: How much of a pixel of a mask is its colour, the rest being the image.
FILL = 0.45


@dataclass(frozen=True, eq=False)
class Painter:
    """How masks of one picture are painted.

    Attributes:
        classes: Names, palette, void.
        palette: Colours (K, 3) of all classes that are in the picture.
        asked: Names of what is asked with yes or no; empty where each pixel has the colour of its class.
    """

    classes: Classes
    palette: NDArray[np.uint8]
    asked: tuple[str, ...]

    @classmethod
    def of(cls, classes: Classes, maps: Sequence[Tensor]) -> Painter:
        """For the predictions ``maps`` of a picture; of more classes than the data have each has a colour."""
        maps = [each.masked_fill(each == classes.ignore_index, 0) for each in maps]
        most = max((int(each.max()) for each in maps), default=0)
        return cls(classes, full_palette(classes, maps), classes.foreground if most < len(classes) else ())

    def paint(self, image: Tensor, found: Tensor) -> NDArray[np.uint8]:
        """Classes (H, W) of an image (B, H, W) as colours (H, W, 3); void is white, what is below 0 no class."""
        if not self.asked:
            return colours(found, self.palette, self.classes.ignore_index)
        return overlay(image, self.masks(found), found == self.classes.ignore_index)

    def masks(self, found: Tensor) -> Tensor:
        """Yes/no maps (K, H, W) from classes (H, W)."""
        known = found.masked_fill((found == self.classes.ignore_index) | (found < 0), 0)
        return to_masks(known, len(self.asked))

    def legend(self, axis: Axes, maps: Sequence[Tensor], extra: Sequence[Patch] = (), left: float = 0.0) -> None:
        """What the colours mean, in an empty panel; see `segradius.report.panels.legend`."""
        if not self.asked:
            legend(axis, maps, self.classes, self.palette, extra, left)
            return
        patches = self.patches
        if any(bool((each == self.classes.ignore_index).any()) for each in maps):
            patches.append(swatch(VOID, NOT_COUNTED))
        every, columns = [*patches, *extra], 1 + (len(patches) > 7)
        axis.legend(
            handles=every, loc="center left", bbox_to_anchor=(left, 0.5), fontsize=7, frameon=False, ncols=columns
        )

    @property
    def patches(self) -> list[Patch]:
        """One for each structure, or the foreground."""
        return [swatch(colour, name) for name, colour in zip(self.asked, STRUCTURES, strict=False)]


def overlay(image: Tensor, masks: Tensor, void: Tensor | None = None) -> NDArray[np.uint8]:
    """An image (B, H, W) in [0, 1] in grey, with masks (K, H, W) bool over it, as colours (H, W, 3).

    Where masks overlap the colours are mixed, and each has its outline in its own colour.

    Example:
        >>> import torch
        >>> masks = torch.zeros(1, 3, 3, dtype=torch.bool)
        >>> masks[0, 1, 1] = True
        >>> overlay(torch.ones(3, 3, 3), masks)[1].tolist()
        [[255, 255, 255], [0, 158, 115], [255, 255, 255]]
    """
    grey = photo(image.mean(0, keepdim=True).expand(3, -1, -1)).astype(np.float64) * 255
    inside = masks.cpu().numpy()
    known = np.array(STRUCTURES[: len(inside)], dtype=np.float64)
    number = inside.sum(0)[..., None]
    mixed = np.einsum("khw,kc->hwc", inside.astype(np.float64), known) / np.maximum(number, 1)
    painted = np.where(number > 0, (1 - FILL) * grey + FILL * mixed, grey)
    for outline, colour in zip(outlines(masks).cpu().numpy(), known, strict=True):
        painted[outline] = colour
    if void is not None:
        painted[void.cpu().numpy()] = VOID
    return painted.round().astype(np.uint8)


def outlines(masks: Tensor) -> Tensor:
    """Pixels of masks (K, H, W) with one beside them that is outside, (K, H, W) bool, as wide as the picture asks.

    Example:
        >>> import torch
        >>> outlines(torch.ones(1, 3, 3, dtype=torch.bool)).any().item()  # the edge of the image is no outline
        False
    """
    wide = max(1, min(masks.shape[-2:]) // 150)
    outside = (~masks).float().unsqueeze(0)
    near = functional.max_pool2d(outside, 2 * wide + 1, stride=1, padding=wide)[0] > 0
    return near & masks
