"""One figure, both sides: what certificates leave of an answer's accuracy by radius, and what attacks leave above it.

The truth lies between: the accuracy that the strongest change of that length leaves. A side is only worth something
beside the other of the *same* answer on the *same* images, so that anything else is refused.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal

from segradius.core import escapes
from segradius.core.errors import InputError
from segradius.core.storage import as_csv
from segradius.metrics.counts import Counts
from segradius.metrics.intervals import Interval, interval
from segradius.metrics.statistics import pooled_accuracy
from segradius.report.panels import LINES, bare, empty

if TYPE_CHECKING:  # a run without pictures does without Matplotlib, which takes half a second
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Side = Literal["certified", "attacked", "lost"]

SIDES: tuple[Side, ...] = ("certified", "attacked", "lost")
COLUMNS = ("side", "network", "answer", "how", "radius")
#: In the place of the side: how many pixels of each image are labelled.
LABELLED = "labelled"

#: Isotropic smoothing on Cityscapes as published: the best over 50 σ of certified PixAcc at an l2 radius, DeepLabV3
#: trained with noise, images of 512 × 1024, 100 validation images, α = 0.01. The network, images and α are not ours.
LITERATURE = (
    (0.05, 0.903), (0.10, 0.887), (0.175, 0.860), (0.25, 0.834), (0.325, 0.801), (0.5, 0.716), (0.75, 0.550),
    (1.0, 0.408), (1.25, 0.256),
)  # fmt: skip
SOURCE = "dashed: literature, isotropic smoothing, best of 50 σ (Schuchardt et al., ICLR 2023)"


@dataclass(frozen=True)
class Line:
    """One figure of each image.

    Attributes:
        side: ``certified`` (pixels that are right whatever change there is below the radius), ``attacked`` (pixels that
            are right under the change that an attack found), or ``lost`` (pixels certified there, of which fresh copies
            say beyond chance that they fell: 0 unless the certificate is broken).
        network: Its name.
        answer: What is certified and attacked: votes at a σ, mean confidences, the network itself.
        how: The certificate or attack.
        radius: l2.
        pixels: Of each image.
    """

    side: Side
    network: str
    answer: str
    how: str
    radius: float
    pixels: tuple[int, ...]


@dataclass(frozen=True)
class Sandwich:
    """Both sides of some answers on the same images.

    Args:
        images: Ids.
        labelled: Labelled pixels of each.
        lines: In any order.

    Raises:
        InputError: A line is of other images, or has more pixels than an image.
    """

    images: tuple[str, ...]
    labelled: tuple[int, ...]
    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        if len(self.labelled) != len(self.images):
            raise InputError(f"{len(self.labelled)} numbers of pixels for {len(self.images)} images")
        for line in self.lines:
            fits = len(line.pixels) == len(self.images)
            if not fits or any(not 0 <= n <= most for n, most in zip(line.pixels, self.labelled, strict=True)):
                raise InputError(
                    f"{line.side} {line.how} of {line.network}, {line.answer}, has {line.pixels} pixels; expected 0 to "
                    f"{self.labelled} of images {', '.join(self.images)}"
                )

    @property
    def answers(self) -> tuple[tuple[str, str], ...]:
        """Networks and answers that are drawn each in a panel of its own."""
        return tuple(dict.fromkeys((line.network, line.answer) for line in self.lines))

    def of(self, network: str, answer: str, side: Side) -> dict[str, tuple[Line, ...]]:
        """The lines of one side of an answer by certificate or attack, by growing radius."""
        mine = [line for line in self.lines if (line.network, line.answer, line.side) == (network, answer, side)]
        names = dict.fromkeys(line.how for line in mine)
        return {how: tuple(sorted((x for x in mine if x.how == how), key=lambda x: x.radius)) for how in names}

    def accuracy(self, line: Line) -> Interval:
        """Share of all labelled pixels, with its interval over images."""
        return share(line.pixels, self.labelled)

    def attacked(self, network: str, answer: str) -> tuple[Line, ...]:
        """What the strongest attack leaves at each radius, image by image: a smaller ball's find counts in a larger."""
        every = sorted(
            (line for lines in self.of(network, answer, "attacked").values() for line in lines), key=lambda x: x.radius
        )
        least = accumulate((line.pixels for line in every), lambda a, b: tuple(map(min, a, b)))
        found = {line.radius: pixels for line, pixels in zip(every, least, strict=True)}
        return tuple(Line("attacked", network, answer, "strongest", *each) for each in found.items())

    def certified(self, network: str, answer: str, radius: float) -> float:
        """The best certified accuracy at a radius: of every certificate the next radius that was counted; 0 beyond."""
        known = self.of(network, answer, "certified").values()
        beyond = [next((line for line in lines if line.radius >= radius), None) for lines in known]
        return max((self.accuracy(line).value for line in beyond if line is not None), default=0.0)

    def gaps(self, network: str, answer: str) -> Iterator[tuple[float, float, float]]:
        """Radius, certified and attacked accuracy, where there was an attack."""
        for line in self.attacked(network, answer):
            yield line.radius, self.certified(network, answer, line.radius), self.accuracy(line).value


def share(pixels: Sequence[int], labelled: Sequence[int]) -> Interval:
    """Sum of pixels over sum of labelled ones, with its interval over images.

    Example:
        >>> share((3, 1), (4, 4)).value
        0.5
    """
    import torch

    whole = torch.tensor(labelled, dtype=torch.int64).view(-1, 1)
    return interval(pooled_accuracy, Counts(torch.tensor(pixels, dtype=torch.int64).view(-1, 1), whole, whole))


