"""Attacks by name, and as functions: a recipe is registered once, with all that is special about it.

`white_box` and `black_box` register a recipe and turn it into a function with the arguments of its family, such as
``pgd(norm="l2", eps=1.5, steps=50)``. `make_attack` does the same by name, and guides what follows ``cr_``.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from segradius.attacks.base import ATTACKS, BLACK_BOX, Attack, Method, Recipe, changed, parts
from segradius.attacks.loop import Iterative
from segradius.attacks.patch import Patched
from segradius.attacks.queries import Queried
from segradius.attacks.restarts import Restarts
from segradius.attacks.settings import PAPER_EPS, QuerySettings, Settings
from segradius.core.contracts import LOGITS
from segradius.core.declared import BandWeight, Levels, condition, expected, read, taken
from segradius.core.errors import InputError, shown, unknown_name
from segradius.core.registry import Registry
from segradius.core.text import refuse_unknown
from segradius.objectives.objective import Objective, objective
from segradius.objectives.weightings import CertifiedRadius, Weighting, factors, parse_weighting, times
from segradius.threats.threat import NORMS, Threat, make_threat, norm_name

M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Family:
    """Attacks with settings in common.

    Attributes:
        recipes: By name.
        settings: The dataclass of the settings.
        eps: Budget by norm where none is given.
        interval: Refreshes of the radius are ``interval`` · M rounds apart where nothing else is said (INT).
    """

    recipes: Registry[Recipe]
    settings: type[Settings] | type[QuerySettings]
    eps: Mapping[str, float]
    interval: int

    def options(self, recipe: Recipe, fixed: Sequence[str]) -> dict[str, inspect.Parameter]:
        """Options of a recipe, its own first, then the settings but for those that it determines by itself."""
        settings: Any = self.settings
        own = {k: p for k, p in _parameters(recipe).items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return {k: p for k, p in (own | _parameters(settings)).items() if k not in fixed}


WHITE = Family(ATTACKS, Settings, {name: norm.default_eps for name, norm in NORMS.items()}, 1)
BLACK = Family(BLACK_BOX, QuerySettings, PAPER_EPS, 2)
FAMILIES = (WHITE, BLACK)
#: Options of every attack that are its threat's.
THREAT = ("norm", "eps", "projection", "band_weights", "lattice")


def white_box(
    name: str, *, norms: Sequence[str] = tuple(NORMS), fixed: Sequence[str] = (), reference: bool = False
) -> Callable[[Recipe], Maker]:
    """Register ``recipe(threat, settings, *, own options)`` as an attack that follows gradients.

    Args:
        name: By which it is called.
        norms: Those that it is defined for; refused otherwise.
        fixed: Fields of `Settings` that it determines by itself, or that mean nothing to it.
        reference: Whether reports compare the other attacks with it.

    Returns:
        A decorator, which makes of the recipe a function of threat, settings and own options that returns an `Attack`.
    """
    facts = {"norms": norms, "fixed": fixed, "guidance": {}, "reference": reference}
    return functools.partial(_registered, WHITE, name, facts)


def black_box(
    name: str,
    *,
    norms: Sequence[str] = tuple(NORMS),
    fixed: Sequence[str] = (),
    guidance: Mapping[str, Any] | None = None,
    reference: bool = False,
) -> Callable[[Recipe], Maker]:
    """Register ``recipe(threat, settings, *, own options)`` as an attack that asks for scores.

    Args:
        name: By which it is called.
        norms: Those that it is defined for; refused otherwise.
        fixed: Fields of `QuerySettings` that it determines by itself, or that mean nothing to it.
        guidance: Its defaults of `CertifiedRadius` in its ``cr_`` form. The paper's attacks are guided by M = 8 noisy
            queries every 2M rounds; ``{"samples": 0}`` takes the running mean of the scores that were paid for anyway.
        reference: Whether reports compare the other attacks with it.

    Returns:
        As `white_box`.
    """
    facts = {"norms": norms, "fixed": fixed, "guidance": guidance or {}, "reference": reference}
    return functools.partial(_registered, BLACK, name, facts)


def make_attack(
    name: str,
    *,
    norm: str | float = "l2",
    eps: float | str | None = None,
    projection: Literal["euclidean", "radial"] = "euclidean",
    band_weights: str | Sequence[BandWeight] | None = None,
    lattice: Levels | None = None,
    **options: Any,
) -> Attack:
    """An attack by name, ready to be called on batches.

    Args:
        name: A registered name, with ``cr_`` before it for the certified-radius-guided form.
        norm: ``l1``, ``l2`` or ``linf``; or 1, 2 or ``math.inf``.
        eps: Budget, images being in [0, 1]; None is the paper's 750, 1.5 or 0.006, and for black-box attacks 10000, 10
            or 0.05.
        projection: Exact onto ball and box, or ``radial`` scaling as in the paper's published code.
        band_weights: w of each band, so that ‖w ⊙ δ‖ ≤ ε, as [1, 1, 1, inf] or "1,1,1,inf"; inf for a band that is
            never changed. Lengths (alpha, gamma) are then those of w ⊙ δ. None: all are 1.
        lattice: L, so that adversarial images are of whole levels, {0, 1/L, …, 1}, as the model is shown them: 255 for
            what a file of 8 bits holds. None: any values.
        **options: Fields of `Settings` or, for black-box attacks, `QuerySettings`, the recipe's own options and, for
            ``cr_…``, fields of `CertifiedRadius`.

    Raises:
        InputError: For an unknown name, norm or option (with the nearest), a bad value, or parts that do not fit.

    Example:
        >>> make_attack("cr_pgd", norm="linf", eps=4 / 255, steps=10).total_steps
        10
        >>> make_attack("cr_pbgd", queries=500).method.rounds  # 2 queries a round, 8 more every 16 rounds
        197
    """
    base, family, _ = _parse(name)
    lattice = None if lattice is None else read("lattice", Levels, lattice)
    eps = family.eps[norm_name(norm)] if eps is None else eps
    threat = make_threat(norm, eps, projection, None, band_weights, lattice)
    for option in options:
        if option in family.recipes.facts(base)["fixed"]:
            raise InputError(f"{name} determines {option} by itself: it cannot be set")
    known = attack_options(name)
    refuse_untaken(name, options, known, [name])
    kinds, defaults = ({option: getattr(p, of) for option, p in known.items()} for of in ("annotation", "default"))
    options = taken(options, kinds, defaults, {"norm": threat.norm.name}, f"in {name}")
    shared = {f.name for f in fields(family.settings)}
    settings = family.settings(**{k: v for k, v in options.items() if k in shared})
    patched = isinstance(settings, Settings) and settings.patch is not None
    if patched and threat.norm.name == "linf" and threat.eps == math.inf:
        threat = replace(threat, eps=1.0)  # the same set, in which steps have a length
    method = method_of(name, threat, settings, **{k: v for k, v in options.items() if k not in shared})
    for part in parts(method, Queried):
        part.check_memory(name)
    return Attack(name, _run_as(method, settings) if isinstance(settings, Settings) else method)


def attack_options(name: str) -> dict[str, inspect.Parameter]:
    """Options that ``make_attack(name, …)`` understands, with their defaults.

    Example:
        >>> "sigma" in attack_options("cr_pgd"), "sigma" in attack_options("pgd")
        (True, False)
    """
    base, family, guided = _parse(name)
    facts = family.recipes.facts(base)
    found = family.options(family.recipes[base], facts["fixed"])
    if guided:
        special = facts["guidance"]
        found |= {k: p.replace(default=special.get(k, p.default)) for k, p in _parameters(CertifiedRadius).items()}
    return found


def refuse_untaken(of: str, given: Iterable[str], known: Collection[str], names: Sequence[str]) -> None:
    """Raise `InputError` for the first option that an attack does not take, with who takes it or else the nearest.

    Args:
        of: The attack, or its label, for the message.
        given: Options.
        known: Those that it takes.
        names: The attack; see `taken_by`.
    """
    for option in given:
        if option not in known and (owners := taken_by(option, known, names)):
            raise InputError(f"unknown option of {of} {shown(option)}{owners}")
        refuse_unknown(f"option of {of}", [option], known)


def taken_by(option: str, known: Iterable[str], names: Iterable[str]) -> str:
    """Whose option it is that attacks do not take, as the end of a sentence; empty where it is nobody's.

    Args:
        option: That none of the attacks takes.
        known: Those that they take; one that differs by a slip of the keyboard is told too.
        names: The attacks; their ``cr_`` forms are told before others.

    Example:
        >>> taken_by("samples", ["steps"], ["pgd"])
        ': samples is an option of attacks guided by the radius: cr_pgd'
        >>> taken_by("tile", ["steps"], ["pgd"])
        ': tile is an option of bandits, local_search'
        >>> taken_by("step", ["steps"], ["pgd"])
        "; did you mean 'steps'? step is an option of nes, opge, pbgd, zoo"
    """
    forms = [f"cr_{name}" for name in names if not _parse(name)[2]]
    guided = [form for form in forms if option in attack_options(form)]
    owners = guided or [name for family in FAMILIES for name in family.recipes if option in attack_options(name)]
    if not owners:
        return ""
    near = difflib.get_close_matches(option, list(known), n=1, cutoff=0.8)
    start = f"; did you mean {near[0]!r}?" if near else ":"
    whose = "attacks guided by the radius: " if guided else ""
    return f"{start} {option} is an option of {whose}{', '.join(owners)}"


def default_eps(names: Iterable[str]) -> Mapping[str, float]:
    """Budget by norm for attacks of these names: the paper's for white-box ones, or for black-box ones if all are.

    Example:
        >>> default_eps(["pbgd"])["l2"], default_eps(["pgd", "pbgd"])["l2"]
        (10.0, 1.5)
    """
    return BLACK.eps if all(family_of(name) is BLACK for name in names) else WHITE.eps


def family_of(name: str) -> Family:
    """The family of an attack, guided or not; raises `InputError` for an unknown name."""
    return _parse(name)[1]


def references() -> tuple[str, ...]:
    """Names of the attacks that reports compare the others with.

    Example:
        >>> references()
        ('pgd', 'pbgd')
    """
    return tuple(name for f in FAMILIES for name in f.recipes if f.recipes.facts(name)["reference"])


def guided(attack: Attack, **options: Any) -> Attack:
    """The certified-radius-guided form of an attack, of one that you composed too.

    Args:
        attack: Any.
        **options: Fields of `CertifiedRadius`.

    Example:
        >>> guided(make_attack("pgd"), samples=4) == make_attack("cr_pgd", samples=4)
        True
    """
    family, special = (BLACK, {}) if LOGITS not in attack.method.needs else (WHITE, {})
    if attack.name in family.recipes:
        special = family.recipes.facts(attack.name)["guidance"]
    refuse_unknown("field of CertifiedRadius", options, _parameters(CertifiedRadius))
    return Attack(f"cr_{attack.name}", guided_by(attack.method, _radius(family, {**special, **options})))


def guided_by(method: M, weighting: Weighting) -> M:
    """The same method with every objective multiplied by a weighting, in place of one of its kind if it has one."""

    def guide(objective: Objective) -> Objective:
        own = factors(objective.weighting)
        if not any(isinstance(factor, type(weighting)) for factor in own):
            return objective.times(weighting)
        new = functools.reduce(times, (weighting if isinstance(f, type(weighting)) else f for f in own))
        return replace(objective, weighting=new)

    return changed(method, Objective, guide)


def method_of(name: str, threat: Threat, settings: Any, **options: Any) -> Method:
    """The method of an attack, one run of it, inside a threat; options are the recipe's own and the radius'."""
    base, family, guided = _parse(name)
    norms = family.recipes.facts(base)["norms"]
    _check_settings(name, family, family.recipes.facts(base)["fixed"], settings)
    weights = factors(parse_weighting(options.get("weighting", "uniform")))
    if guided and any(isinstance(factor, CertifiedRadius) for factor in weights):
        raise InputError(
            f"{name} is weighted by cr of itself: leave cr out of its weighting, and give {name} its options"
        )
    if threat.norm.name not in norms:
        only = " only" if len(norms) == 1 else ""
        raise InputError(f"{name} is defined for {' and '.join(norms)}{only}, got {threat.norm.name}")
    radius = {f.name for f in fields(CertifiedRadius)} if guided else set()
    method = family.recipes[base](threat, settings, **{k: v for k, v in options.items() if k not in radius})
    if not guided:
        return method
    given = {k: v for k, v in options.items() if k in radius}
    return guided_by(method, _radius(family, {**family.recipes.facts(base)["guidance"], **given}))


def _check_settings(name: str, family: Family, fixed: Sequence[str], settings: Any) -> None:
    """Raise `InputError` if the settings are those of the other family, or one is given that the attack determines."""
    if not isinstance(settings, family.settings):
        raise InputError(f"{name} cannot be a part of this attack: one looks at gradients and the other at scores")
    for option in fixed:
        if getattr(settings, option) != getattr(family.settings, option):
            raise InputError(f"{name} determines {option} by itself: it cannot be set")


def _radius(family: Family, options: Mapping[str, Any]) -> CertifiedRadius:
    weighting = CertifiedRadius(**options)
    if weighting.every is None and weighting.samples and family.interval > 1:
        return replace(weighting, every=family.interval * weighting.samples)
    return weighting


def _parse(name: str) -> tuple[str, Family, bool]:
    """Registered name, its family, and whether ``cr_`` stood before it."""
    for base, guided in ((name, False), (name.removeprefix("cr_"), name.startswith("cr_"))):
        for family in FAMILIES:
            if base in family.recipes:
                return base, family, guided
    known = [base for family in FAMILIES for base in family.recipes]
    raise unknown_name("attack", name, [*known, *(f"cr_{base}" for base in known)])


def _run_as(method: Method, settings: Settings) -> Method:
    again = _restarted(method, settings.restarts)
    return again if settings.patch is None else Patched(again, settings.patch, settings.place)


def _restarted(method: Method, restarts: int) -> Method:
    if restarts == 1:
        return method
    again = changed(method, Iterative, lambda attack: replace(attack, start="uniform"))
    return Restarts(method, again, restarts)


Maker = Callable[..., Attack]
"""An attack as a function: ``norm``, ``eps``, ``projection``, the family's settings and its own options by name."""


