"""DAG by the paper's Algorithm 3. The original, with its active set, is an ordinary recipe on the one loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from segradius.attacks.base import Method, Result, Task
from segradius.attacks.incumbent import Incumbent
from segradius.attacks.loop import Observation, Room, StepSize, ascend, is_zero, judge, judge_between, see
from segradius.attacks.make import white_box
from segradius.attacks.settings import PAPER_STEPS, Settings
from segradius.core.contracts import LOGITS, Model
from segradius.core.declared import Count, Length, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.objectives.losses import Margin
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import StillCorrect
from segradius.threats.threat import Linf, Threat


@dataclass(frozen=True)
class DagAlgorithm3:
    """Algorithm 3: r ← ∇L(x_t + r) − ∇L(x_t), scaled to ‖r‖∞ = γ; δ ← Clip(δ + r, ε); x_{t+1} = x_t + r.

    The steps add up outside of ball and box (γ = 0.5, ε = 0.006), and no gradient is taken where δ is; only δ is
    clipped, and brought into the box when it is judged. ``inside`` takes both gradients within the box and goes on
    from x_{t+1} = x + δ. Both gradients of a difference have the weights of x_t. A step costs two forward and two
    backward passes, and, to the letter with ``keep="best"``, a forward pass that judges δ.

    Attributes:
        objective: Cross-entropy in the paper.
        threat: An l∞ ball.
        steps: T.
        gamma: Length γ of r in the l∞ norm, 0.5 in the paper.
        first: ``"uniform"`` in the ball, or ``"zero"``, the letter: a difference that is 0, and stays so.
        form: ``"paper"``, or ``"inside"`` as above.
        keep: ``"best"`` δ by fooled pixels, or the ``"last"``, as the paper.
    """

    objective: Objective
    threat: Threat
    steps: Count
    gamma: Length = 0.5
    first: Literal["uniform", "zero"] = "uniform"
    form: Literal["paper", "inside"] = "paper"
    keep: Literal["best", "last"] = "best"

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})

    def __post_init__(self) -> None:
        check_fields(self, gamma="alpha")
        self.threat.check_bounded("the start")
        if not isinstance(self.threat.norm, Linf):
            raise InputError(f"dag_alg3 is defined for linf only (Algorithm 3), got {self.threat.norm.name}")

    @property
    def total_steps(self) -> int:
        """T."""
        return self.steps

    def run(self, task: Task[Model]) -> Result:
        """T steps, then a forward pass that judges the last."""
        task = task.entered(self.threat)
        ledger, incumbent, state = Ledger(len(task.images)), Incumbent.none(task), None
        budgets = self.threat.budgets(len(task.images), task.images)
        room = Room(self.threat, task, budgets, self.steps, compares=True)  # gradients at two points
        eps, best, inside = room.eps.view(-1, 1, 1, 1), self.keep == "best", self.form == "inside"
        low, high = (0.0, 1.0) if inside else (-math.inf, math.inf)
        delta = torch.zeros_like(task.images) if task.warm is None else room.project(task.warmed(task.warm))
        point, move = task.images + task.change(delta), torch.zeros_like(delta)
        if self.first == "uniform":
            move = task.confine(self.threat.start(task.images, task.randomness))
        still = torch.ones_like(incumbent.valid)
        for t in range(self.steps):
            judged = inside or t == 0  # the point is x + δ
            here = see(room, task.seen(delta) if judged else point.clamp(low, high), t, ledger)
            incumbent = replace(incumbent, valid=incumbent.valid & here.finite)
            if judged:
                incumbent = incumbent.offer(delta, here.prediction, here.finite, task.goal, best=best)
            elif best:
                incumbent = judge_between(incumbent, room, room.project(delta), ledger)
            weights, state = self.objective.weighting.weigh(here.view, state)
            gradient = ascend(self.objective, room, here, weights, ledger)
            still = still & is_zero(gradient)
            there = see(room, (point + task.change(move)).clamp(low, high), t, ledger)
            move = self._scaled(ascend(self.objective, room, there, weights, ledger) - gradient)
            delta = (delta + move).clamp(-eps, eps)
            if inside:
                delta = room.project(delta)
            point = task.images + task.change(delta) if inside else point + task.change(move)
            task.done(1)
        found = judge(incumbent, room, room.project(delta), ledger, best=best).result(task, ledger)
        return replace(found, still=still)

    def _scaled(self, difference: Tensor) -> Tensor:
        """The difference of two gradients at length γ; zero stays zero."""
        length = difference.flatten(1).abs().amax(1).clamp_min(torch.finfo(difference.dtype).tiny)
        return difference * (self.gamma / length).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Dense:
    """DAG's step (Xie et al. 2017): γ·g/‖g‖_p with p the norm of the threat, so dense even for l∞.

    Args:
        size: γ.
    """

    compares: ClassVar[bool] = False

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
    steps = PAPER_STEPS[threat.norm.name] if settings.steps is None else settings.steps
    step = Dense(settings.size(threat.norm.name, 4.0 * steps if threat.norm.name == "linf" else 2.5))
    return settings.iterate(Objective(Margin(), StillCorrect()), threat, step)


@white_box("dag_alg3", norms=("linf",), fixed=("start", "sparse"))
def dag_alg3(
    threat: Threat,
    settings: Settings,
    *,
    first: Literal["uniform", "zero"] = "uniform",
    form: Literal["paper", "inside"] = "paper",
) -> Method:
    """DAG as the paper's Algorithm 3: differences of two gradients along unclipped steps (l∞ only; two passes a step).

    Args:
        threat: An l∞ ball.
        settings: Shared settings; ``alpha`` is γ, 0.5 by default.
        first: Start of the inner perturbation; ``zero``, the letter of the algorithm, never moves.
        form: ``paper``, the letter: x + the sum of the steps, wherever it leads; ``inside`` steps from x + δ, inside
            ball and box.
    """
    steps = PAPER_STEPS["linf"] if settings.steps is None else settings.steps
    gamma = 0.5 if settings.alpha is None else settings.alpha
    return DagAlgorithm3(Objective(), threat, steps, gamma, first, form, settings.keep)
