"""Several runs of one attack from different starts; each image keeps its best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from segradius.attacks.base import Guided, Result, Task
from segradius.core.ledger import Ledger
from segradius.objectives.objective import Objective


@dataclass(frozen=True)
class Restarts:
    """Several runs from different starts; each image keeps its best.

    Attributes:
        first: The first run.
        again: The others, with independent random numbers; they must start at random to differ.
        count: Runs altogether.
    """

    first: Guided
    again: Guided
    count: int

    @property
    def needs(self) -> frozenset[str]:
        """What the runs need."""
        return self.first.needs

    @property
    def total_steps(self) -> int:
        """Steps of all runs."""
        return self.first.total_steps + (self.count - 1) * self.again.total_steps

    def map_objective(self, change: Callable[[Objective], Objective]) -> Restarts:
        """The same runs on a changed objective."""
        return replace(self, first=self.first.map_objective(change), again=self.again.map_objective(change))

    def run(self, task: Task) -> Result:
        """Run and merge, one at a time."""
        found = self.first.run(task)
        for i in range(1, self.count):
            found = merged([found, self.again.run(task.spawn(f"restart {i}"))])
        return found


def merged(results: Sequence[Result]) -> Result:
    """The result with most fooled pixels for each image; passes add up; an image invalid in one is invalid."""
    best = results[0]
    for other in results[1:]:
        better = other.fooled > best.fooled
        at = better.view(-1, 1, 1)
        ledger = Ledger.joined([best.ledger])
        ledger.add(other.ledger)
        best = Result(
            torch.where(at.unsqueeze(1), other.adversarial, best.adversarial),
            torch.where(at.unsqueeze(1), other.delta, best.delta),
            torch.where(at, other.prediction, best.prediction),
            torch.where(better, other.fooled, best.fooled),
            best.valid & other.valid,
            ledger,
        )
    return best
