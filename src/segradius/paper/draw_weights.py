"""What a pixel of a radius weighs (Eq. 10), with the radius in units of σ, and by the paper's letter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.objectives.weightings import CertifiedRadius
from segradius.paper.draw_style import COLUMN, Style, dress, named, short
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown
from segradius.report.panels import empty

#: Largest normalised radius: Φ⁻¹ of the largest smoothed probability.
TOP = 4.61
#: σ of the paper, which takes its letter's radius to TOP·σ at most.
SIGMA = 0.001
Map = NDArray[Any]


def weights_at(radius: Map, a: float, b: float, radius_unit: str = "normalised") -> Map:
    """Weights of pixels with these normalised radii, as attacks have them.

    Example:
        >>> weights_at(np.array([0.0, 2.0]), 2, -4).round(3).tolist()
        [0.982, 0.5]
    """
    unit: Any = radius_unit
    probability = torch.special.ndtr(torch.from_numpy(np.asarray(radius, dtype=np.float64)))
    found: Map = CertifiedRadius(a=a, b=b, sigma=SIGMA, radius_unit=unit).of_probability(probability).numpy()
    return found


def weights(
    measured: Measured, *, name: str, a: float = 2.0, b: float = -4.0,
    also: Mapping[str, Mapping[str, float]] | None = None, blocks: Sequence[str] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """Weight against radius (Eq. 10), with the radius in units of σ and by the paper's letter.

    Args:
        measured: Not asked: nothing of it is measured.
        name: Of its files.
        a: Slope.
        b: Offset.
        also: Further values of both, by name.
        blocks: Not asked.
        caption: Of one's own.
    """
    at = np.linspace(0, TOP, 120)
    every = {f"a = {a:g}, b = {b:g}": weights_at(at, a, b)}
    every |= {label: weights_at(at, it["a"], it["b"]) for label, it in (also or {}).items()}
    letter = f"a = {a:g}, b = {b:g}, radius not in units of σ"
    every[letter] = weights_at(at, a, b, "pixel")
    figure = empty(COLUMN, 2.4, w_pad=0.02, h_pad=0.03)
    axis = figure.subplots()
    for nth, (label, found) in enumerate(every.items()):
        style = Style.at(nth)
        axis.plot(at, found, color=style.colour, linestyle=style.dashes, linewidth=1.3, label=short(label, 46))
    dress(axis, "", "certified radius, in σ", "weight")
    axis.set(xlim=(0, TOP), ylim=(0, 1.05))
    named(figure, axis.get_legend_handles_labels()[0], columns=2)
    values = tuple(
        {"line": label, "radius": float(x), "weight": float(y)}
        for label, found in every.items() for x, y in zip(at, found, strict=True)
    )  # fmt: skip
    low, high = every[letter].min(), every[letter].max()
    said = (
        f"By the letter of Eq. 8 and 10 with σ = {SIGMA:g} a radius is at most {TOP * SIGMA:.4f}, and every weight "
        f"lies between {low:.4f} and {high:.4f}."
    )
    return Shown(name, (), figure, f"{said} {caption}".strip(), values)
