"""A training small enough for every test: twelve drawn scenes, eight classes, and networks of a few hundred weights."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import segradius as sr
from segradius.data import open_data
from segradius.data.sample import Sample, SegmentationData
from segradius.training import Augmentation, Engine, Job, Optimiser, Recipe


class InMemory:
    """A data set of samples that are at hand, named as another one."""

    def __init__(self, samples: Sequence[Sample], source: SegmentationData) -> None:
        self.samples = samples
        self.name, self.classes, self.ids = source.name, source.classes, source.ids

    @classmethod
    def read(cls, source: SegmentationData) -> InMemory:
        """All samples of another one."""
        return cls([source[i] for i in range(len(source))], source)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def parts(self, index: int) -> dict[str, Tensor]:
        """The tensors of a sample."""
        return {"image": self.samples[index].image, "label": self.samples[index].label}


CLASSES = 8
SCENES = "scenes:32x48"
TRAIN = InMemory.read(open_data(SCENES, split="train", limit=12))
HELD_OUT = InMemory.read(open_data(SCENES, split="val", limit=4))


def network(seed: int = 0, dropout: float = 0.2, norm: type[nn.Module] | None = nn.BatchNorm2d) -> nn.Sequential:
    """Two convolutions with batch norm (or the norm given, or none) and dropout between them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Identity() if norm is None else norm(8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(8, CLASSES, 3, padding=1),
        )


def tiny() -> sr.Segmenter:
    """What the command line is given as ``--model small:tiny``."""
    return sr.wrap(network(), num_classes=CLASSES, normalisation="imagenet", name="tiny")


def recipe(**changes) -> Recipe:
    """Four epochs of three steps, without augmentation."""
    plain = {"epochs": 4, "batch_size": 4, "optimiser": Optimiser(lr=0.05), "augmentation": Augmentation.none()}
    return Recipe(**plain | changes)


def job(folder: Path, model: nn.Module | None = None, **changes) -> Job:
    """A job on the scenes; ``changes`` are its fields or those of the recipe."""
    own = {key: changes.pop(key) for key in ("train", "held_out", "watch", "engine", "quiet") if key in changes}
    wrapped = sr.wrap(network() if model is None else model, num_classes=CLASSES, normalisation="imagenet")
    plain = {"train": TRAIN, "held_out": HELD_OUT, "engine": Engine("cpu"), "quiet": True}
    return Job(model=wrapped, recipe=recipe(**changes), folder=folder, **plain | own)


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(path: Path, name: str) -> list[float]:
    """A column of a CSV file."""
    return [float(row[name]) for row in rows(path)]


def assert_same(one, other, **tolerances) -> None:
    """Two state dicts have the same names and tensors, bit by bit unless tolerances are given."""
    torch.testing.assert_close(dict(one), dict(other), **{"rtol": 0, "atol": 0} | tolerances)
