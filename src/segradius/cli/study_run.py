"""The measurements of a study carried out by one executor, opened and reported in turn; and what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

from segradius import __version__
from segradius.cli.measures import Measure, Opener, naming
from segradius.cli.options import RunOptions
from segradius.cli.run_folder import SET_ASIDE, Going, Planned, begun, executed, reported, units_of
from segradius.cli.run_store import left
from segradius.cli.study_folder import WHOLE
from segradius.core.errors import DamagedError, SegradiusError, StorageError
from segradius.core.escapes import listed
from segradius.core.screen import console, say, warn
from segradius.core.seal import read_json
from segradius.core.sums import checked
from segradius.evaluation.driver import check_fit
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Executor, Run, work
from segradius.evaluation.store import Store
from segradius.evaluation.study import Study
from segradius.report.cells import Cells


@dataclass(frozen=True)
class Outcome:
    """What came of a measurement.

    Attributes:
        name: Of it.
        kind: The same.
        images: Of it, or of its part, those set aside included.
        aside: Ids of images set aside.
        digest: Of the results.
        new: Whether anything was run.
    """

    name: str
    kind: str
    images: int
    aside: tuple[str, ...]
    digest: str
    new: bool


@dataclass(frozen=True)
class _Due:
    """A measurement that was looked at before anything is run: how much is to be done, and whether all is there."""

    measure: Measure
    steps: int
    unit: str
    done: Outcome | None


def carry_out_all(
    study: Study, measures: Sequence[Measure], shard: tuple[int, int], at: RunOptions, executor: Executor
) -> tuple[list[Outcome], dict[str, SegradiusError]]:
    """Run what is missing of some measurements, and report each when it is finished; of a part nothing is reported.

    Every model, data set and folder is opened and checked once before anything is run. Where a measurement cannot go on
    after all, as its model fails on every image, the others are finished one by one.

    Args:
        study: That they are of.
        measures: The measurements.
        shard: Which part of the images.
        at: The folder of the study.
        executor: Where they are worked on.

    Returns:
        What came of those that are finished; by name, why others cannot be.

    Raises:
        InputError: Something cannot be opened, or holds other results.
        StorageError: Results cannot be written.
    """
    opener = Opener(study)
    due = [_looked_at(opener, each, shard) for each in measures]
    found = {each.measure.asked.name: each.done for each in due if each.done is not None}
    failed: dict[str, SegradiusError] = {}
    batches = [[each for each in due if each.done is None]]
    while batches:
        batch = batches.pop(0)
        try:
            for outcome in _carried_out(opener, batch, shard, at, executor):
                found[outcome.name] = outcome
        except StorageError:
            raise
        except SegradiusError as error:
            left_over = [each for each in batch if each.measure.asked.name not in found]
            if len(left_over) == 1 and len(batch) == 1:
                failed[left_over[0].measure.asked.name] = error
            else:
                warn(f"{error}; what is left is measured one by one")
                batches = [[each] for each in left_over]
    return [found[name] for each in due if (name := each.measure.asked.name) in found], failed


def _carried_out(
    opener: Opener, due: Sequence[_Due], shard: tuple[int, int], at: RunOptions, executor: Executor
) -> Iterator[Outcome]:
    """What comes of measurements, as they are finished."""
    open_: dict[str, ExitStack] = {}

    def beginning() -> Iterator[Going[Any]]:
        for each in due:
            stack = open_[each.measure.asked.name] = everything.enter_context(ExitStack())
            yield stack.enter_context(begun(_planned(opener, each.measure, shard)))

    unit, total = " and ".join(dict.fromkeys(each.unit for each in due)), sum(each.steps for each in due)
    with ExitStack() as everything, closing(executed(beginning(), executor, unit, total, at.folder)) as finished:
        for going in finished if due else ():
            if shard == WHOLE:
                reported(going)
            yield outcome_of(going.planned, going.store, new=True)
            open_.pop(going.planned.name).close()


def _planned(opener: Opener, measure: Measure, shard: tuple[int, int]) -> Planned[Any]:
    planned: Planned[Any] = opener.open(measure)
    return replace(planned, run=replace(planned.run, shard=shard))


def _looked_at(opener: Opener, measure: Measure, shard: tuple[int, int]) -> _Due:
    planned = _planned(opener, measure, shard)
    run: Run[Any] = planned.run
    with naming(opener.study, measure.asked.name):
        check_fit(run)
    with left(run, planned.at, planned.files) as store:
        steps = work(run, store)
        complete = not steps and not _lacking(run, store) and (shard != WHOLE or _is_reported(planned))
        done = outcome_of(planned, store, new=False) if complete else None
    return _Due(measure, steps, units_of([run]), done)


def _lacking(run: Run[Any], store: Store) -> bool:
    """Whether an image lacks anything; work that counts as no step is looked at too."""
    missing = any(run.missing(job, store) for job in run.experiment.jobs)
    return missing or bool(set(run.ids) - store.done(CLEAN)) or store.noted("experiment") is None


def _is_reported(planned: Planned[Any]) -> bool:
    """Whether the report in a folder is whole, of this measurement, and of this version."""
    folder = planned.at.folder
    try:
        found = read_json(folder / "results.json", checked(folder, "results.json"))
    except (OSError, DamagedError):
        return False
    same: bool = found.get("experiment") == planned.run.experiment.as_dict()
    versions = found.get("runtime", {}).get("versions", {})
    return same and versions.get("segradius") == __version__


def outcome_of(planned: Planned[Any], store: Store, *, new: bool) -> Outcome:
    """What came of a measurement, by its store."""
    run = planned.run
    ids = list(run.ids)
    aside = tuple(image for image in store.all_set_aside() if image in set(ids))
    digest = digest_of(run.experiment, store, ids)
    kind = "certify" if hasattr(run.experiment, "way") else "attack" if run.experiment.jobs else "evaluate"
    return Outcome(planned.name, kind, len(ids), aside, digest.results, new)


def tell(found: Sequence[Outcome], at: RunOptions, shard: tuple[int, int]) -> int:
    """Print what came of measurements; the exit status is 3 where images were set aside and that is to be told so."""
    header = ("measurement", "kind", "images", "set aside", "digest of the results", "")
    rows = [
        (each.name, each.kind, str(each.images), str(len(each.aside)), each.digest, "" if each.new else "was there")
        for each in found
    ]
    part = "" if shard == WHOLE else f", part {shard[0]} of {shard[1]}"
    console().print(Cells(f"The study in {at.folder}{part}", header, rows).rich())
    if shard != WHOLE:
        parent = at.folder.parent
        say(f"When all parts are done: segradius merge {parent}/shard-*-of-{shard[1]} --out {parent}")
    else:
        say(f"Reports: {at.folder / 'runs'}")
    aside = list(dict.fromkeys(image for each in found for image in each.aside))
    if not (aside and at.fail_on_set_aside):
        return 0
    warn(f"{len(aside)} image(s) set aside, {listed(aside)}: exit status {SET_ASIDE}, as --fail-on-set-aside asks")
    return SET_ASIDE
