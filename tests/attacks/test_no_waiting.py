"""The white-box loop never waits for an accelerator: no value leaves it between an attack's step and the next pass."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import segradius as sr
from segradius.attacks import input_diversity, loop
from segradius.attacks.rp_pgd import similarity
from segradius.objectives.view import LogitView
from segradius.objectives.weightings import WEIGHTINGS
from segradius.threats import projections

WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique")
ATTACKS = [
    "pgd", "mi_fgsm", "ni_fgsm", "ti_fgsm", "mi_di_ti_fgsm", "segpgd", "cospgd", "flip_pgd", "flips", "apgd",
    "flip_apgd", "dag", "cr_pgd", "alma_prox", "pdpgd", "fmn",
]  # fmt: skip


class Refusing(TorchDispatchMode):
    """No operator may look at a value, or give as many as the values say."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        assert name not in WAITING, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Projections and choices as they run there, where `done` is not asked."""
    monkeypatch.setattr(projections, "done", lambda images: False)
    with Refusing():
        yield


@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name in ATTACKS for norm in ("l2", "linf")] + [("ddn", "l2")]
)
def test_no_step_of_an_attack_looks_at_a_value(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, images = sr.wrap(torch.nn.Conv2d(3, 4, 3, padding=1), num_classes=4), torch.rand(2, 3, 8, 8)
    labels = torch.randint(4, (2, 8, 8))
    steps, observe, judge = [], loop.observe, loop.judge
    refused = as_on_an_accelerator(monkeypatch)

    def observed(*args: Any, **kwargs: Any) -> Any:
        if not steps:
            refused.__enter__()
        steps.append(1)
        return observe(*args, **kwargs)

    def judged(*args: Any, **kwargs: Any) -> Any:
        refused.__exit__(None, None, None)  # a verdict asks once a run whether the model gives probabilities
        return judge(*args, **kwargs)

    monkeypatch.setattr(loop, "observe", observed)
    monkeypatch.setattr(input_diversity, "observe", observed)
    monkeypatch.setattr(loop, "judge", judged)
    found = sr.make_attack(name, norm=norm, eps=0.1, steps=25)(model, images, labels)
    assert len(steps) == 25
    assert found.valid.all()


@pytest.mark.parametrize("name", ["region", "eroseg", "frontier", "still_correct", "cospgd", "transegpgd", "balanced"])
def test_no_weighting_looks_at_a_value(name: str) -> None:
    logits, state = torch.randn(2, 4, 8, 8), None
    goal = sr.objectives.Goal.leave(torch.randint(4, (2, 8, 8)))
    seen = [LogitView(logits, logits.argmax(1), goal, logits, step, 3, None, None, None) for step in range(3)]  # type: ignore[arg-type]
    with Refusing():
        for view in seen:
            weights, state = WEIGHTINGS[name]().weigh(view, state)
    assert weights.shape == (2, 8, 8)


def test_the_likeness_of_prototypes_looks_at_no_value() -> None:
    maps, labels = torch.randn(2, 5, 3, 4, requires_grad=True), torch.randint(4, (2, 8, 8))
    with Refusing():
        found = similarity(maps, labels, labels > 0, 4)
        torch.autograd.grad(found.sum(), maps)
    assert found.shape == (2,)


def test_a_look_at_a_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_on_an_accelerator(monkeypatch), pytest.raises(AssertionError, match="waits"):
        bool(torch.ones(()))
