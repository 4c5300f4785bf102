"""Counts and budgets, exact in one thread and in many, and through failures."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import segradius as sr
from segradius.core.errors import BudgetError, InputError, MissingExtraError, TargetError
from segradius.targets import Local, Metered, fingerprint, open_target


def model(forward=lambda x: 5 * x) -> sr.Segmenter:
    return sr.wrap(forward, num_classes=3)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 4, 4)


def test_nothing_is_sent_that_would_exceed_the_budget():
    seen = []
    target = Metered(model(lambda x: seen.append(len(x)) or 5 * x), budget=10)
    for count in (4, 4):
        target.scores(images(count))
    with pytest.raises(BudgetError, match="a query of 3 images would exceed the budget: 8 of 10 are used") as caught:
        target.scores(images(3))
    assert (caught.value.used, caught.value.budget, caught.value.asked) == (8, 10, 3)
    target.scores(images(2))
    assert (sum(seen), target.answered, target.left) == (10, 10, 0)
    with pytest.raises(BudgetError):
        target.scores(images(1))
    assert sum(seen) == 10


def test_a_failed_query_is_not_counted_and_gives_its_budget_back():
    def fails(x):
        raise TargetError("down")

    target = Metered(model(fails), budget=4)
    with pytest.raises(TargetError):
        target.scores(images(4))
    assert (target.answered, target.left) == (0, 4)


def test_threads_share_one_budget_exactly():
    gate = threading.Barrier(8, timeout=30)
    told = []

    def slow(x):
        told.append(len(x))
        return 5 * x

    target = Metered(model(slow), budget=50)

    def work(worker: int) -> int:
        gate.wait()
        done = 0
        try:
            for _ in range(10):
                target.scores(images(1 + worker % 3))
                done += 1 + worker % 3
        except BudgetError:
            pass
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))
    assert done == target.answered == sum(told) <= 50
    assert target.left == 50 - done < 3


def test_a_run_that_goes_on_starts_at_what_was_used():
    target = Metered(model(), budget=5, used=4)
    target.scores(images(1))
    with pytest.raises(BudgetError, match="5 of 5 are used"):
        target.scores(images(1))


@pytest.mark.parametrize(("budget", "used"), [(0, 0), (-1, 0), (5, -1)])
def test_numbers_outside_their_range_are_refused(budget: int, used: int):
    with pytest.raises(InputError, match=r"(budget|used) is"):
        Metered(model(), budget, used=used)


def test_a_local_target_is_the_network_and_its_precision_is_told_apart():
    torch.manual_seed(0)
    network = sr.wrap(torch.nn.Conv2d(3, 4, 3, padding=1))
    x = images(2)
    assert torch.equal(open_target("demo").scores(x.expand(2, 3, 4, 4)), sr.load_model("demo").scores(x))
    low = Local(network, "bfloat16")
    assert torch.equal(low.scores(x), network.scores(x, torch.bfloat16))
    assert torch.equal(Local(network, "float32").scores(x), network.scores(x))
    assert len({fingerprint(network), fingerprint(low), fingerprint(Local(network, "float16"))}) == 3
    with pytest.raises(InputError, match="unknown precision 'half'"):
        Local(network, "half")


def test_opening_puts_the_layers_together(tmp_path):
    target = open_target("demo", answers="top=2,digits=3", input="uint8", budget=2, precision="bfloat16")
    x = torch.rand(2, 3, 24, 32)
    scores = target.scores(x)
    assert torch.equal((scores > 0).sum(1).clamp_min(2), torch.full((2, 24, 32), 2))
    with pytest.raises(BudgetError):
        target.scores(x)
    card = tmp_path / "card.yaml"
    card.write_text("model: demo\n")
    assert fingerprint(open_target(str(card))) == fingerprint(sr.load_model("demo"))


@pytest.mark.parametrize(
    ("library", "extra", "spec"),
    [("onnxruntime", "onnx", "onnx:net.onnx"), ("urllib3", "oip", "oip:http://127.0.0.1:9/v2/models/net")],
)
def test_an_absent_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, library: str, extra: str, spec: str
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"needs {library}.*segradius\[{extra}\]"):
        open_target(spec)


@pytest.mark.parametrize(
    ("spec", "given", "message"),
    [
        ("onnx:nowhere.onnx", {}, "is not a file"),
        ("onnx:nowhere.onnx,thread=2", {}, "unknown option of onnx 'thread'; did you mean 'threads'"),
        ("onnx:nowhere.onnx,device=cpu", {}, "unknown option of onnx 'device'"),
        (
            "onnx:nowhere.onnx,outputs=logits",
            {"outputs": "logits"},
            "outputs is given in 'onnx:nowhere.onnx' and beside",
        ),
        ("onnx:nowhere.onnx", {"weights": "w.pt"}, "weights and precision are for a model in this process"),
        ("demmo", {}, "unknown model 'demmo'"),
        ("demo", {"device": "cuda:99"}, "cannot be used"),
    ],
)
def test_what_cannot_be_opened_is_named(spec: str, given, message: str):
    with pytest.raises(InputError, match=message):
        open_target(spec, **given)


@pytest.mark.parametrize(("spec", "absent"), [("demo", ("oip", "onnx")), ("onnx:absent.onnx", ("oip",))])
def test_opening_one_kind_of_target_imports_no_other(spec: str, absent: tuple[str, ...]):
    code = f"""
import contextlib, sys
from segradius.core.errors import SegradiusError
from segradius.targets import lasting, open_target
with contextlib.suppress(SegradiusError):
    open_target({spec!r})
lasting({spec!r})
print([name for name in sys.modules if name.startswith({tuple(f"segradius.targets.{name}" for name in absent)!r})])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
