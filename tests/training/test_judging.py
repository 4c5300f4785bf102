"""Evaluation of held-out images of several sizes: what comes out is what one image after the other gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from small import CLASSES, HELD_OUT, job, network, rows

import segradius as sr
from segradius.attacks.make import make_attack
from segradius.core.label_sets import set_names, to_masks
from segradius.data.sample import Classes, Sample, voc_palette
from segradius.metrics.counts import Counts, count
from segradius.metrics.statistics import class_dice, pooled_accuracy
from segradius.training import Watch, fit, judge
from segradius.training.lessons import Share
from segradius.training.records import Evaluation

CPU = torch.device("cpu")
SIZES = ((32, 48), (32, 48), (24, 40), (32, 48), (40, 24), (40, 24), (40, 24))


@dataclass(frozen=True)
class Sizes:
    """Held-out images of several sizes, some of neighbours alike, with void pixels."""

    name: str = "sizes"

    @property
    def classes(self) -> Classes:
        return HELD_OUT.classes

    @property
    def ids(self) -> list[str]:
        return [f"image {i}" for i in range(len(SIZES))]

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        label = torch.randint(CLASSES, SIZES[index], generator=generator)
        label[0, : index + 1] = self.classes.ignore_index
        return Sample(self.ids[index], torch.rand(3, *SIZES[index], generator=generator), label)


def model() -> sr.Segmenter:
    return sr.wrap(network(), num_classes=CLASSES, normalisation="imagenet")


def expected(found: sr.Segmenter, images=range(7)) -> Counts:
    """The counts of single images, without `judge`."""
    samples = [Sizes()[i] for i in images]
    with torch.no_grad():
        return Counts.joined(
            count(found.logits(s.image[None]).argmax(1), s.label[None], CLASSES, HELD_OUT.classes.ignore_index)
            for s in samples
        )


def assert_equal(one: Counts, other: Counts) -> None:
    assert one.images == other.images


def test_images_of_several_sizes_count_as_one_by_one_in_order():
    found = model()
    for batch_size in (1, 2, 3, 16):
        assert_equal(judge(found, Sizes(), CPU, batch_size), expected(found))


def test_neighbours_of_one_size_go_through_the_network_together():
    seen, net = [], network()
    net.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    judge(sr.wrap(net, num_classes=CLASSES), Sizes(), CPU, batch_size=6)
    assert seen == [(2, 3, 32, 48), (1, 3, 24, 40), (1, 3, 32, 48), (2, 3, 40, 24), (1, 3, 40, 24)]


def test_shares_of_several_processes_are_those_of_one():
    found = model()
    for rank in range(3):
        assert_equal(judge(found, Sizes(), CPU, 4, Share(rank, 3)), expected(found, range(rank, len(SIZES), 3)))


def test_the_watch_attacks_images_of_several_sizes_as_one_by_one():
    found, ignored = model(), HELD_OUT.classes.ignore_index
    robustness = Watch("linf", 0.02, steps=2, images=4)(found, Sizes(), CPU)
    for value, attack in (
        (robustness.fgsm, make_attack("fgsm", norm="linf", eps=0.02)),
        (robustness.pgd, make_attack("pgd", norm="linf", eps=0.02, steps=2)),
    ):
        parts = []
        for sample in (Sizes()[i] for i in (0, 2, 4, 6)):
            labels = sample.label[None]
            result = attack(found, sample.image[None], labels, ids=[sample.id], ignore_index=ignored)
            parts.append(count(result.prediction, labels, CLASSES, ignored))
        assert value == pooled_accuracy(Counts.joined(parts))


def test_a_run_is_judged_on_images_at_their_own_sizes(tmp_path):
    task = job(tmp_path, held_out=Sizes(), epochs=1, watch=Watch("linf", 0.02, steps=1, images=7))
    found = fit(task)
    assert found.pixacc == pooled_accuracy(expected(task.model))
    assert len(rows(tmp_path / "evaluations.csv")) == 1


STRUCTURES = Classes(set_names(["organ", "vessel"]), voc_palette(4), 255, ("organ", "vessel"))


@dataclass(frozen=True)
class Overlapping:
    """Held-out images of two structures that may overlap."""

    classes: Classes = STRUCTURES
    name: str = "overlapping"
    ids: tuple[str, ...] = ("a", "b", "c")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(index)
        label = torch.randint(4, (16, 16), generator=generator)
        return Sample(self.ids[index], torch.rand(3, 16, 16, generator=generator), label)


def test_structures_are_counted_by_themselves_and_told_first():
    network = torch.nn.Conv2d(3, 2, 1)
    found, data = sr.wrap(network, outputs="multilabel_logits", normalisation="none"), Overlapping()
    counts = judge(found, data, CPU, 2)
    images, labels = (torch.stack([getattr(data[i], part) for i in range(3)]) for part in ("image", "label"))
    said, asked = network(images) > 0, to_masks(labels, 2)
    both, all_of_them = (said & asked).sum((0, 2, 3)), said.sum((0, 2, 3)) + asked.sum((0, 2, 3))
    torch.testing.assert_close(class_dice(counts.foreground), 2 * both.double() / all_of_them)
    assert list(Evaluation(1, 3, 0.9, 0.8, 0.7, dice=0.5).figures()) == ["dice", "pixacc", "miou", "miou_image"]
    assert list(Evaluation(1, 3, 0.9, 0.8, 0.7).figures()) == ["pixacc", "miou", "miou_image"]
