"""Watching a defence for catastrophic overfitting: FGSM against PGD on held-out images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from segradius.attacks.make import make_attack
from segradius.core.declared import Count, Images, check_fields
from segradius.data.sample import SegmentationData
from segradius.metrics.counts import Counts, count
from segradius.metrics.statistics import miou, pooled_accuracy
from segradius.models.segmenter import Segmenter
from segradius.threats.threat import make_threat
from segradius.training.lessons import even

GAP = 0.2


@dataclass(frozen=True)
class Robustness:
    """Pixel accuracy of a network under a one-step and a multi-step attack of the same budget.

    Attributes:
        fgsm: PixAcc under FGSM.
        pgd: PixAcc under PGD.
        pgd_miou: MIoU of the images under PGD; NaN where it was not counted.
    """

    fgsm: float
    pgd: float
    pgd_miou: float = math.nan

    @property
    def overfitted(self) -> bool:
        """Whether FGSM leaves far more right than PGD does: single-step training has learnt FGSM, not robustness.

        Wong, Rice and Kolter (ICLR 2020) call it catastrophic overfitting. On networks that are trained otherwise the
        two differ by a few points only.

        Example:
            >>> Robustness(fgsm=0.8, pgd=0.1).overfitted, Robustness(fgsm=0.5, pgd=0.45).overfitted
            (True, False)
        """
        return self.fgsm - self.pgd > GAP

    @property
    def advice(self) -> str:
        """What to tell the user of an overfitted network."""
        return (
            f"catastrophic overfitting? PixAcc is {self.fgsm:.3f} under FGSM and {self.pgd:.3f} under PGD of the same "
            "budget: the network has learnt the single step. Try a smaller alpha, fewer epochs, or pgd_at"
        )


@dataclass(frozen=True)
class Watch:
    """A threat under which a network is watched.

    Args:
        norm: ``l1``, ``l2`` or ``linf``.
        eps: Budget; None is the paper's.
        steps: Steps of PGD.
        images: How many images are attacked.

    Raises:
        InputError: If a value is out of range.
    """

    norm: str = "linf"
    eps: float | None = None
    steps: Count = 10
    images: Images = 8

    def __post_init__(self) -> None:
        make_threat(self.norm, self.eps)
        check_fields(self)

    def __call__(self, model: Segmenter, data: SegmentationData, device: torch.device) -> Robustness:
        """Attack images spread over a data set, twice.

        Args:
            model: The network as it is, on ``device``.
            data: Images of any sizes.
            device: Where it runs.
        """
        chosen = torch.linspace(0, len(data) - 1, min(self.images, len(data))).long().tolist()
        batches, ignore_index = list(even(data[i] for i in chosen)), data.classes.ignore_index
        found, attacks = list[Counts](), {"fgsm": dict[str, Any](), "pgd": {"steps": self.steps}}
        for name, options in attacks.items():
            attack = make_attack(name, norm=self.norm, eps=self.eps, **options)
            parts = []
            for images, labels, ids in batches:
                result = attack(model, images.to(device), labels.to(device), ids=ids, ignore_index=ignore_index)
                parts.append(count(result.prediction.cpu(), labels, model.num_classes, ignore_index))
            found.append(Counts.joined(parts))
        fgsm, pgd = found
        return Robustness(pooled_accuracy(fgsm), pooled_accuracy(pgd), miou(pgd))