def together(parts: Iterable[Sandwich]) -> Sandwich:
    """Several of the same images as one.

    Raises:
        InputError: They are of other images, or of images with other labels.
    """
    first, *others = parts
    for other in others:
        if (other.images, other.labelled) != (first.images, first.labelled):
            raise InputError(
                f"images {', '.join(other.images)} with {other.labelled} labelled pixels beside images "
                f"{', '.join(first.images)} with {first.labelled}: sides of different images say nothing of each other"
            )
    return Sandwich(first.images, first.labelled, tuple(line for part in (first, *others) for line in part.lines))


def sandwich_csv(it: Sandwich) -> str:
    """The lines as a table, a column for each image; `read_sandwich` reads it.

    Example:
        >>> it = Sandwich(("a",), (4,), (Line("certified", "net", "votes", "one", 0.1, (3,)),))
        >>> read_sandwich(sandwich_csv(it)) == it
        True
    """
    rows = [[line.side, line.network, line.answer, line.how, f"{line.radius:.9g}", *line.pixels] for line in it.lines]
    return as_csv((*COLUMNS, *it.images), [[LABELLED, "", "", "", "", *it.labelled], *rows])


def read_sandwich(text: str) -> Sandwich:
    """What `sandwich_csv` wrote.

    Raises:
        InputError: It is something else, or figures are not of the same images.
    """
    table = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(table) < 2 or tuple(table[0][: len(COLUMNS)]) != COLUMNS or table[1][0] != LABELLED:
        raise InputError(f"expected the columns {', '.join(COLUMNS)}, one for each image, and a row {LABELLED}")
    images = tuple(table[0][len(COLUMNS) :])
    try:
        labelled, lines = _numbers(table[1]), tuple(map(_line, table[2:]))
    except (ValueError, KeyError) as error:
        raise InputError(f"a row of the table cannot be read: {error}") from None
    return Sandwich(images, labelled, lines)


def _line(row: Sequence[str]) -> Line:
    side = {name: name for name in SIDES}[row[0]]  # type: ignore[index]
    return Line(side, row[1], row[2], row[3], float(row[4]), _numbers(row))


def _numbers(row: Sequence[str]) -> tuple[int, ...]:
    return tuple(map(int, row[len(COLUMNS) :]))


def draw_sandwich(it: Sandwich, title: str, *, literature: bool = False, columns: int = 3) -> Figure:
    """A panel for each answer: certified accuracy by radius, the strongest attack above it, what is open shaded.

    Args:
        it: Both sides.
        title: Heading: data, images and seed.
        literature: Whether the published line of isotropic smoothing is drawn; only where the images are Cityscapes.
        columns: Panels side by side.
    """
    answers = it.answers
    across = min(columns, len(answers))
    down = math.ceil(len(answers) / across)
    figure = empty(3.4 * across, 3.9 * down + 0.4)
    figure.suptitle(escapes.figure(title) + f"\n{SOURCE}" * literature, fontsize=9)
    axes = list(figure.subplots(down, across, squeeze=False, sharey=True).flat)
    for axis, (network, answer) in zip(axes, answers, strict=False):
        _panel(axis, it, network, answer, literature=literature)
        bare(axis)
    for axis in axes[len(answers) :]:
        axis.set_axis_off()
    axes[0].set_ylabel("PixAcc, %", fontsize=9)
    return figure


def _panel(axis: Axes, it: Sandwich, network: str, answer: str, *, literature: bool) -> None:
    axis.set_title(escapes.figure(f"{network}: {answer}"), fontsize=9, loc="left")
    below = it.of(network, answer, "certified")
    for place, (how, lines) in enumerate(below.items()):
        colour, label = LINES[place % len(LINES)], escapes.figure(how)
        radii, values = [x.radius for x in lines], [100 * it.accuracy(x).value for x in lines]
        if len(lines) > 1:
            axis.step(radii, values, where="pre", color=colour, linewidth=1.4, label=label)
        else:
            axis.plot(radii, values, "D", color=colour, markersize=5, label=label)
    _above(axis, it, network, answer)
    if literature:
        known, shares = [radius for radius, _ in LITERATURE], [100 * each for _, each in LITERATURE]
        axis.plot(known, shares, "--", color="0.45", linewidth=1.2, label="literature, other images")
    axis.set_xlabel("l2 radius, images in [0, 1]", fontsize=9)
    axis.set_ylim(0, 100)
    axis.set_xlim(left=0)
    axis.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.17))


def _above(axis: Axes, it: Sandwich, network: str, answer: str) -> None:
    """The strongest attack's points with their intervals, and what lies open between them and the certificates."""
    points = [(line.radius, it.accuracy(line)) for line in it.attacked(network, answer)]
    if not points:
        return
    radii, found = [radius for radius, _ in points], [each for _, each in points]
    values = [100 * each.value for each in found]
    for radius, each in points:
        axis.plot([radius, radius], [100 * each.low, 100 * each.high], color="0.6", linewidth=0.8)
    axis.plot(radii, values, "v-", color="black", markersize=4, linewidth=1.2, label="strongest attack")
    grid = sorted({*radii, *(line.radius for lines in it.of(network, answer, "certified").values() for line in lines)})
    grid = [radius for radius in grid if radius <= radii[-1]]
    lower = [100 * it.certified(network, answer, radius) for radius in grid]
    axis.fill_between(grid, lower, [_on(points, radius) for radius in grid], step="pre", color="0.5", alpha=0.18,
                      linewidth=0)  # fmt: skip


def _on(points: Sequence[tuple[float, Interval]], radius: float) -> float:
    """The line through the attacked points at a radius, %."""
    for (low, before), (high, after) in pairwise(points):
        if low <= radius <= high:
            part = (radius - low) / (high - low)
            return 100 * ((1 - part) * before.value + part * after.value)
    return 100 * points[-1][1].value if radius > points[-1][0] else 100 * points[0][1].value
