"""Figure 1: one image, its radii, what attacks do to it, and what a network makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segradius.core import escapes
from segradius.core.errors import InputError, unknown_name
from segradius.paper.computed.maps import perturbation
from segradius.paper.draw_data import Line
from segradius.paper.draw_style import PAGE, SMALL, Style, named, short
from segradius.paper.draw_weights import SIGMA, TOP, weights_at
from segradius.paper.draw_words import told
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown, nothing
from segradius.report.cells import Cells
from segradius.report.panels import VOID, empty, rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Share of pixels whose perturbation the common scale leaves above its end.
BRIGHT = 0.995
Map = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """One image and what attacks made of it.

    Attributes:
        about: Of the network and the image, as the block found it.
        budget: Norm, ε and σ, likewise.
        attacks: Their names.
        image: (H, W, 3) in [0, 255].
        label: (H, W).
        void: Label of void pixels.
        radius: (H, W), in units of σ, of the unattacked image.
        predicted: (1 + attacks, H, W), unattacked first.
        perturbation: (attacks, H, W): length of δ over bands.
    """

    about: Mapping[str, Any]
    budget: Mapping[str, Any]
    attacks: tuple[str, ...]
    image: Map
    label: Map
    void: int
    radius: Map
    predicted: Map
    perturbation: Map

    def share(self, nth: int) -> float:
        """Share of the labelled pixels that are right, unattacked of 0."""
        counted = self.label != self.void
        return float((self.predicted[nth] == self.label)[counted].mean()) if counted.any() else float("nan")

    def painted(self, classes: Map) -> Map:
        """Classes in the data's colours."""
        palette = np.array(self.about["palette"], dtype=np.uint8).reshape(-1, 3)
        void = classes == self.void
        found: Map = palette[np.where(void, 0, classes) % len(palette)].copy()
        found[void] = VOID
        return found


def read(measured: Measured, block: str, network: str = "") -> Subject:
    """What a block found of one network.

    Args:
        measured: What was measured.
        block: Its name.
        network: Label of the network; the first unless given.

    Raises:
        InputError: The network, or the file of its arrays, is not there.
    """
    found = measured.computed[block]
    by_label = {label_of(each): each for each in found["networks"]}
    if network and network not in by_label:
        raise unknown_name(f"network of {block}", network, by_label)
    about = by_label[network or next(iter(by_label))]
    folder: Path | None = measured.folders.get((block, ""))
    file = None if folder is None else folder / str(about["file"])
    if file is None or not file.is_file():
        raise InputError(f"{block}: {file or about['file']} is not there; expected the arrays of {label_of(about)}")
    with np.load(file, allow_pickle=False) as held:
        places = range(len(about["attacks"]))
        deltas = [perturbation(held[f"delta_{k}"], told["scale"]) for k, told in enumerate(about["attacks"].values())]
        return Subject(
            about, found, tuple(about["attacks"]), _photo(held["image"]), held["label"], int(held["void"]),
            held["radius"].astype(np.float64),
            np.stack([held["prediction"], *(held[f"prediction_{k}"] for k in places)]),
            np.stack([np.sqrt((each.astype(np.float64) ** 2).sum(0)) for each in deltas]),
        )  # fmt: skip


def label_of(about: Mapping[str, Any]) -> str:
    """Label of the network that something computed is of."""
    return str(about.get("network", about.get("label")))


def _photo(image: Map) -> Map:
    """An image of any number of bands as three: the first three, or one as grey."""
    return image[..., :3] if image.shape[-1] > 2 else np.repeat(image[..., :1], 3, -1)


def maps(
    measured: Measured, *, name: str, network: str = "", blocks: Sequence[str] | None = None, caption: str = ""
) -> Shown:
    """The panels of one image, in the paper's form with ours beside.

    Args:
        measured: What was measured.
        name: Of its files.
        network: Label of the network; the first unless given.
        blocks: Whose findings; None for all.
        caption: Of one's own.
    """
    mine = [block for block in measured.computed if blocks is None or block in blocks]
    if not mine:
        return nothing(name, "it was not computed")
    subject = read(measured, mine[0], network)
    figure = _figure(subject, (float(subject.budget["a"]), float(subject.budget["b"])))
    shares = {"clean": subject.share(0)} | {each: subject.share(1 + k) for k, each in enumerate(subject.attacks)}
    values: list[Line] = [
        {"attack": each, "pixacc": share, **_radii(subject, k - 1)} for k, (each, share) in enumerate(shares.items())
    ]
    body = [[line["attack"], f"{100 * line['pixacc']:.1f}", *(_number(line[key]) for key in RADII)] for line in values]
    table = Cells("This image", ("attack", "PixAcc, %", *RADII.values()), body)
    return Shown(name, (table,), figure, _told(subject, caption), tuple(values))


