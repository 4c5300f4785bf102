"""The largest batch that fits and pays, found by trial: with clocks and memories made up, and in killed runs."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threshold_model import Memory, grey, threshold

import segradius as sr
from segradius.cli import main
from segradius.core.errors import InputError, ModelError
from segradius.core.memory import Held
from segradius.evaluation import DataChoice, Experiment, InProcess, ModelChoice, Run, Store, execute, make_plans
from segradius.evaluation.sizing import NOTE, SPARE, USUAL, Trial, largest_that_pays, sized
from segradius.targets.target import Metered

CPU = torch.device("cpu")


class Machine:
    """On which a pass over n images takes seconds(n), and each image bytes."""

    def __init__(self, seconds, each: int = 0, free: int | None = 0, most: int = 10**9) -> None:
        self.now, self.peak, self.tried = 0.0, 0, []
        self.seconds, self.each, self.free, self.most = seconds, each, free, most

    def once(self, images: int) -> None:
        self.tried.append(images)
        if images > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.now += self.seconds(images)
        self.peak = max(self.peak, images * self.each)

    def trial(self, device: torch.device = CPU) -> Trial:
        held = (lambda: None) if self.free is None else (lambda: Held(0, self.peak))
        return Trial(self.once, device, lambda: self.now, held, lambda: self.free)


def linear(images: int) -> float:
    """Nothing is gained by more."""
    return 0.2 * images


def shared(images: int) -> float:
    """There is a cost that all share, so that more always pay."""
    return 1.0 + 0.001 * images


@given(st.integers(1, 50), st.floats(0.01, 10), st.floats(0.001, 1))
@settings(max_examples=50, deadline=None)
def test_it_is_the_last_of_which_an_image_takes_three_hundredths_less(most: int, fixed: float, each: float):
    machine = Machine(lambda images: fixed + each * images, free=10**9)
    found = largest_that_pays(machine.trial(), most)
    doubled = [*itertools.takewhile(lambda n: n < most, (2**k for k in range(9))), most]
    per_image = {n: fixed / n + each for n in doubled}
    expected = next((a for a, b in itertools.pairwise(doubled) if per_image[b] > 0.97 * per_image[a]), most)
    assert found.size == expected
    assert found.told.startswith(f"batch size {expected}: {per_image[expected]:.3g} s an image; ")


def test_a_line_says_what_was_chosen_and_why():
    assert largest_that_pays(Machine(linear, free=1).trial(), 64).told == "batch size 1: 0.2 s an image; 2 would be 0.2"
    assert largest_that_pays(Machine(shared, free=1).trial(), 3).told == "batch size 3: 0.334 s an image; which are all"


@pytest.mark.parametrize("fits", [1, 2, 3, 5, 8])
def test_a_lack_of_memory_on_a_device_that_says_so_ends_the_trial(fits: int):
    found = largest_that_pays(Machine(shared, most=fits).trial(torch.device("meta")), 64)
    assert found.size == max(n for n in (1, 2, 4, 8) if n <= fits)
    assert found.told.endswith(f"{2 * found.size} do not fit into memory")


def test_where_not_even_one_fits_one_is_tried_by_the_run():
    assert largest_that_pays(Machine(shared, most=0).trial(torch.device("meta")), 64).size == 1


@pytest.mark.parametrize("free", [0, 999, 5000, 12345, 10**6])
def test_on_a_cpu_no_batch_is_tried_that_might_not_fit(free: int):
    machine = Machine(shared, each=1000, free=free)
    found = largest_that_pays(machine.trial(), 64)
    assert max(machine.tried) * 1000 <= max(SPARE * free, 1000)
    assert found.size == max(machine.tried)
    assert found.size == 64 or f"{2 * found.size} might not fit into memory" in found.told


def test_where_memory_is_unknown_there_are_no_more_than_without_a_trial():
    assert largest_that_pays(Machine(shared, free=None).trial(), 64).size == USUAL


def test_what_is_no_lack_of_memory_is_raised():
    def once(images: int) -> None:
        raise ModelError("not for me")

    with pytest.raises(ModelError, match="not for me"):
        largest_that_pays(Trial(once, CPU), 4)


DATA = Memory([None, *(grey(k, [[0.2, 0.45, 0.55, 0.8]], [[0, 0, 1, 1]]) for k in range(1, 5))])  # type: ignore[list-item]
EXPERIMENT = Experiment(ModelChoice("threshold"), DataChoice("memory"), make_plans(["fgsm"], [("linf", 0.1)]))


def test_what_was_found_is_noted_and_used_again_without_another_trial():
    seen: list[int] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return threshold(x)

    run = Run(EXPERIMENT, sr.wrap(network, num_classes=2), DATA)
    with Store(":memory:") as store:
        first, found = sized(run, store)
        assert found is not None
        assert first.batch_size == found.size == store.noted(NOTE)["size"]
        assert seen != []
        seen.clear()
        again, same = sized(run, store)
        assert (again.batch_size, same, seen) == (first.batch_size, found, [])
        more = replace(run, data=replace(DATA, samples=[*DATA.samples, DATA.samples[1]]))
        assert sized(more, store, waiting=True)[1] == found  # a batch that was begun is finished as it is
        assert seen == []
        sized(more, store)
        assert seen != []


def test_nothing_is_tried_where_nothing_is_left_to_do():
    model = sr.wrap(threshold, num_classes=2)
    with Store(":memory:") as store:
        run = Run(EXPERIMENT, model, Memory([grey(0, [[0.2, 0.8]], [[0, 1]])]), 3)
        execute(run, store, InProcess(model, run.data))
        assert sized(run, store) == (run, None)


def test_a_target_is_never_tried():
    def network(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a question has its price")

    target = Metered(sr.wrap(network, num_classes=2))
    with Store(":memory:") as store:
        run, found = sized(Run(EXPERIMENT, target, DATA), store)
    assert run.batch_size == USUAL
    assert found is not None
    assert "not tried" in found.told


def test_a_model_that_fails_on_the_first_image_is_met_by_the_run_and_not_by_the_trial():
    def network(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("not for me")

    with Store(":memory:") as store:
        _, found = sized(Run(EXPERIMENT, sr.wrap(network, num_classes=2), DATA), store)
    assert found is not None
    assert found.told == f"batch size {USUAL}: the model fails on the first image"


@pytest.mark.parametrize("fits", [1, 2, 9])
def test_results_are_those_of_any_batch_size_also_where_fewer_fit(fits: int):
    def network(x: torch.Tensor) -> torch.Tensor:
        if len(x) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return threshold(x)

    model, tables = sr.wrap(network, num_classes=2), []
    for size in (1, 3, "auto"):
        found = sr.evaluate(model, DATA, ["fgsm", "pgd"], norm="linf", eps=0.1, steps=2, batch_size=size, quiet=True)
        tables.append([{**row, "seconds": None} for row in found.per_image()])
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("size", [0, -1, "all", 2.5, True, None])
def test_a_batch_size_that_is_none_is_refused(size):
    with pytest.raises(InputError, match=r"batch_size is .*; expected a whole number of at least 1, or auto"):
        sr.evaluate(sr.wrap(threshold, num_classes=2), DATA, "fgsm", batch_size=size, quiet=True)


COMMAND = [
    "attack", "--model", "demo", "--data", "scenes:24x32", "--limit", "4", "--device", "cpu", "--attack", "local_pbgd",
    "--queries", "80", "--eps", "linf=0.1", "--figures", "0", "--checkpoint-seconds", "0",
]  # fmt: skip


def table(folder: Path) -> str:
    return (folder / "per_image.csv").read_text()


def test_a_run_with_a_size_found_by_trial_that_is_killed_finds_its_journals_again(tmp_path: Path, capfd):
    """The store's note is what it goes on with, whatever a trial would find now."""
    out = tmp_path / "out"
    words = [*COMMAND, "--batch-size", "auto", "--out", str(out)]
    with subprocess.Popen([sys.executable, "-m", "segradius", *words], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not list((out / "checkpoints").glob("[!.]*.pt")) and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    (kept,) = (out / "checkpoints").glob("[!.]*.pt")
    images = torch.load(kept, weights_only=True)["images"]
    with closing(sqlite3.connect(out / "results.sqlite")) as base:
        notes = dict(base.execute("SELECT name, value FROM meta").fetchall())
    size = json.loads(notes[NOTE])["size"]
    assert json.loads(notes["batch_size"]) == size
    assert len(images) == size
    assert main(words) == 0
    assert "begins anew" not in capfd.readouterr().err
    runtime = json.loads((out / "results.json").read_text())["runtime"]
    assert runtime["batch_size"] == size
    assert runtime["batch_size_trial"].startswith(f"batch size {size}: ")
    assert main([*COMMAND, "--batch-size", "1", "--out", str(tmp_path / "one")]) == 0
    assert table(out) == table(tmp_path / "one")


def test_a_batch_that_was_begun_with_a_number_goes_on_with_it(tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch):
    from segradius.evaluation.journal import FileJournal

    saved = FileJournal.save

    def stop(self, snapshot) -> None:
        saved(self, snapshot)
        raise KeyboardInterrupt

    words = [*COMMAND, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(FileJournal, "save", stop)
    assert main([*words, "--batch-size", "3"]) == 130
    monkeypatch.undo()
    assert main([*words, "--batch-size", "auto"]) == 0
    said = capfd.readouterr().err
    assert "a batch of 3 images was begun here: going on with --batch-size 3" in said
    assert " s an image" not in said
    assert json.loads((tmp_path / "out/results.json").read_text())["runtime"]["batch_size"] == 3


def test_a_certificate_takes_as_many_copies_as_pay_and_is_the_same(tmp_path: Path, capfd):
    command = [
        "certify",
        "--model",
        "demo",
        "--data",
        "scenes:24x32",
        "--limit",
        "2",
        "--device",
        "cpu",
        "--sigma",
        "0.1",
    ]
    command += ["--n0", "8", "--n", "64", "--figures", "0"]
    assert main([*command, "--batch-size", "auto", "--out", str(tmp_path / "auto")]) == 0
    assert "batch size " in capfd.readouterr().err
    assert main([*command, "--batch-size", "4", "--out", str(tmp_path / "four")]) == 0
    assert table(tmp_path / "auto") == table(tmp_path / "four")
    told = json.loads((tmp_path / "auto/results.json").read_text())
    assert "batch_size_trial" in told["runtime"]
    assert "batch" not in json.dumps(told["experiment"])
