"""What a sanity check of a run looks at and what it says: the evidence, a verdict, and the checks by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from segradius.attacks.base import Attack
from segradius.core.registry import Registry
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.attack_summary import Summary
from segradius.evaluation.facts import Facts, Finding
from segradius.evaluation.preflight import findings
from segradius.evaluation.sanity_probe import Probed

Grade = Literal["pass", "warn", "fail", "open"]


class Said(NamedTuple):
    """What a check says: its grade, what was seen, what to do, and the figure behind it."""

    verdict: Grade
    text: str
    advice: str = ""
    value: float = math.nan


@dataclass(frozen=True)
class SanityVerdict:
    """What a named check says of a run.

    Attributes:
        name: Of the check.
        verdict: ``pass``; ``warn``: look before you believe the figures; ``fail``: do not believe them as they are;
            ``open``: not measured in this run.
        text: What was seen, with figures.
        advice: What to do; of an open one, what would measure it. Empty where nothing is to be done.
        value: The figure behind it; NaN for none.
    """

    name: str
    verdict: Grade
    text: str
    advice: str = ""
    value: float = math.nan

    @property
    def fired(self) -> bool:
        """Whether it wants to be looked at."""
        return self.verdict in ("warn", "fail")

    @property
    def line(self) -> str:
        """For people.

        Example:
            >>> SanityVerdict("masked", "fail", "the gradient leads nowhere", "use another").line
            'Sanity (masked, fail): the gradient leads nowhere: use another.'
        """
        advice = f": {self.advice}" if self.advice else ""
        return f"Sanity ({self.name}, {self.verdict}): {self.text}{advice}{'' if advice.endswith('?') else '.'}"


@dataclass(frozen=True)
class Tried:
    """What an attack of a run left of each image.

    Attributes:
        plan: Which.
        attack: As it was run.
        asks: Whether it is a black-box attack.
        left: See `segradius.evaluation.share_left`, by image; without those where it was invalid.
    """

    plan: AttackPlan
    attack: Attack
    asks: bool
    left: Mapping[str, float]

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.plan.label} ({self.plan.norm}, ε = {self.plan.eps:.4g})"

    @property
    def steps(self) -> int:
        """Of one run, whatever the restarts; queries of a black-box attack."""
        return self.attack.total_steps // max(1, int(self.plan.options.get("restarts") or 1))


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at.

    Attributes:
        facts: What was seen before the attacks.
        summary: What the attacks came to.
        tried: The attacks.
        probed: What two images show; None where they were not looked at.
        unlooked: Why not.
        made_on: Name of the network on which adversarial images were made; empty for the one that was attacked. What
            two images show is of it.
    """

    facts: Facts
    summary: Summary
    tried: tuple[Tried, ...]
    probed: Probed | None
    unlooked: str = ""
    made_on: str = ""

    @cached_property
    def found(self) -> Mapping[str, Finding]:
        """What the checks before the attacks found, by their names."""
        return {found.name: found for found in findings(self.facts)}


SanityCheck = Callable[[Evidence], Said]
#: Checks by the name of their verdict.
SANITY: Registry[SanityCheck] = Registry("sanity check")
