"""DAG by the paper's Algorithm 3. The original, with its active set, is an ordinary recipe on the one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch

from segradius.attacks.loop import Incumbent, Objective, judge, observe
from segradius.attacks.task import Result, Task
from segradius.errors import InputError
from segradius.ledger import Ledger
from segradius.threats import Linf, Threat


@dataclass(frozen=True)
class DagAlgorithm3:
    """Algorithm 3: r ← ∇L(x_t + r) − ∇L(x_t), scaled to ‖r‖∞ = γ; δ ← Clip(δ + r, ε); x_{t+1} = x + δ.

    Taken to the letter, r starts at 0, so the first difference of gradients is 0 and the attack never moves. r starts
    uniformly in the ball here instead. Each step costs two forward and two backward passes.

    Attributes:
        objective: Cross-entropy in the paper.
        threat: An l∞ ball.
        steps: T.
        gamma: Length γ of r in the l∞ norm, 0.5 in the paper.
        first: ``"uniform"``, or ``"zero"`` for the letter of the algorithm.
    """

    objective: Objective
    threat: Threat
    steps: int
    gamma: float = 0.5
    first: Literal["uniform", "zero"] = "uniform"

    def __post_init__(self) -> None:
        if not isinstance(self.threat.norm, Linf):
            raise InputError(f"dag_alg3 is defined for linf only (Algorithm 3), got {self.threat.norm.name}")

    @property
    def needs(self) -> frozenset[str]:
        """Gradients."""
        return frozenset({"logits"})

    @property
    def total_steps(self) -> int:
        """T."""
        return self.steps

    def map_objective(self, change: Callable[[Objective], Objective]) -> DagAlgorithm3:
        """The same attack on a changed objective."""
        return replace(self, objective=change(self.objective))

    def run(self, task: Task) -> Result:
        """T steps, then a forward pass that judges the last."""
        ledger, incumbent, time_state = Ledger(len(task.images)), Incumbent.none(task), None
        delta = torch.zeros_like(task.images) if task.warm is None else task.warm
        ball = self.threat.start(task.images, task.randomness)
        move = task.confine(ball if self.first == "uniform" else torch.zeros_like(ball))
        for t in range(self.steps):
            time = (t, self.steps)
            here, prediction, finite, time_state = observe(self.objective, task, delta, time, time_state, ledger)
            incumbent = incumbent.offer(delta, prediction, finite, task.goal, best=True)
            there, _, _, _ = observe(self.objective, task, delta + move, time, time_state, ledger)
            difference = there.gradient - here.gradient
            length = difference.flatten(1).abs().amax(1).clamp_min(torch.finfo(difference.dtype).tiny)
            move = difference * (self.gamma / length).view(-1, 1, 1, 1)
            delta = self.threat.project(delta + move, task.images)
            task.done(1)
        return judge(incumbent, task, delta, ledger, best=True).result(task, ledger)
