"""Weightings of the literature's attacks: RP-PGD's regions, EroSeg's active set, BLADE's class quotas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import segradius as sr
from segradius.objectives.eroseg import EroSeg
from segradius.objectives.frontier import Frontier, smallest
from segradius.objectives.goal import Goal
from segradius.objectives.region import Region
from segradius.objectives.view import Feedback, LogitView, ScoreView

STEPS = 8


def views(count: int = STEPS, seed: int = 0) -> list[LogitView]:
    """Steps of a run on random logits, with void pixels."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (2, 6, 7), generator=g)
    labels[:, 0, :2] = 255
    goal = Goal.leave(labels)
    logits = [torch.randn(2, 3, 6, 7, generator=g, dtype=torch.float64) for _ in range(count)]
    return [view(each, goal, t, count) for t, each in enumerate(logits)]


def view(logits: Tensor, goal: Goal, step: int = 0, steps: int = STEPS) -> LogitView:
    return LogitView(logits, logits.argmax(1), goal, logits, step, steps, None, None, None)  # type: ignore[arg-type]


def test_regions_are_those_of_the_whole_history_of_a_pixel() -> None:
    state, fooled = None, []
    for t, seen in enumerate(views()):
        fooled.append(seen.fooled())
        weights, state = Region().weigh(seen, state)
        for at in (seen.goal.counted & fooled[0]).nonzero().tolist():
            assert weights[tuple(at)] == 1 / (2 * STEPS)  # F for good, whatever becomes of it
        later = torch.stack(fooled).any(0) & ~fooled[0]
        assert (weights[later] == t / (2 * STEPS)).all()  # B for good
        never = ~torch.stack(fooled).any(0)
        assert torch.allclose(weights[never], torch.tensor((2 * STEPS - t - 1) / (2 * STEPS), dtype=torch.float64))
    assert later.any()
    assert never.any()


def scored(own: Tensor, rival: Tensor, goal: Goal, step: int = 0, progress: float = 0.0) -> ScoreView:
    pair, unused = Feedback(own, rival), lambda *given: own
    return ScoreView(pair, goal, unused, step, progress, 2, unused, None, unused)  # type: ignore[arg-type]


def test_regions_of_a_black_box_attack_are_by_its_progress() -> None:
    goal = Goal.leave(torch.zeros(1, 1, 2, dtype=torch.long))
    state = None
    for step, (own, progress) in enumerate([((0.9, 0.2), 0.0), ((0.1, 0.9), 0.25), ((0.9, 0.9), 0.5)]):
        scores = torch.tensor([[own]])
        weights, state = Region().weigh(scored(scores, 1 - scores, goal, step, progress), state)
    assert weights.flatten().tolist() == [0.25, 0.125]  # B: half of the progress; F: half of a step's


@pytest.mark.parametrize("background", [None, 1])
def test_eroseg_takes_right_pixels_below_a_threshold_that_rises(background: int | None) -> None:
    weighting, sizes = EroSeg(tau=0.5, beta=0.3, background=background), []
    for t, seen in enumerate(views(4, seed=1)):
        p, labels = seen.logits.softmax(1), seen.goal.labels
        right = (seen.logits.argmax(1) == labels) & seen.goal.counted
        active = right & (p.amax(1) < 1 - 0.5 * math.exp(-0.3 * t))
        share = torch.where(labels == 1, 1 - 0.7, 0.7) if background == 1 else torch.ones(())
        assert torch.allclose(weighting.weigh(seen, None)[0], active * share.double())
        sizes.append(int(active.sum()))
    assert 0 < sizes[0] < sizes[-1]


def test_a_background_that_is_no_class_is_refused_and_its_weight_means_something_with_it_alone() -> None:
    with pytest.raises(sr.InputError, match="background is 9; the model's classes are 0 to 2"):
        EroSeg(background=9).check_classes(3)
    with pytest.raises(sr.InputError, match=r"foreground is 0\.5, which does nothing"):
        sr.make_attack("eroseg", foreground=0.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.floats(0.001, 1), st.integers(1, 5), st.booleans())
def test_the_smallest_of_each_group_are_those_that_a_sort_finds(
    seed: int, share: float, count: int, coarse: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 60, generator=g).abs() ** 4
    values = values.round(decimals=1) if coarse else values  # which makes ties
    groups, among = torch.randint(count, (2, 60), generator=g), torch.rand(2, 60, generator=g) < 0.7
    found = smallest(values, groups, among, share, count)
    for row in range(2):
        for group in range(count):
            mine = among[row] & (groups[row] == group)
            ordered = values[row][mine].sort().values
            quota = math.ceil(share * len(ordered) - 1e-9)
            expected = mine & (values[row] <= ordered[quota - 1]) if len(ordered) else mine
            assert torch.equal(found[row] & (groups[row] == group), expected)


@pytest.mark.parametrize("targeted", [False, True])
def test_frontier_has_a_quota_in_every_class_of_every_image(targeted: bool) -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 20, 20, generator=g), torch.randint(3, (2, 20, 20), generator=g)
    goal = Goal.reach(labels, labels) if targeted else Goal.leave(labels)
    seen = view(logits, goal)
    weights, _ = Frontier(k=0.2).weigh(seen, None)
    own = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    gap = (own - logits.scatter(1, labels.unsqueeze(1), -torch.inf).amax(1)) * (-1 if targeted else 1)
    for image in range(2):
        for c in range(3):
            left = seen.pending()[image] & (labels[image] == c)
            chosen = left & (weights[image] == 1)
            assert chosen.sum() == math.ceil(0.2 * int(left.sum()) - 1e-9)
            assert gap[image][chosen].max() <= gap[image][left & ~chosen].min()


def test_margins_are_the_same_from_logits_and_from_scores() -> None:
    g = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(1, 2, 3, 4, generator=g), torch.randint(2, (1, 3, 4), generator=g)
    p = logits.softmax(1)
    own, rival = p.gather(1, labels.unsqueeze(1)).squeeze(1), p.gather(1, 1 - labels.unsqueeze(1)).squeeze(1)
    for goal in (Goal.leave(labels), Goal.reach(labels, labels)):
        assert torch.allclose(scored(own, rival, goal).margin(), view(logits, goal).margin(), atol=1e-5)
