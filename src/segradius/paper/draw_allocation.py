"""Figure 5: where attacks perturb, by the certified radius of pixels, over several images, with a paired test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.core.errors import InputError
from segradius.metrics.intervals import Difference, Interval, jackknife, paired_difference
from segradius.paper.draw_data import Line
from segradius.paper.draw_maps import arrays_of, rank_correlation
from segradius.paper.draw_style import PAGE, SMALL, Style, dress, named, short, wrapped
from segradius.paper.draw_weights import TOP
from segradius.paper.draw_words import told
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells
from segradius.report.panels import empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Map = NDArray[Any]
BINS = 10


@dataclass(frozen=True, eq=False)
class Allocation:
    """Radii and perturbations of several images.

    Attributes:
        attacks: Their names.
        images: Their ids.
        radius: (N, pixels), normalised, of the unattacked images.
        perturbation: (attacks, N, pixels): length of δ over bands.
    """

    attacks: tuple[str, ...]
    images: tuple[str, ...]
    radius: Map
    perturbation: Map

    def mean_radius(self, nth: int) -> Map:
        """Mean radius weighted by |δ|, of each image (N,): what the pixels that are perturbed have."""
        delta = self.perturbation[nth]
        with np.errstate(invalid="ignore"):
            found: Map = (delta * self.radius).sum(1) / delta.sum(1)
        return found

    def spearman(self, nth: int) -> Map:
        """Rank correlation of |δ| and the radius, of each image (N,)."""
        return np.array([rank_correlation(*each) for each in zip(self.perturbation[nth], self.radius, strict=True)])

    @property
    def edges(self) -> Map:
        """Of bins of equal width, from 0 to the largest radius."""
        return np.linspace(0, TOP, BINS + 1)

    @property
    def bins(self) -> Map:
        """Bin of each pixel, (N, pixels)."""
        found: Map = np.clip(np.digitize(self.radius, self.edges[1:-1]), 0, BINS - 1)
        return found

    def density(self, nth: int) -> list[Interval]:
        """Mean |δ| of the pixels of each bin by that of all, over the images, with intervals; 1 is even."""
        delta, bins = self.perturbation[nth], self.bins
        found = []
        for k in range(BINS):
            inside = bins == k
            parts = np.stack(
                [(delta * inside).sum(1), inside.sum(1), delta.sum(1), np.full(len(delta), delta.shape[1])], 1
            )
            found.append(_ratio_of_means(parts) if inside.any() else Interval(*(3 * [float("nan")])))
        return found

    def quartiles(self, nth: int) -> Map:
        """Quartiles of |δ| by its mean over the image, in each bin, (BINS, 3); NaN of an empty bin."""
        mean = self.perturbation[nth].mean(1, keepdims=True)
        share = self.perturbation[nth] / np.where(mean > 0, mean, 1)
        parts = [share[self.bins == k] for k in range(BINS)]
        return np.array([np.quantile(part, (0.25, 0.5, 0.75)) if part.size else np.full(3, np.nan) for part in parts])


def _ratio_of_means(parts: Map) -> Interval:
    stacked = torch.from_numpy(parts.astype(np.float64))
    return jackknife(stacked, lambda sums: sums[..., 0] / sums[..., 1] * sums[..., 3] / sums[..., 2], shares=False)


def allocation(measured: Measured, *, name: str, blocks: Sequence[str] | None = None, caption: str = "") -> Shown:
    """Perturbation against radius: mean and quartiles by bins of the radius, and the mean radius of each image.

    Args:
        measured: What was measured.
        name: Of its files.
        blocks: Whose findings; None for all.
        caption: Of one's own.
    """
    mine = [(block, it) for block, it in measured.computed.items() if blocks is None or block in blocks]
    if not mine:
        return nothing(name, "it was not computed")
    block, found = mine[0]
    it = read(measured, block, found)
    figure = empty(PAGE, 2.35, w_pad=0.03, h_pad=0.02, wspace=0.03)
    axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 0.9]})
    _density(axes[0], it)
    _quartiles(axes[1], it)
    _paired(axes[2], it)
    named(figure, [_handle(Style.at(k), attack) for k, attack in enumerate(it.attacks)])
    gaps = {attack: _gap(it, k) for k, attack in enumerate(it.attacks[1:], 1)}
    return Shown(name, (_table(it, gaps),), figure, _told(it, found, gaps, caption), tuple(_values(it)))


def read(measured: Measured, block: str, found: Mapping[str, Any]) -> Allocation:
    """What a computed block left.

    Raises:
        InputError: Its arrays are not there, or not of one shape.
    """
    held = arrays_of(measured, block, found, ("radius", "perturbation"))
    radius, delta = held["radius"], held["perturbation"]
    if delta.shape[1:] != radius.shape or len(delta) != len(found["attacks"]):
        raise InputError(f"{block}: perturbations of shape {delta.shape}; expected (attacks, *{radius.shape})")
    attacks, images = tuple(map(str, found["attacks"])), tuple(map(str, found["images"]))
    return Allocation(attacks, images, radius.reshape(len(radius), -1), delta.reshape(*delta.shape[:2], -1))


def _gap(it: Allocation, nth: int) -> Difference:
    return paired_difference(torch.from_numpy(it.mean_radius(nth)), torch.from_numpy(it.mean_radius(0)))


def _middles(it: Allocation) -> Map:
    middles: Map = (it.edges[1:] + it.edges[:-1]) / 2
    return middles


def _density(axis: Axes, it: Allocation) -> None:
    shares = np.bincount(it.bins.ravel(), minlength=BINS) / it.bins.size
    axis.bar(_middles(it), shares, TOP / BINS * 0.94, color="0.87", zorder=0)
    for nth in range(len(it.attacks)):
        style, bands = Style.at(nth), np.array([[each.low, each.value, each.high] for each in it.density(nth)])
        known = ~np.isnan(bands[:, 1])
        at = _middles(it)[known]
        axis.fill_between(at, bands[known, 0], bands[known, 2], color=style.colour, alpha=0.15, linewidth=0)
        look = {"color": style.colour, "linestyle": style.dashes, "marker": style.marker}
        axis.plot(at, bands[known, 1], linewidth=1.2, markersize=3, **look)
    axis.axhline(1, color="0.4", linewidth=0.6)
    axis.set(xlim=(0, TOP), ylim=(0, None))
    dress(axis, "mean |δ|", "certified radius, in σ", "by the mean of all pixels")


def _quartiles(axis: Axes, it: Allocation) -> None:
    wide = TOP / BINS
    for nth in range(len(it.attacks)):
        style, parts = Style.at(nth), it.quartiles(nth)
        known = ~np.isnan(parts[:, 1])
        at = _middles(it)[known] + (nth - (len(it.attacks) - 1) / 2) * wide * 0.24
        low, middle, high = parts[known].T
        axis.vlines(at, low, high, color=style.colour, linewidth=1.6, alpha=0.8)
        axis.plot(at, middle, linestyle="none", marker=style.marker, color=style.colour, markersize=3)
    axis.set(xlim=(0, TOP), ylim=(0, None))
    dress(axis, "|δ|: median, quartiles", "certified radius, in σ", "by the mean of all pixels")


def _paired(axis: Axes, it: Allocation) -> None:
    """Each image's mean radius under each attack, joined; the line of all pixels alike for comparison."""
    every = np.array([it.mean_radius(nth) for nth in range(len(it.attacks))])
    axis.plot(range(len(every)), every, color="0.75", linewidth=0.7)
    for nth in range(len(every)):
        style = Style.at(nth)
        axis.plot(
            np.full(every.shape[1], nth), every[nth], style.marker, color=style.colour, markersize=3.4, alpha=0.85
        )
    axis.axhline(float(it.radius.mean()), color="0.4", linewidth=0.6, linestyle=(0, (3, 2)))
    axis.set_xticks(range(len(every)), [wrapped(each, 10) for each in it.attacks])
    axis.set_xlim(-0.4, len(every) - 0.6)
    dress(axis, "each image", "", "mean radius, by |δ|")
    axis.tick_params(axis="x", labelsize=SMALL)


