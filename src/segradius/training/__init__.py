"""Training and its defences: `fit` a `Job` with a `Recipe`, an adversary from `make_adversary` in it."""

from segradius.training.adversaries import ADVERSARIES, Adversary, Lesson, make_adversary
from segradius.training.augment import Augmentation
from segradius.training.averaging import WeightAverage
from segradius.training.engine import Engine
from segradius.training.fit import Job, fit, judge
from segradius.training.logs import Evaluation
from segradius.training.loss import Ohem, SegmentationLoss
from segradius.training.recipe import Optimiser, Recipe
from segradius.training.schedules import SCHEDULES
from segradius.training.watch import Robustness, Watch

__all__ = [
    "ADVERSARIES",
    "SCHEDULES",
    "Adversary",
    "Augmentation",
    "Engine",
    "Evaluation",
    "Job",
    "Lesson",
    "Ohem",
    "Optimiser",
    "Recipe",
    "Robustness",
    "SegmentationLoss",
    "Watch",
    "WeightAverage",
    "fit",
    "judge",
    "make_adversary",
]
