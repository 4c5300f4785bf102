"""What a table or figure shows of measured images: which of them, in which order, and pooled with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from segradius.core.errors import InputError, unknown_name
from segradius.metrics.intervals import Interval, jackknife
from segradius.paper.measured import Certified, Of, Seen, Traced

#: An image under attack, or certified.
Row = Seen | Certified
T = TypeVar("T", bound=Row)
#: Of a CSV file.
Line = dict[str, Any]

#: What the attack of unattacked rows is called.
CLEAN = "clean"
#: Keys that every row has.
ABOUT = (*(each.name for each in fields(Of)), "series")
#: All fields that rows may be told apart by.
KEYS = (*ABOUT, "attack", "norm", "eps", "answer")


@dataclass(frozen=True)
class Metric:
    """A number of images: a sum over them by another.

    Attributes:
        label: With its unit, at an axis or over a column.
        parts: What an image has in both sums; zeros where it has no value.
        share: Whether it is a share, which is shown in per cent.
        digits: Behind the point.
    """

    label: str
    parts: Callable[[Any], tuple[float, float]]
    share: bool = True
    digits: int = 1

    @property
    def name(self) -> str:
        """The label without its unit."""
        return self.label.partition(", ")[0]


def _miou(seen: Seen) -> tuple[float, float]:
    return (0.0, 0.0) if math.isnan(seen.miou) else (seen.miou * seen.classes, seen.classes)


METRICS: Mapping[str, Metric] = {
    "pixacc": Metric("PixAcc, %", lambda row: (row.right, row.labelled)),
    "miou": Metric("MIoU/image, %", _miou),
    "reached": Metric("pixels at the aim, %", lambda row: (row.reached or 0, row.eligible or 0)),
    "seconds": Metric("s an image", lambda row: (row.seconds, 1.0), share=False, digits=2),
    "passes": Metric("passes an image", lambda row: (row.forward + row.backward, 1.0), share=False, digits=0),
    "abstained": Metric("abstained, %", lambda row: (row.abstained, row.labelled)),
    "copies": Metric("noisy copies", lambda row: (row.copies, 1.0), share=False, digits=0),
}


@dataclass(frozen=True)
class Pooled:
    """A metric of some measured images.

    Attributes:
        found: The value and its 95 % interval over images, for these networks; NaN ends of few images.
        images: How many images.
        networks: How many networks they were measured on.
    """

    found: Interval
    images: int
    networks: int


def value_of(row: Of, key: str) -> Any:
    """A field of a measured image, or the value that a swept option had; None where it has neither.

    Args:
        row: The measured image.
        key: Name of the field or option; ``series`` is the network's label without its seed, ``from`` the network whose
            gradients an attack had.
    """
    if key == "attack" and isinstance(row, Seen):
        return row.attack or CLEAN
    if key == "from" and isinstance(row, Seen | Traced) and row.attack:  # its own gradients, unless others are named
        return row.options.get(key) or row.network
    if key == "series":
        return row.network.removesuffix(f"-{row.seed}")
    return getattr(row, key, None) if key in KEYS else getattr(row, "options", {}).get(key)


def key_of(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    """Its values of several keys."""
    return tuple(value_of(row, key) for key in keys)


def check_metric(metric: str) -> Metric:
    """The metric of a name; `InputError` of an unknown one."""
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    return METRICS[metric]


def chosen(rows: Iterable[T], blocks: Sequence[str] | None = None, only: Mapping[str, Any] | None = None) -> list[T]:
    """Those of some blocks whose keys have the values that are asked for, each measurement once.

    Blocks share their unattacked images, and may share attacks; what two blocks measured alike is taken from the first.
    What was unattacked has no norm, ε or options, so that these keys leave it in.

    Args:
        rows: Measured images.
        blocks: Names; None for all.
        only: A value or a list of values by key.
    """
    asked = {key: value if isinstance(value, list | tuple) else [value] for key, value in (only or {}).items()}
    found: dict[tuple[Any, ...], T] = {}
    for row in rows:
        here = blocks is None or row.block in blocks
        if here and all(_fits(row, key, values) for key, values in asked.items()):
            outcome = (row.right, row.reached) if isinstance(row, Seen) else (row.right, row.abstained)
            found.setdefault((*identity(row), *outcome), row)
    return list(found.values())


def _fits(row: Row, key: str, values: Sequence[Any]) -> bool:
    if isinstance(row, Seen) and not row.attack and key not in (*ABOUT, "attack"):
        return True
    return value_of(row, key) in values


def identity(row: Row) -> tuple[Any, ...]:
    """All but the block and the outcome: what was measured on what."""
    options = tuple(sorted((name, str(value)) for name, value in row.options.items()))
    what = (row.attack, row.norm, row.eps) if isinstance(row, Seen) else (row.answer,)
    return row.network, row.data, row.image, options, *what


def grouped(rows: Iterable[T], keys: Sequence[str]) -> dict[tuple[Any, ...], list[T]]:
    """Measured images by the values of keys, in the order in which they come first.

    Example:
        >>> grouped([], ["family"])
        {}
    """
    found: dict[tuple[Any, ...], list[T]] = {}
    for row in rows:
        found.setdefault(key_of(row, keys), []).append(row)
    return found


def pooled(rows: Sequence[Row], metric: str = "pixacc") -> Pooled:
    """A metric over all images and networks, with its interval over images.

    Pixels are pooled as the paper pools them: its PixAcc is of the whole set. An image that several networks saw is one
    image, so that the interval is of other images for these networks; of other networks it says nothing.

    Args:
        rows: Measured images of a cell of a table, or a point of a curve.
        metric: One of `METRICS`.

    Raises:
        InputError: An image was measured more than once on a network, so that different things would be mixed.
    """
    share = check_metric(metric).share
    _refuse_mixed(rows)
    parts = list(_sums(rows, metric).values())
    stacked = torch.tensor(parts, dtype=torch.float64).reshape(-1, 2)
    return Pooled(jackknife(stacked, _ratio, shares=share), len(parts), len({row.network for row in rows}))


def difference(rows: Sequence[Row], base: Sequence[Row], metric: str = "pixacc") -> Interval:
    """The metric of some measured images minus that of others, paired by image, with its 95 % interval over images.

    Args:
        rows: Of one attack.
        base: Of another, on the same networks; images that only one of both has are left out.
        metric: One of `METRICS`.

    Raises:
        InputError: As in `pooled`.
    """
    check_metric(metric)
    _refuse_mixed(rows)
    _refuse_mixed(base)
    both = set(map(_unit, rows)) & set(map(_unit, base))
    mine, theirs = (_sums([row for row in some if _unit(row) in both], metric) for some in (rows, base))
    parts = [(*mine[image], *theirs[image]) for image in mine]
    stacked = torch.tensor(parts, dtype=torch.float64).reshape(-1, 4)
    return jackknife(stacked, lambda sums: _ratio(sums[..., :2]) - _ratio(sums[..., 2:]), shares=False)


def _ratio(sums: Tensor) -> Tensor:
    return sums[..., 0] / sums[..., 1]


def _sums(rows: Sequence[Row], metric: str) -> dict[tuple[str, str], tuple[float, float]]:
    """Numerator and denominator by data and image, summed over networks."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for row in rows:
        above, below = METRICS[metric].parts(row)
        known = found.get((row.data, row.image), (0.0, 0.0))
        found[row.data, row.image] = known[0] + above, known[1] + below
    return found


