"""Attacks by name: `make_attack` gives a recipe its threat and settings, and the radius to what follows ``cr_``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from segradius.attacks.base import Attack, Guided
from segradius.attacks.loop import Iterative
from segradius.attacks.restarts import Restarts
from segradius.attacks.settings import (
    ATTACKS,
    BLACK_BOX,
    FIXED,
    GUIDANCE,
    PAPER_EPS,
    QUERY_FIXED,
    QuerySettings,
    Settings,
)
from segradius.core.errors import InputError, unknown_name
from segradius.core.registry import Registry
from segradius.objectives.objective import Objective
from segradius.objectives.weightings import CertifiedRadius, Weighting, factors
from segradius.threats.threat import NORMS, Threat, make_threat


@dataclass(frozen=True)
class Family:
    """Attacks with settings in common.

    Attributes:
        recipes: By name.
        settings: The dataclass of the settings.
        fixed: By name, settings that a recipe determines by itself.
        eps: Budget by norm where none is given.
        interval: Refreshes of the radius are ``interval`` · M rounds apart where nothing else is said (INT).
        guidance: By name, other defaults of `CertifiedRadius`.
    """

    recipes: Registry[Any]
    settings: type[Settings] | type[QuerySettings]
    fixed: Mapping[str, frozenset[str]]
    eps: Mapping[str, float]
    interval: int
    guidance: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


WHITE = Family(ATTACKS, Settings, FIXED, {name: norm.default_eps for name, norm in NORMS.items()}, 1)
BLACK = Family(BLACK_BOX, QuerySettings, QUERY_FIXED, PAPER_EPS, 2, GUIDANCE)
FAMILIES = (WHITE, BLACK)


def make_attack(
    name: str,
    *,
    norm: str = "l2",
    eps: float | None = None,
    projection: Literal["euclidean", "radial"] = "euclidean",
    **options: Any,
) -> Attack:
    """An attack by name, ready to be called on batches.

    Args:
        name: A registered name, with ``cr_`` before it for the certified-radius-guided form.
        norm: ``l1``, ``l2`` or ``linf``.
        eps: Budget, images being in [0, 1]; None is the paper's 750, 1.5 or 0.006, and for black-box attacks 10000, 10
            or 0.05.
        projection: Exact onto ball and box, or ``radial`` scaling as in the paper's published code.
        **options: Fields of `Settings` or, for black-box attacks, `QuerySettings`, the recipe's own options and, for
            ``cr_…``, fields of `CertifiedRadius`.

    Raises:
        InputError: For an unknown name, norm or option (with the nearest), or a bad value.

    Example:
        >>> make_attack("cr_pgd", norm="linf", eps=4 / 255, steps=10).total_steps
        10
        >>> make_attack("cr_pbgd", queries=500).method.rounds  # 2 queries a round, 8 more every 16 rounds
        199
    """
    base, family, _ = _parse(name)
    threat = make_threat(norm, family.eps.get(norm) if eps is None else eps, projection)
    known = attack_options(name)
    for option in options:
        if option in family.fixed.get(base, ()):
            raise InputError(f"{name} determines {option} by itself: it cannot be set")
        if option not in known:
            raise unknown_name(f"option of {name}", option, known)
    shared = {f.name for f in fields(family.settings)}
    settings = family.settings(**{k: v for k, v in options.items() if k in shared})
    rest = {k: v for k, v in options.items() if k not in shared}
    return Attack(name, _restarted(_method(name, threat, settings, rest), settings))


def attack_options(name: str) -> dict[str, inspect.Parameter]:
    """Options that ``make_attack(name, …)`` understands, with their defaults.

    Example:
        >>> "sigma" in attack_options("cr_pgd"), "sigma" in attack_options("pgd")
        (True, False)
    """
    base, family, guided = _parse(name)
    own = inspect.signature(family.recipes[base]).parameters
    found = {k: p for k, p in own.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    found |= dict(inspect.signature(family.settings).parameters)
    if guided:
        special = family.guidance.get(base, {})
        radius = inspect.signature(CertifiedRadius).parameters
        found |= {k: p.replace(default=special.get(k, p.default)) for k, p in radius.items()}
    return {option: p for option, p in found.items() if option not in family.fixed.get(base, ())}


def default_eps(names: Iterable[str]) -> Mapping[str, float]:
    """Budget by norm for attacks of these names: the paper's for white-box ones, or for black-box ones if all are.

    Example:
        >>> default_eps(["pbgd"])["l2"], default_eps(["pgd", "pbgd"])["l2"]
        (10.0, 1.5)
    """
    return BLACK.eps if all(_parse(name)[1] is BLACK for name in names) else WHITE.eps


def guided_by(method: Guided, weighting: Weighting) -> Guided:
    """The same method with every objective multiplied by a weighting, save those that have one of its kind already."""

    def guide(objective: Objective) -> Objective:
        present = any(isinstance(factor, type(weighting)) for factor in factors(objective.weighting))
        return objective if present else objective.times(weighting)

    return method.map_objective(guide)


def _method(name: str, threat: Threat, settings: Any, options: Mapping[str, Any]) -> Guided:
    base, family, guided = _parse(name)
    radius = {f.name for f in fields(CertifiedRadius)} if guided else set()
    method: Guided = family.recipes[base](threat, settings, **{k: v for k, v in options.items() if k not in radius})
    if not guided:
        return method
    given = {**family.guidance.get(base, {}), **{k: v for k, v in options.items() if k in radius}}
    weighting = CertifiedRadius(**given)
    if weighting.every is None and weighting.samples and family.interval > 1:
        weighting = replace(weighting, every=family.interval * weighting.samples)
    return guided_by(method, weighting)


def _parse(name: str) -> tuple[str, Family, bool]:
    """Registered name, its family, and whether ``cr_`` stood before it."""
    for base, guided in ((name, False), (name.removeprefix("cr_"), name.startswith("cr_"))):
        for family in FAMILIES:
            if base in family.recipes:
                return base, family, guided
    known = [base for family in FAMILIES for base in family.recipes]
    raise unknown_name("attack", name, [*known, *(f"cr_{base}" for base in known)])


def _restarted(method: Guided, settings: Settings | QuerySettings) -> Guided:
    count = settings.restarts if isinstance(settings, Settings) else 1
    if count < 1:
        raise InputError(f"restarts must be at least 1, got {count}")
    if count == 1:
        return method
    again = replace(method, start="uniform") if isinstance(method, Iterative) else method
    return Restarts(method, again, count)
