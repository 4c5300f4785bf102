"""Attacks that look for the shortest perturbation: against the authors' code, and what they return."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segradius as sr
from segradius.core.errors import InputError
from segradius.objectives.penalties import alma_penalty_slope
from segradius.threats.threat import NORMS
from tiny import CLASSES, batch, network

GOLDEN = Path(__file__).parents[1] / "golden" / "minimal_norm.npz"
#: Steps that go as far in few as images of 8 × 8 want.
ALPHA = {"alma_prox": 0.02, "pdpgd": 0.05}
FOUND = [(name, norm) for name in ("alma_prox", "pdpgd", "fmn") for norm in ("l2", "linf")] + [("ddn", "l2")]


class Tape(torch.nn.Module):
    """Two convolutions, and every image that was shown to them."""

    def __init__(self, known: Any) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(8, 5, 3, padding=1)
        ).double()
        state = {name: torch.from_numpy(known[f"net.{name}"]) for name in self.net.state_dict()}
        self.net.load_state_dict(state)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.detach().clone())
        return self.net(images)


@pytest.mark.parametrize(
    ("name", "norm", "share"),
    [
        ("alma_prox", "linf", 0.9), ("pdpgd", "l2", 0.9), ("pdpgd", "linf", 0.9), ("ddn", "l2", 0.5),
        ("fmn", "l2", 0.5), ("fmn", "linf", 0.5),
    ],
)  # fmt: skip
def test_iterates_are_those_of_the_reference(name: str, norm: str, share: float) -> None:
    known = np.load(GOLDEN)
    images, labels, tape = torch.from_numpy(known["images"]), torch.from_numpy(known["labels"]), Tape(known)
    attack = sr.make_attack(name, norm=norm, eps="inf", steps=60, share=share)
    attack(sr.wrap(tape, num_classes=5), images, labels)
    mine = torch.stack([tape.seen[t] - images for t in (10, 30, 59)])
    torch.testing.assert_close(mine, torch.from_numpy(known[f"{name}.{norm}"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "norm"), FOUND)
def test_without_a_ball_the_shortest_that_fools_the_share_is_returned(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    model, alpha = sr.wrap(network(), num_classes=CLASSES), ALPHA.get(name)
    found, more = (
        sr.make_attack(name, norm=norm, eps="inf", steps=60, share=share, alpha=alpha)(model, images, labels)
        for share in (0.2, 0.5)
    )
    counted = (labels != 255).flatten(1).sum(1)
    assert (found.fooled >= 0.2 * counted).all()
    assert (more.fooled >= 0.5 * counted).all()
    assert (NORMS[norm].length(found.delta) < NORMS[norm].length(more.delta)).all()
    assert found.ledger.forward.tolist() == [61, 61]


@pytest.mark.parametrize(("name", "norm"), FOUND)
def test_a_ball_that_is_wide_enough_changes_no_verdict_and_costs_a_pass(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    model = sr.wrap(network(), num_classes=CLASSES)
    free = sr.make_attack(name, norm=norm, eps="inf", steps=40, share=0.3)(model, images, labels)
    wide = 1.01 * NORMS[norm].length(free.delta).max().item()
    held = sr.make_attack(name, norm=norm, eps=min(wide, 0.99) if norm == "linf" else wide, steps=40, share=0.3)
    found = held(model, images, labels)
    assert (found.fooled >= free.fooled).all()
    assert found.ledger.forward.tolist() == [42, 42]


def test_the_last_iterate_is_brought_into_the_ball() -> None:
    images, labels = batch(count=2)
    model = sr.wrap(network(), num_classes=CLASSES)
    last = sr.attacks.fmn(norm="l2", eps=0.2, steps=10, keep="last")
    assert (NORMS["l2"].length(last(model, images, labels).delta) <= 0.2 * (1 + 1e-9)).all()


def test_members_of_an_ensemble_and_restarts_are_inside_the_ball() -> None:
    images, labels = batch(count=2)
    model = sr.wrap(network(), num_classes=CLASSES)
    attack = sr.make_attack("ensemble", norm="l2", eps=0.5, steps=10, members="pgd+ddn+fmn", restarts=2)
    found = attack(model, images, labels)
    assert (NORMS["l2"].length(found.delta) <= 0.5 * (1 + 1e-9)).all()
    best = torch.stack([member.fooled for member in found.members.values()]).amax(0)
    assert (found.fooled == best).all()


def test_the_slope_of_the_penalty_is_its_derivative() -> None:
    c = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    rho, mu = torch.tensor(3.0, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    above = mu * c + mu * rho * c**2 + rho**2 * c**3 / 6
    value = torch.where(c >= 0, above, mu * c / (1 - rho * c.clamp(max=0)))
    (slope,) = torch.autograd.grad(value.sum(), c)
    torch.testing.assert_close(alma_penalty_slope(c.detach(), rho, mu), slope)


def test_what_they_are_not_defined_for_is_refused() -> None:
    for name, norm in (("ddn", "linf"), ("pdpgd", "l1")):
        with pytest.raises(InputError, match="is defined for l2"):
            sr.make_attack(name, norm=norm)
    with pytest.raises(InputError, match="a uniform start is a part of it"):
        sr.make_attack("fmn", eps=math.inf, restarts=2)
