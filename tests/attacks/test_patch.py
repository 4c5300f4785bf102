"""Patches: what they may change, what counts, where they lie, and that a pass over a place is a pass in the ledger."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segradius as sr
from segradius.attacks import make_attack, patch
from segradius.attacks.base import Task
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.evaluation.attack import make_plans
from segradius.evaluation.batch import Batch, goal_counts
from segradius.objectives.goal import Goal
from tiny import CLASSES, VOID, Counting, batch, network

SHARE = 0.1  # of 8 × 8 pixels: a square of side 2


def attack(name: str = "pgd", **options: Any) -> sr.Attack:
    given: dict[str, Any] = {"norm": "linf", "eps": "inf", "patch": SHARE, "steps": 6, **options}
    return make_attack(name, **given)


def one_square(changed: torch.Tensor) -> bool:
    """Whether the changed pixels (H, W) fit into a square of side 2."""
    rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
    return len(rows) == 0 or bool(rows[-1] - rows[0] < 2 and columns[-1] - columns[0] < 2)


@pytest.mark.parametrize("place", ["search", "centre", "random", "5:3"])
@pytest.mark.parametrize("name", ["pgd", "cr_pgd", "apgd", "sea", "ensemble"])
def test_nothing_changes_outside_one_square_and_nothing_under_it_counts(name: str, place: str) -> None:
    if place == "search" and name in ("sea", "ensemble"):
        pytest.skip("tried with cheaper ones")
    images, labels = batch(count=3, dtype=torch.float32)
    model = Counting(sr.wrap(network(dtype=torch.float32), num_classes=CLASSES))
    done: list[int] = []
    made = attack(name, place=place, **({"samples": 2} if name == "cr_pgd" else {}))
    found = made(model, images, labels, progress=done.append)
    assert found.covered is not None
    changed = (found.delta != 0).any(1)
    assert (found.covered.flatten(1).sum(1) == 4).all()
    assert not (changed & ~found.covered).any()
    assert all(one_square(each) for each in found.covered)
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    for each in (found, *found.members.values()):
        wrong = (each.prediction != labels) & (labels != VOID) & ~found.covered
        assert torch.equal(each.fooled, wrong.flatten(1).sum(1))
    assert torch.equal(found.prediction, model.logits(found.adversarial).argmax(1))
    assert found.ledger.forward.sum() == model.forward - len(images)
    assert found.ledger.backward.sum() == model.backward
    assert sum(done) == made.total_steps


@pytest.mark.parametrize("place", ["search", "random"])
def test_a_batch_equals_its_images_one_by_one(place: str) -> None:
    images, labels = batch(count=2)
    model, made = sr.wrap(network(), num_classes=CLASSES), attack(place=place)
    together = made(model, images, labels, ids=tuple("ab"), seed=5)
    for i, key in enumerate("ab"):
        alone = made(model, images[i : i + 1], labels[i : i + 1], ids=(key,), seed=5)
        assert torch.equal(together.covered[i], alone.covered[0])  # type: ignore[index]
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-9)


def test_a_patch_at_a_place_is_the_attack_on_its_pixels_for_the_others() -> None:
    """So that whoever has places of their own, as a certificate against patches, needs no other attack."""
    images, labels = batch()
    model, places = sr.wrap(network(), num_classes=CLASSES), torch.tensor([[0, 0], [1, 5], [6, 6], [3, 2]])
    where = patch.squares(places, 2, 8, 8)
    plain = make_attack("pgd", norm="linf", eps=0.3, steps=6)
    by_hand = plain(model, images, labels, ids=tuple("abcd"), changeable=where, victims=~where)
    task = Task(model, images, Goal.leave(labels, ignore_index=VOID), Randomness(0, tuple("abcd")))
    with model.frozen():
        found = patch.at_places(plain.method, task, places, 2)
    assert torch.equal(found.covered, where)  # type: ignore[arg-type]
    assert torch.equal(found.delta, by_hand.delta)
    assert torch.equal(found.fooled, by_hand.fooled)


class Summed(torch.nn.Module):
    """Linear in the image: at every pixel class 1 gains the weighted sum over the whole image."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = (images * self.weights).sum((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 1, *images.shape[2:])
        return torch.cat([torch.zeros_like(total), total], 1)


