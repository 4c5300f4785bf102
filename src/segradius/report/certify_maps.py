"""Certified classes as pictures: colours with abstained pixels hatched, beside image, label and prediction."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segradius.certification.certificate import ABSTAIN
from segradius.certification.certifiers import Hierarchy
from segradius.data.sample import Classes
from segradius.report.figures import GIVEN, Words
from segradius.report.overlay import Painter
from segradius.report.panels import (
    VOID,
    colour_bar,
    grid,
    height,
    panel,
    partly,
    photo,
    png,
    rgb,
    swatch,
)  # fmt: skip

_STRIPE = (150, 150, 150)


@dataclass(frozen=True, eq=False)
class Certified:
    """One image with what is said of it.

    Attributes:
        name: Its id.
        image: (B, H, W).
        label: (H, W).
        base: (H, W) the model's prediction.
        classes: (H, W) certified classes, `ABSTAIN` elsewhere.
        level: (H, W) how coarse a group was certified; None for single classes.
        radius: (H, W); None for certificates that have none.
        share: Share of the labelled pixels that are right, of the model and certified.
        own: Whether the radii are each pixel's own, a certificate beside that of the classes.
        detected: (H, W) classes whose change would be detected, `ABSTAIN` elsewhere; None where ``classes`` are all.
    """

    name: str
    image: Tensor
    label: Tensor
    base: Tensor
    classes: Tensor
    level: Tensor | None
    radius: Tensor | None
    share: tuple[float, float]
    own: bool = False
    detected: Tensor | None = None


def draw_certified(
    shown: Sequence[Certified], classes: Classes, title: str, hierarchy: Hierarchy | None, said: Words = GIVEN
) -> bytes:
    """A PNG with a row for each image: image, label, the model's prediction, certified classes, radius map.

    Args:
        shown: At least one.
        classes: Names and palette.
        title: Heading.
        hierarchy: Groups of classes; None for single classes.
        said: What labels, and pixels that agree with them, are called.
    """
    ceiling = max((float(each.radius.max()) for each in shown if each.radius is not None), default=-1.0)
    figure, axes = grid([height(each.image) for each in shown], 6, title)
    painter = Painter.of(classes, [m for each in shown for m in (each.base, each.classes)])

    def painted(each: Certified, found: Tensor) -> NDArray[np.uint8]:
        if painter.asked and hierarchy is None:
            colours = painter.paint(each.image, found)
            colours[(found == ABSTAIN).numpy()] = VOID
        else:
            colours = certified_colours(found, painter.palette, each.level, hierarchy)
        stripes(colours, found == ABSTAIN)
        return colours

    for row, each in zip(axes, shown, strict=True):
        base, certified = (f"{100 * share:.1f} % {said.right}" for share in each.share)
        panel(row[0], photo(each.image), f"image {each.name}{partly(each.image)}")
        panel(row[1], painter.paint(each.image, each.label), said.label)
        panel(row[2], painter.paint(each.image, each.base), f"model: {base}")
        panel(row[3], painted(each, each.classes), f"certified: {certified}")
        if each.radius is not None:
            panel(row[4], each.radius.numpy(), "own radii" if each.own else "radius", ceiling or 1.0)
        elif each.detected is not None:
            panel(row[4], painted(each, each.detected), "a change is detected")
    abstained = swatch(VOID, "abstained", edgecolor=rgb(_STRIPE), hatch="////")
    maps = [m for each in shown for m in (each.label, each.base, each.classes)]
    painter.legend(axes[0, -1], maps, [abstained], left=0.4)
    if ceiling >= 0:
        colour_bar(figure, axes[0, -1], ceiling or 1.0, "certified radius, l2", upright=True)
    return png(figure)


def certified_colours(
    found: Tensor, palette: NDArray[np.uint8], level: Tensor | None = None, hierarchy: Hierarchy | None = None
) -> NDArray[np.uint8]:
    """Certified classes (H, W) in colours (H, W, 3), abstained pixels white, a group in the mean of its colours.

    Example:
        >>> palette = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
        >>> certified_colours(torch.tensor([[1, ABSTAIN]]), palette).tolist()
        [[[0, 0, 255], [255, 255, 255]]]
    """
    index = found.clamp_min(0).numpy()
    if hierarchy is None or level is None:
        painted: NDArray[np.uint8] = palette[index]
    else:
        painted = group_colours(palette, hierarchy)[level.numpy(), index]
    painted[(found == ABSTAIN).numpy()] = VOID
    return painted


def group_colours(palette: NDArray[np.uint8], hierarchy: Hierarchy) -> NDArray[np.uint8]:
    """For each level the colour of each class's group, (L, C, 3): the mean of its classes'."""
    groups = torch.tensor(hierarchy.levels)
    same = (groups.unsqueeze(1) == groups.unsqueeze(2)).double().numpy()
    known = palette[: same.shape[1]].astype(np.float64)
    mean: NDArray[np.uint8] = (same @ known / same.sum(2, keepdims=True)).round().astype(np.uint8)
    return mean


def stripes(painted: NDArray[np.uint8], where: Tensor) -> None:
    """Hatch the pixels ``where`` of colours (H, W, 3), in place."""
    rows, columns = np.indices(painted.shape[:2])
    period = max(4, painted.shape[0] // 20)
    painted[where.numpy() & ((rows + columns) % period < max(1, period // 4))] = _STRIPE


def map_png(found: Tensor, palette: NDArray[np.uint8], level: Tensor | None, hierarchy: Hierarchy | None) -> bytes:
    """Certified classes (H, W) as a PNG in the data's colours, abstained pixels white."""
    file = io.BytesIO()
    Image.fromarray(certified_colours(found, palette, level, hierarchy)).save(file, format="PNG")
    return file.getvalue()
