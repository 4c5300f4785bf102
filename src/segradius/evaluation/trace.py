"""How a black-box attack went on a single image, in rows of growing query counts."""

from __future__ import annotations

import bisect
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from segradius.attacks import Result
from segradius.core.storage import as_csv

COLUMNS = ("attack", "norm", "eps", "image", "queries", "judged", "loss", "pixacc", "best")


@dataclass(frozen=True)
class ImageTrace:
    """Rows of one image, up to the query after which it was finished.

    Attributes:
        queries: Queries about the image so far, those for the radius and for judging included.
        judged: Whether the row is a verdict on an iterate; the others show the points that were asked about anyway.
        loss: Mean loss over the counted pixels.
        pixacc: Share of the counted pixels that the attack does not have where it wants them.
        best: The same for the best point so far that lies inside the threat model; NaN before the first.

    Example:
        >>> trace = ImageTrace((2, 4), (False, True), (0.5, 0.7), (0.9, 0.6), (math.nan, 0.6))
        >>> trace.best_at(3, 0.95), trace.best_at(9, 0.95)
        (0.95, 0.6)
    """

    queries: tuple[int, ...]
    judged: tuple[bool, ...]
    loss: tuple[float, ...]
    pixacc: tuple[float, ...]
    best: tuple[float, ...]

    def best_at(self, queries: int, before: float) -> float:
        """``best`` after so many queries; ``before`` where there was none yet."""
        return _at(self.queries, self.best, queries, before)

    def pixacc_at(self, queries: int, before: float) -> float:
        """``pixacc`` after so many queries; ``before`` where there was none yet."""
        return _at(self.queries, self.pixacc, queries, before)


def image_traces(result: Result) -> list[ImageTrace]:
    """The trace of each image of a batch; empty where the attack kept none."""
    trace = result.trace
    if trace is None:
        return []
    rows = list(zip(trace.queries.tolist(), trace.judged.tolist(), strict=True))
    columns = [part.T.tolist() for part in (trace.loss, trace.pixacc, trace.best)]
    spent = result.ledger.forward.tolist()
    return [_of_image(rows, *parts) for parts in zip(*columns, spent, result.valid.tolist(), strict=True)]


def trace_csv(traces: Iterable[tuple[Sequence[object], ImageTrace]]) -> str:
    """One line for each row of each trace.

    Args:
        traces: Attack, norm, ε and image, and the trace.
    """
    rows = (
        [*about, queries, int(judged), *("" if math.isnan(value) else f"{value:.9g}" for value in values)]
        for about, trace in traces
        for queries, judged, *values in zip(*astuple(trace), strict=True)
    )
    return as_csv(COLUMNS, rows)


def pack(trace: ImageTrace) -> bytes:
    """Compressed JSON, which `unpack` reads.

    Example:
        >>> trace = ImageTrace((2,), (True,), (0.25,), (1.0,), (math.nan,))
        >>> str(unpack(pack(trace))) == str(trace)
        True
    """
    columns = [[None if value != value else value for value in column] for column in astuple(trace)]
    return zlib.compress(json.dumps(columns).encode())


def unpack(packed: bytes) -> ImageTrace:
    """The trace that `pack` was given."""
    queries, judged, *rest = json.loads(zlib.decompress(packed))
    loss, pixacc, best = (tuple(math.nan if value is None else value for value in column) for column in rest)
    return ImageTrace(tuple(queries), tuple(judged), loss, pixacc, best)


def _of_image(
    rows: Sequence[tuple[int, bool]],
    loss: Sequence[float],
    pixacc: Sequence[float],
    best: Sequence[float],
    spent: int,
    valid: bool,
) -> ImageTrace:
    """The rows until the image was finished; its last row, where the batch kept none, is that all pixels are fooled."""
    found = [
        (queries, judged, *values)
        for (queries, judged), *values in zip(rows, loss, pixacc, best, strict=True)
        if queries <= spent and not math.isnan(values[0])
    ]
    if valid and spent and (not found or found[-1][0] < spent):
        found.append((spent, True, math.nan, 0.0, 0.0))
    return ImageTrace(*zip(*found, strict=True)) if found else ImageTrace((), (), (), (), ())


def _at(queries: Sequence[int], values: Sequence[float], wanted: int, before: float) -> float:
    place = bisect.bisect_right(queries, wanted)
    value = values[place - 1] if place else math.nan
    return before if math.isnan(value) else value
