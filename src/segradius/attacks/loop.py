"""The one attack loop: observe, judge, move (Algorithm 1 with any loss, weighting, threat and step)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from segradius.attacks.base import Result, Task, parts
from segradius.attacks.incumbent import Incumbent, is_finite
from segradius.core.border import at_border
from segradius.core.contracts import LOGITS, Model, for_answers, for_guidance
from segradius.core.declared import Count, Length, Weight, check_fields
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.prediction import are_probabilities, predict
from segradius.objectives.objective import Objective
from segradius.objectives.view import LogitView
from segradius.threats.projections import Box, largest
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Observation:
    """What one forward and backward pass shows at an iterate.

    Attributes:
        delta: (N, B, H, W) the iterate.
        gradient: (N, B, H, W) of the objective, zero outside the changeable pixels.
        value: (N,) tracked loss, that of the objective where it tracks none; NaN where the step compares nothing.
        step: Index of the step.
        prediction: (N, H, W) of the pass; None where a step needs none.
    """

    delta: Tensor
    gradient: Tensor
    value: Tensor
    step: int
    prediction: Tensor | None = None


@dataclass(frozen=True)
class Room:
    """Where a step may move, the threat on these images, and what is looked through there.

    Attributes:
        threat: Ball and box.
        task: The batch.
        eps: (N,) radius of each image's ball.
        steps: Steps of the run, T.
        compares: Whether losses or gradients of different iterates are compared, which reduced precision would drown.
    """

    threat: Threat
    task: Task[Any]
    eps: Tensor
    steps: int
    compares: bool = True

    @property
    def guide(self) -> Any:
        """The form of the model that gradients, weights and the choice of the best iterate come from."""
        return for_answers(self.task.model) if self.compares else for_guidance(self.task.model)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation that the threat allows."""
        return self._onto(delta)

    @cached_property
    def box(self) -> Box:
        """The least and the largest δ that leave the images in [0, 1]."""
        return self.threat.bounds(self.task.images)

    @cached_property
    def _onto(self) -> Callable[[Tensor], Tensor]:
        return self.threat.onto(self.task.images, self.eps)


class Step(Protocol):
    """How the next iterate follows from an observation; a frozen dataclass.

    One that does not compare what it sees with what it saw says ``compares: ClassVar[bool] = False``: its observations
    have no value, which spares a loss, and they may come from reduced precision (`Room.guide`). One that wants its
    gradient elsewhere than at the iterate has ``ahead(delta, room, state) -> Tensor`` besides; one whose iterates leave
    the ball, as it is after the shortest that will do, has ``incumbent(room)``, which says what is returned.
    """

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Next perturbation, inside the threat, and the state of the next step; ``state`` is None in the first."""


class Look(Protocol):
    """How the loop looks at an iterate, and what it takes a gradient of there; a frozen dataclass."""

    @property
    def needs(self) -> frozenset[str]:
        """What the model must offer."""

    @property
    def judges(self) -> bool:
        """Whether the prediction it brings is the model's on the iterate itself."""

    def observe(
        self, objective: Objective, room: Room, delta: Tensor, step: int, state: Any, ledger: Ledger
    ) -> tuple[Observation, Tensor, Tensor, Any]:
        """As the function `observe` says; ``state`` is None in the first step, and the look's own from then on."""


@dataclass(frozen=True)
class Straight:
    """The model is shown the iterate, and the objective is that of its logits."""

    needs: ClassVar[frozenset[str]] = frozenset({LOGITS})
    judges: ClassVar[bool] = True

    def observe(
        self, objective: Objective, room: Room, delta: Tensor, step: int, state: Any, ledger: Ledger
    ) -> tuple[Observation, Tensor, Tensor, Any]:
        """The function `observe`."""
        return observe(objective, room, delta, step, state, ledger)