#: What is said of where an attack perturbs.
RADII = {"mean_radius": "mean radius, by |δ|", "spearman": "rank correlation of |δ| and radius"}


def _number(value: float) -> str:
    return "" if value != value else f"{value:.3f}"


def _radii(subject: Subject, nth: int) -> dict[str, float]:
    if nth < 0:
        return dict.fromkeys(RADII, float("nan"))
    delta = subject.perturbation[nth]
    total = float(delta.sum())
    mean = float((delta * subject.radius).sum() / total) if total else float("nan")
    return {"mean_radius": mean, "spearman": rank_correlation(delta, subject.radius)}


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman's, of any shape; NaN where one is constant.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([9.0, 4.0, 1.0]))
        -1.0
    """
    from scipy.stats import rankdata

    one, two = (rankdata(each.ravel()) for each in (first, second))
    one, two = one - one.mean(), two - two.mean()
    scale = float(np.sqrt((one**2).sum() * (two**2).sum()))
    return round(float((one * two).sum()) / scale, 12) if scale else float("nan")


Panel = tuple[str, Callable[["Figure", "Axes"], None]]


def _figure(subject: Subject, weight: tuple[float, float]) -> Figure:
    height, width = subject.label.shape
    across = 4
    cell = PAGE / across
    panels = list(_panels(subject, weight))
    down = -(-len(panels) // across)
    tall = down * (0.84 * cell * height / width + 0.27) + 0.5
    figure = empty(PAGE, tall, w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (place, (title, draw)) in zip(axes, enumerate(panels), strict=False):
        draw(figure, axis)
        axis.set_box_aspect(height / width)
        axis.set_title(escapes.figure(f"({chr(97 + place)}) {title}"), fontsize=SMALL, loc="left", pad=3)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    named(figure, _classes(subject), columns=8)
    return figure


def _panels(subject: Subject, weight: tuple[float, float]) -> Iterator[Panel]:
    ceiling = float(np.quantile(subject.perturbation, BRIGHT)) or 1.0
    yield "image", lambda _, axis: _picture(axis, subject.image.astype(np.uint8))
    yield "labels", lambda _, axis: _picture(axis, subject.painted(subject.label))
    yield f"prediction, {_percent(subject, 0)}", lambda _, axis: _picture(axis, subject.painted(subject.predicted[0]))
    yield "certified radius, in σ", lambda figure, axis: _coloured(figure, axis, subject.radius, "cividis", 0, TOP)
    for nth, attack in enumerate(subject.attacks):
        yield f"|δ| of {short(attack, 18)}", _one(subject.perturbation[nth], "magma", 0, ceiling)
    gap = subject.perturbation[1] - subject.perturbation[0] if len(subject.attacks) > 1 else None
    if gap is not None:
        reach = float(np.quantile(np.abs(gap), BRIGHT)) or 1.0
        first, second = subject.attacks[:2]
        yield f"|δ|: {short(second, 11)} − {short(first, 8)}", _one(gap, "PuOr", -reach, reach)
    if len(subject.attacks) < 3:
        yield "|δ| by radius", lambda _, axis: _by_radius(axis, subject)
    for nth, attack in enumerate(subject.attacks, 1):
        yield f"{short(attack, 14)}, {_percent(subject, nth)}", _predicted(subject, nth)
    if len(subject.attacks) == 2:
        yield "turned by one alone", lambda _, axis: _picture(axis, turned(subject))
    yield f"weight, a = {weight[0]:g}, b = {weight[1]:g}", lambda _, axis: _weight(axis, weight)


def _predicted(subject: Subject, nth: int) -> Callable[[Figure, Axes], None]:
    return lambda _, axis: _picture(axis, subject.painted(subject.predicted[nth]))


def _one(found: Map, colours: str, low: float, high: float) -> Callable[[Figure, Axes], None]:
    return lambda figure, axis: _coloured(figure, axis, found, colours, low, high)


def _percent(subject: Subject, nth: int) -> str:
    return f"{100 * subject.share(nth):.1f} %"


def _picture(axis: Axes, found: Map) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="0.7", linewidth=0.5)
    axis.imshow(found, interpolation="nearest")


def _coloured(figure: Figure, axis: Axes, found: Map, colours: str, low: float, high: float) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(color="0.7", linewidth=0.5)
    shown = axis.imshow(found, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    bar = figure.colorbar(shown, cax=axis.inset_axes((1.02, 0, 0.04, 1)))
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=5.5, length=1.5, width=0.4, pad=1)
    bar.ax.locator_params(nbins=4)


def turned(subject: Subject) -> Map:
    """Where only the first attack makes a right pixel wrong, in blue, and only the second, in orange; grey is both.

    Args:
        subject: One image under two attacks.
    """
    right = (subject.predicted[0] == subject.label) & (subject.label != subject.void)
    first, second = (right & (each != subject.label) for each in subject.predicted[1:3])
    found = np.full((*subject.label.shape, 3), 245, dtype=np.uint8)
    for where, place in ((first & ~second, 0), (second & ~first, 1)):
        found[where] = [int(Style.at(place).colour[at : at + 2], 16) for at in (1, 3, 5)]
    found[first & second] = 170
    return found


def _by_radius(axis: Axes, subject: Subject) -> None:
    """Mean |δ| of tenths of the pixels, by radius, as a share of its mean over the image."""
    order = np.argsort(subject.radius, axis=None, kind="stable")
    for nth, attack in enumerate(subject.attacks):
        style, delta = Style.at(nth), subject.perturbation[nth].ravel()[order]
        parts = np.array([part.mean() for part in np.array_split(delta, min(10, len(delta)))]) / (delta.mean() or 1.0)
        look = {"color": style.colour, "linestyle": style.dashes, "marker": style.marker}
        axis.plot(np.arange(1, len(parts) + 1), parts, linewidth=1.0, markersize=2.2, label=short(attack, 14), **look)
    axis.axhline(1, color="0.5", linewidth=0.5)
    _small(axis, "tenth of pixels by radius", "|δ| / its mean")
    axis.legend(fontsize=5.5, frameon=False, handlelength=1.8)


def _weight(axis: Axes, weight: tuple[float, float]) -> None:
    at = np.linspace(0, TOP, 200)
    axis.plot(at, weights_at(at, *weight), color=Style.at(0).colour, linewidth=1.2)
    axis.set(xlim=(0, TOP), ylim=(0, 1.02))
    _small(axis, "certified radius, in σ", "weight")


def _small(axis: Axes, x: str, y: str) -> None:
    axis.tick_params(labelsize=5.5, length=1.5, width=0.4, pad=1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_linewidth(0.5)
    axis.set_xlabel(x, fontsize=6, labelpad=1)
    axis.set_ylabel(y, fontsize=6, labelpad=1)


def _classes(subject: Subject) -> list[Any]:
    """The classes that can be seen, the most frequent first."""
    from matplotlib.patches import Patch

    seen = np.concatenate([subject.label.ravel(), subject.predicted.ravel()]).astype(np.int64)
    pixels = np.bincount(seen[seen != subject.void], minlength=1)
    names, palette = subject.about["classes"], subject.about["palette"]
    order = [int(each) for each in np.argsort(-pixels, kind="stable") if pixels[each]][:12]
    edge: dict[str, Any] = {"edgecolor": "0.7", "linewidth": 0.4}
    found = [
        Patch(facecolor=rgb(palette[at % len(palette)]), **edge, label=short(str(names[at]), 16))
        for at in order
        if at < len(names)
    ]
    void = bool((seen == subject.void).any())
    return [*found, *([Patch(facecolor="white", **edge, label="void")] if void else [])]


def _told(subject: Subject, caption: str) -> str:
    it, how = subject.about, subject.budget
    where = f"{label_of(it)}, {told(it.get('data'), 'data')}, image {it['image']}"
    budget = f"{told(how.get('norm'), 'norm')}, ε = {told(how.get('eps'))}"
    said = (
        f"{where}; {budget}. |δ| is the length of the perturbation of a pixel over its bands, on one scale for all "
        f"attacks; its brightest {100 * (1 - BRIGHT):.1f} % are shown alike. The radius is that of the unattacked "
        f"image, as Φ⁻¹ of the smoothed probability, σ = {told(how.get('sigma', SIGMA))}."
    )
    alone = " Turned by one alone: blue by the first attack, orange by the second, grey by both."
    return f"{said}{alone if len(subject.attacks) == 2 else ''} {caption}".strip()
