"""What the driver, the store and the report take for many rows, without a model's passes: growth, and the next limit.

    python benchmarks/rows.py --rows 10000,100000,1000000 --folder rows --out rows.json
    python benchmarks/rows.py --rows 10000 --phases drive,open,digest

A row is what one job found of one image, with counts of 21 classes, pairs of label and prediction, and after an attack
what was seen after rounding: up to three rows of the store, with a checksum each. A run of R rows has R/10 images under
9 attacks, unattacked first, as ``segradius attack`` would do it: the driver cuts units, watches the images, stores what
an executor makes up, and the report is made of the store. Each phase is a process of its own: seconds are of the clock
and of the processor, memory is the peak of resident memory above what importing takes. The power is the slope of log
cost over log rows between the two largest runs: 1 grows with the rows. A million take half an hour of a quiet core.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import nn

import segradius as sr
from segradius.core import text
from segradius.data import Classes
from segradius.data.sample import Sample, voc_palette
from segradius.evaluation import (
    DataChoice,
    Experiment,
    ImageResult,
    Kept,
    ModelChoice,
    Rows,
    Run,
    Store,
    Unit,
    execute,
    work,
)
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.attack_files import per_image_csv, results_json
from segradius.evaluation.attack_summary import summarise
from segradius.evaluation.confusion import confusion_csv
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.rows import CLEAN, Rounded
from segradius.evaluation.sources import look
from segradius.metrics.counts import Pixels
from segradius.report.tables_out import export_tables

CLASSES, ATTACKS, PIXELS = 21, 9, 240 * 320
NAMES = [f"class {c}" for c in range(CLASSES)]
#: Label, prediction and pixels, of which an image has about so many.
PAIRS = [torch.cat([torch.randint(CLASSES, (60, 2)), torch.randint(1, 900, (60, 1))], 1) for _ in range(16)]


class Images:
    """Many small images, each made when it is asked for; ids as long as those of photographs are."""

    name, thread_safe = "simulated", True
    classes = Classes(tuple(NAMES), voc_palette(CLASSES))

    def __init__(self, count: int) -> None:
        self.ids = tuple(f"frankfurt/frankfurt_{place:06}_leftImg8bit" for place in range(count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> Sample:
        image = torch.full((3, 4, 4), (place % 256) / 255)
        return Sample(self.ids[place], image, torch.full((4, 4), place % CLASSES, dtype=torch.int64))


class MadeUp:
    """An executor that works on nothing: rows with numbers as an attack's, by image and job, the same every time."""

    def begin(self, name: str, run: Run[Any]) -> None:
        self.ids = run.data.ids

    def end(self, name: str) -> None:
        pass

    def run(self, units: Iterable[Unit], progress: object) -> Iterator[tuple[Unit, Rows]]:
        for unit in units:
            images = [self.ids[place] for place in unit.places]
            for key, mine in [(CLEAN, images), *((part.job.key, part.images) for part in unit.parts)]:
                found = [made_up(key, image) for image in mine]
                yield unit, Rows(key, found, beside(key, found))


