"""SEA (Croce et al. 2024): red-ε Auto-PGD on several objectives, the worst of them for each image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch

from segradius.attacks.apgd import adaptive
from segradius.attacks.base import Method, Result, Task
from segradius.attacks.ensemble import Ensemble
from segradius.attacks.loop import Iterative
from segradius.attacks.make import white_box
from segradius.attacks.restarts import both
from segradius.attacks.settings import Settings
from segradius.core.contracts import Model
from segradius.core.declared import Weight
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.objectives.losses import CrossEntropy, JensenShannon
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import ClassBalanced, Product, StillCorrect
from segradius.threats.threat import Threat


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

    def run(self, task: Task[Model]) -> Result:
        """Run the phases in turn."""
        ledger, phases = Ledger(len(task.images)), list[Result]()
        for number, (factor, steps) in enumerate(zip(self.factors, self.phase_steps, strict=True)):
            phase = replace(self.attack, threat=self.attack.threat.scaled(factor), steps=steps)
            warm = phases[-1].delta if phases else task.warm
            phases.append(phase.run(replace(task.spawn(f"phase {number}"), warm=warm)))
            ledger.add(phases[-1].ledger)
        valid = torch.stack([found.valid for found in phases]).all(0)
        return replace(phases[-1], ledger=ledger, valid=valid, still=reduce(both, (found.still for found in phases)))


@white_box("sea", fixed=("alpha", "sparse"))
def sea(threat: Threat, settings: Settings, *, class_weights: tuple[Weight, ...] | None = None) -> Method:
    """SEA (Croce et al. 2024): red-ε Auto-PGD, T = 300, on masked CE, the same class-balanced, and Jensen–Shannon.

    Args:
        settings: Shared settings; ``steps`` are those of each loss.
        class_weights: One weight per class, as `segradius.objectives.weightings.balanced_weights` computes them; None
            balances each image by itself.
    """
    balanced = Product((StillCorrect(), ClassBalanced(class_weights)))
    members = {
        "mce": Objective(CrossEntropy(), StillCorrect(), track=CrossEntropy()),
        "mce_bal": Objective(CrossEntropy(), balanced, track=CrossEntropy()),
        "js": Objective(JensenShannon(), track=CrossEntropy()),
    }
    settings = replace(settings, start=settings.start or "uniform")
    return Ensemble({n: ShrinkingBudget(adaptive(o, threat, settings, 300)) for n, o in members.items()})
