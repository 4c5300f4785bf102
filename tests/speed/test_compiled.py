"""A compiled form agrees with the network where there is a compiler, and what does not pay or fails is said."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import nn

import segradius as sr
from segradius.speed import Form, chosen
from segradius.speed.forming import formed

IMAGES = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def model() -> sr.Segmenter:
    torch.manual_seed(0)
    return sr.wrap(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)))


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_a_compiled_form_gives_the_same_logits_and_gradients():
    plain = model()
    quick = formed(plain, Form(compiled=True), IMAGES)
    found = []
    for each in (plain, quick):
        x = IMAGES.clone().requires_grad_()
        logits = each.logits(x)
        found += [logits, *torch.autograd.grad(logits.square().sum(), x)]
    torch.testing.assert_close(found[2:], found[:2])


def slow(network: nn.Module) -> Any:
    """As a compiler that makes nothing faster."""
    return nn.Sequential(network, nn.Sequential(*(nn.Upsample(scale_factor=1.0) for _ in range(2000))))


def broken(network: nn.Module) -> Any:
    raise RuntimeError("no compiler")


@pytest.mark.parametrize(
    ("compiler", "why"), [(slow, r"of a plain pass, which does not pay for compiling"), (broken, "no compiler")]
)
def test_what_is_not_compiled_runs_as_it_is_and_it_is_said(monkeypatch, compiler, why):
    monkeypatch.setattr("segradius.speed.forming.compiled", compiler)
    choice = chosen(model(), IMAGES, "plain", compiled=True)
    assert choice.guidance == Form()
    assert choice.warm_up == 0
    assert [why in line and line.startswith("compiled: ") for line in choice.left] == [True]
