"""What `attack` and `demo` share: run an experiment in a folder, show progress, write the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segradius.cli.running import (
    CHECKPOINTS,
    DATABASE,
    EXPERIMENT,
    clear,
    keeping,
    must_clear,
    progress_bar,
    runtime,
    screen,
    warn,
)
from segradius.core.errors import InputError
from segradius.core.storage import write_atomically
from segradius.data import SegmentationData
from segradius.evaluation import (
    AttackPlan,
    Checkpoints,
    Experiment,
    Job,
    Run,
    Seen,
    Store,
    Summary,
    check_classes,
    execute,
    per_image_csv,
    prepare,
    results_json,
    resumable,
    summarise,
    traces_csv,
    work,
)
from segradius.report import curves, draw, draw_curves, notes, shown_images, tables


@dataclass(frozen=True)
class Workplace:
    """Where and how an experiment runs; nothing here changes a number.

    Args:
        folder: Where the report goes.
        overwrite: Whether another experiment's report may be replaced.
        batch_size: Images at a time.
        figures: How many images the picture shows.
        checkpoint_seconds: Between two checkpoints of a black-box attack.
    """

    folder: Path
    overwrite: bool = False
    batch_size: int = 8
    figures: int = 2
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; expected at least 1")
        if self.figures < 0:
            raise InputError(f"figures is {self.figures}; expected 0 or more")


def carry_out(experiment: Experiment, model: Seen, data: SegmentationData, at: Workplace) -> Summary:
    """Run what is missing, print the tables, and write every file of the report.

    Raises:
        InputError: Another experiment is in the folder, or no image could be used.
        KeyboardInterrupt: With a message on how to go on.
    """
    check_classes(model.num_classes, len(data.classes))
    at.folder.mkdir(parents=True, exist_ok=True)
    with _opened(experiment, at) as store:
        jobs = prepare(experiment, store)
        for job in jobs:
            job.attack.check_model(model)
        places = at.folder / CHECKPOINTS
        model, checkpoints = resumable(model, jobs, store, places, at.checkpoint_seconds, warn)
        size = _batch_size(at, store, checkpoints)
        run = Run(experiment, model, data, size, tuple(data.ids[: at.figures]), checkpoints=checkpoints)
        reused = sum(len(job.done.intersection(data.ids)) for job in jobs)
        _run(run, jobs, store, at.folder)
        summary = summarise(experiment, store, data.ids)
        if not summary.rows[0].images:
            raise InputError(_nothing(summary))
        _write(run, prepare(experiment, store), store, summary, at)
        checkpoints.tidy()
    _print(summary, reused, len(jobs) * len(data), at.folder)
    return summary


def _opened(experiment: Experiment, at: Workplace) -> Store:
    """The folder's store, for this experiment; one in which no attack was finished yet is begun anew."""
    if (at.folder / EXPERIMENT).exists() and must_clear(at.folder, "that of segradius certify", at.overwrite):
        clear(at.folder)
    store = Store(at.folder / DATABASE)
    earlier = store.noted("experiment")
    conflict = None if earlier is None else experiment.extends(earlier)
    begun = store.holds_attacks() or any((at.folder / CHECKPOINTS).glob("*"))
    try:
        if must_clear(at.folder, conflict if begun else None, at.overwrite) or conflict:
            store.close()
            clear(at.folder)
            store = Store(at.folder / DATABASE)
    except InputError:
        store.close()
        raise
    store.note("experiment", experiment.as_dict())
    return store


def _batch_size(at: Workplace, store: Store, checkpoints: Checkpoints) -> int:
    """As asked, save that a batch which was begun is finished as it is."""
    before = store.noted("batch_size")
    if before and before != at.batch_size and checkpoints.waiting():
        warn(f"a batch of {before} images was begun here: going on with --batch-size {before}")
        return int(before)
    store.note("batch_size", at.batch_size)
    return at.batch_size


def _run(run: Run, jobs: Sequence[Job], store: Store, folder: Path) -> None:
    """Execute under a progress bar with the time left, counted in steps or queries of images."""
    unit = " and ".join(sorted({"queries" if job.asks else "steps" for job in jobs}, reverse=True))
    with progress_bar(unit) as bar, keeping(folder, folder / DATABASE):
        task = bar.add_task("reading", total=work(jobs, run))

        def advance(plan: AttackPlan, steps: int) -> None:
            bar.update(task, advance=steps, description=f"{plan.name} {plan.norm} ε={plan.eps:.4g}")

        execute(replace(run, progress=advance), jobs, store)


def _write(run: Run, jobs: Sequence[Job], store: Store, summary: Summary, at: Workplace) -> None:
    described = {f"{job.plan.name} {job.plan.norm} {job.plan.eps:g}": str(job.attack) for job in jobs}
    report = results_json(run.experiment, summary, described, runtime(run.model, run.batch_size))
    write_atomically(at.folder / "results.json", report)
    write_atomically(at.folder / "per_image.csv", per_image_csv(run.experiment, store, run.data.ids))
    traces = traces_csv(run.experiment, store, run.data.ids)
    if traces is not None:
        write_atomically(at.folder / "trace.csv", traces)
    markdown = "\n\n".join(cells.markdown() for cells in tables(summary))
    write_atomically(at.folder / "table.md", "\n\n".join([markdown, *notes(summary)]) + "\n")
    threats = list(dict.fromkeys(job.plan.threat for job in jobs))
    for norm, eps in threats:
        mine = [job for job in jobs if job.plan.threat == (norm, eps)]
        name = "" if (norm, eps) == threats[0] else f"-{norm}-{eps:.4g}"
        title = f"{run.model.name} on {run.data.name}, {norm} ε = {eps:.4g}"
        if shown := shown_images(run, mine, store):
            write_atomically(at.folder / f"figure{name}.png", draw(shown, run.data.classes, title))
        if drawn := curves(run, mine, store):
            heading = f"{title}, {len(drawn[0].traces)} images"
            picture = draw_curves(drawn, heading, targeted=run.experiment.target is not None)
            write_atomically(at.folder / f"curve{name}.png", picture)


def _print(summary: Summary, reused: int, total: int, folder: Path) -> None:
    console = screen()
    for cells in tables(summary):
        console.print(cells.rich())
    if reused:
        console.print(f"{reused} of {total} results were there from an earlier run.")
    for note in notes(summary):
        console.print(note, style="yellow", markup=False, highlight=False)
    console.print(f"Report: {folder}", markup=False, highlight=False)


def _nothing(summary: Summary) -> str:
    image, reason = next(iter(summary.set_aside.items()), ("", "the data set is empty"))
    return f"none of the images could be used; the first, {image}: {reason}"
