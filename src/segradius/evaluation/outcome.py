"""What a run found, as a digest: equal for equal results, whenever, wherever and in whatever order they were found."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from segradius.core.seal import Value, seal
from segradius.evaluation.job import Job, Measurement, plain
from segradius.evaluation.rows import CLEAN, ImageResult
from segradius.evaluation.store import Store
from segradius.evaluation.trace import ImageTrace


@dataclass(frozen=True)
class Digest:
    """Of the results of a run, without times, paths and what the machine is.

    Attributes:
        results: Of all that is in a row: another where any number differs in the nine digits that tables have.
        counts: Of the whole numbers alone: pixels, classes, hits, passes, votes. Lengths and losses differ in their
            last digits between machines and sizes of a batch, without a pixel being another one.
    """

    results: str
    counts: str

    def __str__(self) -> str:
        return f"{self.results} (of the counts alone {self.counts})"

    @classmethod
    def of(cls, facts: Iterable[tuple[Sequence[Value], Sequence[Value]]]) -> Digest:
        """Of facts in any order: of each what was counted, and what was measured.

        Example:
            >>> one, two = (("a", 3), (0.5,)), (("b", 4), (0.25,))
            >>> Digest.of([one, two]) == Digest.of([two, one])
            True
            >>> other = Digest.of([one, (("b", 4), (0.26,))])
            >>> other == Digest.of([one, two]), other.counts == Digest.of([one, two]).counts
            (False, True)
        """
        rows = [(seal(*counted), seal(*counted, *map(_rounded, measured))) for counted, measured in facts]
        return cls(seal(*sorted(whole for _, whole in rows)), seal(*sorted(counted for counted, _ in rows)))


def digest_of(measurement: Measurement, store: Store, ids: Sequence[str]) -> Digest:
    """Of what a store holds of the jobs of a measurement.

    Args:
        measurement: What was run.
        store: Its results.
        ids: The images that are asked about, in any order.
    """
    wanted = set(ids)
    aside = [(("set aside", image), ()) for image in store.all_set_aside() if image in wanted]
    jobs = (Job(measurement.model, measurement.data, measurement.clean, measurement.seed), *measurement.jobs)
    return Digest.of([*aside, *(fact for job in jobs for fact in _facts(job, store, wanted))])


def _facts(job: Job, store: Store, wanted: set[str]) -> Iterator[tuple[list[Value], list[Value]]]:
    what = _text(plain(job.task.described)) if job.key != CLEAN else CLEAN
    traces, recorded = store.traces(job.key), store.recorded(job.key)
    for image, result in store.results(job.key).items():
        if image in wanted:
            counted, measured = fact_of(result)
            counts, rest = _record(store.record(job.key, image) if image in recorded else None)
            yield [what, *counted, *counts], [*measured, *rest, *_trace(traces.get(image))]


def fact_of(result: ImageResult) -> tuple[list[Value], list[Value]]:
    """What was counted of an image, and what was measured; not how long it took."""
    members = _text({name: pixels.plain for name, pixels in result.members.items()})
    passes = _text({purpose: list(book) for purpose, book in result.passes.items()})
    pixels = _text(result.pixels.plain)
    counted: list[Value] = [result.image, pixels, members, result.hit, result.eligible, passes, int(result.valid)]
    return counted, [result.l1, result.l2, result.linf, result.outside, result.disagreement]


def _record(packed: bytes | None) -> tuple[list[Value], list[Value]]:
    """Of a certificate its whole numbers and its radii, not how they were compressed; of anything else the bytes."""
    if packed is None:
        return [], []
    if not zipfile.is_zipfile(io.BytesIO(packed)):
        return [], [_text(_shortened(json.loads(packed)))]
    with np.load(io.BytesIO(packed)) as found:
        arrays = {name: found[name] for name in sorted(found.files)}
    numbers = json.loads(str(arrays.pop("numbers")))
    whole: list[Value] = []
    for name, array in arrays.items():
        if array.dtype.kind != "f":  # radii follow from votes
            whole += [name, str(array.shape), np.ascontiguousarray(array, "<i8").tobytes()]
    return whole, [_text(_shortened(numbers))]


def _trace(trace: ImageTrace | None) -> list[Value]:
    return [] if trace is None else [_text(_shortened(astuple(trace)))]


def _rounded(value: Value) -> Value:
    return f"{value:.9g}" if isinstance(value, float) else value


def _shortened(value: Any) -> Any:
    """With every float in nine digits, inside dicts, lists and tuples too."""
    if isinstance(value, Mapping):
        return {name: _shortened(inner) for name, inner in value.items()}
    return [_shortened(inner) for inner in value] if isinstance(value, list | tuple) else _rounded(value)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
