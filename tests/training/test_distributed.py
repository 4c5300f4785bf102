"""Two processes learn what one learns from the whole batch, however unevenly the labelled pixels lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file
from torch import multiprocessing, nn
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.data.sample import Sample
from segradius.training import Engine, Lesson, Optimiser, SegmentationLoss, WeightAverage, fit, make_adversary
from segradius.training.engine import Sealed, launched
from segradius.training.lessons import lessons, order


def uneven() -> small.InMemory:
    """The scenes; those that the second process learns in the first epoch keep one row of their labels."""
    samples = list(small.TRAIN.samples)
    for i in order(len(samples), seed=0, epoch=0)[1::2]:
        label = samples[i].label.clone()
        label[1:] = 255
        samples[i] = Sample(samples[i].id, samples[i].image, label)
    return small.InMemory(samples, small.TRAIN)


UNEVEN = uneven()
CHANGES = {
    "train": UNEVEN,
    "epochs": 2,
    "every": 1,
    "optimiser": Optimiser(lr=0.1, clip=0.5),
    "average": WeightAverage(0.9),
    "adversary": make_adversary("fast_adt", norm="l2", eps=1.0, mix=0.5),  # a sign would turn rounding into a step
}


class TwoHeads(nn.Module):
    """Batch norm over all processes, no dropout, and large weights, for losses that differ by image."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = (small.network(seed, dropout=0) for seed in (0, 1))
        self.main[4].weight.data *= 5

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.main(images), "aux": self.other(images)}


@pytest.mark.parametrize("aux_weight", [0.4, 0.0])  # without weight, the second head gets no gradient
def test_two_processes_are_one(tmp_path: Path, aux_weight: float) -> None:
    changes = CHANGES | {"loss": SegmentationLoss(aux_weight)}
    jobs = [small.job(tmp_path / str(n), TwoHeads(), engine=Engine("cpu", devices=n), **changes) for n in (1, 2)]
    one, two = (fit(job) for job in jobs)
    for name in ("best.safetensors", "last.safetensors"):
        small.assert_same(load_file(tmp_path / "1" / name), load_file(tmp_path / "2" / name), atol=1e-6)
    small.assert_same(jobs[0].model.network.state_dict(), jobs[1].model.network.state_dict(), atol=1e-6)
    for column in ("step", "epoch", "lr", "loss"):
        logs = [small.column(tmp_path / n / "train.csv", column) for n in "12"]
        assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    assert two.figures() == pytest.approx(one.figures(), abs=2e-3)  # a pixel or two may sit on the fence
    assert (two.epoch, two.step) == (one.epoch, one.step) == (2, 6)


def test_a_mean_of_each_process_would_be_another_loss() -> None:
    """The data are uneven enough for the test above to tell the two apart."""
    network, augmentation = TwoHeads().main.eval(), small.recipe().augmentation

    def loss(lesson: Lesson, rows: slice) -> float:
        with torch.no_grad():
            return functional.cross_entropy(network(lesson.images[rows]), lesson.labels[rows], ignore_index=255).item()

    differences = []
    for lesson in lessons(UNEVEN, augmentation, seed=0, epoch=0, batch_size=4):
        halves = [loss(lesson, slice(rank, None, 2)) for rank in (0, 1)]
        differences.append(abs(sum(halves) / 2 - loss(lesson, slice(None))))
    assert min(differences) > 0.02


class Raising:
    """A Fabric of two processes, in which one ends with an error."""

    world_size = 2

    def __init__(self, last_line: str) -> None:
        self.message = f"\n\n-- Process 1 terminated with the following error:\nTraceback …\n{last_line}\n"

    def launch(self, *given):
        raise multiprocessing.ProcessRaisedException(self.message, 1, 2)


def test_an_error_in_another_process_is_told_as_here() -> None:
    with pytest.raises(InputError, match=r"^the loss: 3\.5, is not finite$"):
        launched(Raising("segradius.core.errors.InputError: the loss: 3.5, is not finite"), print, None)
    with pytest.raises(multiprocessing.ProcessRaisedException):
        launched(Raising("ValueError: a bug"), print, None)


class OneProcess:
    """A Fabric of one process."""

    world_size = 1

    def launch(self, run, *args):
        return run(self, *args)


def test_one_process_is_launched_here() -> None:
    fabric, job = OneProcess(), object()
    assert launched(fabric, lambda *given: given, job) == (fabric, job)
    assert Sealed(job).content is job


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    job = small.job(tmp_path, engine=Engine("cpu", devices=2))
    with pytest.raises(InputError, match="batch_size 3 is no multiple of 2"):
        replace(job, recipe=small.recipe(batch_size=3))
    one = small.InMemory(small.HELD_OUT.samples[:1], small.HELD_OUT)
    with pytest.raises(InputError, match="held-out set has 1 images for 2 processes"):
        replace(job, held_out=one)
