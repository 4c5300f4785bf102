"""Attacks made of attacks: restarts, a shrinking budget (red-ε), and per-image ensembles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from segradius.attacks.loop import Iterative, Objective
from segradius.attacks.task import Method, Result, Task
from segradius.errors import InputError
from segradius.ledger import Ledger


class Guided(Method, Protocol):
    """A method whose objective, or objectives, can be changed."""

    def map_objective(self, change: Callable[[Objective], Objective]) -> Guided:
        """The same method on changed objectives."""
        ...


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


@dataclass(frozen=True)
class ShrinkingBudget:
    """Red-ε (Croce et al. 2024): phases at larger budgets, each warm-starting the next from its best, projected.

    Only iterates of the last phase, at ε itself, are judged for the result.

    Attributes:
        attack: The attack at ε, with all T steps.
        factors: Budget of each phase in units of ε, ending with 1.
        shares: Share of the steps of each phase.
    """

    attack: Iterative
    factors: tuple[float, ...] = (2.0, 1.5, 1.0)
    shares: tuple[float, ...] = (0.3, 0.3, 0.4)

    def __post_init__(self) -> None:
        if len(self.factors) != len(self.shares) or self.factors[-1] != 1 or abs(sum(self.shares) - 1) > 1e-9:
            raise InputError(f"red-ε needs as many factors as shares, ending at 1: {self.factors}, {self.shares}")
        if min(self.phase_steps) < 1:
            raise InputError(f"{self.attack.steps} steps are too few for {len(self.shares)} phases")

    @property
    def phase_steps(self) -> tuple[int, ...]:
        """Steps of each phase; they add up to T."""
        early = [round(share * self.attack.steps) for share in self.shares[:-1]]
        return (*early, self.attack.steps - sum(early))

    @property
    def needs(self) -> frozenset[str]:
        """What the attack needs."""
        return self.attack.needs

    @property
    def total_steps(self) -> int:
        """T."""
        return self.attack.steps

    def map_objective(self, change: Callable[[Objective], Objective]) -> ShrinkingBudget:
        """The same phases on a changed objective."""
        return replace(self, attack=self.attack.map_objective(change))

    def run(self, task: Task) -> Result:
        """Run the phases in turn."""
        ledger, found, valid = Ledger(len(task.images)), None, None
        for number, (factor, steps) in enumerate(zip(self.factors, self.phase_steps, strict=True)):
            phase = replace(self.attack, threat=self.attack.threat.scaled(factor), steps=steps)
            found = phase.run(replace(task.spawn(f"phase {number}"), warm=task.warm if found is None else found.delta))
            ledger.add(found.ledger)
            valid = found.valid if valid is None else valid & found.valid
        assert found is not None
        assert valid is not None
        return replace(found, ledger=ledger, valid=valid)


@dataclass(frozen=True)
class Ensemble:
    """Members one after another; each image keeps the member that fools most of its pixels.

    Every member's result is kept, so that the worst choice for a data-set metric can be made later.

    Attributes:
        members: Methods by name.
    """

    members: Mapping[str, Guided]

    def __post_init__(self) -> None:
        if not self.members:
            raise InputError("an ensemble needs at least one member")

    @property
    def needs(self) -> frozenset[str]:
        """What any member needs."""
        return frozenset[str]().union(*(member.needs for member in self.members.values()))

    @property
    def total_steps(self) -> int:
        """Steps of all members."""
        return sum(member.total_steps for member in self.members.values())

    def map_objective(self, change: Callable[[Objective], Objective]) -> Ensemble:
        """The same members on changed objectives."""
        return Ensemble({name: member.map_objective(change) for name, member in self.members.items()})

    def run(self, task: Task) -> Result:
        """Run every member with random numbers of its own."""
        found = {name: member.run(task.spawn(name)) for name, member in self.members.items()}
        return replace(merged(list(found.values())), members=found)


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
