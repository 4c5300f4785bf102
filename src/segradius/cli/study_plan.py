"""What a study would run: a table of jobs with the passes that are left, and their time by a measured pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from segradius.cli.measures import Measure, Opener, naming
from segradius.cli.run_folder import Planned
from segradius.cli.run_store import left
from segradius.cli.study_folder import WHOLE
from segradius.core.screen import console, say
from segradius.evaluation.driver import check_fit
from segradius.evaluation.expecting import Passes, Price, expected, priced
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import clean_job
from segradius.evaluation.study import Study
from segradius.report.cells import Cells

HEADER = ("measurement", "job", "images left", "passes of an image", "passes left", "time")


@dataclass(frozen=True)
class Line:
    """A job of a measurement.

    Attributes:
        measurement: Its name.
        job: The same.
        images: That lack its result.
        passes: Over each; None where they cannot be told.
        seconds: Of them all; NaN where that cannot be told.
    """

    measurement: str
    job: str
    images: int
    passes: Passes | None
    seconds: float

    @property
    def all_of_it(self) -> Passes:
        """Over all images."""
        it = self.passes or Passes(0)
        return Passes(it.forward * self.images, it.backward * self.images, it.at_most)


def tell_plan(study: Study, measures: Sequence[Measure], shard: tuple[int, int]) -> None:
    """Print what is left to be run of some measurements, and run nothing.

    Args:
        study: That they are of.
        measures: The measurements.
        shard: Which part of the images.

    Raises:
        InputError: Something cannot be opened, or holds other results.
    """
    lines = list(planned_lines(study, measures, shard))
    part = "" if shard == WHOLE else f", part {shard[0]} of {shard[1]}"
    console().print(Cells(f"What {study.file} would run{part}", HEADER, [_cells(line) for line in lines]).rich())
    say(summary_of(lines))


def planned_lines(study: Study, measures: Sequence[Measure], shard: tuple[int, int]) -> Iterator[Line]:
    """A line for each job of some measurements."""
    opener, prices = Opener(study), dict[tuple[str, int, str], Price | None]()
    for measure in measures:
        planned: Planned[Any] = opener.open(measure)
        run = replace(planned.run, shard=shard)
        with naming(study, measure.asked.name):
            check_fit(run)
        key = (measure.asked.model, measure.asked.seed, measure.asked.data)
        if key not in prices:
            prices[key] = priced(run)
        with left(run, planned.at, planned.files) as store:
            clean = len(set(run.ids) - store.done(CLEAN))
            counted = [(clean_job(run), clean), *((job, len(run.missing(job, store))) for job in run.experiment.jobs)]
        for job, images in counted:
            passes, price = expected(job, run), prices[key]
            seconds = math.nan if passes is None or price is None else price.of(passes) * images
            yield Line(measure.asked.name, job.task.title, images, passes, seconds if images else 0.0)


def summary_of(lines: Sequence[Line]) -> str:
    """All of it in a sentence.

    Example:
        >>> summary_of([Line("a", "pgd", 8, Passes(52, 50), 90.0), Line("b", "square", 8, Passes(1001, 0, True), 0.0)])
        '2 measurements, at most 8424 forward and 400 backward passes over images; about 0:01:30 of passes here, ...'
    """
    each = [line.all_of_it for line in lines]
    most = "at most " if any(passes.at_most for passes in each) else ""
    forward, backward = sum(passes.forward for passes in each), sum(passes.backward for passes in each)
    known = math.fsum(line.seconds for line in lines if not math.isnan(line.seconds))
    rest = " and what cannot be told" if any(math.isnan(line.seconds) for line in lines) else ""
    many = len({line.measurement for line in lines})
    return (
        f"{many} {'measurement' if many == 1 else 'measurements'}, {most}{forward} forward and {backward} backward "
        f"passes over images; about {clock(known)} of passes here{rest}, one image at a time by one worker"
    )


def _cells(line: Line) -> tuple[str, ...]:
    passes = "?" if line.passes is None else str(line.passes)
    total = "?" if line.passes is None else str(line.all_of_it)
    time = "?" if math.isnan(line.seconds) else clock(line.seconds)
    return line.measurement, line.job, str(line.images), passes, total, time


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    return f"{timedelta(seconds=round(seconds))}" if seconds >= 1 or not seconds else "<0:00:01"
