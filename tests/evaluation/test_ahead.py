"""Images are read in a thread ahead of the work: once each, in order, no further than the next unit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threshold_model import TWO, grey, threshold

from segradius.core.errors import InputError
from segradius.data import BadSampleError, Classes, Sample, open_data
from segradius.evaluation import (
    CLEAN,
    DataChoice,
    Experiment,
    InProcess,
    ModelChoice,
    Run,
    Store,
    execute,
    make_plans,
    per_image_csv,
)
from segradius.evaluation.ahead import Samples, in_turn, one_thread
from segradius.models import wrap

PLANS = make_plans(["fgsm", "pgd"], [("linf", 0.1)], {"steps": 2})
EXPERIMENT = Experiment(ModelChoice("threshold"), DataChoice("read"), PLANS)
NAME = "segradius reads ahead"
FIVE = [grey(k, [[0.2, 0.45, 0.55, 0.8]], [[0, k % 2, 1, 1]]) for k in range(5)]


@dataclass
class Reading:
    """Samples of which it is known when, where and how often they were read; an error in the place of one is raised."""

    samples: Sequence[Sample | Exception]
    thread_safe: bool = True
    name: str = "reading"
    classes: Classes = TWO
    reads: list[tuple[int, str]] = field(default_factory=list)
    more: threading.Condition = field(default_factory=threading.Condition)

    @property
    def ids(self) -> Sequence[str]:
        return [f"image {place}" for place in range(len(self.samples))]

    def __len__(self) -> int:
        return len(self.samples)

    def parts(self, index: int) -> dict[str, torch.Tensor]:
        found = self.samples[index]
        return {"image": found.image} if isinstance(found, Sample) else {}

    def __getitem__(self, index: int) -> Sample:
        with self.more:
            self.reads.append((index, threading.current_thread().name))
            self.more.notify_all()
        found = self.samples[index]
        if isinstance(found, Exception):
            raise found
        return found


def rows(store: Store) -> dict[str, object]:
    return {key: sorted(store.results(key)) for key in (CLEAN, *(EXPERIMENT.key(plan) for plan in PLANS))}


def found_in(data, size: int, model=None, progress: Callable = lambda job, steps: None) -> str:
    model = model or wrap(threshold, num_classes=2)
    with Store(":memory:") as store:
        execute(Run(EXPERIMENT, model, data, size, progress=progress), store, InProcess(model, data, warn=len))
        return per_image_csv(EXPERIMENT, store, data.ids) + str(store.all_set_aside())


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]


def at_most(images: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def network(x: torch.Tensor) -> torch.Tensor:
        if len(x) > images:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return threshold(x)

    return network


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("fits", [1, 2, 9])
def test_with_and_without_the_thread_the_results_are_the_same_and_nothing_is_read_twice(size: int, fits: int):
    tables = []
    for safe in (True, False):
        bad = BadSampleError("image 3", Path("3.jpg"), "truncated")
        data = Reading([*FIVE[:3], bad, FIVE[4]], safe)
        tables.append(found_in(data, size, wrap(at_most(fits), num_classes=2)))
        assert data.reads[:2] == [(0, "MainThread"), (4, "MainThread")]  # the look at a few images before
        assert [place for place, _ in data.reads[2:]] == list(range(5))
        aside = {place for place, name in data.reads[2:] if name.startswith(NAME)}
        assert (aside == set(range(5)) if fits >= size else aside >= set(range(min(size, 5)))) if safe else not aside
        assert threads() == []
    assert tables[0] == tables[1] == found_in(Reading(data.samples, False), 1)
    assert "{'image 3': \"sample 'image 3': truncated (3.jpg)\"}" in tables[0]


def test_files_are_the_same_to_the_byte_with_and_without_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    for kind, most in (("images", 256), ("masks", 2)):
        (tmp_path / kind).mkdir()
        for k in range(5):
            numbers = generator.integers(0, most, (6, 7 + k // 3, 3)[: 3 if most == 256 else 2], dtype=np.uint8)
            Image.fromarray(numbers).save(tmp_path / kind / f"{k}.png")
    (tmp_path / "images" / "2.png").write_bytes((tmp_path / "images" / "2.png").read_bytes()[:60])
    (tmp_path / "segradius.yaml").write_text("classes: [dark, bright]\n")
    found = []
    for safe in (True, False):
        data = open_data(f"folder:{tmp_path}")
        monkeypatch.setattr(type(data), "thread_safe", safe)
        model = wrap(threshold, num_classes=2)
        with Store(tmp_path / f"{safe}.sqlite") as store:
            execute(Run(EXPERIMENT, model, data, 2, save=True), store, InProcess(model, data))
        with closing(sqlite3.connect(tmp_path / f"{safe}.sqlite")) as base:
            columns = [name for _, name, *_ in base.execute("PRAGMA table_info(results)")]
            kept = ", ".join(columns[: columns.index("seconds")])  # the rest are that time and a checksum
            tables = ("image, shape, adversarial", "examples"), ("*", "set_aside"), ("*", "sources"), (kept, "results")
            dump = {table: base.execute(f"SELECT {what} FROM {table}").fetchall() for what, table in tables}
        found.append(dump)
    assert found[0] == found[1]
    assert len(found[0]["examples"]) == 8
    assert "2.png" in str(found[0]["set_aside"])


def test_the_next_unit_and_no_other_is_read_while_one_is_worked_on():
    told: list[object] = []
    found_in(Reading(FIVE), 2, progress=lambda job, steps: told.append(job))
    data, seen = Reading(FIVE), list[object]()

    def checked(job, steps: int) -> None:
        first = 2 * (3 * len(seen) // len(told))  # of the three units, each of which tells as often
        seen.append(job)
        end = min(first + 4, 5)
        with data.more:
            assert data.more.wait_for(lambda: len(data.reads) >= 2 + end, 60)
        assert [place for place, _ in data.reads[2:]] == list(range(end))

    found_in(data, 2, progress=checked)
    assert len(seen) == len(told) > 3


@pytest.mark.parametrize("thrown", [KeyboardInterrupt, SystemExit, RuntimeError, InputError])
def test_the_thread_is_gone_after_whatever_ends_a_run(thrown: type[BaseException]):
    def stop(job, steps: int) -> None:
        assert threads() != []
        raise thrown("stop")

    with pytest.raises(thrown, match="stop"):
        found_in(Reading(FIVE), 2, progress=stop)
    assert threads() == []


def test_the_thread_is_gone_when_rows_are_not_taken_to_the_end():
    data, model = Reading(FIVE), wrap(threshold, num_classes=2)
    with Store(":memory:") as store:
        store.mark = None  # type: ignore[assignment]  # what execute() asks of the store after the first rows fails
        with pytest.raises(TypeError):
            execute(Run(EXPERIMENT, model, data, 2), store, InProcess(model, data))
    assert threads() == []


@pytest.mark.parametrize("safe", [True, False])
def test_an_error_of_ours_while_reading_is_raised_when_all_before_it_is_stored(safe: bool):
    data, model = Reading([*FIVE[:3], ValueError("our own mistake"), FIVE[4]], safe), wrap(threshold, num_classes=2)
    with Store(":memory:") as store:
        with pytest.raises(ValueError, match="our own mistake"):
            execute(Run(EXPERIMENT, model, data, 1), store, InProcess(model, data))
        assert set(map(tuple, rows(store).values())) == {("image 0", "image 1", "image 2")}
    assert threads() == []


def test_an_image_for_which_memory_lacked_in_the_thread_is_read_again_in_its_turn():
    @dataclass
    class Tight(Reading):
        def __getitem__(self, index: int) -> Sample:
            found = super().__getitem__(index)
            if index == 1 and threading.current_thread() is not threading.main_thread():
                raise MemoryError
            return found

    data = Tight(FIVE)
    assert found_in(data, 2) == found_in(Reading(FIVE, False), 2)
    assert [place for place, _ in data.reads].count(1) == 2


def test_a_change_of_what_was_read_ahead_is_seen_before_its_results_are_stored(tmp_path: Path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for k in range(3):
            Image.fromarray(np.full((4, 5), k, np.uint8)).save(tmp_path / kind / f"{k}.png")
    (tmp_path / "segradius.yaml").write_text("classes: [a, b, c]\n")
    (tmp_path / "masks/1.png").write_bytes((tmp_path / "masks/0.png").read_bytes())
    (tmp_path / "masks/2.png").write_bytes((tmp_path / "masks/0.png").read_bytes())
    data, model = open_data(f"folder:{tmp_path}"), wrap(lambda x: torch.cat([threshold(x), x[:, :1]], 1), num_classes=3)
    changes = [0]

    def change(job, steps: int) -> None:
        if not changes[0]:
            changes[0] = (tmp_path / "images/1.png").write_bytes((tmp_path / "images/2.png").read_bytes())

    with Store(":memory:") as store:
        with pytest.raises(InputError, match=r"image 1: .*1\.png changed while this run worked on it"):
            execute(Run(EXPERIMENT, model, data, 1, progress=change), store, InProcess(model, data))
        assert store.done(CLEAN) == {"0"}


def test_what_is_raised_for_the_next_unit_waits_until_this_one_is_done():
    def units():
        yield "a"
        yield "b"
        raise InputError("changed since")

    done = []
    with one_thread() as pool:

        def begin(unit: str) -> Samples:
            return Samples(lambda place: unit, {0: pool.submit(str.upper, unit)})

        with pytest.raises(InputError, match="changed since"):
            done.extend((unit, samples(0), samples(1)) for unit, samples in in_turn(units(), begin))
    assert done == [("a", "A", "a"), ("b", "B", "b")]


def test_nothing_is_asked_for_ahead_where_nothing_is_read_ahead():
    asked = []

    def units():
        for unit in range(3):
            asked.append(unit)
            yield unit

    for unit, _ in in_turn(units(), lambda unit: Samples(str)):
        assert asked == list(range(unit + 1))


def test_a_unit_is_dropped_from_memory_once_it_was_judged():
    samples = Samples(str)
    assert [samples(place) for place in (0, 1)] == ["0", "1"]
    samples.drop([0])
    assert samples._found == {1: "1"}