@dataclass(frozen=True)
class Iterative:
    """An iterative attack: T steps of one kind on one objective inside one threat.

    Attributes:
        objective: What is maximised.
        threat: Where.
        step: How.
        steps: T.
        start: ``"zero"``, or ``"uniform"`` in the ball.
        keep: ``"best"`` returns the iterate with the most fooled pixels (the clean image and the last iterate are
            judged too), ``"last"`` the last.
        look: How an iterate is looked at. Where what is seen is not the iterate, as behind a random transform, one
            forward pass a step more judges it; with ``"last"`` none.
    """

    objective: Objective
    threat: Threat
    step: Step
    steps: Count
    start: Literal["zero", "uniform"] = "zero"
    keep: Literal["best", "last"] = "best"
    look: Look = field(default_factory=Straight)

    def __post_init__(self) -> None:
        check_fields(self)
        self.objective.loss.check_gradient()
        if self.start == "uniform":
            self.threat.check_bounded("a uniform start")
        if any(size.alpha is None for size in parts(self.step, StepSize)):
            self.threat.check_bounded("the step length")

    @property
    def needs(self) -> frozenset[str]:
        """Logits with gradients, and what the look needs."""
        return self.look.needs | {LOGITS}

    @property
    def total_steps(self) -> int:
        """T."""
        return self.steps

    def run(self, task: Task[Model]) -> Result:
        """T forward–backward passes and a last forward pass that judges δ^(T)."""
        ledger, task = Ledger(len(task.images)), task.entered(self.threat)
        room = self._room(task)
        best = self.keep == "best"
        incumbent, delta, still = self._iterate(room, ledger, best)
        last = judge(incumbent, room, delta, ledger, best=best)
        return replace(last.result(task, ledger), still=still)

    def last(self, task: Task[Model]) -> Tensor:
        """δ^(T) after T forward–backward passes, judged by none: what training needs."""
        task = task.entered(self.threat)
        room = self._room(task)
        last = self._iterate(room, Ledger(len(task.images)), best=False)[1]
        return task.made(room.project(last) if hasattr(self.step, "incumbent") else last)

    def _room(self, task: Task[Model]) -> Room:
        eps = self.threat.budgets(len(task.images), task.images)
        return Room(self.threat, task, eps, self.steps, getattr(self.step, "compares", True))

    def _iterate(self, room: Room, ledger: Ledger, best: bool) -> tuple[Incumbent, Tensor, Tensor]:
        """The best iterate so far, δ^(T), and the images (N,) whose gradient was zero at every step."""
        task = room.task
        delta, look_state, step_state = self._first(task), None, None
        incumbent, ahead = self._nothing_yet(room), getattr(self.step, "ahead", None)
        still = torch.ones_like(incumbent.valid)
        for t in range(self.steps):
            here = delta if ahead is None else ahead(delta, room, step_state)
            seen, prediction, finite, look_state = self.look.observe(self.objective, room, here, t, look_state, ledger)
            if self.look.judges and here is delta:
                incumbent = incumbent.offer(delta, prediction, finite, task.goal, best=best)
            else:
                incumbent = replace(incumbent, valid=incumbent.valid & finite)
                incumbent = judge_between(incumbent, room, delta, ledger) if best else incumbent
                seen = replace(seen, delta=delta)
            still = still & is_zero(seen.gradient)
            delta, step_state = self.step.advance(seen, room, step_state)
            del seen, prediction, here  # which would lie beside the next pass
            task.done(1)
        return incumbent, delta, still

    def _nothing_yet(self, room: Room) -> Incumbent:
        own = getattr(self.step, "incumbent", None)
        return Incumbent.none(room.task) if own is None else own(room)

    def _first(self, task: Task[Model]) -> Tensor:
        if task.warm is not None:
            return self.threat.project(task.warmed(task.warm), task.images)
        if self.start == "zero":
            return torch.zeros_like(task.images)
        drawn = self.threat.start(task.images, task.randomness)
        return self.threat.project(task.confine(drawn), task.images)


