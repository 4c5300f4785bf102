"""The batches of an epoch are a function of seed, epoch and image ids, whoever reads them and from wherever."""

from __future__ import annotations

import pytest
import torch
from small import TRAIN

from segradius.training import Augmentation
from segradius.training.lessons import Epochs, Share, lessons, order

AUGMENTATION = Augmentation(crop=(16, 24))


def batches(seed: int = 0, epoch: int = 0, size: int = 4, **options):
    return list(lessons(TRAIN, AUGMENTATION, seed, epoch, size, **options))


def assert_equal(one, other) -> None:
    assert [x.ids for x in one] == [x.ids for x in other]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_an_epoch_is_a_permutation_of_the_images() -> None:
    found = batches()
    ids = [name for lesson in found for name in lesson.ids]
    assert sorted(ids) == sorted(f"0/{name}" for name in TRAIN.ids)
    assert ids != sorted(ids)
    assert {lesson.seed for lesson in found} == {0}
    assert {lesson.ignore_index for lesson in found} == {255}


def test_what_fills_no_batch_is_left_out_and_differs_by_epoch() -> None:
    def left_out(epoch: int) -> set[str]:
        return set(TRAIN.ids) - {n.split("/")[1] for x in batches(epoch=epoch, size=5) for n in x.ids}

    assert all(len(left_out(epoch)) == 2 for epoch in range(4))
    assert len(set.union(*(left_out(epoch) for epoch in range(4)))) > 2


def test_order_and_augmentation_are_those_of_seed_and_epoch() -> None:
    assert_equal(batches(), batches())
    for other in (batches(epoch=1), batches(seed=1)):
        assert [n.split("/")[1] for x in other for n in x.ids] != [n.split("/")[1] for x in batches() for n in x.ids]
    one, two, three = (Epochs(TRAIN, AUGMENTATION, seed)[epoch, 5].image for seed, epoch in ((0, 0), (0, 1), (1, 0)))
    assert torch.equal(one, Epochs(TRAIN, AUGMENTATION, 0)[0, 5].image)
    assert not torch.equal(one, two)
    assert not torch.equal(one, three)


def test_global_random_numbers_play_no_part() -> None:
    torch.manual_seed(1)
    one = batches()
    torch.manual_seed(2)
    assert_equal(one, batches())


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_skipping_gives_the_tail(skip: int) -> None:
    assert_equal(batches(skip=skip), batches()[skip:])


def test_worker_processes_change_nothing() -> None:
    assert_equal(batches(workers=2), batches())


def test_shares_are_the_whole_batch_together() -> None:
    halves = [batches(share=Share(rank, 2)) for rank in (0, 1)]
    for whole, *parts in zip(batches(), *halves, strict=True):
        for rank, part in enumerate(parts):
            assert part.ids == whole.ids[rank::2]
            assert torch.equal(part.images, whole.images[rank::2])
            assert torch.equal(part.labels, whole.labels[rank::2])


def test_orders_are_uniform() -> None:
    """Image 0 comes first in one of 5 epochs: within 4.5 standard deviations of 2000/5."""
    first = sum(order(5, seed=0, epoch=epoch)[0] == 0 for epoch in range(2000))
    assert abs(first - 400) < 4.5 * (2000 * 0.2 * 0.8) ** 0.5
