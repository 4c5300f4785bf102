"""What weightings see: scores and the logits that give them make the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import segradius as sr
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.objectives.goal import Goal
from segradius.objectives.view import Feedback, LogitView, ScoreView, look
from segradius.objectives.weightings import parse_weighting
from tiny import CLASSES, batch, network


def both(*, targeted: bool = False) -> tuple[LogitView, ScoreView]:
    images, labels = batch()
    model = sr.wrap(network(), num_classes=CLASSES)
    logits, keys = model.logits(images).detach(), Randomness(0, tuple("abcd"))
    goal = Goal.reach(labels, labels) if targeted else Goal.leave(labels)
    seen = LogitView(logits, logits.argmax(1), goal, images, 3, 10, model, keys, Ledger(4))
    found = look(logits.softmax(1), goal.reference)
    bill: list[int] = []
    return seen, ScoreView(found, goal, lambda: images, 3, 0.3, CLASSES, model.scores, keys, bill.append)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["uniform", "still_correct", "segpgd", "balanced", "cr*still_correct"])
def test_scores_make_the_weights_that_logits_make(name: str, targeted: bool) -> None:
    by_logits, by_scores = both(targeted=targeted)
    for options in ({"samples": 0}, {"samples": 3, "sigma": 0.05}):
        weighting = parse_weighting(name, **options)
        assert torch.allclose(weighting.weigh(by_logits, None)[0], weighting.weigh(by_scores, None)[0], atol=1e-9)


def test_noisy_queries_are_billed() -> None:
    _, view = both()
    bill: list[int] = []
    parse_weighting("cr", samples=5).weigh(ScoreView(**{**vars(view), "paid": bill.append}), None)
    assert bill == [5]


def test_cospgd_is_refused() -> None:
    with pytest.raises(InputError, match="all classes"):
        parse_weighting("cospgd").weigh(both()[1], None)


def test_look_finds_the_label_and_its_strongest_rival() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]).T.reshape(1, 3, 1, 2)
    found = look(scores.clone(), torch.tensor([[[2, 1]]]))
    assert torch.allclose(found.own, torch.tensor([[[0.7, 0.3]]]))
    assert torch.allclose(found.rival, torch.tensor([[[0.2, 0.5]]]))
    assert torch.allclose(found.confidence, torch.tensor([[[0.7, 0.5]]]))


def test_feedback_knows_which_images_are_finite() -> None:
    def maps(value: float) -> Tensor:
        return torch.tensor([0.5, value]).view(2, 1, 1)

    assert Feedback(maps(float("nan")), maps(0.5)).finite.tolist() == [True, False]
    assert Feedback(maps(0.5), maps(float("nan"))).finite.tolist() == [True, False]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pull_of_a_goal_is_the_derivative_of_its_mean(targeted, dtype):
    labels = torch.tensor([[[0, 1, 255]], [[255, 255, 255]], [[1, 1, 0]]])
    goal = Goal.reach(labels, labels) if targeted else Goal.leave(labels)
    weights, loss = torch.rand(3, 1, 3, dtype=dtype), torch.rand(3, 1, 3, dtype=dtype, requires_grad=True)
    (expected,) = torch.autograd.grad((goal.mean(loss * weights) * goal.sign).sum(), loss)
    assert torch.equal(goal.pull(weights), expected)
