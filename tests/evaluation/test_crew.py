"""The scheduler of workers that die: nothing lost, doubled or changed, the guilty image named, whatever the moment."""

from __future__ import annotations

import itertools
import pickle
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from segradius.core.errors import InputError, ModelError
from segradius.data import open_data
from segradius.evaluation import (
    CLEAN,
    Certification,
    CrossChecking,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Run,
    Smoothing,
    Store,
    execute,
    make_plans,
    open_choice,
    open_images,
    units,
    work,
)
from segradius.evaluation.crew import Crew, WorkersError
from segradius.evaluation.messages import Began, Found, Gone, Stepped, packed, unpacked
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.pieces import Account, Piece, smaller
from segradius.evaluation.worker import EVERY, Setup, Worker, opened
from segradius.speed import sped_up
from segradius.speed.forms import Choice, Form

MODEL, DATA = ModelChoice("demo"), DataChoice("scenes:16x24", limit=5)
ATTACKS = Experiment(MODEL, DATA, make_plans(["fgsm", "pgd"], [("l2", 1.0)], {"steps": 2}))
CERTIFICATES = Certification(MODEL, DATA, Smoothing(0.1, 3, 16), 0, CrossChecking(("pgd",), 1, 1, 9))
KILLED = Gone("signal 9")
#: Asked of every event that a worker would tell: its number, and how many it has told. True: it dies before that.
Fate = Callable[[int, int, object], bool]


class _DeadError(BaseException):
    pass


class Hired:
    """A worker in a thread of this process, whose messages are pickled as they would be elsewhere."""

    def __init__(self, number, inbox, fate: Fate, gone):
        self.name, self.number, self.inbox, self.fate, self.gone = f"worker {number}", number, inbox, fate, gone
        self.told, self.dead = 0, threading.Event()
        self.worker = Worker(Setup(), self.tell)
        threading.Thread(target=self.live, daemon=True).start()

    def live(self):
        with suppress(_DeadError):
            self.worker.work()
        self.inbox.put((self, self.gone))

    def tell(self, event):
        if self.dead.is_set() or self.fate(self.number, self.told, event):
            raise _DeadError
        self.told += 1
        self.inbox.put((self, unpacked(packed(event))))

    def give(self, order):
        self.worker.take(None if order is None else unpacked(packed(order)))

    def kill(self):
        self.dead.set()


def crew(fate: Fate = lambda number, told, event: False, size=2, gone=KILLED, **more):
    numbers = itertools.count(1)
    return Crew(
        size, lambda place, inbox: Hired(next(numbers), inbox, fate, gone), warn=more.pop("warn", print), **more
    )


class Strict:
    """An executor whose rows are counted: one that comes twice is a mistake."""

    def __init__(self, inner):
        self.inner, self.seen, self.begin, self.end = inner, Counter(), inner.begin, inner.end

    def run(self, given, progress):
        for unit, rows in self.inner.run(given, progress):
            self.seen.update((rows.key, result.image) for result in rows.results)
            yield unit, rows


def carried_out(measurement, executor, size=2):
    """Digest of the results, what was set aside, and steps that were announced and not told."""
    told = Counter()

    def progress(job, steps):
        told[job.key] += steps

    run = Run(measurement, open_choice(MODEL), open_images(measurement.data), size, progress=progress)
    with Store(":memory:") as store:
        announced = work(run, store)
        strict = Strict(executor)
        execute(run, store, strict)
        assert set(strict.seen.values()) == {1}
        left = {image for unit in units(run, store) for part in unit.parts for image in part.images}
        assert left == set(store.all_set_aside())
        missing = announced - sum(told.values())
        return digest_of(measurement, store, run.data.ids), store.all_set_aside(), missing


UNDISTURBED: dict[str, object] = {}


def undisturbed(measurement, size=2):
    key = f"{measurement.identity} {size}"
    if key not in UNDISTURBED:
        here = InProcess(open_choice(MODEL), open_images(measurement.data))
        found = UNDISTURBED[key] = carried_out(measurement, here, size)
        assert found[1:] == ({}, 0)
    return UNDISTURBED[key]


@pytest.mark.parametrize("measurement", [ATTACKS, CERTIFICATES], ids=["attacks", "certificates"])
@pytest.mark.parametrize("size", [3])
def test_workers_find_what_this_process_does(measurement, size):
    assert carried_out(measurement, crew(size=size)) == undisturbed(measurement)


