"""What is kept in memory is what was read, to the bit, in no more bytes than allowed; and nothing else is learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import small
import torch
from test_resume import assert_same_folders

from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.data.sample import Sample
from segradius.training import Augmentation, Engine, fit, make_adversary
from segradius.training.lessons import lessons
from segradius.training.memory import GIB, Kept, Packed, room

SCENES = open_data(small.SCENES, split="train", limit=5)
LABEL = torch.zeros(2, 128, dtype=torch.int64)


def assert_same(one: Sample, other: Sample) -> None:
    assert one.id == other.id
    for a, b in ((one.image, other.image), (one.label, other.label)):
        assert (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("image", "label", "size"),
    [
        (torch.arange(256).view(1, 2, 128).float() / 255, LABEL, 512),  # every value of 8 bits
        (torch.arange(256).view(1, 2, 128).float() / 256, LABEL, 5 * 256),  # none of them but 0
        (torch.arange(256).view(1, 2, 128).double() / 255, LABEL, 9 * 256),
        (torch.zeros(1, 2, 128), LABEL - 1, 3 * 256),
        (torch.zeros(1, 2, 128), LABEL + 70_000, 5 * 256),
        (torch.zeros(1, 2, 128), LABEL + 2**40, 9 * 256),
        (torch.zeros(1, 2, 128).neg(), LABEL, 5 * 256),  # −0 is no whole number's
    ],
)
def test_a_sample_is_given_back_to_the_bit_from_few_bytes(image: torch.Tensor, label: torch.Tensor, size: int) -> None:
    packed = Packed.of(Sample("a", image, label))
    assert_same(packed.sample(), Sample("a", image, label))
    assert torch.equal(packed.sample().image.signbit(), image.signbit())
    assert packed.bytes == size


def test_a_kept_sample_shares_no_memory() -> None:
    sample = Sample("a", torch.full((1, 1, 2), 0.3), torch.zeros(1, 2, dtype=torch.int64))
    packed = Packed.of(sample)
    sample.image.zero_()
    sample.label.add_(1)
    assert (packed.sample().image == 0.3).all()
    assert (packed.sample().label == 0).all()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_the_first_samples_are_kept_as_far_as_they_fit_and_the_rest_is_read(count: int, workers: int) -> None:
    sizes = [Packed.of(sample).bytes for sample in (SCENES[i] for i in range(5))]
    for most in (sum(sizes[:count]), sum([*sizes, 10**9][: count + 1]) - 1):
        kept = Kept.read(SCENES, most, workers=workers)
        assert list(kept.kept) == list(range(count))
        assert kept.bytes == sum(sizes[:count]) <= most
        assert (kept.name, kept.classes, kept.ids, len(kept)) == (SCENES.name, SCENES.classes, SCENES.ids, 5)
        for i in range(5):
            assert_same(kept[i], SCENES[i])
        assert ("would not fit" in str(kept)) is (count < 5)


def test_a_bound_is_shared_by_processes_and_half_of_what_is_free_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room(3.0, processes=2) == 1.5 * GIB
    monkeypatch.setattr("segradius.training.memory.available", lambda: 8)
    assert room(None, processes=2) == 2.0
    monkeypatch.setattr("segradius.training.memory.available", lambda: None)
    assert room(None) is None


def test_a_bound_without_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"memory is 1\.0, which does nothing here: it is for in_memory=true"):
        Engine(memory=1.0)


@pytest.mark.parametrize(("workers", "most"), [(0, None), (1, None), (2, 9000), (0, 9000)])
def test_lessons_are_the_same_from_memory_and_by_workers(workers: int, most: int | None) -> None:
    augmentation = Augmentation(crop=(16, 24), colour=0.4)
    plain = list(lessons(SCENES, augmentation, 3, 1, 2, until=4, skip=1))
    kept = Kept.read(SCENES, most, workers=workers)
    found = list(lessons(kept, augmentation, 3, 1, 2, until=4, skip=1, workers=workers))
    assert [lesson.ids for lesson in found] == [lesson.ids for lesson in plain]
    assert len(found) == 5
    for one, other in zip(plain, found, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_epochs_in_a_row_are_the_epochs() -> None:
    augmentation = Augmentation(crop=(16, 24))
    row = [lesson for epoch in (1, 2) for lesson in lessons(SCENES, augmentation, 0, epoch, 2)]
    for one, other in zip(row, lessons(SCENES, augmentation, 0, 1, 2, until=3), strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)


def test_a_training_from_memory_by_workers_is_the_plain_one(tmp_path: Path) -> None:
    changes = {
        "augmentation": Augmentation(crop=(24, 32), colour=0.4),
        "adversary": make_adversary("fast_adt", norm="linf", eps=0.02),
        "train": open_data(small.SCENES, split="train", limit=12),
        "epochs": 2,
    }
    fit(small.job(tmp_path / "plain", **changes, engine=Engine("cpu")))
    for name, engine in {
        "memory": Engine("cpu", in_memory=True),
        "part": Engine("cpu", in_memory=True, memory=2e-5, workers=1),  # 21 kB: four of twelve
        "workers": Engine("cpu", workers=2),
    }.items():
        fit(small.job(tmp_path / name, **changes, engine=engine))
        assert_same_folders(tmp_path / "plain", tmp_path / name)