def _unit(row: Row) -> tuple[Any, ...]:
    """What has one measurement in a cell; a study's seeds are repetitions, which are pooled."""
    return row.network, row.data, row.image, row.options.get("seed")


def _refuse_mixed(rows: Sequence[Row]) -> None:
    known: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        other = known.setdefault(_unit(row), row)
        if other is not row:
            names = [*KEYS, *row.options, *other.options]
            differ = [name for name in dict.fromkeys(names) if value_of(row, name) != value_of(other, name)]
            raise InputError(
                f"{row.network}, image {row.image}: measured more than once in one cell, with other "
                f"{', '.join(differ) or 'results'}; expected these among the keys of what is shown, or in its `only`"
            )


def ordered(values: Iterable[Any]) -> list[Any]:
    """Values of a key: numbers by size, others in the order in which they come; nothing first, ``clean`` before all.

    Example:
        >>> ordered([3, 1.5, 3]), ordered(["pgd", "clean", "fgsm"])
        ([1.5, 3], ['clean', 'pgd', 'fgsm'])
    """
    found = list(dict.fromkeys(values))
    if all(isinstance(each, int | float) or each is None for each in found):
        return sorted(found, key=lambda each: -math.inf if each is None else each)
    return sorted(found, key=lambda each: each not in (None, CLEAN))


def line_of(about: Mapping[str, Any], metric: str, cell: Pooled) -> Line:
    """A flat line for a CSV file: what it is of, the metric, value and ends, images and networks."""
    ends = {"value": cell.found.value, "low": cell.found.low, "high": cell.found.high}
    return {**about, "metric": metric, **ends, "images": cell.images, "networks": cell.networks}


def size_of(rows: Sequence[Row]) -> str:
    """How many images, networks and seeds something is of, in words.

    Example:
        >>> size_of([])
        '0 images, 0 networks'
    """
    images = len({(row.data, row.image) for row in rows})
    networks = len({row.network for row in rows})
    alike = grouped(rows, ["family", "role", "data", "norm"]).values()
    most = max((len({row.seed for row in some}) for some in alike), default=0)
    parts = [f"{images} image{'s' * (images != 1)}", f"{networks} network{'s' * (networks != 1)}"]
    return ", ".join([*parts, f"up to {most} seeds of each"] if most > 1 else parts)
