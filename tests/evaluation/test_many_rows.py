"""What the driver, the digest and the summary ask a store does not grow with the images, and a unit names its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from segradius.evaluation import (
    DataChoice,
    Experiment,
    ImageResult,
    Kept,
    ModelChoice,
    Run,
    Store,
    Unit,
    make_plans,
    open_choice,
    open_images,
    summarise,
    units,
)
from segradius.evaluation.attack import STILL
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.rows import CLEAN
from segradius.metrics.counts import Pixels

PLANS = make_plans(["fgsm", "pgd"], [("l2", 1.0)], {"steps": 2})


def run(images: int) -> Run[Experiment]:
    choice = DataChoice("scenes:24x32", limit=images)
    experiment = Experiment(ModelChoice("demo"), choice, PLANS)
    return Run(experiment, open_choice(experiment.model), open_images(choice), 4)


def fill(store: Store, it: Run[Experiment], lacking: int = 0) -> None:
    """Rows of all images, save the last of each attack."""
    rows = [ImageResult(image, Pixels([1], [1], [2]), passes={"judging": (1, 0)}) for image in it.data.ids]
    store.add(CLEAN, rows)
    for job in it.experiment.jobs:
        store.add(job.key, rows[: len(rows) - lacking])


@contextlib.contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    asked: list[str] = []
    store._base.base.set_trace_callback(asked.append)
    yield asked
    store._base.base.set_trace_callback(None)


@pytest.mark.parametrize("what", ["units", "digest", "summary"])
def test_as_much_is_asked_of_many_images_as_of_few(what: str):
    numbers = []
    for images in (8, 40):
        it = run(images)
        with Store(":memory:") as store:
            fill(store, it, lacking=images)
            with counted(store) as asked:
                if what == "units":
                    assert len(list(units(it, store))) == images // 4
                elif what == "digest":
                    digest_of(it.experiment, store, it.data.ids)
                else:
                    summarise(it.experiment, store, it.data.ids)
            numbers.append(len(asked))
    assert numbers[0] == numbers[1] < 60


def test_a_unit_names_only_its_own_of_the_images_that_are_kept_whole():
    it = replace(run(10), save=True)
    with Store(":memory:") as store:
        cut: list[Unit] = list(units(it, store))
    assert [unit.shown for unit in cut] == [tuple(it.data.ids[place] for place in unit.places) for unit in cut]


def test_rows_that_say_the_same_share_it_and_records_are_found_where_there_are_any():
    it = run(6)
    key = it.experiment.jobs[0].key
    with Store(":memory:") as store:
        fill(store, it)
        store.add(key, [], Kept(records={it.data.ids[2]: STILL}))
        found = store.results(key)
        assert len({id(row.passes) for row in found.values()}) == 1
        assert store.recorded(key) == {it.data.ids[2]}
        rows = summarise(it.experiment, store, it.data.ids).rows
    assert [row.sanity.zero_gradient for row in rows[1:3]] == [(it.data.ids[2],), ()]
