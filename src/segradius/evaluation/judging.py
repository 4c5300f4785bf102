"""From tensors to numbers: what a model sees in a batch, and what an attack changed in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segradius.attacks import Result
from segradius.evaluation.store import ImageResult, Pixels
from segradius.metrics.counts import count
from segradius.threats.threat import NORMS


@dataclass(frozen=True)
class Batch:
    """Images of one size, on the model's device, with the model's verdict on them before any attack."""

    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor
    prediction: Tensor
    ignore_index: int
    seconds: float = field(default=0.0, compare=False)

    @property
    def labelled(self) -> Tensor:
        """Pixels that count, (N, H, W) bool."""
        return self.labels != self.ignore_index

    def select(self, rows: Sequence[int]) -> Batch:
        """The batch of some of its images."""
        if len(rows) == len(self.ids):
            return self
        at = torch.tensor(rows, dtype=torch.long, device=self.images.device)
        ids = tuple(self.ids[row] for row in rows)
        return Batch(ids, self.images[at], self.labels[at], self.prediction[at], self.ignore_index, self.seconds)


def goal_counts(batch: Batch, prediction: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pixels that reached the goal, and those that could; each (N,) int64.

    Without a target: of the labelled pixels that were right before the attack, those that are wrong now. With one: of
    the labelled pixels that have a target, those that are predicted as it.

    Example:
        >>> labels, before, after = (torch.tensor([[row]]) for row in ([0, 0, 1, 255], [0, 1, 1, 0], [1, 1, 1, 1]))
        >>> batch = Batch(("a",), torch.zeros(1, 3, 1, 4), labels, before, 255)
        >>> [part.item() for part in goal_counts(batch, after, None)]
        [1, 2]
    """
    if target is None:
        eligible = batch.labelled & (batch.prediction == batch.labels)
        hit = eligible & (prediction != batch.labels)
    else:
        eligible = batch.labelled & (target != batch.ignore_index)
        hit = eligible & (prediction == target)
    return hit.flatten(1).sum(1), eligible.flatten(1).sum(1)


def clean_results(batch: Batch, num_classes: int, target: Tensor | None = None) -> list[ImageResult]:
    """The verdict on each unattacked image; with a target, also how much of it is reached without any attack."""
    counts = _pixels(batch.prediction, batch, num_classes)
    hit, eligible = goal_counts(batch, batch.prediction, target)
    reached = hit.tolist(), eligible.tolist() if target is not None else [0] * len(batch.ids)
    return [
        ImageResult(image, pixels, hit=h, eligible=e, passes={"judging": (1, 0)}, seconds=batch.seconds)
        for image, pixels, h, e in zip(batch.ids, counts, *reached, strict=True)
    ]


def attack_results(
    result: Result, batch: Batch, num_classes: int, target: Tensor | None, again: Tensor | None, seconds: float
) -> list[ImageResult]:
    """What an attack did to each image of a batch.

    Args:
        result: The attack's own account.
        batch: The images attacked.
        num_classes: Classes of the model.
        target: Target labels (N, H, W) of a targeted attack.
        again: Prediction (N, H, W) for the adversarial images, judged once more by themselves; None: they were not.
        seconds: Wall time per image.
    """
    hit, eligible = goal_counts(batch, result.prediction, target)
    delta = (result.adversarial - batch.images).double()
    outside = torch.maximum(-result.adversarial, result.adversarial - 1).flatten(1).amax(1).clamp_min(0)
    differing = [None] * len(batch.ids) if again is None else _differing(again, result, batch)
    columns = {
        "image": batch.ids,
        "pixels": _pixels(result.prediction, batch, num_classes),
        "members": _members(result, batch, num_classes),
        "hit": hit.tolist(),
        "eligible": eligible.tolist(),
        **{name: NORMS[name].length(delta).tolist() for name in ("l1", "l2", "linf")},
        "outside": outside.tolist(),
        "disagreement": differing,
        "passes": _passes(result, len(batch.ids)),
        "valid": result.valid.tolist(),
        "seconds": [seconds] * len(batch.ids),
    }
    return [ImageResult(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _differing(again: Tensor, result: Result, batch: Batch) -> list[int]:
    """For each image, labelled pixels whose prediction is another one now."""
    found: list[int] = ((again != result.prediction) & batch.labelled).flatten(1).sum(1).tolist()
    return found


def _pixels(prediction: Tensor, batch: Batch, num_classes: int) -> list[Pixels]:
    """Counts by class for each image."""
    counts = count(prediction, batch.labels, num_classes, batch.ignore_index)
    parts = (counts.intersection.tolist(), counts.predicted.tolist(), counts.labelled.tolist())
    return [Pixels(*row) for row in zip(*parts, strict=True)]


def _members(result: Result, batch: Batch, num_classes: int) -> list[dict[str, Pixels]]:
    """For each image, the counts of every member of an ensemble that stayed valid."""
    rows: list[dict[str, Pixels]] = [{} for _ in batch.ids]
    for name, member in result.members.items():
        found = zip(rows, _pixels(member.prediction, batch, num_classes), member.valid.tolist(), strict=True)
        for row, pixels, valid in found:
            if valid:
                row[name] = pixels
    return rows


def _passes(result: Result, images: int) -> list[Mapping[str, Sequence[int]]]:
    return [{purpose: book[:, row].tolist() for purpose, book in result.ledger.passes.items()} for row in range(images)]
