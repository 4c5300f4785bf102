"""One executor works on many measurements, and each one's rows come into its own store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from segradius.core.errors import InputError, SegradiusError
from segradius.evaluation import (
    Begun,
    Certification,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Rows,
    Run,
    Smoothing,
    Store,
    Unit,
    execute,
    execute_all,
    make_plans,
    open_choice,
    open_images,
    units,
    work,
)
from segradius.evaluation.outcome import digest_of

MODEL, DATA = ModelChoice("demo"), DataChoice("scenes:24x32", limit=3)
PLANS = make_plans(["fgsm", "pgd"], [("l2", 1.0)], {"steps": 2})
MEASURED = {
    "attacked": Experiment(MODEL, DATA, PLANS),
    "again": Experiment(MODEL, DATA, PLANS, seed=1),
    "certified": Certification(MODEL, DATA, Smoothing(0.1, 5, 60)),
    "judged": Experiment(MODEL, DataChoice("scenes:32x32", limit=2), ()),
}


def runs(size: int = 2, **more) -> dict[str, Run]:
    return {name: Run(it, open_choice(MODEL), open_images(it.data), size, **more) for name, it in MEASURED.items()}


class Backwards:
    """Asks for all units, and gives the rows of the last first."""

    def __init__(self, lost: int | None = None) -> None:
        self.here, self.lost, self.told = InProcess(), lost, list[str]()

    def begin(self, name: str, run: Run) -> None:
        self.told.append(f"begin {name}")
        self.here.begin(name, run)

    def end(self, name: str) -> None:
        self.told.append(f"end {name}")

    def run(self, given: Iterable[Unit], progress) -> Iterator[tuple[Unit, Rows]]:
        taken = list(given)
        for place, unit in enumerate(reversed(taken)):
            if place != self.lost:
                yield from self.here.run([unit], progress)


def test_many_measurements_in_any_order_are_each_as_if_alone():
    alone = {}
    for name, run in runs().items():
        with Store(":memory:") as store:
            execute(run, store, InProcess())
            alone[name] = digest_of(run.experiment, store, run.data.ids)
    for executor in (InProcess(), Backwards()):
        stores = {name: Store(":memory:") for name in MEASURED}
        begun = [Begun(run, stores[name], name) for name, run in runs().items()]
        done = [each.name for each in execute_all(begun, executor)]
        found = {
            name: digest_of(MEASURED[name], stores[name], begun[k].run.data.ids) for k, name in enumerate(MEASURED)
        }
        assert found == alone
        assert sorted(done) == sorted(MEASURED)
    assert done == ["judged", "certified", "again", "attacked"]
    assert executor.told[:4] == [f"begin {name}" for name in MEASURED]
    assert executor.told[4:] == [f"end {name}" for name in done]


def test_a_measurement_is_opened_when_those_before_it_are_handed_out_and_given_when_it_is_whole():
    told = []

    def opening():
        for name, run in runs(1).items():
            told.append(f"open {name}")
            yield Begun(run, Store(":memory:"), name)

    for each in execute_all(opening(), InProcess()):
        assert work(each.run, each.store) == 0
        assert list(units(each.run, each.store)) == []
        told.append(f"done {each.name}")
    assert [each for each in told if each.startswith("done")] == [f"done {name}" for name in MEASURED]
    assert told.index("open judged") > told.index("done attacked")


def test_what_an_executor_loses_is_said():
    stores = {name: Store(":memory:") for name in MEASURED}
    begun = [Begun(run, stores[name], name) for name, run in runs().items()]
    with pytest.raises(SegradiusError, match="judged: of 1 batches no results came back; run the same command again"):
        list(execute_all(begun, Backwards(lost=0)))


def test_an_error_of_a_measurement_names_it():
    wrong = Experiment(MODEL, DATA, make_plans(["pgd"], [("l2", 1.0)], {"steps": 2}), "no such class")
    run = Run(wrong, open_choice(MODEL), open_images(DATA), 2)
    with pytest.raises(InputError), Store(":memory:") as store:
        list(execute_all([Begun(run, store, "wrong")], InProcess()))


@pytest.mark.parametrize(("size", "of"), [(1, 2), (2, 2), (1, 5), (2, 3)])
def test_parts_are_every_image_once_whatever_was_done(size, of):
    run = runs(size)["attacked"]
    whole, found = Store(":memory:"), []
    execute(run, whole, InProcess())
    for part in range(1, of + 1):
        mine, store = runs(size, shard=(part, of))["attacked"], Store(":memory:")
        first = [unit.places for unit in units(mine, store)]
        execute(mine, store, InProcess())
        assert work(mine, store) == 0
        assert [place for places in first for place in places] == [run.data.ids.index(image) for image in mine.ids]
        assert store.images() == set(mine.ids)
        found += mine.ids
        for job in run.experiment.jobs:
            theirs = whole.results(job.key)
            for image, result in store.results(job.key).items():
                assert (result.pixels, result.l2, result.passes) == (
                    theirs[image].pixels,
                    theirs[image].l2,
                    theirs[image].passes,
                )
    assert sorted(found) == sorted(run.data.ids)