def _handle(style: Style, name: str) -> Any:
    from matplotlib.lines import Line2D

    look = {"color": style.colour, "linestyle": style.dashes, "marker": style.marker}
    return Line2D([], [], linewidth=1.2, markersize=3, label=short(name), **look)


def _table(it: Allocation, gaps: Mapping[str, Difference]) -> Cells:
    header = ("attack", "mean radius, by |δ|", "rank correlation of |δ| and radius", f"minus {it.attacks[0]}", "p")
    body = []
    for nth, attack in enumerate(it.attacks):
        gap = gaps.get(attack)
        said = ["", ""] if gap is None else [_ends(gap.mean, gap.low, gap.high, "+"), f"{gap.p_value:.3g}"]
        body.append([attack, _mean(it.mean_radius(nth)), _mean(it.spearman(nth)), *said])
    return Cells(f"Where it is perturbed, {len(it.images)} images", header, body)


def _mean(values: Map) -> str:
    known = torch.from_numpy(values[~np.isnan(values)].astype(np.float64))
    parts = torch.stack([known, torch.ones_like(known)], 1)
    found = jackknife(parts, lambda sums: sums[..., 0] / sums[..., 1], shares=False)
    return _ends(found.value, found.low, found.high)


def _ends(value: float, low: float, high: float, sign: str = "") -> str:
    if value != value:
        return "–"
    return f"{value:{sign}.3f}" if low != low else f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _values(it: Allocation) -> Iterator[Line]:
    edges = it.edges
    for nth, attack in enumerate(it.attacks):
        every = zip(it.images, it.mean_radius(nth), it.spearman(nth), strict=True)
        yield from (
            {"attack": attack, "image": image, "mean_radius": float(mean), "spearman": float(rank)}
            for image, mean, rank in every
        )
        for k, (mean, parts) in enumerate(zip(it.density(nth), it.quartiles(nth), strict=True)):
            bin_ = {"attack": attack, "from": float(edges[k]), "to": float(edges[k + 1])}
            quartiles = dict(zip(("lower_quartile", "median", "upper_quartile"), map(float, parts), strict=True))
            yield {**bin_, "density": mean.value, "low": mean.low, "high": mean.high, **quartiles}


def _told(it: Allocation, found: Mapping[str, Any], gaps: Mapping[str, Difference], caption: str) -> str:
    where = f"{found.get('network', 'the network')}, {found.get('data', '')}"
    budget = f"{told(found.get('norm'), 'norm')}, ε = {told(found.get('eps'))}"
    said = [
        f"{where}, {len(it.images)} images; {budget}. |δ| is the length of the perturbation of a pixel over its bands, "
        "by its mean over the image; the radius is that of the unattacked image. Bands: 95 % intervals over images. "
        "Grey: share of the pixels. Dashed: mean radius of all pixels."
    ]
    for attack, gap in gaps.items():
        ends = _ends(gap.mean, gap.low, gap.high, "+")
        said.append(
            f"Mean radius weighted by |δ|, {attack} minus {it.attacks[0]}: {ends}, p = {gap.p_value:.3g} "
            "(flipped signs of images)."
        )
    return " ".join([*said, caption]).strip()
