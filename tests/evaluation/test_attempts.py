"""One image with which a model fails is lost and no other; memory that is not there makes fewer images at a time."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segradius.cli import main
from segradius.core.border import at_border, in_a_line, is_out_of_memory
from segradius.core.errors import AnswerError, InputError, ModelError, TargetError
from segradius.evaluation.attempts import Room, attempts


def quiet(**more) -> Room:
    return Room(warn=lambda words: None, **more)


def names(items: Sequence[int]) -> list[str]:
    return list(map(str, items))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.sets(st.integers(0, 19)), st.integers(1, 20))
def test_all_but_what_fails_is_done_once_in_order_in_parts_that_fit(count: int, bad: set[int], fits: int):
    def work(items: Sequence[int]) -> list[int]:
        if len(items) > fits:
            raise MemoryError
        if bad & set(items):
            raise ModelError("not for me")
        return [10 * item for item in items]

    room = quiet()
    done = list(attempts(range(count), work, room, names))
    assert [item for each in done for item in each.items] == list(range(count))
    assert [x for each in done if each.result is not None for x in each.result] == [
        10 * item for item in range(count) if item not in bad
    ]
    assert all(len(each.items) == 1 and "not for me" in each.failure for each in done if each.result is None)
    assert room.most is None or room.most <= max(1, fits)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20))
def test_parts_are_the_same_whether_the_room_is_known_or_found_out(count: int, fits: int):
    def parts(room: Room) -> list[tuple[int, ...]]:
        def work(items: Sequence[int]) -> bool:
            if len(items) > fits:
                raise MemoryError
            return True

        return [tuple(each.items) for each in attempts(range(count), work, room, names)]

    found = quiet()
    first = parts(found)
    assert parts(quiet(most=found.most)) == first or found.most is None


@pytest.mark.parametrize(("bad", "told"), [({3}, 1), ({0, 3, 5}, 1), (set(range(8)), 0), (set(), 0)])
def test_halves_are_told_once_and_not_at_all_where_everything_fails(bad: set[int], told: int):
    def work(items: Sequence[int]) -> int:
        if bad & set(items):
            raise ModelError("no")
        return len(items)

    said: list[str] = []
    room = Room(warn=said.append)
    done = list(attempts(range(8), work, room, names))
    assert {each.items[0] for each in done if each.failure} == bad
    assert len(said) == told
    assert all(line.startswith("no. The images 0, 1, ") for line in said)


def test_one_item_that_does_not_fit_gets_fewer_copies_and_is_told_at_last():
    seen = []

    def work(items: Sequence[int]) -> None:
        seen.append(room.together)
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")

    room = quiet(device="cpu")
    (done,) = attempts([5], work, room, names)
    assert seen == [None, 2, 1]
    assert "not enough memory for one image: RuntimeError: CUDA out of memory" in done.failure


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(), SystemExit(3), RuntimeError("our own mistake"), ValueError("likewise"),
        InputError("an option"),
        ModelError("CUDA error: device-side assert triggered", by_image=False), TargetError("the server is away"),
        AnswerError("another shape", by_image=False), AssertionError(), GeneratorExit(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_nothing_else_is_swallowed(error: BaseException):
    def work(items: Sequence[int]) -> None:
        raise error

    with pytest.raises(type(error)):
        list(attempts(range(4), work, quiet(), names, answers=True))


def test_an_answer_is_an_images_own_only_where_that_is_asked_for():
    def work(items: Sequence[int]) -> int:
        if 2 in items:
            raise AnswerError("image 3 of 4: NaN", by_image=True)
        return len(items)

    with pytest.raises(AnswerError):
        list(attempts(range(4), work, quiet(), names))
    done = list(attempts(range(4), work, quiet(), names, answers=True))
    assert [each.failure for each in done if each.result is None] == ["image 3 of 4: NaN"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError("Unable to allocate 7.5 GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), OSError(12, "Cannot allocate memory"),
        RuntimeError("could not create a memory object"), RuntimeError("CUDA error: out of memory"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
    ],
    ids=str,
)  # fmt: skip
def test_a_lack_of_memory_is_known_whatever_tells_it_and_whatever_it_became(error: Exception):
    assert is_out_of_memory(error)
    with pytest.raises(type(error)), at_border("model 'net'", (1,)):
        raise error
    wrapped = InputError("wrapped")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error", [ValueError("a size"), RuntimeError("shape mismatch"), KeyError("x"), RecursionError()]
)
def test_what_a_model_raises_is_told_in_a_line(error: Exception):
    assert not is_out_of_memory(error)
    with pytest.raises(ModelError) as caught, at_border("model 'net'", (1, 3, 4, 4)):
        raise error
    assert str(caught.value) == f"model 'net' failed on images (1, 3, 4, 4): {in_a_line(error)}"
    assert str(caught.value).isprintable()


NETWORK = '''
import torch
from torch import nn

class Net(nn.Module):
    """Fails on images of one width, in a way that its name says; or where more than so many come together."""

    def __init__(self, how="never", width=9, most=99):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
        self.how, self.width, self.most = how, width, most

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        y = self.net(x)
        if self.width not in (0, x.shape[-1]):
            return y
        if self.how == "raises":
            raise ValueError("not for me\\nsecond line")
        if self.how == "backward":
            y.register_hook(Harm.apply) if y.requires_grad else None
        return {"none": None, "classes": y[:, :2], "flat": y[0], "long": y.long()}.get(self.how, y)

class Harm:
    @staticmethod
    def apply(grad):
        raise KeyError("no gradient for me")

def network(how="never", width=9, most=99):
    return Net(how, width, most).eval()
'''
IDS = ("a", "b", "c", "d", "e")
#: In what other ways it fails: what it gives for c.
OTHERS = ("none", "classes", "flat", "long")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of 8 × 10, but for c, which is 8 × 9; a network; and the folder as the working one."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for name in IDS:
        size = (8, 9 if name == "c" else 10)
        picture = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = generator.integers(0, 3, size, dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "data" / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{name}.png")
    (tmp_path / "data" / "segradius.yaml").write_text("classes: [x, y, z]\n")
    (tmp_path / "failing_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


TASKS = {
    "evaluate": ["evaluate"],
    "attack": ["attack", "--attack", "pgd,cr_pgd", "--steps", "2", "--eps", "l2=0.5", "--figures", "1"],
    "queries": ["attack", "--attack", "local_pbgd", "--queries", "12", "--eps", "linf=0.1", "--figures", "0"],
    "certify": ["certify", "--sigma", "0.1", "--n0", "5", "--n", "50", "--figures", "0"],
    "check": [
        "certify",
        "--sigma",
        "0.1",
        "--n0",
        "5",
        "--n",
        "60",
        "--figures",
        "0",
        "--attack",
        "pgd",
        "--steps",
        "2",
    ],
}


def run(task: str, out: str, model: str = "failing_net:network", *more: str, asked: str = "--model") -> int:
    data = ["--num-classes", "3", "--device", "cpu", "--data", "folder:data", "--out", out]
    return main([*TASKS[task], asked, model, *data, *more])


def facts(out: str) -> Counter[tuple[str, ...]]:
    """What the store has of every image, without times; floats as they are."""
    with sqlite3.connect(Path(out) / "results.sqlite") as base:
        rows = base.execute("SELECT attack, image, pixels, hit, eligible, passes FROM results").fetchall()
    found = Counter(tuple(map(str, row)) for row in rows)
    return found


def without(found: Counter, image: str) -> Counter:
    return Counter({fact: count for fact, count in found.items() if fact[1] != image})


@pytest.mark.parametrize(
    ("task", "how"), [*((task, "raises") for task in TASKS), *(("evaluate", how) for how in OTHERS), ("attack", "none")]
)
def test_the_image_with_which_the_model_fails_is_set_aside_by_name_and_the_others_are_as_they_were(
    place: Path, capfd: pytest.CaptureFixture[str], task: str, how: str
):
    assert run(task, "whole") == 0
    for _ in range(2 if task in ("attack", "evaluate") else 1):  # a second time it goes on, and meets it again
        assert run(task, "out", f"failing_net:network,how={how}") == 0
    said = capfd.readouterr()
    assert "1 image(s) set aside" in said.out
    assert "Traceback" not in said.err
    told = json.loads(Path("out/results.json").read_text())["set_aside"]
    assert list(told) == ["c"]
    assert told["c"].isprintable()
    if how == "raises":
        assert "ValueError: not for me" in told["c"]
    assert {fact[1] for fact in facts("out")} == {"a", "b", "d", "e"}
    keys = {fact[0] for fact in facts("whole")} & {fact[0] for fact in facts("out")}
    assert without(facts("whole"), "c").keys() >= {fact for fact in facts("out") if fact[0] in keys}


@pytest.mark.parametrize("task", ["evaluate", "certify"])
def test_the_exit_status_tells_of_images_set_aside_where_asked(place: Path, capfd, task: str):
    assert run(task, "out", "failing_net:network,how=raises", "--fail-on-set-aside") == 3
    assert "1 image(s) set aside, c: exit status 3" in capfd.readouterr().err
    assert Path("out/results.json").exists()
    assert run(task, "fine", "failing_net:network", "--fail-on-set-aside") == 0


@pytest.mark.parametrize("task", ["evaluate", "attack", "certify"])
def test_a_model_that_fails_on_every_image_ends_the_run(place: Path, capfd, task: str):
    assert run(task, "out", "failing_net:network,how=raises,width=0") == 2
    assert "ValueError: not for me" in capfd.readouterr().err.splitlines()[-1]


def test_a_backward_pass_that_fails_loses_the_image_for_all_attacks(place: Path, capfd):
    assert run("attack", "out", "failing_net:network,how=backward") == 0
    told = json.loads(Path("out/results.json").read_text())["set_aside"]
    assert "the backward pass of model" in told["c"]
    assert "no gradient for me" in told["c"]
    lines = Path("out/per_image.csv").read_text().splitlines()[1:]
    assert Counter(line.split(",")[0] for line in lines) == {"clean": 4, "pgd": 4, "cr_pgd": 4}


@pytest.mark.parametrize("task", ["attack", "queries", "evaluate"])
@pytest.mark.parametrize("most", [1, 2])
def test_a_batch_that_does_not_fit_is_halved_and_the_results_are_the_same(place: Path, capfd, task: str, most: int):
    more = ("--batch-size", str(most))
    assert run(task, "small", "failing_net:network", *more) == 0
    capfd.readouterr()
    assert run(task, "out", f"failing_net:network,most={most}", "--batch-size", "4") == 0
    said = capfd.readouterr().err
    assert said.count("not enough memory for 4 images at a time: going on with 2") <= 1
    assert "not enough memory for 2 images at a time: going on with 1" in said or most == 2
    small, out = (sorted(fact[1:] for fact in facts(name)) for name in ("small", "out"))
    assert [fact[:4] for fact in small] == [fact[:4] for fact in out]


def test_copies_that_do_not_fit_together_become_fewer_and_the_certificate_is_the_same(place: Path, capfd):
    assert run("certify", "whole") == 0
    assert run("certify", "out", "failing_net:network,most=1") == 0
    assert "4 noisy copies at a time: going on with 2" in capfd.readouterr().err
    whole, out = (sorted(fact[1:] for fact in facts(name)) for name in ("whole", "out"))
    assert whole == out


def test_memory_that_is_never_enough_ends_in_a_line(place: Path, capfd):
    assert run("attack", "out", "failing_net:network,most=0") == 2
    assert "not enough memory for one image" in capfd.readouterr().err.splitlines()[-1]


def test_queries_answered_in_vain_are_counted(place: Path, capfd):
    """A target in this process whose memory fails in the attack: what was asked for begins anew, and is counted."""
    assert run("queries", "small", "failing_net:network", "--batch-size", "1", asked="--target") == 0
    assert run("queries", "out", "failing_net:network,most=4", "--batch-size", "4", asked="--target") == 0
    small, out = (json.loads(Path(name, "results.json").read_text())["runtime"]["target"] for name in ("small", "out"))
    assert out["answered"] >= small["answered"]
    assert run("queries", "out", "failing_net:network,most=4", "--batch-size", "4", asked="--target") == 0
    again = json.loads(Path("out/results.json").read_text())["runtime"]["target"]
    assert again["answered"] == out["answered"]
