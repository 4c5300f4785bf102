"""Attacks made of attacks: restarts, a shrinking budget (red-ε), and per-image ensembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segradius.attacks.base import Method, Result, Task
from segradius.attacks.make import method_of, white_box
from segradius.attacks.restarts import merged
from segradius.attacks.settings import Settings
from segradius.core.contracts import Model
from segradius.core.errors import InputError, must
from segradius.threats.threat import Threat


@dataclass(frozen=True)
class Ensemble:
    """Members one after another; each image keeps the member that fools most of its pixels.

    Every member's result is kept, so that the worst choice for a data-set metric can be made later.

    Attributes:
        members: Methods by name.
    """

    members: Mapping[str, Method]

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

    def run(self, task: Task[Model]) -> Result:
        """Run every member with random numbers of its own."""
        found = {name: member.run(task.spawn(name)) for name, member in self.members.items()}
        return replace(merged(list(found.values())), members=found)


@white_box("ensemble")
def ensemble(
    threat: Threat, settings: Settings, *, members: str | Sequence[str] = ("flips", "pgd", "cr_pgd")
) -> Method:
    """The worst of any members for each image.

    Args:
        settings: Shared settings, for every member.
        members: Names of attacks, or one text with ``+`` between them.
    """
    names = members.split("+") if isinstance(members, str) else members
    must(len(set(names)) == len(names), "members", members, "every member once")
    return Ensemble({name: method_of(name, threat, settings) for name in names})
