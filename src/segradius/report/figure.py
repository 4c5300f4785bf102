"""A picture of what the attacks did to the first images."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from segradius.data import Classes

VOID = (255, 255, 255)
"""Colour of void pixels: white, which palettes hardly ever give to a class."""

_CELL = 2.1  # width of a panel, inches


@dataclass(frozen=True)
class Attacked:
    """One attack's work on an image: its title, the adversarial image (3, H, W) and the prediction (H, W) for it."""

    title: str
    adversarial: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class Shown:
    """One image (3, H, W) with label, prediction and radius map or None, each (H, W), and what attacks did to it."""

    name: str
    image: Tensor
    label: Tensor
    prediction: Tensor
    radius: Tensor | None
    attacks: tuple[Attacked, ...]


def draw(shown: Sequence[Shown], classes: Classes, title: str) -> bytes:
    """A PNG with three rows of panels for each image: images, where it is weak and what was added, predictions.

    The left column is before any attack, then one column for each attack, and the label at the right.

    Args:
        shown: The images, all with the same attacks.
        classes: Names and palette; more predicted classes than names get colours of their own.
        title: Heading.
    """
    columns = len(shown[0].attacks) + 2
    heights = [_CELL * image.image.shape[1] / image.image.shape[2] + 0.2 for image in shown]
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=(_CELL * columns, 3 * sum(heights) + 0.4), layout=layout)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    ratios = [height for height in heights for _ in range(3)]
    axes = figure.subplots(3 * len(shown), columns, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for axis in axes.flat:
        axis.set_axis_off()
    palette = full_palette(classes, shown)
    ceiling = max((image.radius.max().item() for image in shown if image.radius is not None), default=0.0)
    for place, image in enumerate(shown):
        _draw_image(axes[3 * place : 3 * place + 3], image, classes, palette, ceiling or 1.0)
    _legend(axes[0, -1], shown, classes, palette)
    if ceiling:
        _colour_bar(figure, axes[1, -1], ceiling)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
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


def magnification(delta: Tensor) -> int:
    """A round factor (1, 2, 5, 10, …) that brings the 99th percentile of |δ| near, and not beyond, one half.

    Example:
        >>> magnification(torch.full((3, 4, 4), 0.004))
        100
    """
    size = np.quantile(delta.abs().cpu().numpy(), 0.99).item()
    if not size > 0:
        return 1
    wanted = max(1.0, 0.5 / size)
    power: int = 10 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9))


def full_palette(classes: Classes, shown: Sequence[Shown]) -> NDArray[np.uint8]:
    """The data's palette (K, 3), lengthened where a model predicts classes that the data does not know."""
    predicted = [p for image in shown for p in (image.prediction, *(each.prediction for each in image.attacks))]
    needed = 1 + max(int(p.max()) for p in predicted)
    known = np.array(classes.palette, dtype=np.uint8).reshape(-1, 3)
    extra = np.random.default_rng(0).integers(40, 216, (max(0, needed - len(known)), 3), dtype=np.uint8)
    return np.concatenate([known, extra])


def _draw_image(
    axes: NDArray[np.object_], shown: Shown, classes: Classes, palette: NDArray[np.uint8], top: float
) -> None:
    ignore = classes.ignore_index
    _panel(axes[0, 0], _photo(shown.image), f"image {shown.name}")
    if shown.radius is not None:
        _panel(axes[1, 0], shown.radius.cpu().numpy(), "radius map (score)", top)
    _panel(
        axes[2, 0], colours(shown.prediction, palette, ignore), f"prediction: {_right(shown, shown.prediction, ignore)}"
    )
    _panel(axes[2, -1], colours(shown.label, palette, ignore), "label")
    for column, attacked in enumerate(shown.attacks, start=1):
        delta = attacked.adversarial - shown.image
        factor = magnification(delta)
        _panel(axes[0, column], _photo(attacked.adversarial), f"after {attacked.title}")
        _panel(axes[1, column], _photo(0.5 + factor * delta), f"perturbation ×{factor}")
        painted = colours(attacked.prediction, palette, ignore)
        _panel(axes[2, column], painted, f"prediction: {_right(shown, attacked.prediction, ignore)}")


def _panel(axis: Axes, picture: NDArray[np.generic], title: str, top: float | None = None) -> None:
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="0.7", linewidth=0.5)
    axis.imshow(picture, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    axis.set_title(title if len(title) <= 30 else f"{title[:29]}…", fontsize=8, pad=3)


def _photo(image: Tensor) -> NDArray[np.generic]:
    picture: NDArray[np.generic] = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return picture


def _right(shown: Shown, prediction: Tensor, ignore_index: int) -> str:
    labelled = shown.label != ignore_index
    right = (prediction == shown.label)[labelled].double().mean().item()
    return f"{100 * right:.1f} % right"


def _legend(axis: Axes, shown: Sequence[Shown], classes: Classes, palette: NDArray[np.uint8]) -> None:
    """The classes that can be seen, most frequent first, as many as fit."""
    maps = [m for s in shown for m in (s.label, s.prediction, *(each.prediction for each in s.attacks))]
    seen = torch.cat([m.flatten().cpu() for m in maps])
    pixels = torch.bincount(seen[seen != classes.ignore_index], minlength=1)
    order = [index for index in pixels.argsort(descending=True).tolist() if pixels[index]][:12]
    names = [classes.names[i] if i < len(classes.names) else f"class {i}" for i in order]
    patches = [
        Patch(facecolor=_rgb(palette[i]), edgecolor="0.7", label=name) for i, name in zip(order, names, strict=True)
    ]
    if any(bool((s.label == classes.ignore_index).any()) for s in shown):
        patches.append(Patch(facecolor=_rgb(VOID), edgecolor="0.7", label="void (not counted)"))
    axis.legend(handles=patches, loc="center left", fontsize=7, frameon=False, ncols=1 + (len(patches) > 7))


def _rgb(colour: Sequence[int] | NDArray[np.uint8]) -> tuple[float, float, float]:
    red, green, blue = (int(part) / 255 for part in colour)
    return red, green, blue


def _colour_bar(figure: Figure, axis: Axes, ceiling: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    inset = axis.inset_axes((0.05, 0.55, 0.9, 0.12))
    bar = figure.colorbar(ScalarMappable(Normalize(0, ceiling), "viridis"), cax=inset, orientation="horizontal")
    bar.ax.tick_params(labelsize=6)
    bar.set_label("radius / σ: small (dark) is easily turned", fontsize=7)