def made_up(key: str, image: str) -> ImageResult:
    """A row."""
    chance, own = random.Random(f"{key} {image}"), random.Random(image)
    labelled = [own.randrange(2 * PIXELS // CLASSES) if own.random() < 0.4 else 0 for _ in range(CLASSES)]
    labelled[0] += 1
    right = [int(many * chance.random()) for many in labelled]
    predicted = [many + chance.randrange(1000) for many in right]
    pixels = Pixels(right, predicted, labelled)
    if key == CLEAN:
        return ImageResult(image, pixels, passes={"judging": (1, 0)}, seconds=0.01)
    lengths = (700 * chance.random(), 1.5 * chance.random(), 0.02 * chance.random())
    passes = {"attack": (50, 50), "judging": (1, 0), "checking": (1, 0)}
    goal = sum(right) // 2, sum(right) + 1
    return ImageResult(image, pixels, {}, *goal, *lengths, passes=passes, seconds=chance.random())


def beside(key: str, found: Sequence[ImageResult]) -> Kept:
    """What is kept beside rows."""
    pairs = {row.image: PAIRS[hash(row.image) % len(PAIRS)] for row in found}
    rounded = {row.image: Rounded(row.pixels, row.hit, row.l1, row.l2, row.linf) for row in found}
    return Kept(confusions=pairs, rounded={} if key == CLEAN else rounded)


@dataclass(frozen=True)
class Case:
    """A run of so many rows, in a folder, with so many images in a unit."""

    rows: int
    folder: Path
    batch: int = 8

    @property
    def run(self) -> Run[Experiment]:
        plans = tuple(AttackPlan("pgd", "l2", 1.5, {"steps": steps}, f"pgd-{steps}") for steps in range(1, ATTACKS + 1))
        data = Images(self.rows // (ATTACKS + 1))
        model = sr.wrap(nn.Conv2d(3, CLASSES, 1), num_classes=CLASSES)
        experiment = Experiment(ModelChoice("demo"), DataChoice("simulated"), plans)
        return Run(experiment, model, data, self.batch, shown=())

    @property
    def store(self) -> Store:
        return Store(self.folder / "results.sqlite")


def drive(case: Case) -> None:
    """The driver: units, watch, rows into the store, checks before and after; made up rows included."""
    with case.store as store:
        execute(case.run, store, MadeUp())


def made(case: Case) -> None:
    """Making the rows up, for comparison: part of drive that no real run has."""
    run = case.run
    for key in (CLEAN, *(job.key for job in run.experiment.jobs)):
        for image in run.data.ids:
            made_up(key, image)


def opened(case: Case) -> None:
    """What the same command given again does before any work: checksums, what images were, what is missing."""
    run = case.run
    with case.store as store:
        store.check()
        assert look(run.experiment, run.data, store).changed is None
        assert work(run, store) == 0


def again(case: Case) -> None:
    """The same command given again: nothing is missing."""
    with case.store as store:
        execute(case.run, store, MadeUp(), looked=True)


def more(case: Case) -> None:
    """One row more: the store lacks one image of one attack, as after a kill near the end."""
    run = case.run
    key = run.experiment.jobs[-1].key
    with case.store as store:
        with store._base.base:
            for table in ("results",):
                store._base.drop(table, key, run.data.ids[-1])
        execute(run, store, MadeUp(), looked=True)


def read(case: Case) -> None:
    """All rows, job by job."""
    with case.store as store:
        for key in (CLEAN, *(job.key for job in case.run.experiment.jobs)):
            store.results(key)


def digest(case: Case) -> None:
    """The digest of the results."""
    run = case.run
    with case.store as store:
        digest_of(run.experiment, store, run.data.ids)


def summed(case: Case) -> None:
    """Rows, classes, intervals, paired differences, digest."""
    run = case.run
    with case.store as store:
        summarise(run.experiment, store, run.data.ids, run.named)


def loaded(case: Case) -> None:
    """load_results and a data frame of all images, of files that `written` wrote."""
    sr.load_results(case.folder).to_pandas()


def exported(case: Case) -> None:
    """segradius export --results, as Parquet."""
    export_tables(sr.load_results(case.folder), case.folder / "tables", "parquet")


def written(case: Case) -> None:
    """per_image.csv, confusion.csv and results.json, the summary included."""
    run = case.run
    with case.store as store:
        summary = summarise(run.experiment, store, run.data.ids, run.named)
        (case.folder / "results.json").write_text(results_json(run.experiment, summary, {}, {}))
        (case.folder / "per_image.csv").write_text(per_image_csv(run.experiment, store, run.data.ids, run.named))
        (case.folder / "confusion.csv").write_text(confusion_csv(run.experiment, store, run.data.ids, run.names))


PHASES: dict[str, Callable[[Case], None]] = {
    "made": made, "drive": drive, "open": opened, "again": again, "more": more, "read": read, "digest": digest,
    "summary": summed, "files": written, "load": loaded, "export": exported,
}  # fmt: skip


def measured(phase: str, case: Case) -> tuple[float, float, float]:
    """Seconds of the clock and of the processor, and MiB above what importing takes."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_measured, (phase, case))


def _measured(phase: str, case: Case) -> tuple[float, float, float]:
    torch.set_num_threads(1)
    before, started, spent = _peak(), time.perf_counter(), time.process_time()
    PHASES[phase](case)
    return time.perf_counter() - started, time.process_time() - spent, _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    rows: str = "10000,100000",
    folder: str = "rows",
    phases: str = "",
    batch: int = 8,
    out: str | None = None,
    keep: bool = False,
) -> int:
    """Measure, and print a table.

    Args:
        rows: Numbers of rows, growing.
        folder: Where the stores are written.
        phases: Only these; a store that is there already is used where drive is not among them.
        batch: Images in a unit, whose rows of a job are one transaction, and reach the disk before the next.
        out: File of the figures, as JSON.
        keep: Whether the stores stay.
    """
    found: dict[str, dict[int, Any]] = {}
    chosen = text.names(phases) if phases else list(PHASES)
    for many in map(int, text.names(rows)):
        case = Case(many, Path(folder) / str(many), batch)
        if "drive" in chosen:
            shutil.rmtree(case.folder, ignore_errors=True)
        case.folder.mkdir(parents=True, exist_ok=True)
        for phase in chosen:
            seconds, cpu, peak = measured(phase, case)
            found.setdefault(phase, {})[many] = {"seconds": seconds, "cpu": cpu, "mib": peak}
            told = f"{seconds:9.2f} s {cpu:9.2f} s of CPU {1e6 * cpu / many:9.1f} µs/row {peak:8.0f} MiB"
            print(f"{phase:>8} {many:>9,} rows {told}", flush=True)
        sizes = {file.name: file.stat().st_size for file in sorted(case.folder.rglob("*.*"))}
        found.setdefault("bytes", {})[many] = sizes
        told = ", ".join(f"{name} {size / many:.0f}" for name, size in sizes.items())
        print(f"   bytes {many:>9,} rows, a row: {told}", flush=True)
        if not keep:
            shutil.rmtree(case.folder)
    powers(found)
    if out is not None:
        Path(out).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def powers(found: dict[str, dict[int, Any]]) -> None:
    """Print, in Markdown, what each phase takes of each number of rows, and how that grows between the two largest."""
    sizes = sorted(found[next(iter(found))])
    heads = [f"{many:,}: CPU s" for many in sizes] + ["µs/row", "power", "MiB", "power"]
    print(f"\n| phase | {' | '.join(heads)} |\n|:--|{'--:|' * len(heads)}")
    for phase, by_rows in found.items():
        if phase != "bytes":
            last, cells = by_rows[sizes[-1]], [f"{by_rows[many]['cpu']:.1f}" for many in sizes]
            cells += [f"{1e6 * last['cpu'] / sizes[-1]:.0f}", _told(by_rows, sizes, "cpu")]
            most = f"{last['mib']:.0f}"
            print(f"| {phase} | {' | '.join([*cells, most, _told(by_rows, sizes, 'mib')])} |")


def _told(by_rows: dict[int, Any], sizes: Sequence[int], what: str) -> str:
    return "" if len(sizes) < 2 else f"{_power(by_rows, *sizes[-2:], what):.2f}"


def _power(by_rows: dict[int, Any], small: int, large: int, what: str) -> float:
    few, many = (max(by_rows[each][what], 1e-9) for each in (small, large))
    return math.log(many / few) / math.log(large / small)


if __name__ == "__main__":
    sys.exit(auto_cli(main, as_positional=False))
