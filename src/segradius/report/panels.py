"""Parts of pictures: class maps in colours, panels, legends; axes and colours of lines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.core import escapes
from segradius.data.sample import Classes

if TYPE_CHECKING:  # a run without pictures does without Matplotlib, which takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

VOID = (255, 255, 255)
"""Colour of void pixels: white, which palettes hardly ever give to a class."""

NOT_COUNTED = "void (not counted)"
"""Its name in legends."""

#: Of lines: dark enough on white and told apart by the colour-blind (Okabe and Ito), without the yellow.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00")

CELL = 2.1  # width of a panel, inches


def grid(heights: Sequence[float], columns: int, title: str) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of empty panels, one row for each of ``heights`` in inches, and its axes (rows, columns)."""
    figure = empty(CELL * columns, sum(heights) + 0.4, w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(escapes.figure(title), fontsize=11)
    axes = figure.subplots(len(heights), columns, squeeze=False, gridspec_kw={"height_ratios": list(heights)})
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def height(image: Tensor) -> float:
    """Height in inches of a panel with an image (…, H, W) and its title."""
    return CELL * image.shape[-2] / image.shape[-1] + 0.2


def empty(width: float, height: float, **room: Any) -> Figure:
    """A figure of this size in inches, without axes so far; ``room`` between them as constrained layout takes it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**room))
    FigureCanvasAgg(figure)
    return figure


def bare(axis: Axes) -> None:
    """Leave an axis two of its sides, small numbers and faint lines across."""
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """A figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def colours(classes_map: Tensor, palette: NDArray[np.uint8], ignore_index: int) -> NDArray[np.uint8]:
    """A class map (H, W) in colours (H, W, 3); void is white.

    Example:
        >>> palette = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
        >>> colours(torch.tensor([[1, 255]]), palette, 255).tolist()
        [[[0, 0, 255], [255, 255, 255]]]
    """
    found = classes_map.cpu().numpy()
    void = found == ignore_index
    painted: NDArray[np.uint8] = palette[np.where(void, 0, found)]
    painted[void] = VOID
    return painted


def full_palette(classes: Classes, maps: Sequence[Tensor]) -> NDArray[np.uint8]:
    """The data's palette (K, 3), lengthened where predictions ``maps`` hold classes that the data does not know."""
    needed = 1 + max(int(each.max()) for each in maps)
    known = np.array(classes.palette, dtype=np.uint8).reshape(-1, 3)
    extra = np.random.default_rng(0).integers(40, 216, (max(0, needed - len(known)), 3), dtype=np.uint8)
    return np.concatenate([known, extra])


def panel(axis: Axes, picture: NDArray[np.generic], title: str, top: float | None = None) -> None:
    """Show colours (H, W, 3), or a map (H, W) from 0 to ``top``."""
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="0.7", linewidth=0.5)
    axis.imshow(picture, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    axis.set_title(escapes.figure(title if len(title) <= 30 else f"{title[:29]}…"), fontsize=8, pad=3)


def photo(image: Tensor) -> NDArray[np.generic]:
    """An image (B, H, W) in [0, 1] as (H, W, 3); see `visible_bands`."""
    shown = visible_bands(image).expand(3, -1, -1)
    picture: NDArray[np.generic] = shown.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return picture


def visible_bands(image: Tensor) -> Tensor:
    """What can be shown of an image (B, H, W): its three first bands as red, green and blue, of two the first as grey.

    Example:
        >>> [len(visible_bands(torch.zeros(bands, 2, 2))) for bands in (1, 2, 3, 7)]
        [1, 1, 3, 3]
    """
    return image[: 3 if len(image) > 2 else 1]


def partly(image: Tensor) -> str:
    """Which bands of an image (B, H, W) are shown, for a title; nothing where all are.

    Example:
        >>> partly(torch.zeros(7, 2, 2)), partly(torch.zeros(3, 2, 2))
        (', bands 0, 1, 2 of 7', '')
    """
    shown = len(visible_bands(image))
    if shown == len(image):
        return ""
    return f", {'bands' if shown > 1 else 'band'} {', '.join(map(str, range(shown)))} of {len(image)}"


def legend(
    axis: Axes,
    maps: Sequence[Tensor],
    classes: Classes,
    palette: NDArray[np.uint8],
    extra: Sequence[Patch] = (),
    left: float = 0.0,
) -> None:
    """The classes that can be seen in ``maps``, most frequent first, as many as fit, then ``extra``.

    Args:
        axis: An empty panel.
        maps: Labels and predictions.
        classes: Names and void.
        palette: Colours (K, 3).
        extra: What else has a meaning.
        left: Where it begins, as a share of the panel's width.
    """
    seen = torch.cat([m.flatten().cpu() for m in maps])
    pixels = torch.bincount(seen[(seen != classes.ignore_index) & (seen >= 0)], minlength=1)
    order = [index for index in pixels.argsort(descending=True).tolist() if pixels[index]][:12]
    names = [classes.names[i] if i < len(classes.names) else f"class {i}" for i in order]
    patches = [swatch(palette[i], name) for i, name in zip(order, names, strict=True)]
    if bool((seen == classes.ignore_index).any()):
        patches.append(swatch(VOID, NOT_COUNTED))
    patches += extra
    columns = 1 + (len(patches) > 7)
    axis.legend(
        handles=patches, loc="center left", bbox_to_anchor=(left, 0.5), fontsize=7, frameon=False, ncols=columns
    )


def swatch(colour: Sequence[int] | NDArray[np.uint8], name: str, **style: Any) -> Patch:
    """What a colour of 0–255 means, for a legend; ``style`` as a patch of Matplotlib takes it."""
    from matplotlib.patches import Patch

    return Patch(**{"facecolor": rgb(colour), "edgecolor": "0.7", "label": escapes.figure(name)} | style)


def rgb(colour: Sequence[int] | NDArray[np.uint8]) -> tuple[float, float, float]:
    """A colour of 0–255 as matplotlib takes it."""
    red, green, blue = (int(part) / 255 for part in colour)
    return red, green, blue


def colour_bar(figure: Figure, axis: Axes, ceiling: float, label: str, *, upright: bool = False) -> None:
    """A bar of the colours of maps from 0 to ``ceiling``: lying in an empty panel, or upright at its left edge."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    inset = axis.inset_axes((0.01, 0.1, 0.06, 0.8) if upright else (0.05, 0.55, 0.9, 0.12))
    way = "vertical" if upright else "horizontal"
    bar = figure.colorbar(ScalarMappable(Normalize(0, ceiling), "viridis"), cax=inset, orientation=way)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(label, fontsize=7)