@pytest.mark.parametrize("measurement", [ATTACKS, CERTIFICATES], ids=["attacks", "certificates"])
@pytest.mark.parametrize("seed", range(2))
def test_workers_that_die_at_any_moment_change_nothing(measurement, seed):
    chance = random.Random(seed)
    # Batches of one, as those over which two died are cut into such, and can then differ by rounding.
    deaths = [chance.randrange(1, 12) for _ in range(2)]  # of the first two workers, at an event of theirs

    def fate(number, told, event):
        return number <= len(deaths) and told >= deaths[number - 1]

    assert carried_out(measurement, crew(fate), 1) == undisturbed(measurement, 1)


def test_rows_that_arrived_are_not_made_again():
    """The first worker dies once its clean rows and the first job's are there; the second makes the other job's."""
    made = []

    def fate(number, told, event):
        if isinstance(event, Found):
            made.append((number, event.rows.key, [result.image for result in event.rows.results]))
        return number == 1 and [n for n, *_ in made].count(1) == 3

    one = replace(ATTACKS, data=DataChoice("scenes:16x24", limit=2))
    assert carried_out(one, crew(fate, size=1)) == undisturbed(one)
    fgsm, pgd = (job.key for job in one.jobs)
    assert [key for _, key, _ in made] == [CLEAN, fgsm, pgd, CLEAN, pgd]  # the third was not told any more


def test_an_image_over_which_every_worker_dies_is_left_out_by_name_and_once():
    ids = open_images(DATA).ids
    said = []

    def fate(number, told, event):
        begun.update({number: event.ids} if isinstance(event, Began) else {})
        return ids[3] in begun.get(number, ()) and not isinstance(event, Began)

    begun: dict[int, tuple[str, ...]] = {}
    _, aside, missing = carried_out(ATTACKS, crew(fate, warn=said.append))
    assert list(aside) == [ids[3]]
    assert "the worker process ended over it 3 times" in aside[ids[3]]
    assert "signal 9" in aside[ids[3]]
    assert missing == sum(job.task.total_steps for job in ATTACKS.jobs)
    assert [words for words in said if "left out" in words] == [said[-1]]
    assert sum("one by one" in words for words in said) in (1, 2)  # by jobs, where these were cut before


def test_a_worker_without_a_sign_of_life_is_killed_and_another_goes_on():
    said, hold = [], threading.Event()

    def fate(number, told, event):
        if number == 1 and isinstance(event, (Stepped, Found)):
            hold.wait(20)
        return False

    found = carried_out(ATTACKS, crew(fate, size=1, patience=8, warn=said.append))
    hold.set()
    assert found == undisturbed(ATTACKS)
    assert len(said) == 1
    assert "worker 1 ended (killed after 8 s without a sign of life) while it worked on" in said[0]


def test_workers_that_end_before_they_begin_end_the_run_in_a_line():
    with pytest.raises(WorkersError, match=r"3 workers.*before they had opened demo and scenes.*signal 9.*__main__"):
        carried_out(ATTACKS, crew(lambda number, told, event: isinstance(event, Began)))


def test_deaths_with_rows_in_between_are_not_laid_to_an_image():
    """Four workers tell one row of an image each."""
    one = replace(CERTIFICATES, data=DataChoice("scenes:16x24", limit=1))
    rows: Counter[int] = Counter()

    def fate(number, told, event):
        rows[number] += isinstance(event, Found)
        return number <= 3 and rows[number] == 2 + (number > 1)  # of the clean image first, which comes anew

    assert carried_out(one, crew(fate, 1)) == undisturbed(one)


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_batch_over_which_two_died_differs_by_rounding_at_most(deaths):
    found, whole = carried_out(ATTACKS, crew(lambda n, told, event: n <= deaths and told > 1, 1)), undisturbed(ATTACKS)
    assert found[0].counts == whole[0].counts
    assert (found[0].results == whole[0].results) >= (deaths == 1)


def test_machines_that_go_are_not_laid_to_what_was_worked_on():
    """Four nodes are lost over the first batch, which stays whole: it was not its fault."""
    said = []
    lost = crew(lambda number, told, event: number <= 3 and isinstance(event, Found), 1, Gone("node lost", 0.5))
    lost.warn = said.append
    assert carried_out(ATTACKS, lost) == undisturbed(ATTACKS)
    assert not any("one by one" in words for words in said)


def test_what_a_worker_raises_is_raised_here_as_it_was():
    with pytest.raises(InputError, match="another network here than where the run was begun"):
        carried_out(replace(ATTACKS, model=replace(MODEL, fingerprint="0" * 16)), crew())


