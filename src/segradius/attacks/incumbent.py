"""The iterate that an attack would return now, and how it becomes the attack's result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Result, Task
from segradius.core.contracts import for_guidance
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.objectives.goal import Goal
from segradius.threats.projections import choose, largest


@dataclass(frozen=True)
class Incumbent:
    """The iterate that an attack would return now.

    Attributes:
        delta: (N, B, H, W).
        prediction: (N, H, W).
        fooled: (N,) counted pixels fooled, −1 before the first.
        valid: (N,) whether all logits so far were finite.
    """

    delta: Tensor
    prediction: Tensor
    fooled: Tensor
    valid: Tensor

    @staticmethod
    def none(task: Task[Any]) -> Incumbent:
        """Before the first iterate."""
        count = len(task.images)
        return Incumbent(
            torch.zeros_like(task.images),
            torch.zeros_like(task.goal.reference),
            task.goal.reference.new_full((count,), -1),
            torch.ones(count, dtype=torch.bool, device=task.images.device),
        )

    def offer(self, delta: Tensor, prediction: Tensor, finite: Tensor, goal: Goal, *, best: bool) -> Incumbent:
        """Take an iterate where its logits are finite and, if ``best``, it fools more pixels; no host sync."""
        fooled = goal.fooled(prediction).flatten(1).sum(1)
        better = finite & (fooled > self.fooled) if best else finite
        return replace(self.replaced(better, delta, prediction, fooled), valid=self.valid & finite)

    def replaced(self, better: Tensor, delta: Tensor, prediction: Tensor, fooled: Tensor) -> Incumbent:
        """With another iterate for the images (N,) where it is ``better``."""
        return Incumbent(
            choose(better, delta, self.delta),
            choose(better, prediction, self.prediction),
            choose(better, fooled, self.fooled),
            self.valid,
        )

    def result(self, task: Task[Any], ledger: Ledger) -> Result:
        """As an attack's result; where the loop looked through a cheaper form of the model, the model judges it now."""
        adversarial, delta = task.seen(self.delta), task.made(self.delta)
        judged = task.surrogate is not None or for_guidance(task.model) is task.model
        mine = self if judged else self._confirmed(task, adversarial, ledger)
        return Result(adversarial, delta, mine.prediction, mine.fooled.clamp_min(0), mine.valid, ledger)

    @torch.no_grad()
    def _confirmed(self, task: Task[Any], adversarial: Tensor, ledger: Ledger) -> Incumbent:
        """The same iterate with the model's own verdict, at the price of one forward pass."""
        top, prediction = predict(task.model.logits(adversarial))
        ledger.enter("judging", forward=1)
        fooled = task.goal.fooled(prediction).flatten(1).sum(1)
        return Incumbent(self.delta, prediction, fooled, self.valid & is_finite(top))


def is_finite(values: Tensor) -> Tensor:
    """Whether all values of an image are finite, (N,); the largest magnitude tells at a tenth of isfinite's price."""
    return torch.isfinite(largest(values))
