"""Recipes count their steps, refuse what makes none, and make the optimisers that they name."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import small
import torch
from torch import nn

from segradius.core.errors import InputError
from segradius.models.networks import PSPNet
from segradius.training import Engine, Optimiser, Recipe, fit, make_adversary
from segradius.training.recipe import split


@pytest.mark.parametrize(("images", "steps"), [(16, 50), (31, 50), (32, 100), (2975, 9250)])
def test_steps_are_whole_batches(images: int, steps: int) -> None:
    assert Recipe().steps(images) == steps


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size is 16 and the training set has 15 images"):
        Recipe().steps(15)


def test_sgd_is_momentum_with_decay() -> None:
    """v ← μv + g + λw, w ← w − ηv, from v = 0."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimiser = Optimiser("sgd", lr=0.1, momentum=0.5, weight_decay=0.01).make([weight])
    expected, velocity = 2.0, 0.0
    for gradient in (1.0, -3.0, 0.5):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        velocity = 0.5 * velocity + gradient + 0.01 * expected
        expected -= 0.1 * velocity
        assert weight.item() == pytest.approx(expected, rel=1e-12)


def test_adamw_decays_apart_from_the_gradient() -> None:
    """The first step is −η·sign(g), after w ← (1 − ηλ)w."""
    weight = nn.Parameter(torch.tensor([2.0, 2.0], dtype=torch.float64))
    optimiser = Optimiser("adamw", lr=0.1, weight_decay=0.5).make([weight])
    weight.grad = torch.tensor([3.0, -0.2], dtype=torch.float64)
    optimiser.step()
    torch.testing.assert_close(weight.data, torch.tensor([1.8, 2.0], dtype=torch.float64), rtol=0, atol=1e-7)


def test_recipes_with_the_same_values_are_written_alike() -> None:
    """Their text decides which run a folder belongs to, in every process."""
    one, two = (Recipe(adversary=make_adversary("cr_fast_adt", norm="l2", mix=0.5)) for _ in range(2))
    assert repr(one) == repr(two)
    assert " at 0x" not in repr(one)
    assert repr(one) != repr(Recipe(adversary=make_adversary("cr_fast_adt", norm="linf", mix=0.5)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(epochs=0), "epochs"),
        (lambda: Recipe(batch_size=0), "batch_size"),
        (lambda: Recipe(every=0), "every"),
        (lambda: Recipe(precision="64"), "precision"),
        (lambda: Optimiser("adam"), "adamw"),
        (lambda: Optimiser(lr=-1.0), "lr"),
        (lambda: Optimiser(lr=float("nan")), "lr"),
        (lambda: Optimiser(momentum=1.0), "momentum"),
        (lambda: Optimiser(weight_decay=-1e-4), "weight_decay"),
        (lambda: Optimiser(clip=0.0), "clip"),
        (lambda: Engine(devices=0), "devices"),
        (lambda: Engine(workers=-1), "workers"),
        (lambda: Engine(save_every=0), "save_every"),
        (lambda: Engine(log_every=0), "log_every"),
        (lambda: Engine("abacus").fabric("32-true"), "abacus"),
    ],
)
def test_bad_values_are_named(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_heads_have_a_rate_of_their_own() -> None:
    network = PSPNet(3, layers=18, width=4)
    trunk, heads = split(network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(p)].partition(".")[0] for p in heads} == {"ppm", "cls", "aux"}
    assert sorted(map(id, [*trunk, *heads])) == sorted(names)
    optimiser = Optimiser("sgd", lr=0.1, momentum=0.0, weight_decay=0.0, heads=10.0).make(trunk, heads)
    assert [group["rate"] for group in optimiser.param_groups] == [1.0, 10.0]
    with pytest.raises(InputError, match="of a trunk"):
        split(torch.nn.Conv2d(3, 2, 1))


def test_the_schedule_moves_both_rates(tmp_path: Path) -> None:
    """One step of plain gradient descent moves heads ten times as far for their gradient as the trunk."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PSPNet(small.CLASSES, layers=18, width=4, bins=(1, 2), dropout=0.0)
    moved = []
    for factor in (1.0, 10.0):
        copy = deepcopy(network)
        optimiser = Optimiser(lr=0.01, momentum=0.0, weight_decay=0.0, heads=factor)
        job = small.job(tmp_path / str(factor), copy, epochs=1, batch_size=12, optimiser=optimiser)
        fit(job)
        before, after = network.state_dict(), copy.state_dict()
        moved.append({name: (after[name] - before[name]).norm() for name in ("layer4.1.conv2.weight", "cls.4.weight")})
    ratios = {name: (moved[1][name] / moved[0][name]).item() for name in moved[0]}
    assert ratios == pytest.approx({"layer4.1.conv2.weight": 1.0, "cls.4.weight": 10.0}, rel=1e-4)