def _registered(family: Family, name: str, facts: Mapping[str, Any], recipe: Recipe) -> Maker:
    def make(**options: Any) -> Attack:
        return make_attack(name, **options)

    options = family.options(recipe, facts["fixed"])
    threat = [p for p in _parameters(make_attack).values() if p.name in THREAT]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*threat, *options.values())]
    make.__name__, make.__qualname__, make.__module__ = name, name, recipe.__module__
    make.__doc__ = _documented(recipe, [make_attack, family.settings, objective, recipe], keyword)
    make.__signature__ = inspect.Signature(keyword, return_annotation=Attack)  # type: ignore[attr-defined]
    family.recipes.register(name, **facts, function=make)(recipe)
    return make


@functools.cache
def _parameters(thing: Any) -> dict[str, inspect.Parameter]:
    """Those of a function or dataclass; one without an annotation takes anything."""
    try:
        found = inspect.signature(thing, eval_str=True).parameters
    except NameError:  # an annotation for the type checker alone
        found = inspect.signature(thing).parameters
    return {k: p.replace(annotation=Any) if p.annotation is p.empty else p for k, p in found.items()}


def _documented(recipe: Recipe, sources: Sequence[Callable[..., Any]], parameters: Sequence[inspect.Parameter]) -> str:
    """The recipe's own words, and what is said of each argument where it is shared, with what it may be."""
    words = inspect.cleandoc(recipe.__doc__ or "").partition("\nArgs:\n")[0].rstrip()
    known: dict[str, str] = {}
    for source in sources:
        known |= _arguments(source.__doc__ or "")
    told = [known.get(p.name, f"    {p.name}: See the attack's options.") for p in parameters]
    listed = "\n".join(f"{text}\n        Takes {_range(p)}." for text, p in zip(told, parameters, strict=True))
    return f"{words}\n\nArgs:\n{listed}\n\nReturns:\n    The attack, ready to be called on batches.\n"


def _range(parameter: inspect.Parameter) -> str:
    only = condition(parameter.annotation)
    return expected(parameter.annotation) + (f"; for {only}" if only else "")


def _arguments(doc: str) -> dict[str, str]:
    """What a docstring says of each argument, as it stands there, by name."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", inspect.cleandoc(doc), re.M)
    found = re.split(r"^(?= {4}\**\w+: )", section[1], flags=re.M) if section else []
    return {entry.split(":")[0].strip(): entry.rstrip() for entry in found if entry.strip()}