class _Turn(torch.autograd.Function):
    """Stands behind the logits, so that nobody need hold them for the way back; what it sends there it lets go."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, slopes: list[Tensor]) -> Tensor:
        ctx.slopes = slopes
        return logits.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.slopes.pop(), None


@dataclass(frozen=True)
class Sight:
    """One forward pass with its graph, from which a gradient is taken once.

    Attributes:
        images: (N, B, H, W) what the model saw.
        turn: The end of the graph.
        slopes: Takes the derivative in the logits, (N, C, H, W), before the way back.
        prediction: (N, H, W).
        finite: (N,) whether all logits of an image are finite.
        view: What weights and losses may look at.
    """

    images: Tensor
    turn: Tensor
    slopes: list[Tensor]
    prediction: Tensor
    finite: Tensor
    view: LogitView


#: What is done around a pass: given the model's logits as a function and images (N, B, H, W), logits (N, C, H, W).
Through = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def see(room: Room, images: Tensor, step: int, ledger: Ledger, through: Through | None = None) -> Sight:
    """One forward pass over images (N, B, H, W) as they are, entered in the ledger.

    Args:
        room: The batch, what it is looked at through, and the number of steps T.
        images: What the model is shown; not a view of another tensor that is needed without a gradient.
        step: The step's index t.
        ledger: Where the pass is entered.
        through: What is done to images and logits on the way; None for nothing.
    """
    task, guide = room.task, room.guide
    images = images.requires_grad_()
    logits = guide.logits(images) if through is None else through(guide.logits, images)
    check_output(task, logits)
    ledger.enter("attack", forward=1)
    fixed, slopes = logits.detach(), list[Tensor]()
    top, prediction = predict(fixed)
    view = LogitView(fixed, prediction, task.goal, images.detach(), step, room.steps, guide, task.randomness, ledger)
    return Sight(images, _Turn.apply(logits, slopes), slopes, prediction, is_finite(top), view)


def ascend(objective: Objective, room: Room, sight: Sight, weights: Tensor, ledger: Ledger) -> Tensor:
    """One backward pass: the gradient of the mean of weights · loss, (N, B, H, W), where pixels may change."""
    sight.slopes.append(_slope(objective, sight.view, weights))
    return gradient_in(room, sight.images, sight.turn, ledger)


def observe(
    objective: Objective,
    room: Room,
    delta: Tensor,
    step: int,
    state: Any,
    ledger: Ledger,
    through: Through | None = None,
) -> tuple[Observation, Tensor, Tensor, Any]:
    """One forward and one backward pass at x + δ, which serve loss, weights and judging alike.

    Args:
        objective: What is maximised.
        room: The batch, the number of steps T, and whether the observation has a value.
        delta: (N, B, H, W).
        step: The step's index t.
        state: The weighting's state.
        ledger: Where the passes are entered.
        through: As `see` says.

    Returns:
        The observation, the prediction (N, H, W), which images had finite logits (N,), and the weighting's state.
    """
    sight = see(room, room.task.seen(delta), step, ledger, through)
    weights, state = objective.weighting.weigh(sight.view, state)
    value = _tracked(objective, sight.view, weights) if room.compares else torch.full_like(room.eps, math.nan)
    sight.slopes.append(_slope(objective, sight.view, weights))
    images, turn, prediction, finite = sight.images, sight.turn, sight.prediction, sight.finite
    del sight, weights  # with the logits, which the way back does not need
    gradient = gradient_in(room, images, turn, ledger)
    return Observation(delta, gradient, value, step, prediction), prediction, finite, state


def _slope(objective: Objective, view: LogitView, weights: Tensor) -> Tensor:
    """The derivative of what is maximised in the logits, (N, C, H, W)."""
    return objective.loss.slope(view.logits, view.goal.reference, view.goal.pull(weights), view.progress)


def gradient_in(room: Room, images: Tensor, value: Tensor, ledger: Ledger) -> Tensor:
    """One backward pass from a number to what the model saw, (N, B, H, W), and what it leaves where pixels may change.

    Args:
        room: The batch.
        images: What the model was shown.
        value: A number that was computed of it.
        ledger: Where the pass is entered.
    """
    task = room.task
    name = getattr(task.model, "name", type(task.model).__name__)
    with at_border(f"the backward pass of model {name!r}", images.shape):
        (gradient,) = torch.autograd.grad(value, images)
    ledger.enter("attack", backward=1)
    return task.confine(task.change(gradient))


@torch.no_grad()
def _tracked(objective: Objective, view: LogitView, weights: Tensor) -> Tensor:
    """What the objective compares between iterates, (N,), to be raised."""
    goal = view.goal
    if objective.track is not None and objective.tracks_another:
        return goal.mean(objective.track(view.logits, goal.reference)) * goal.sign
    return goal.mean(objective.loss(view.logits, goal.reference, view.progress) * weights) * goal.sign


@torch.no_grad()
def judge(incumbent: Incumbent, room: Room, delta: Tensor, ledger: Ledger, *, best: bool) -> Incumbent:
    """Offer the last iterate, which needs no gradient, at the price of one forward pass; see `judge_between` too."""
    logits = room.guide.logits(room.task.seen(delta))
    if are_probabilities(logits):  # asked once a run, as the answer must be waited for
        raise InputError(
            "the model gives probabilities (in [0, 1], sum one over the classes) where logits are expected: "
            'wrap(…, outputs="probabilities") or --outputs probabilities takes their logarithm, or remove the softmax'
        )
    return _judged(incumbent, room.task, delta, logits, ledger, best)


@torch.no_grad()
def judge_between(incumbent: Incumbent, room: Room, delta: Tensor, ledger: Ledger) -> Incumbent:
    """Offer an iterate where the attack took no gradient, at the price of one forward pass; nothing is waited for."""
    logits = room.guide.logits(room.task.seen(delta))
    return _judged(incumbent, room.task, delta, logits, ledger, best=True)


def _judged(
    incumbent: Incumbent, task: Task[Model], delta: Tensor, logits: Tensor, ledger: Ledger, best: bool
) -> Incumbent:
    top, prediction = predict(logits)
    ledger.enter("judging", forward=1)
    return incumbent.offer(delta, prediction, is_finite(top), task.goal, best=best)


def is_zero(gradient: Tensor) -> Tensor:
    """Whether all values of an image are exactly zero, (N,); the device is not waited for."""
    return largest(gradient) == 0


def check_output(task: Task[Model], logits: Tensor) -> None:
    """Raise `InputError` for what can be seen without looking at a value."""
    if logits.shape[1] != task.model.num_classes:
        raise InputError(
            f"the model has num_classes={task.model.num_classes} and gives {logits.shape[1]} logits a pixel"
        )
    if not logits.requires_grad:
        raise InputError(
            "the model's logits have no gradient: it computes under no_grad, detaches, or leaves torch. White-box "
            "attacks need a differentiable path from images to logits"
        )


@dataclass(frozen=True)
class StepSize:
    """A step length: absolute, or as a multiple of ε/T.

    Args:
        alpha: Absolute length in the norm of the threat, or None.
        per_eps: Length in units of ε/T where ``alpha`` is None: the paper's α = 2.5ε/T is 2.5.
    """

    alpha: Length | None = None
    per_eps: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def of(self, room: Room) -> Tensor:
        """Length for each image, (N, 1, 1, 1)."""
        if self.alpha is not None:
            return torch.full_like(room.eps, self.alpha).view(-1, 1, 1, 1)
        return (room.eps * (self.per_eps / room.steps)).view(-1, 1, 1, 1)
