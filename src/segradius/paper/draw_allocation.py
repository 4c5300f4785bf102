"""Figure 5: where attacks perturb, by the certified radius of pixels, over several images, with a paired test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.errors import unknown_name
from segradius.paper.draw_data import Line
from segradius.paper.draw_maps import label_of
from segradius.paper.draw_rows import interval_of
from segradius.paper.draw_style import PAGE, SMALL, Style, dress, named, short, wrapped
from segradius.paper.draw_words import told
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells
from segradius.report.panels import empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What is told of an image, in words.
STATISTICS: Mapping[str, str] = {
    "radius_by_size": "mean radius weighted by |δ|, by the plain mean",
    "radius_by_square": "mean radius weighted by |δ|², by the plain mean",
    "small_half": "share of Σ|δ|² on the half of the pixels with the least radius",
    "small_fifth": "share of Σ|δ|² on the fifth of the pixels with the least radius",
    "spearman": "rank correlation of |δ| and radius",
    "spearman_known": "rank correlation of |δ| and radius, labelled pixels",
}
#: In the table; the others are in the CSV file.
TABLED = ("radius_by_size", "small_half", "spearman")


@dataclass(frozen=True)
class Allocation:
    """What a network's block found.

    Attributes:
        network: As the block found it: label, data, images, bins.
        rows: One for each attack, likewise: statistics, differences, and the values of each image.
        quantiles: Which of |δ| each bin has.
    """

    network: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    quantiles: Sequence[float]

    @property
    def attacks(self) -> list[str]:
        """Their names."""
        return [str(row["attack"]) for row in self.rows]

    @property
    def edges(self) -> list[float]:
        """Of the bins, as shares of the pixels, the least radius first."""
        pixels = self.network["bins"]["pixels"]
        return [0.0, *(each / sum(pixels) for each in accumulate(pixels))]

    def density(self, attack: str) -> list[float]:
        """Share of Σ|δ|² in each bin by its share of the pixels; 1 is even."""
        shares, pixels = self.network["bins"]["attacks"][attack]["share"], self.network["bins"]["pixels"]
        return [
            float("nan") if share is None or not n else share * sum(pixels) / n
            for share, n in zip(shares, pixels, strict=True)
        ]

    def lengths(self, attack: str) -> NDArray[np.float64]:
        """Quantiles of |δ| in each bin, (bins, quantiles)."""
        return np.array(self.network["bins"]["attacks"][attack]["quantiles"], dtype=np.float64)


def allocation(
    measured: Measured, *, name: str, network: str = "", statistic: str = "radius_by_size",
    blocks: Sequence[str] | None = None, caption: str = "",
) -> Shown:  # fmt: skip
    """Perturbation against radius: how dense and how long in bins of the radius, and a statistic of each image.

    Args:
        measured: What was measured.
        name: Of its files.
        network: Label of the network; the first unless given.
        statistic: Of `STATISTICS`, in the last panel and tested in the caption.
        blocks: Whose findings; None for all.
        caption: Of one's own.
    """
    if statistic not in STATISTICS:
        raise unknown_name("statistic", statistic, STATISTICS)
    mine = [it for block, it in measured.computed.items() if blocks is None or block in blocks]
    if not mine:
        return nothing(name, "it was not computed")
    by_label = {label_of(each): each for each in mine[0]["networks"]}
    if network and network not in by_label:
        raise unknown_name("network", network, by_label)
    label = network or next(iter(by_label))
    rows = [row for row in mine[0]["rows"] if label_of(row) == label]
    it = Allocation(by_label[label], rows, mine[0]["quantiles"])
    figure = empty(PAGE, 2.6, w_pad=0.03, h_pad=0.02, wspace=0.03)
    axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 0.9]})
    _density(axes[0], it)
    _lengths(axes[1], it)
    _paired(axes[2], it, statistic)
    named(figure, [_handle(Style.at(k), attack) for k, attack in enumerate(it.attacks)])
    said = _told(it, mine[0], statistic, caption)
    return Shown(name, (_table(it),), figure, said, tuple(_values(it)))


def _density(axis: Axes, it: Allocation) -> None:
    edges = 100 * np.array(it.edges)
    for nth, attack in enumerate(it.attacks):
        style, values = Style.at(nth), np.array(it.density(attack))
        axis.stairs(values, edges, color=style.colour, linestyle=style.dashes, linewidth=1.3, baseline=None)
        axis.plot(_middles(edges), values, style.marker, color=style.colour, markersize=3)
    axis.axhline(1, color="0.4", linewidth=0.6)
    axis.set(xlim=(0, 100), ylim=(0, None))
    dress(axis, "", "pixels, least radius first, %", "|δ|² by its mean")
    _radii(axis, it)


def _middles(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
    return middles


def _radii(axis: Axes, it: Allocation) -> None:
    """The radius at some edges of bins, above the axis."""
    at, radii = 100 * np.array(it.edges), it.network["bins"]["edges"]
    kept = [place for place in range(len(at)) if place % max(1, len(at) // 5) == 0]
    above = axis.secondary_xaxis("top")
    above.set_xticks([at[place] for place in kept], [f"{radii[place]:.2g}" for place in kept])
    above.tick_params(labelsize=6, length=2, width=0.5, pad=1)
    above.spines["top"].set_linewidth(0.5)
    above.set_xlabel("certified radius, in σ", fontsize=SMALL, labelpad=2)


def _lengths(axis: Axes, it: Allocation) -> None:
    edges = 100 * np.array(it.edges)
    middle = min(range(len(it.quantiles)), key=lambda k: abs(it.quantiles[k] - 0.5))
    low, high = (min(range(len(it.quantiles)), key=lambda k: abs(it.quantiles[k] - part)) for part in (0.25, 0.75))
    wide = np.diff(edges)
    for nth, attack in enumerate(it.attacks):
        style, parts = Style.at(nth), it.lengths(attack)
        at = _middles(edges) + (nth - (len(it.attacks) - 1) / 2) * wide * 0.24
        axis.vlines(at, parts[:, low], parts[:, high], color=style.colour, linewidth=1.6, alpha=0.8)
        axis.plot(at, parts[:, middle], linestyle="none", marker=style.marker, color=style.colour, markersize=3)
    axis.set(xlim=(0, 100), ylim=(0, None))
    dress(axis, "", "pixels, least radius first, %", "|δ|: median, quartiles")
    _radii(axis, it)


def _paired(axis: Axes, it: Allocation, statistic: str) -> None:
    """The statistic of each image under each attack, joined."""
    every = np.array([row["each"][statistic] for row in it.rows], dtype=np.float64)
    axis.plot(range(len(every)), every, color="0.75", linewidth=0.7)
    for nth in range(len(every)):
        style = Style.at(nth)
        look: dict[str, Any] = {
            "color": style.colour,
            "markersize": 3.4,
            "alpha": 0.85,
            "linestyle": "none",
            "marker": style.marker,
        }
        axis.plot(np.full(every.shape[1], nth), every[nth], **look)
    even = {"radius": 1.0, "small": 0.5 if statistic == "small_half" else 0.2, "spearman": 0.0}
    axis.axhline(even[statistic.partition("_")[0]], color="0.4", linewidth=0.6, linestyle=(0, (3, 2)))
    axis.set_xticks(range(len(every)), [wrapped(each, 10) for each in it.attacks])
    axis.set_xlim(-0.4, len(every) - 0.6)
    dress(axis, "", "", "")
    axis.set_ylabel(wrapped(STATISTICS[statistic], 30), fontsize=SMALL, labelpad=2)
    axis.set_title("each image", fontsize=SMALL, pad=4)


def _handle(style: Style, name: str) -> Any:
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "marker": style.marker}
    return Line2D([], [], linewidth=1.2, markersize=3, label=short(name), **look)


def _table(it: Allocation) -> Cells:
    header = ["attack"]
    for statistic in TABLED:
        header += [STATISTICS[statistic], f"minus {it.attacks[0]}"]
    body = []
    for nth, row in enumerate(it.rows):
        line = [str(row["attack"])]
        for statistic in TABLED:
            line += [_ends(row[statistic]), _ends(row["difference"][statistic], "+") if nth else ""]
        body.append(line)
    return Cells(f"Where it is perturbed, {len(it.network['images'])} images", header, body)


def _ends(value: Any, sign: str = "") -> str:
    found = interval_of(value)
    if found is None or found.value != found.value:
        return "–"
    ends = "" if found.low != found.low else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return f"{found.value:{sign}.3f}{ends}"


def _values(it: Allocation) -> Iterator[Line]:
    for row in it.rows:
        attack = str(row["attack"])
        for place, image in enumerate(it.network["images"]):
            yield {"attack": attack, "image": image} | {key: row["each"][key][place] for key in STATISTICS}
        radii, shares = it.network["bins"]["edges"], it.edges
        for k, (density, lengths) in enumerate(zip(it.density(attack), it.lengths(attack), strict=True)):
            bin_ = {"radius_from": radii[k], "radius_to": radii[k + 1], "pixels_from": shares[k]}
            quantiles = {f"length_q{100 * q:g}": float(x) for q, x in zip(it.quantiles, lengths, strict=True)}
            yield {"attack": attack, **bin_, "pixels_to": shares[k + 1], "density": density, **quantiles}


def _told(it: Allocation, found: Mapping[str, Any], statistic: str, caption: str) -> str:
    where = f"{label_of(it.network)}, {told(it.network.get('data'), 'data')}, {len(it.network['images'])} images"
    budget = f"{told(found.get('norm'), 'norm')}, ε = {told(found.get('eps'))}"
    said = [
        f"{where}; {budget}. |δ| is the length of the perturbation of a pixel over its bands; pixels of all images are "
        "sorted by the radius that they have unattacked, those with the same radius in one bin."
    ]
    for row in it.rows[1:]:
        gap = row["difference"][statistic]
        p = gap.get("p_value")
        test = "" if p is None or p != p else f", p = {p:.3g} (flipped signs of images)"
        words = STATISTICS[statistic]
        said.append(f"{words[0].upper()}{words[1:]}, {row['attack']} minus {it.attacks[0]}: {_ends(gap, '+')}{test}.")
    return " ".join([*said, caption]).strip()
