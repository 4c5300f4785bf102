"""Registry, ledger, keyed random numbers and goals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.core.registry import Registry
from segradius.objectives.goal import Goal, one_class, random_classes


def test_registry_refuses_duplicates_and_suggests_near_names() -> None:
    table: Registry[int] = Registry("number")
    table.register("seven")(7)
    with pytest.raises(InputError, match="'seven' is taken"):
        table.register("seven")(8)
    with pytest.raises(InputError, match="unknown number 'sevn'; did you mean 'seven'"):
        table["sevn"]


def test_ledgers_add_and_join() -> None:
    a, b = Ledger(2), Ledger(2)
    a.enter("attack", forward=3, backward=1)
    b.enter("radius", forward=8)
    joined = Ledger.joined([a, b])
    assert joined.forward.tolist() == [3, 3, 8, 8]
    assert joined.backward.tolist() == [1, 1, 0, 0]
    a.add(b)
    assert a.forward.tolist() == [11, 11]
    assert joined.forward.tolist() == [3, 3, 8, 8]


def test_rows_depend_on_seed_id_purpose_and_step_alone() -> None:
    keys = Randomness(3, ("a", "b", "c"))
    base = keys.normal((5,), "x", 1)
    assert torch.equal(base[[2, 0]], Randomness(3, ("c", "a")).normal((5,), "x", 1))
    others = [
        Randomness(4, keys.ids).normal((5,), "x", 1),
        keys.normal((5,), "y", 1),
        keys.normal((5,), "x", 2),
        keys.spawn("s").normal((5,), "x", 1),
    ]
    assert all((base != other).all() for other in others)


def test_known_draw_never_changes() -> None:
    # Stored results are resumed on other machines: a change of the key derivation would mix two random streams.
    assert Randomness(0, ("image",)).integers(10**6, "target").item() == 459919


def test_numbers_are_distributed_as_said() -> None:
    keys = Randomness(0, ("a",))
    normal, uniform = keys.normal((100_000,), "n"), keys.uniform((100_000,), "u")
    assert normal.mean().abs() < 0.02
    assert (normal.std() - 1).abs() < 0.02
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert (uniform.mean() - 0.5).abs() < 0.01


def test_goal_counts_labelled_victims_only() -> None:
    labels = torch.tensor([[[0, 1, 2, 255]]])
    victims = torch.tensor([[[True, True, False, True]]])
    goal = Goal.leave(labels, victims=victims)
    prediction = torch.tensor([[[1, 1, 0, 0]]])
    assert goal.fooled(prediction).tolist() == [[[True, False, False, False]]]
    assert goal.pending(prediction).tolist() == [[[False, True, False, False]]]
    assert goal.mean(torch.tensor([[[2.0, 4.0, 100.0, float("nan")]]])).tolist() == [3.0]


def test_goal_of_a_target_is_to_reach_it() -> None:
    labels, target = torch.tensor([[[0, 1, 2, 255]]]), torch.tensor([[[1, 1, 255, 1]]])
    goal = Goal.reach(target, labels)
    assert goal.fooled(torch.tensor([[[1, 0, 2, 1]]])).tolist() == [[[True, False, False, False]]]
    assert goal.sign == -1


def test_mean_over_an_image_without_counted_pixels_is_zero() -> None:
    goal = Goal.leave(torch.full((1, 2, 2), 255))
    assert goal.mean(torch.full((1, 2, 2), float("nan"))).tolist() == [0.0]


def test_random_target_is_one_class_an_image_whatever_the_batch() -> None:
    labels = torch.zeros(3, 2, 2, dtype=torch.long)
    labels[:, 0, 0] = 255
    drawn = random_classes(labels, 7, Randomness(0, ("a", "b", "c")))
    alone = random_classes(labels[:1], 7, Randomness(0, ("b",)))
    assert torch.equal(drawn[1], alone[0])
    assert (drawn[:, 0, 0] == 255).all()
    assert all(len(image[image != 255].unique()) == 1 for image in drawn)


def test_target_class_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match="target class 7 does not exist: classes are 0 to 6"):
        one_class(torch.zeros(1, 1, 1, dtype=torch.long), 7, 7)


@pytest.mark.parametrize("classes", [2, 11, 150, 300])
def test_prediction_is_the_first_largest_logit(classes: int) -> None:
    g = torch.Generator().manual_seed(classes)
    logits = torch.randint(-3, 4, (2, classes, 5, 6), generator=g).float()  # many ties
    top, found = predict(logits)
    assert torch.equal(top, logits.amax(1))
    assert (found.numpy() == logits.numpy().argmax(1)).all()


def test_prediction_of_nan_logits_has_a_nan_top() -> None:
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 1, 0, 0] = float("nan")
    top, found = predict(logits)
    assert top.isnan().tolist() == [[[True, False]]]
    assert found.max() < 3


def test_python_m_segradius_is_the_command_line() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "segradius", "list", "losses"], capture_output=True, text=True, check=True
    )
    assert "cross-entropy" in found.stdout.lower()
