"""Strategies that climb an estimated gradient: PBGD with any estimator and any step (Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from segradius.attacks.loop import Observation, Room, Step, StepSize
from segradius.attacks.make import black_box
from segradius.attacks.queries import Queried
from segradius.attacks.settings import PAPER_QUERIES, PAPER_ROUNDS, PBGD_ALPHA, QuerySettings, in_norm
from segradius.attacks.strategy import Question, Turn
from segradius.core.declared import (
    Count,
    Decay,
    DirectionsText,
    Inside,
    Length,
    LossName,
    Share,
    Sigma,
    WeightingName,
    check_fields,
    only_with,
)
from segradius.gradients.directions import parse_directions
from segradius.gradients.estimator import Estimator
from segradius.gradients.estimators import NES, OPGE, TPGE, ZOO, Pairs, Population
from segradius.gradients.sphere import Form, Sphere
from segradius.threats.threat import Threat

StepName = Literal["ascent", "steepest", "sign"]
Mean = Literal["labelled", "all"]


@dataclass(frozen=True)
class Bandit:
    """Projected ascent along an estimated gradient, δ ← Proj(δ + α·ĝ) (Eq. 17 and 19).

    Attributes:
        estimator: How the gradient is estimated; it determines the queries of a round.
        step: How the iterate moves.
    """

    feasible = False  # the points around an iterate on the border of the ball lie outside
    remembers = False

    estimator: Estimator
    step: Step

    @property
    def per_round(self) -> int:
        """Those of the estimator."""
        return self.estimator.queries

    def begin(self, room: Room) -> dict[str, Any]:
        """The first iterate; no state of the step yet."""
        return {"delta": first_iterate(room), "step": None}

    def ask(self, state: Mapping[str, Any], room: Room, turn: Turn) -> Question:
        """The estimator's points around the iterate."""
        delta = state["delta"]
        draw = self.estimator.draw(delta, room.task.randomness, turn.round)
        return Question(self.estimator.points(delta, draw), draw)

    def tell(
        self, state: Mapping[str, Any], room: Room, turn: Turn, asked: Question, losses: Tensor, weights: Tensor
    ) -> dict[str, Any]:
        """Estimate and step."""
        return self.move(state, room, turn, self.estimator.gradient(losses * weights, asked.memo), losses)

    def move(
        self, state: Mapping[str, Any], room: Room, turn: Turn, gradient: Tensor, losses: Tensor
    ) -> dict[str, Any]:
        """Step along a gradient, (N, B, H, W), that was estimated from losses (K, N, H, W)."""
        value = losses.sum((0, 2, 3)) / len(losses)
        seen = Observation(state["delta"], room.task.confine(gradient), value, turn.round)
        moved, step = self.step.advance(seen, room, state["step"])
        return {"delta": moved, "step": step}


def first_iterate(room: Room) -> Tensor:
    """Where an attack begins, inside the threat: zero, or a warm start."""
    task = room.task
    return torch.zeros_like(task.images) if task.warm is None else room.project(task.warmed(task.warm))


@dataclass(frozen=True)
class Ascent:
    """Projected gradient ascent, δ ← Proj(δ + α·g), by the length that the gradient has (Eq. 17 as it stands).

    Args:
        alpha: α > 0.
        mean: Whose loss the gradient is: the mean over the ``labelled`` pixels, or over ``all`` of them as in Eq. 6 and
            9, of which void ones have none; g is then shorter by the share of the pixels that are labelled.
    """

    alpha: Length
    mean: Mean = "labelled"

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        goal, length = room.task.goal, self.alpha
        if self.mean == "labelled":
            return room.project(seen.delta + length * seen.gradient), None
        share = goal.pixels.to(seen.gradient.dtype) / goal.counted[0].numel()
        return room.project(seen.delta + length * share.view(-1, 1, 1, 1) * seen.gradient), None