@given(seed=st.integers(0, 10_000), side=st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_the_steepest_place_of_a_linear_model_is_that_of_brute_force(seed: int, side: int) -> None:
    """The best change of a square is known there: each value goes to 0 or 1, whichever its weight asks for."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 3, 6, 7, generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 6, 7, generator=generator, dtype=torch.float64)
    gain = torch.maximum(weights * (1 - images), -weights * images).sum(1)
    by_hand = {
        (row, column): gain[:, row : row + side, column : column + side].sum((1, 2))
        for row in range(7 - side)
        for column in range(8 - side)
    }
    found = patch.gains(gain, side)
    for (row, column), value in by_hand.items():
        torch.testing.assert_close(found[:, row, column], value)
    model = sr.wrap(Summed(weights), num_classes=2)
    share = (side * side + 0.5) / 42
    method = make_attack("pgd", norm="linf", eps="inf", patch=share, steps=5).method
    task = Task(model, images, Goal.leave(torch.zeros(2, 6, 7, dtype=torch.long)), Randomness(0, ("a", "b")))
    trial = method._trial  # type: ignore[attr-defined]
    with model.frozen():
        first, *_ = method._steepest(task, trial, side, sr.Ledger(2))  # type: ignore[attr-defined]
    for image, place in enumerate(first.tolist()):
        assert by_hand[tuple(place)][image] == pytest.approx(max(value[image] for value in by_hand.values()))


def test_the_search_finds_the_one_place_that_matters() -> None:
    """The model looks at four pixels alone, which no place that is always tried holds."""
    weights = torch.zeros(3, 12, 16)
    weights[:, 9:11, 12:14] = 1.0
    images, labels = torch.full((2, 3, 12, 16), 0.4), torch.zeros(2, 12, 16, dtype=torch.long)
    model = sr.wrap(Summed(weights), num_classes=2)
    shifted = sr.wrap(lambda x: model.network(x) - torch.tensor([0.0, 9.0]).view(1, 2, 1, 1), num_classes=2)
    made = {p: attack(patch=4 / 192, place=p, steps=10, alpha=0.2) for p in ("search", "centre")}
    found = {place: each(shifted, images, labels) for place, each in made.items()}
    assert found["centre"].fooled.tolist() == [0, 0]
    assert found["search"].fooled.tolist() == [188, 188]
    assert found["search"].covered[:, 9:11, 12:14].all()  # type: ignore[index]


def test_an_attack_gains_nothing_by_the_pixels_under_its_patch() -> None:
    images, labels = batch(count=1)
    covered = torch.zeros(1, 8, 8, dtype=torch.bool)
    covered[:, :2, :2] = True
    before = Batch(("a",), images, labels, labels.masked_fill(labels == VOID, 0), VOID)
    wrong = (labels + 1) % CLASSES
    assert before.outside(None, wrong) is wrong
    judged = before.outside(covered, wrong)
    assert torch.equal(judged[:, :2, :2], before.prediction[:, :2, :2])
    assert goal_counts(before, judged, None)[0].item() == (before.labelled & ~covered).sum()
    kept, plain = (before.counts(each, CLASSES).images[0].labelled for each in (judged, wrong))
    assert kept == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": None, "place": "centre"}, "place is 'centre', which does nothing in pgd: it is for patch given"),
        ({"place": "corner"}, "place is 'corner'; expected search, centre, random, or a row and a column"),
        ({"place": "3"}, "place is '3'; expected"),
        ({"patch": 0}, "patch is 0; expected a number in"),
    ],
)
def test_what_is_no_patch_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack(**{"steps": 3, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patch": 0.001}, "a square of side 0"), ({"place": "7:0"}, "expected a row below 7 and a column below 7")],
)
def test_a_patch_that_does_not_fit_the_image_is_refused(options: dict[str, Any], message: str) -> None:
    images, labels = batch(count=1)
    with pytest.raises(InputError, match=message):
        attack(**options)(sr.wrap(network(), num_classes=CLASSES), images, labels)


def test_a_budget_that_is_the_box_alone_is_read_from_a_report_as_it_was(tmp_path: Path) -> None:
    model, folder = sr.load_model("demo"), tmp_path / "run"
    options = {"patch": 0.02, "place": "centre", "steps": 2}
    found = sr.evaluate(model, "scenes:24x32,1", "pgd", eps={"linf": math.inf}, options=options, quiet=True)
    found.save(folder)
    row, again = found.summary.rows[1], sr.load_results(folder).runs[0].summary.rows[1]
    assert row.eps == again.eps == math.inf
    assert row.pixacc.value == again.pixacc.value


def test_a_run_without_a_patch_has_the_key_that_it_had() -> None:
    plain, patched = (make_plans(["pgd"], [("linf", 0.1)], given)[0] for given in ({}, {"patch": 0.01}))
    assert {"patch", "place"}.isdisjoint(plain.options)
    assert plain.patch == ""
    assert patched.patch == "0.01, search"
    with pytest.raises(InputError, match="place is 'centre', which does nothing in pgd"):
        make_plans(["pgd"], [("linf", 0.1)], {"place": "centre"})
    with pytest.raises(InputError, match=r"patches differ between attacks, pgd \(0.01\) and apgd \(0.02\)"):
        make_plans(["pgd", "apgd"], [("linf", 0.1)], {"patch": 0.01, "apgd.patch": 0.02})
