"""A picture of what the attacks did to the first images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segradius.data import Classes
from segradius.report.panels import colour_bar, colours, full_palette, grid, height, legend, panel, photo, png


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
    figure, axes = grid([height(image.image) for image in shown for _ in range(3)], columns, title)
    predicted = [m for s in shown for m in (s.prediction, *(each.prediction for each in s.attacks))]
    palette = full_palette(classes, predicted)
    ceiling = max((image.radius.max().item() for image in shown if image.radius is not None), default=0.0)
    for place, image in enumerate(shown):
        _draw_image(axes[3 * place : 3 * place + 3], image, classes, palette, ceiling or 1.0)
    legend(axes[0, -1], [*predicted, *(s.label for s in shown)], classes, palette)
    if ceiling:
        colour_bar(figure, axes[1, -1], ceiling, "radius / σ: small (dark) is easily turned")
    return png(figure)


def magnification(delta: Tensor) -> int:
    """A round factor (1, 2, 5, 10, …) that brings the 99th percentile of |δ| near, and not beyond, one half.

    Example:
        >>> import torch
        >>> magnification(torch.full((3, 4, 4), 0.004))
        100
    """
    size = np.quantile(delta.abs().cpu().numpy(), 0.99).item()
    if not size > 0:
        return 1
    wanted = max(1.0, 0.5 / size)
    power: int = 10 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9))


def _draw_image(
    axes: NDArray[np.object_], shown: Shown, classes: Classes, palette: NDArray[np.uint8], top: float
) -> None:
    ignore = classes.ignore_index
    panel(axes[0, 0], photo(shown.image), f"image {shown.name}")
    if shown.radius is not None:
        panel(axes[1, 0], shown.radius.cpu().numpy(), "radius map (score)", top)
    panel(
        axes[2, 0], colours(shown.prediction, palette, ignore), f"prediction: {_right(shown, shown.prediction, ignore)}"
    )
    panel(axes[2, -1], colours(shown.label, palette, ignore), "label")
    for column, attacked in enumerate(shown.attacks, start=1):
        delta = attacked.adversarial - shown.image
        factor = magnification(delta)
        panel(axes[0, column], photo(attacked.adversarial), f"after {attacked.title}")
        panel(axes[1, column], photo(0.5 + factor * delta), f"perturbation ×{factor}")
        painted = colours(attacked.prediction, palette, ignore)
        panel(axes[2, column], painted, f"prediction: {_right(shown, attacked.prediction, ignore)}")


def _right(shown: Shown, prediction: Tensor, ignore_index: int) -> str:
    labelled = shown.label != ignore_index
    right = (prediction == shown.label)[labelled].double().mean().item()
    return f"{100 * right:.1f} % right"