@dataclass(frozen=True)
class Signs:
    """A step of α at every value, δ ← Proj(δ + α·sign(g)), in whatever norm, as the paper's code takes with CR.

    Args:
        alpha: α > 0.
    """

    alpha: Length

    def __post_init__(self) -> None:
        check_fields(self)

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Step and project."""
        return room.project(seen.delta + self.alpha * seen.gradient.sign()), None


@dataclass(frozen=True)
class Averaged:
    """Steepest ascent along a running mean of the gradients, which takes the noise out of estimated ones.

    Args:
        size: α.
        decay: μ in [0, 1): m ← μ·m + (1 − μ)·g, the first gradient being the first mean.
        end: α falls linearly to this part of itself over the run, in (0, 1].
        restart: After this part of the run, in (0, 1), the mean is forgotten and α falls a second time from the start;
            None for one fall.
    """

    size: StepSize
    decay: Decay = 0.8
    end: Share = 1.0
    restart: Inside | None = None

    def __post_init__(self) -> None:
        check_fields(self, decay="momentum", end="alpha_end")

    def advance(self, seen: Observation, room: Room, state: Any) -> tuple[Tensor, Any]:
        """Average, step and project."""
        begun, length = self._leg(seen.step, max(room.steps, 1))
        fresh = state is None or seen.step == begun
        mean = seen.gradient if fresh else seen.gradient.lerp(state, self.decay)
        direction = room.threat.norm.steepest(mean)
        size = self.size.of(room) * (1 - (1 - self.end) * min((seen.step - begun) / length, 1.0))
        return room.project(torch.addcmul(seen.delta, direction, size)), mean

    def _leg(self, step: int, steps: int) -> tuple[int, int]:
        """The first step of the fall of α that a step belongs to, and its number of steps."""
        if self.restart is None:
            return 0, steps
        again = max(1, round(self.restart * steps))
        return (0, again) if step < again else (again, max(steps - again, 1))


@black_box("pbgd", reference=True)
def pbgd(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: Length | None = None,
    alpha: Length | None = None,
    step: StepName = "ascent",
    momentum: Annotated[Decay, only_with(step=["steepest"])] = 0.0,
    mean: Annotated[Mean, only_with(step=["ascent"])] = "labelled",
    form: Form = "dense",
    directions: DirectionsText = "pixel",
    samples_per_round: Pairs = 1,
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Projected bandit gradient descent (Algorithm 2): ascent along the two-point estimate (Eq. 16, 17).

    Args:
        gamma: Radius γ of the sphere, in the norm of the threat; None is 2 % of ε.
        alpha: Learning rate; None is the paper's 5e-4 for ``ascent`` and ``sign``, and 2 % of ε for ``steepest``.
        step: ``ascent`` along the estimate as it is (Eq. 17), ``steepest`` by a fixed length, or by its ``sign``, α at
            every value in any norm, as the published code with CR in l1 and l∞.
        momentum: Decay of the running mean of the estimates, for ``steepest``.
        mean: Whose loss it is that ``ascent`` climbs: the mean over the ``labelled`` pixels, or over ``all``, void ones
            having none, as in the paper; the estimate is then shorter by the share of pixels that are labelled.
        form: What the answers are multiplied by. ``paper`` is the letter, n·u; ``dense``, u/E[u²], has the length of
            the gradient in every norm, where the letter is about n/2 times too short in l1 and n/3 times too long in
            l∞; ``exact`` is the normal of the sphere. All are one in l2.
        directions: ``pixel``; ``tiles:S`` or ``shifted_tiles:S`` for squares of S pixels (the published code has
            ``tiles:2``); ``dct:F`` for the lowest part F of the frequencies.
        samples_per_round: Pairs of queries of a round, whose estimates are averaged.
    """
    sphere = Sphere(threat.norm, parse_directions(directions), form)
    estimator = TPGE(in_norm(gamma, threat, 0.02), sphere, samples_per_round)
    bandit = Bandit(estimator, _step(step, alpha, momentum, mean, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_ROUNDS)


@black_box("opge")
def opge(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: Length | None = None,
    alpha: Length | None = None,
    step: StepName = "steepest",
    momentum: Annotated[Decay, only_with(step=["steepest"])] = 0.0,
    mean: Annotated[Mean, only_with(step=["ascent"])] = "labelled",
    form: Form = "dense",
    directions: DirectionsText = "pixel",
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Ascent along the one-point estimate (Eq. 15), the paper's comparison.

    Args:
        gamma: Radius γ of the sphere; None is 2 % of ε.
        alpha: Learning rate; None is 2 % of ε for ``steepest``, and the paper's 5e-4 for ``ascent`` and ``sign``.
        step: ``steepest`` by a fixed length, ``ascent`` along the estimate as it is (Eq. 17), as in Figure 9, or
            ``sign``.
        momentum: Decay of the running mean of the estimates, for ``steepest``.
        mean: As for ``pbgd``.
        form: As for ``pbgd``.
        directions: As for ``pbgd``.
    """
    sphere = Sphere(threat.norm, parse_directions(directions), form)
    bandit = Bandit(OPGE(in_norm(gamma, threat, 0.02), sphere), _step(step, alpha, momentum, mean, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


@black_box("nes")
def nes(
    threat: Threat,
    settings: QuerySettings,
    *,
    sigma_nes: Sigma = 0.001,
    population: Population = 100,
    alpha: Length | None = None,
    step: StepName = "steepest",
    momentum: Annotated[Decay, only_with(step=["steepest"])] = 0.0,
    mean: Annotated[Mean, only_with(step=["ascent"])] = "labelled",
    directions: DirectionsText = "pixel",
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Ascent along natural evolution strategies (Ilyas et al. 2018), antithetic.

    Args:
        sigma_nes: Standard deviation of the search, in the unit of the images.
        population: Queries of a round, even; the paper's 100.
        alpha: As for ``opge``.
        step: As for ``opge``.
        momentum: Decay of the running mean of the estimates, for ``steepest``.
        mean: As for ``pbgd``.
        directions: As for ``pbgd``.
    """
    estimator = NES(sigma=sigma_nes, population=population, directions=parse_directions(directions))
    bandit = Bandit(estimator, _step(step, alpha, momentum, mean, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


@black_box("zoo")
def zoo(
    threat: Threat,
    settings: QuerySettings,
    *,
    gamma: Length = 0.01,
    coordinates: Count = 64,
    alpha: Length | None = None,
    step: StepName = "steepest",
    momentum: Annotated[Decay, only_with(step=["steepest"])] = 0.0,
    mean: Annotated[Mean, only_with(step=["ascent"])] = "labelled",
    directions: DirectionsText = "pixel",
    loss: LossName = "ce",
    weighting: WeightingName = "uniform",
) -> Queried:
    """Ascent along central differences at random coordinates (ZOO, Eq. 13).

    Args:
        gamma: Step of the difference, in the unit of the images.
        coordinates: Coordinates of a round, two queries each.
        alpha: As for ``opge``.
        step: As for ``opge``.
        momentum: Decay of the running mean of the estimates, for ``steepest``.
        mean: As for ``pbgd``.
        directions: As for ``pbgd``; the coordinates are theirs.
    """
    estimator = ZOO(gamma=gamma, coordinates=coordinates, directions=parse_directions(directions))
    bandit = Bandit(estimator, _step(step, alpha, momentum, mean, threat))
    return settings.queried(threat, bandit, loss, weighting, PAPER_QUERIES)


def _step(step: StepName, alpha: float | None, momentum: float, mean: Mean, threat: Threat) -> Step:
    if step == "steepest":
        return Averaged(StepSize(in_norm(alpha, threat, 0.02)), momentum)
    length = PBGD_ALPHA if alpha is None else alpha
    return Signs(length) if step == "sign" else Ascent(length, mean)
