"""What all black-box attacks share: their registry, the paper's budgets, and settings.

A recipe is a function ``(threat, settings, **options) -> method``, as a white-box one is; settings differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segradius.attacks.queries import Queried
from segradius.attacks.recipes import objective
from segradius.attacks.strategy import Strategy
from segradius.registry import Registry
from segradius.threats import Threat

#: The paper's budgets ε for black-box attacks by norm (Section 5.1).
PAPER_EPS: Mapping[str, float] = {"l1": 10000.0, "l2": 10.0, "linf": 0.05}

#: The paper's learning rate α, and T = 15,000 rounds of two queries (Section 5.1) with a last one that judges.
PAPER_ALPHA = 5e-4
PAPER_QUERIES = 30_001


@dataclass(frozen=True)
class QuerySettings:
    """What every black-box recipe understands.

    Args:
        queries: Budget of each image, everything included; None is the recipe's own, the paper's 30,000 for pbgd.
        keep: ``best`` iterate, or queried point inside the ball, by fooled pixels, or the ``last`` iterate.
        judge_every: Rounds between verdicts on the iterate, one query each; 0 judges the last one only.
        memory: What remains per round of the running mean of the scores behind still-correct and radius weights.
        marks: Query counts within which the iterate is judged too, for a curve of accuracy against queries.
    """

    queries: int | None = None
    keep: Literal["best", "last"] = "best"
    judge_every: int = 0
    memory: float = 0.7
    marks: tuple[int, ...] = ()

    def queried(self, threat: Threat, strategy: Strategy, loss: str, weighting: str, queries: int) -> Queried:
        """A black-box attack with these settings; ``queries`` is the recipe's own default."""
        count = queries if self.queries is None else self.queries
        marks = tuple(self.marks)
        return Queried(
            objective(loss, weighting), threat, strategy, count, self.memory, self.keep, self.judge_every, marks
        )


BLACK_BOX: Registry[Callable[..., Queried]] = Registry("black-box attack")

#: Settings that a black-box attack determines by itself.
FIXED: Mapping[str, frozenset[str]] = {}

#: How ``cr_`` guides an attack where nothing else is said: the paper's attacks by M = 8 noisy queries every 2M rounds,
#: ours by the running mean of the scores that were paid for anyway.
GUIDANCE: Mapping[str, Mapping[str, Any]] = {
    "local_pbgd": {"samples": 0},
    "local_search": {"samples": 0},
}


def in_norm(given: float | None, threat: Threat, share: float) -> float:
    """A length in the norm of the threat: as given, or a share of ε (of the paper's, for one ε an image or none)."""
    if given is not None:
        return given
    single = isinstance(threat.eps, float) and threat.eps != float("inf")
    return share * (threat.eps if single else PAPER_EPS[threat.norm.name])  # type: ignore[operator]
