"""A training to be run: what learns from what, how, where, and what a snapshot must share with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segradius.core.errors import InputError, one_of
from segradius.data.sample import SegmentationData
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import fingerprint
from segradius.training.engine import Engine
from segradius.training.recipe import Recipe, flat
from segradius.training.watch import Watch


@dataclass(frozen=True)
class Job:
    """A training to be run.

    Args:
        model: What is trained, from `segradius.wrap` or `segradius.load_model`; its network's weights are the first.
        train: Images and labels to learn from.
        held_out: Images and labels to evaluate on.
        recipe: How.
        folder: Where weights and logs go, and from where a killed run goes on.
        watch: Threat under which robustness is evaluated; None for clean evaluations only.
        engine: Devices and the like.
        quiet: Whether nothing is shown on the screen.
        best: What the best evaluation is chosen by, ``"accuracy"`` (of pixels) or ``"miou"``; under PGD where that is
            watched. One that says one class everywhere is never the best.
        card: Entries of the model cards ``best.yaml`` and ``last.yaml``, which are then written beside the weights:
            ``model`` and whatever else a card may say.
    """

    model: Segmenter
    train: SegmentationData
    held_out: SegmentationData
    recipe: Recipe
    folder: Path
    watch: Watch | None = None
    engine: Engine = field(default_factory=Engine)
    quiet: bool = False
    card: Mapping[str, Any] | None = None
    best: Literal["accuracy", "miou"] = "accuracy"

    def __post_init__(self) -> None:
        one_of(("accuracy", "miou"), best=self.best)
        for name, data in (("training", self.train), ("held-out", self.held_out)):
            if len(data.classes) != self.model.num_classes:
                sets = f", the sets of {self.model.structures} structures," if self.model.structures else ""
                raise InputError(
                    f"the model has {self.model.num_classes} classes{sets} and the {name} set has {len(data.classes)}: "
                    + ("give data of those structures" if sets else f"give the model num_classes={len(data.classes)}")
                )
            if not len(data):
                raise InputError(f"the {name} set is empty")
            if len(data) < self.engine.devices:
                raise InputError(f"the {name} set has {len(data)} images for {self.engine.devices} processes")
        recipe, devices = self.recipe, self.engine.devices
        if recipe.batch_size % devices:
            raise InputError(f"batch_size {recipe.batch_size} is no multiple of {devices} processes")
        if recipe.pace.compile and devices > 1:
            raise InputError(f"compile is for one process, and there are {devices}")
        low, high = recipe.augmentation.scale or (1.0, 1.0)
        if low != high and recipe.augmentation.crop is None and recipe.batch_size > 1:
            drawn = f"images of a random scale ({low:g} to {high:g}) differ in size"
            raise InputError(f"{drawn}: give a crop (height, width), or scale null")

    @property
    def identity(self) -> str:
        """What a run must share with a snapshot to go on from it, as lines of text; true before a step was done."""
        ids = hashlib.sha256("\n".join(self.train.ids).encode()).hexdigest()[:16]
        lines = {
            "model": self.model.name,
            "first weights": fingerprint(self.model),
            "data": f"{self.train.name}, {len(self.train)} images {ids}",
        }
        return "\n".join(f"{key}: {value}" for key, value in (lines | flat(self.recipe)).items())
