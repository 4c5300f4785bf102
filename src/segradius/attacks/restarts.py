"""Several runs of one attack from different starts; each image keeps its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from segradius.attacks.base import Method, Result, Task
from segradius.core.contracts import Model
from segradius.core.declared import Count, check_fields
from segradius.core.ledger import Ledger
from segradius.threats.projections import choose


@dataclass(frozen=True)
class Restarts:
    """Several runs from different starts; each image keeps its best.

    Attributes:
        first: The first run.
        again: The others, with independent random numbers; they must start at random to differ.
        count: Runs altogether.
    """

    first: Method
    again: Method
    count: Count

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs(self) -> frozenset[str]:
        """What the runs need."""
        return self.first.needs

    @property
    def total_steps(self) -> int:
        """Steps of all runs."""
        return self.first.total_steps + (self.count - 1) * self.again.total_steps

    def run(self, task: Task[Model]) -> Result:
        """Run and merge, one at a time."""
        found = self.first.run(task)
        for i in range(1, self.count):
            found = merged([found, self.again.run(task.spawn(f"restart {i}"))])
        return found


def merged(results: Sequence[Result]) -> Result:
    """The result with most fooled pixels for each image, of each member too; passes add up.

    An image that is invalid in one is invalid.
    """
    best = results[0]
    for other in results[1:]:
        better = other.fooled > best.fooled
        ledger = Ledger.joined([best.ledger])
        ledger.add(other.ledger)
        best = Result(
            choose(better, other.adversarial, best.adversarial),
            choose(better, other.delta, best.delta),
            choose(better, other.prediction, best.prediction),
            choose(better, other.fooled, best.fooled),
            valid=best.valid & other.valid,
            ledger=ledger,
            members={n: merged([m, other.members[n]]) for n, m in best.members.items() if n in other.members},
            still=both(best.still, other.still),
        )
    return best


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where the gradient was zero throughout in both of two runs; None where one of them followed none."""
    return None if one is None or other is None else one & other
