"""DAG by the paper's Algorithm 3. The original, with its active set, is an ordinary recipe on the one loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from segradius.attacks.base import Method, Result, Task
from segradius.attacks.loop import Incumbent, Observation, Room, StepSize, judge, observe
from segradius.attacks.make import white_box
from segradius.attacks.settings import PAPER_STEPS, Settings
from segradius.core.contracts import LOGITS, Model
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.objectives.losses import Margin
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import Linf, Threat


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

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    def __post_init__(self) -> None:
        if not isinstance(self.threat.norm, Linf):
            raise InputError(f"dag_alg3 is defined for linf only (Algorithm 3), got {self.threat.norm.name}")

    @property
    def total_steps(self) -> int:
        """T."""
        return self.steps

    def run(self, task: Task[Model]) -> Result:
        """T steps, then a forward pass that judges the last."""
        ledger, incumbent, weights = Ledger(len(task.images)), Incumbent.none(task), None
        room = Room(self.threat, task, self.threat.budgets(len(task.images), task.images), self.steps)
        delta = torch.zeros_like(task.images) if task.warm is None else task.warm
        ball = self.threat.start(task.images, task.randomness)
        move = task.confine(ball if self.first == "uniform" else torch.zeros_like(ball))
        for t in range(self.steps):
            here, prediction, finite, weights = observe(self.objective, room, delta, t, weights, ledger)
            incumbent = incumbent.offer(delta, prediction, finite, task.goal, best=True)
            there, _, _, _ = observe(self.objective, room, delta + move, t, weights, ledger)
            difference = there.gradient - here.gradient
            length = difference.flatten(1).abs().amax(1).clamp_min(torch.finfo(difference.dtype).tiny)
            move = difference * (self.gamma / length).view(-1, 1, 1, 1)
            delta = room.project(delta + move)
            task.done(1)
        return judge(incumbent, task, delta, ledger, best=True).result(task, ledger)


@dataclass(frozen=True)
class Dense:
    """DAG's step (Xie et al. 2017): γ·g/‖g‖_p with p the norm of the threat, so dense even for l∞.

    Args:
        size: γ.
    """

    size: StepSize

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        length = room.threat.norm.length(seen.gradient).clamp_min(torch.finfo(seen.gradient.dtype).tiny)
        scale = self.size.of(room) / length.view(-1, 1, 1, 1)
        return room.project(torch.addcmul(seen.delta, seen.gradient, scale)), None


@white_box("dag", fixed=("sparse",))
def dag(threat: Threat, settings: Settings) -> Method:
    """Dense adversary generation (Xie et al. 2017): logit differences of the pixels still correct, dense steps γ·g/‖g‖.

    The original has no ball: pass ``eps=inf`` and γ as ``alpha`` for it. Inside a ball, γ is 2.5ε/T by default, and 4ε
    for l∞, where g/‖g‖∞ is far from ±1 at most pixels.

    Args:
        settings: Shared settings; ``alpha`` is γ.
    """
    steps = settings.steps or PAPER_STEPS[threat.norm.name]
    step = Dense(settings.size(threat.norm.name, 4.0 * steps if threat.norm.name == "linf" else 2.5))
    return settings.iterate(Objective(Margin(), StillCorrect()), threat, step)


@white_box("dag_alg3", norms=("linf",), fixed=("start", "keep", "sparse"))
def dag_alg3(threat: Threat, settings: Settings, *, first: Literal["uniform", "zero"] = "uniform") -> Method:
    """DAG as the paper's Algorithm 3: differences of two gradients (l∞ only; two passes a step).

    Args:
        threat: An l∞ ball.
        settings: Shared settings; ``alpha`` is γ, 0.5 by default.
        first: Start of the inner perturbation; ``zero``, the letter of the algorithm, never moves.
    """
    steps = settings.steps or PAPER_STEPS["linf"]
    return DagAlgorithm3(Objective(), threat, steps, settings.alpha or 0.5, first)
