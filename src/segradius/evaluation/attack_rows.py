"""What an attack did to each image of a batch, as rows of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from segradius.attacks.base import Result
from segradius.evaluation.batch import Batch, goal_counts
from segradius.evaluation.rows import ImageResult
from segradius.metrics.counts import Pixels


def attack_results(
    result: Result,
    batch: Batch,
    num_classes: int,
    target: Tensor | None,
    again: Tensor | None,
    seconds: float,
    lengths: Callable[[Tensor], Mapping[str, Tensor]],
) -> list[ImageResult]:
    """What an attack did to each image of a batch.

    Args:
        result: The attack's own account.
        batch: The images attacked.
        num_classes: Classes of the model.
        target: Target labels (N, H, W) of a targeted attack.
        again: Prediction (N, H, W) for the adversarial images, judged once more by themselves; None: they were not.
        seconds: Wall time per image.
        lengths: ‖δ‖ of each image in every norm, of (N, B, H, W).
    """
    hit, eligible = goal_counts(batch, result.prediction, target)
    delta = (result.adversarial - batch.images).double()
    outside = torch.maximum(-result.adversarial, result.adversarial - 1).flatten(1).amax(1).clamp_min(0)
    differing = [None] * len(batch.ids) if again is None else _differing(again, result, batch)
    columns = {
        "image": batch.ids,
        "pixels": batch.counts(result.prediction, num_classes).images,
        "members": _members(result, batch, num_classes),
        "hit": hit.tolist(),
        "eligible": eligible.tolist(),
        **{name: length.tolist() for name, length in lengths(delta).items()},
        "outside": outside.tolist(),
        "disagreement": differing,
        "passes": _passes(result, len(batch.ids), checked=again is not None),
        "valid": result.valid.tolist(),
        "seconds": [seconds] * len(batch.ids),
    }
    return [ImageResult(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _differing(again: Tensor, result: Result, batch: Batch) -> list[int]:
    """For each image, labelled pixels whose prediction is another one now."""
    found: list[int] = ((again != result.prediction) & batch.labelled).flatten(1).sum(1).tolist()
    return found


def _members(result: Result, batch: Batch, num_classes: int) -> list[dict[str, Pixels]]:
    """For each image, the counts of every member of an ensemble that stayed valid."""
    rows: list[dict[str, Pixels]] = [{} for _ in batch.ids]
    for name, member in result.members.items():
        counts = batch.counts(member.prediction, num_classes).images
        for row, pixels, valid in zip(rows, counts, member.valid.tolist(), strict=True):
            if valid:
                row[name] = pixels
    return rows


def _passes(result: Result, images: int, *, checked: bool) -> list[Mapping[str, Sequence[int]]]:
    """Passes over each image by purpose, that of judging once more among them."""
    more = {"checking": [1, 0]} if checked else {}
    books = result.ledger.passes.items()
    return [{purpose: book[:, row].tolist() for purpose, book in books} | more for row in range(images)]