def test_a_target_is_asked_in_one_process():
    priced = replace(MODEL, scores_only=True)
    unit = replace(next(units(Run(ATTACKS, open_choice(MODEL), open_images(DATA)), Store(":memory:"))))
    unit = replace(unit, clean=replace(unit.clean, model=priced))
    with pytest.raises(InputError, match=r"asked in one process, which counts every query.*without --workers"):
        list(crew().run([unit]))


def test_nobody_is_hired_where_nothing_is_to_be_done():
    assert list(Crew(2, lambda place, inbox: pytest.fail("hired")).run([])) == []


def test_steps_of_work_that_is_done_again_are_taken_back():
    """`carried_out` asserts it; here with every step told."""
    steps = []

    def fate(number, told, event):
        if isinstance(event, Stepped):
            steps.append(event.steps)
        return number == 1 and len(steps) == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segradius.evaluation.worker.EVERY", 0.0)
        assert EVERY > 0
        assert carried_out(ATTACKS, crew(fate)) == undisturbed(ATTACKS)


def whole():
    run = Run(CERTIFICATES, open_choice(MODEL), open_images(DATA), 3)
    with Store(":memory:") as store:
        return next(units(run, store))


def test_units_are_cut_by_image_where_tasks_take_one_and_by_job_where_they_take_batches():
    unit = whole()
    cut = smaller(unit)
    assert [[part.images for part in each.parts] for each in cut] == [[(image,)] * 2 for image in unit.parts[0].images]
    assert {each.places for each in cut} == {unit.places}
    run = Run(ATTACKS, open_choice(MODEL), open_images(DATA), 3)
    unit = next(units(run, Store(":memory:")))
    assert [each.parts for each in smaller(unit)] == [(part,) for part in unit.parts]


def test_what_is_left_brings_what_later_parts_need():
    unit, data = whole(), open_data(DATA.spec, limit=5)
    account = Account(unit)
    account.ids = {place: data.ids[place] for place in unit.places}
    model = open_choice(MODEL)
    pieces = [Piece(account, unit)]
    for _, rows in itertools.islice(InProcess(model, open_images(DATA)).run([unit]), 2):
        pieces[0].take(rows)
    rest = pieces[0].rest()
    first, *others = unit.parts[0].images
    assert rest.unit.parts[0].images == tuple(others)
    assert rest.unit.parts[1].images == unit.parts[1].images
    assert list(rest.unit.certificates) == [first]


class _TwoWordsError(InputError):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def test_errors_arrive_as_they_were_or_as_the_nearest_kind_that_can_be_sent():
    from segradius.core.errors import BudgetError
    from segradius.evaluation.messages import as_raised

    for error in (ModelError("fails", by_image=False), BudgetError(9, 10, 4), ZeroDivisionError("by 0")):
        found = unpacked(packed(as_raised(error))).error
        assert (type(found), str(found)) == (type(error), str(error))
        assert getattr(found, "by_image", None) == getattr(error, "by_image", None)
    bad = as_raised(_TwoWordsError("cut", "short")).error
    assert type(bad) is InputError
    assert str(pickle.loads(pickle.dumps(bad))) == "cut short"


def test_a_worker_opens_the_forms_that_the_driver_chose(monkeypatch):
    chosen, asked = Choice("exact", Form(folded=True), Form(folded=True)), []

    def look(model, images, speed, choice):
        asked.append((speed, choice))
        return sped_up(model, images, speed, choice=choice)

    monkeypatch.setattr("segradius.evaluation.quicken.sped_up", look)
    data, digests = open_images(DATA), []
    quick = sped_up(open_choice(MODEL), data[0].image[None], "exact", choice=chosen)
    for executor in (InProcess(), crew(size=1)):
        with Store(":memory:") as store:
            execute(Run(ATTACKS, quick, data, 2, choice=chosen), store, executor)
            digests.append(digest_of(ATTACKS, store, data.ids))
    assert digests[0] == digests[1]
    assert asked == [("exact", chosen)]


def test_the_network_that_a_worker_opens_is_checked():
    assert opened(MODEL, 0, Setup()).name == "demo"
    with pytest.raises(InputError, match="asked in one process"):
        opened(replace(MODEL, scores_only=True), 0, Setup())
    with pytest.raises(InputError, match="working folder /not/there is not there"):
        Setup(folder="/not/there").settle()
    assert torch.get_num_threads() == 1
