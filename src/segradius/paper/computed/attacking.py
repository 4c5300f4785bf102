"""Attacks of a computation, as a study names them, and images one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Attack, Result
from segradius.attacks.make import make_attack
from segradius.attacks.presets import preset_options
from segradius.core.errors import InputError, shown
from segradius.evaluation.expecting import passes_of
from segradius.models.segmenter import Segmenter
from segradius.paper.computed.subject import Subject

Plans = Mapping[str, Mapping[str, Any]]
"""Attacks by label, each {attack: NAME, options}; NAME is LABEL unless given."""

#: The two of the paper.
BOTH: Plans = {"PGD": {"attack": "pgd"}, "CR-PGD": {"attack": "cr_pgd"}}


@dataclass(frozen=True)
class Budget:
    """What all attacks of a computation share.

    Attributes:
        norm: Of the perturbation.
        eps: Its budget.
        steps: T; an attack's own goes first.
        preset: As of a study; empty for none.
    """

    norm: str
    eps: float
    steps: int
    preset: str = ""

    def attacks(self, plans: Plans) -> dict[str, Attack]:
        """The attacks by label.

        Raises:
            InputError: A plan is no mapping, or an attack or option is unknown.

        Example:
            >>> found = Budget("l2", 1.5, 10, "paper-code").attacks({"PGD": {"attack": "pgd"}, "fgsm": {}})
            >>> {label: attack.total_steps for label, attack in found.items()}
            {'PGD': 10, 'fgsm': 1}
        """
        return {label: self._attack(label, plan) for label, plan in plans.items()}

    def _attack(self, label: str, plan: Mapping[str, Any]) -> Attack:
        if not isinstance(plan, Mapping):
            raise InputError(f"attacks.{label} is {shown(plan)}; expected {{attack: NAME, options}}")
        own = dict(plan)
        name = str(own.pop("attack", label))
        preset = preset_options(self.preset, name, self.norm, self.eps) if self.preset else {}
        steps = {} if name in ("fgsm", "cr_fgsm") else {"steps": self.steps}
        return make_attack(name, norm=self.norm, eps=self.eps, **{**steps, **preset, **own})


@dataclass(frozen=True)
class Shot:
    """One image as an attack takes it.

    Attributes:
        id: Of the image.
        images: (1, B, H, W).
        labels: (1, H, W).
        void: Ignored label.
    """

    id: str
    images: Tensor
    labels: Tensor
    void: int

    @property
    def known(self) -> Tensor:
        """(1, H, W) bool: labelled pixels."""
        return self.labels != self.void

    def right(self, prediction: Tensor) -> int:
        """How many labelled pixels a (1, H, W) prediction has right."""
        return int(((prediction == self.labels) & self.known).sum())

    def attacked(self, attack: Attack, model: Segmenter, seed: int) -> Result:
        """The image under an attack."""
        return attack(model, self.images, self.labels, ids=(self.id,), seed=seed, ignore_index=self.void)

    def clean(self, model: Segmenter) -> Tensor:
        """The model's classes, (1, H, W)."""
        with torch.no_grad():
            return model.logits(self.images).argmax(1)


def shots(subject: Subject, model: Segmenter, limit: int) -> Iterator[Shot]:
    """The first images of a subject that have a labelled pixel, on the model's device."""
    void, found = subject.images.classes.ignore_index, 0
    for place in range(len(subject.images)):
        sample = subject.images[place]
        if found == limit:
            return
        if bool((sample.label != void).any()):
            found += 1
            yield Shot(sample.id, sample.image[None].to(model.device), sample.label[None].to(model.device), void)


def passes(subjects: Sequence[Subject], budget: Budget, plans: Plans, limit: int, more: int = 0) -> int:
    """Passes over an image of all attacks on the images of all subjects, and of so many ``more`` on each image."""
    each = sum(sum(passes_of(attack, classes=8, bands=3)) for attack in budget.attacks(plans).values())
    return sum((each + more) * min(limit, len(on.images)) for on in subjects)
