"""What attacks of a family share: the paper's budgets, steps and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from segradius.attacks.loop import Iterative, Look, Step, StepSize, Straight
from segradius.attacks.queries import Queried, Rounds
from segradius.attacks.strategy import Strategy
from segradius.core.declared import (
    Count,
    Decay,
    Given,
    Length,
    PlaceName,
    Queries,
    Restarts,
    Share,
    Whole,
    check_fields,
    only_with,
)
from segradius.objectives.objective import Objective, objective
from segradius.threats.threat import Threat

#: The paper's T and α (in units of ε/T) by norm (Section 5.1).
PAPER_STEPS: Mapping[str, int] = {"l1": 50, "l2": 50, "linf": 20}
PAPER_ALPHA: Mapping[str, float] = {"l1": 2.5, "l2": 2.5, "linf": 1.0}


@dataclass(frozen=True)
class Settings:
    """What every recipe understands.

    Args:
        steps: T; None is the recipe's own, the paper's 50, 50, 20 for l1, l2, l∞ unless the recipe says otherwise.
        alpha: Step length in the threat's norm; None is the recipe's own, the paper's 2.5ε/T, 2.5ε/T, ε/T.
        start: ``zero`` or ``uniform``; None is the recipe's own.
        restarts: Runs; those after the first start uniformly in the ball.
        keep: ``best`` iterate by fooled pixels, or the ``last``, as the paper.
        sparse: For l1: share of values that a step moves; None is the dense step of Eq. 22.
        patch: Share of the image's pixels in one square, outside of which nothing changes and only what is outside
            counts; for any change there, linf with eps inf. None: no patch.
        place: Where the square lies: ``search``, ``centre``, ``random``, or row and column of its first pixel as
            ``10:20``.
    """

    steps: Count | None = None
    alpha: Length | None = None
    start: Literal["zero", "uniform"] | None = None
    restarts: Restarts = 1
    keep: Literal["best", "last"] = "best"
    sparse: Annotated[Share | None, only_with(norm=["l1"])] = None
    patch: Share | None = None
    place: Annotated[PlaceName, only_with(patch=Given())] = "search"

    def __post_init__(self) -> None:
        check_fields(self)

    def size(self, norm: str, per_eps: float | None = None) -> StepSize:
        """Step length, ``per_eps``·ε/T unless ``alpha`` was given."""
        return StepSize(self.alpha, PAPER_ALPHA[norm] if per_eps is None else per_eps)

    def iterate(
        self,
        objective: Objective,
        threat: Threat,
        step: Step,
        *,
        steps: int | None = None,
        look: Look | None = None,
        start: Literal["zero", "uniform"] = "zero",
    ) -> Iterative:
        """An iterative attack with these settings; ``steps`` and ``start`` are the recipe's own defaults."""
        own = PAPER_STEPS[threat.norm.name] if steps is None else steps
        count = own if self.steps is None else self.steps
        return Iterative(objective, threat, step, count, self.start or start, self.keep, look or Straight())


#: The paper's budgets ε for black-box attacks by norm (Section 5.1).
PAPER_EPS: Mapping[str, float] = {"l1": 10000.0, "l2": 10.0, "linf": 0.05}

#: The paper's learning rate α and its T = 15,000 rounds (Section 5.1), whatever a round costs. Other attacks have by
#: default what those cost `pbgd`, two queries each and one that judges.
PBGD_ALPHA = 5e-4
PAPER_ROUNDS = Rounds(15_000)
PAPER_QUERIES = 2 * PAPER_ROUNDS.count + 1
#: Of attacks that the paper does not compare with, whose authors spend 200 to 10,000.
BASELINE_QUERIES = 1000


@dataclass(frozen=True)
class QuerySettings:
    """What every black-box recipe understands.

    Args:
        queries: Budget of each image, everything included; None is the recipe's own: for pbgd what the paper's T =
            15,000 rounds take, 30,001 and 37,505 with ``cr_``.
        keep: ``best`` iterate, or queried point inside the ball, by fooled pixels, or the ``last`` iterate.
        judge_every: Rounds between verdicts on the iterate, one query each; 0 judges the last one only.
        memory: What remains per round of the running mean of the scores behind still-correct and radius weights.
        marks: Query counts within which the iterate is judged too, for a curve of accuracy against queries.
    """

    queries: Queries | Rounds | None = None
    keep: Literal["best", "last"] = "best"
    judge_every: Whole = 0
    memory: Decay = 0.7
    marks: tuple[Queries, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def queried(self, threat: Threat, strategy: Strategy, loss: str, weighting: str, queries: int | Rounds) -> Queried:
        """A black-box attack with these settings; ``queries`` is the recipe's own default."""
        count = queries if self.queries is None else self.queries
        goal, marks = objective(loss, weighting), self.marks
        return Queried(goal, threat, strategy, count, self.memory, self.keep, self.judge_every, marks)


def in_norm(given: float | None, threat: Threat, share: float) -> float:
    """A length in the norm of the threat: as given, or a share of ε (of the paper's, for one ε an image or none)."""
    if given is not None:
        return given
    single = isinstance(threat.eps, float) and threat.eps != float("inf")
    return share * (threat.eps if single else PAPER_EPS[threat.norm.name])  # type: ignore[operator]
