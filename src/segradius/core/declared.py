"""What an option may be: its type and its range, said once, in the annotation of the field or parameter.

``share: Annotated[float, Range("(0, 1]")]`` is all there is to say. `check_fields` checks a dataclass by it, `taken`
the options of a function, `expected` tells it in words for errors and for help, and the tests feed every option with
what it says will not do. An option that means something beside certain others alone says so with `only_with`.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from segradius.core.errors import InputError, shown


@dataclass(frozen=True)
class Range:
    """An interval of numbers; a square bracket includes its end. Infinity is in it only where it is such an end.

    Args:
        interval: As ``"[0, 1)"`` or ``"[1, 1e6]"``.

    Example:
        >>> 0.5 in Range("(0, 1]"), 0 in Range("(0, 1]"), float("nan") in Range("[0, inf]"), 3 in Range("[0, inf]")
        (True, False, False, True)
    """

    interval: str

    def __contains__(self, value: float) -> bool:
        low, high = self.ends
        above = value >= low if self.interval[0] == "[" else value > low
        below = value <= high if self.interval[-1] == "]" else value < high
        return above and below

    @property
    def ends(self) -> tuple[float, float]:
        """Lower and upper end."""
        low, high = (float(end) for end in self.interval[1:-1].split(","))
        return low, high


@dataclass(frozen=True)
class Multiple:
    """Whole numbers that leave ``rest`` when divided by ``of``: ``Multiple(2)`` even, ``Multiple(2, 1)`` odd ones.

    Example:
        >>> 3 in Multiple(2, 1), str(Multiple(2, 1)), 3 in Multiple(2)
        (True, 'odd', False)
    """

    of: int
    rest: int = 0

    def __contains__(self, value: int) -> bool:
        return value % self.of == self.rest

    def __str__(self) -> str:
        return {(2, 0): "even", (2, 1): "odd"}.get((self.of, self.rest), f"{self.rest} modulo {self.of}")


@dataclass(frozen=True)
class See:
    """Where the texts stand that an option may be: a mark for ``Annotated``.

    Example:
        >>> expected(Annotated[str, See("segradius list losses")])
        'a text (see segradius list losses)'
    """

    where: str


class Given:
    """Whatever was given: all but None.

    Example:
        >>> 0 in Given(), None in Given()
        (True, False)
    """

    def __contains__(self, value: object) -> bool:
        return value is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given)

    def __hash__(self) -> int:
        return hash(Given)


@dataclass(frozen=True)
class OnlyWith:
    """That an option means something only where one of these others has one of these values; `only_with` makes it."""

    conditions: tuple[tuple[str, tuple[Any, ...] | Range | Given], ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether one of the conditions does, or is about an option that is not there."""
        return any(other not in values or values[other] in fit for other, fit in self.conditions)

    def __str__(self) -> str:
        """The conditions, as in "norm=l1 or l2"."""
        told = []
        for other, fit in self.conditions:
            if isinstance(fit, Given):
                told.append(f"{other} given")
            else:
                told.append(
                    f"{other} in {fit.interval}"
                    if isinstance(fit, Range)
                    else f"{other}={' or '.join(map(_said, fit))}"
                )
        return " or ".join(told)


def _said(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def only_with(**conditions: Sequence[str | bool] | Range | Given) -> OnlyWith:
    """A mark for ``Annotated``: the option does nothing, and is refused, unless one of these others is so.

    Example:
        >>> str(only_with(norm=["l1"])), str(only_with(samples=Range("[1, inf)"), gap=Given()))
        ('norm=l1', 'samples in [1, inf) or gap given')
    """
    return OnlyWith(tuple((o, tuple(fit) if isinstance(fit, Sequence) else fit) for o, fit in conditions.items()))


#: Metadata of a field that came after runs were begun without it: its default is not in their identity.
LATER = {"later": True}

#: Kinds that many options share. Ends are far from what anybody wants, and near enough that a slip of the keyboard does
#: not ask for a terabyte or a century.
Count = Annotated[int, Range("[1, 1e6]")]
Whole = Annotated[int, Range("[0, 1e6]")]
Restarts = Annotated[int, Range("[1, 1e4]")]
Queries = Annotated[int, Range("[1, 1e8]")]
Side = Annotated[int, Range("[1, 1e5]")]
OddSide = Annotated[int, Range("[1, 1e5]"), Multiple(2, 1)]
Images = Annotated[int, Range("[1, 1e9]")]
#: Images that a target may answer in all.
Budget = Annotated[int, Range("[1, 1e12]")]
#: Noisy copies of an image, counted in tables of so many entries.
Copies = Annotated[int, Range("[1, 1e7]")]
Classes = Annotated[int, Range("[1, 65536]")]
#: Masks along one side of an image: of 64 each way there are 8 million pairs.
MaskCount = Annotated[int, Range("[1, 64]")]
Devices = Annotated[int, Range("[1, 1024]")]
Workers = Annotated[int, Range("[0, 1024]")]
Seed = Annotated[int, Range("[0, 9223372036854775807]")]
#: Of a step or a difference, in some norm over images in [0, 1].
Length = Annotated[float, Range("[1e-12, 1e9]")]
#: A budget over all values of an image; inf is the pixel box alone.
Eps = Annotated[float, Range("[1e-9, inf]")]
#: What a change of a band counts in a threat; inf for a band that is never changed.
BandWeight = Annotated[float, Range("[1e-6, inf]")]
#: The largest of the whole levels that the values of an image have: 255 for 8 bits.
Levels = Annotated[int, Range("[1, 65535]")]
#: A standard deviation of noise on images in [0, 1].
Sigma = Annotated[float, Range("[1e-9, 1e3]")]
Noise = Annotated[float, Range("[0, 1e3]")]
#: A number of no particular size, that must not swamp a float32.
Plain = Annotated[float, Range("[-1e6, 1e6]")]
Positive = Annotated[float, Range("[1e-6, 1e6]")]
Weight = Annotated[float, Range("[0, 1e6]")]
#: A learning rate; at 0 nothing is learnt.
Rate = Annotated[float, Range("(0, 1e3]")]
Share = Annotated[float, Range("(0, 1]")]
Part = Annotated[float, Range("[0, 1]")]
Inside = Annotated[float, Range("(0, 1)")]
LossName = Annotated[str, See("segradius list losses")]
WeightingName = Annotated[str, See("segradius list weightings")]
#: "search", "centre", "random", or a row and a column as "10:20".
PlaceName = Annotated[str, See("docs/patches.md")]
DirectionsText = Annotated[str, See("docs/estimators.md")]
Majority = Annotated[float, Range("[0.5, 1)")]
Decay = Annotated[float, Range("[0, 1)")]


class _MisfitError(Exception):
    """A value is not of a kind."""


@functools.cache
def kinds_of(thing: Any) -> Mapping[str, Any]:
    """The annotation of each argument of a dataclass or function; ``Any`` where it has none, or none to be evaluated.

    Example:
        >>> def blur(*, width: Side, how: Literal["box", "gauss"] = "box"): ...
        >>> {name: expected(kind) for name, kind in kinds_of(blur).items()}
        {'width': 'a whole number in [1, 1e5]', 'how': 'box or gauss'}
    """
    try:
        hints = get_type_hints(thing, include_extras=True)
    except (NameError, TypeError, AttributeError):  # an annotation for the type checker alone
        hints = {}
    return {name: hints.get(name, Any) for name in inspect.signature(thing).parameters}


def expected(kind: Any) -> str:
    """In words, what will do.

    Example:
        >>> expected(Annotated[float, Range("(0, 1]")] | None), expected(int | Literal["auto"])
        ('a number in (0, 1]', 'a whole number or auto')
        >>> expected(tuple[Count, ...])
        'a list, each a whole number in [1, 1e6]'
    """
    base, rules = _bare(kind)
    if get_origin(base) in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(expected(one) for one in get_args(base) if one is not type(None)))
    if get_origin(base) is Literal:
        return " or ".join(map(str, get_args(base)))
    if get_origin(base) is tuple and not _is_list(base):
        return f"a list of {len(get_args(base))}: {', '.join(map(expected, get_args(base)))}"
    if _is_list(base):
        return f"a list, each {expected(_item(base))}"
    adjectives = [str(rule) for rule in rules if isinstance(rule, Multiple)]
    ranges = [f" in {rule.interval}" for rule in rules if isinstance(rule, Range)]
    words = {int: "whole number", float: "number", str: "text"}
    if base in words:
        told = " ".join([*adjectives, words[base]])
        where = [f" (see {rule.where})" for rule in rules if isinstance(rule, See)]
        return f"{'an' if told[0] in 'aeiou' else 'a'} {told}{''.join(ranges + where)}"
    if is_dataclass(base):
        return f"{getattr(base, '__name__', base)}({', '.join(f.name for f in fields(base))}) from Python"
    return "true or false" if base is bool else getattr(base, "__name__", str(base))


def takes_number(kind: Any) -> bool:
    """Whether some number is of a kind.

    Example:
        >>> takes_number(Count | None), takes_number(str), takes_number(bool)
        (True, False, False)
    """
    base, _ = _bare(kind)
    if get_origin(base) in (Union, types.UnionType):
        return any(takes_number(one) for one in get_args(base))
    return base in (int, float)


def condition(kind: Any) -> OnlyWith | None:
    """Beside which others an option of this kind means something; None for beside any."""
    return next((rule for rule in _bare(kind)[1] if isinstance(rule, OnlyWith)), None)


def fits(kind: Any, value: object) -> bool:
    """Whether a value is of a kind.

    Example:
        >>> fits(Count, 3), fits(Count, 3.0), fits(Count, True), fits(Count, "3"), fits(Count | None, None)
        (True, False, False, False, True)
    """
    try:
        _read(kind, value)
    except _MisfitError:
        return False
    return True


def read(name: str, kind: Any, value: Any) -> Any:
    """A value as its kind has it: numbers of NumPy as Python's, lists as tuples.

    Args:
        name: Of the option, as the user writes it.
        kind: Its annotation.
        value: That was given.

    Raises:
        InputError: It is not of the kind.

    Example:
        >>> read("steps", Count, 0)
        Traceback (most recent call last):
        segradius.core.errors.InputError: steps is 0; expected a whole number in [1, 1e6]
        >>> read("marks", tuple[Count, ...], [10, 20])
        (10, 20)
    """
    try:
        return _read(kind, value)
    except _MisfitError:
        raise InputError(f"{name} is {shown(value)}; expected {expected(kind)}") from None


def taken(
    given: Mapping[str, Any],
    kinds: Mapping[str, Any],
    defaults: Mapping[str, Any],
    where: Mapping[str, Any],
    of: str,
) -> dict[str, Any]:
    """Options as their kinds have them, checked one by one and together.

    Args:
        given: Options by name.
        kinds: Of each, and of others that were not given.
        defaults: Of those not given; an option that is given its default says nothing.
        where: What else is fixed: the norm, say.
        of: Where, for the message: "in pgd".

    Raises:
        InputError: One is not of its kind, or does nothing beside the others.

    Example:
        >>> kinds = {"share": Annotated[Share | None, only_with(norm=["l1"])]}
        >>> taken({"share": 0.5}, kinds, {"share": None}, {"norm": "l2"}, "in pgd")
        Traceback (most recent call last):
        segradius.core.errors.InputError: share is 0.5, which does nothing in pgd: it is for norm=l1, and norm is l2
    """
    found = {name: read(name, kinds[name], value) for name, value in given.items()}
    beside = {**defaults, **found, **where}
    for name, value in found.items():
        rule = condition(kinds[name])
        if rule is not None and value != defaults.get(name) and not rule.holds(beside):
            now = ", ".join(f"{other} is {beside[other]}" for other, _ in rule.conditions)
            raise InputError(f"{name} is {shown(value)}, which does nothing {of}: it is for {rule}, and {now}")
    return found


def check_fields(thing: Any, **names: str) -> None:
    """Check the fields of a frozen dataclass by their annotations; for its ``__post_init__``.

    Args:
        thing: The dataclass; numbers and lists become Python's own and tuples.
        **names: What a user calls a field, where it is not its name.

    Raises:
        InputError: A field is not of its kind, or does nothing beside the others.
    """
    kind: Any = type(thing)
    kinds = kinds_of(kind)
    known = [each for each in fields(thing) if each.init]
    defaults = {each.name: each.default for each in known if each.default is not MISSING}
    values = {each.name: getattr(thing, each.name) for each in known}
    renamed = {name: names.get(name, name) for name in values}
    found = taken(
        {renamed[name]: value for name, value in values.items()},
        {renamed[name]: kinds[name] for name in values},
        {renamed[name]: value for name, value in defaults.items()},
        {},
        "here",
    )
    for name, value in values.items():
        if found[renamed[name]] is not value:
            object.__setattr__(thing, name, found[renamed[name]])


def _bare(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its marks, and the marks."""
    if get_origin(kind) is Annotated:
        base, *marks = get_args(kind)
        return base, tuple(marks)
    return kind, ()


def _is_list(base: Any) -> bool:
    origin = get_origin(base)
    return (origin is tuple and get_args(base)[-1:] == (...,)) or origin in (list, Sequence)


def _item(base: Any) -> Any:
    return get_args(base)[0]


def _read(kind: Any, value: Any) -> Any:
    base, marks = _bare(kind)
    found = _of_type(base, value)
    rules = [rule for rule in marks if isinstance(rule, Range | Multiple)]
    if found is not None and not all(found in rule for rule in rules):
        raise _MisfitError
    return _needs(bool(rules) or base is not float or abs(found) < math.inf, found)


def _of_type(base: Any, value: Any) -> Any:
    origin = get_origin(base)
    if origin in (Union, types.UnionType):
        return _first(get_args(base), value)
    if origin is Literal:
        return _needs(isinstance(value, str | int) and value in get_args(base), value)
    if base is type(None):
        return _needs(value is None, value)
    if base is bool:
        return _needs(isinstance(value, bool), value)
    if base in (int, float):
        return _number(base, value)
    if origin is tuple and get_args(base)[-1:] != (...,):
        fixed = isinstance(value, tuple | list) and len(value) == len(get_args(base))
        return tuple(map(_read, get_args(base), _needs(fixed, value)))
    if _is_list(base):
        listed = isinstance(value, Iterable) and isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return (list if origin is list else tuple)(_read(_item(base), each) for each in _needs(listed, value))
    return _needs(base is Any or not isinstance(base, type) or _is_protocol(base) or isinstance(value, base), value)


def _number(base: type, value: Any) -> Any:
    """A Python number; a whole one may stand for any, no truth value for either."""
    of_kind: type = Integral if base is int else Real
    if isinstance(value, bool) or not isinstance(value, of_kind):
        raise _MisfitError
    plain: Any = value
    if not isinstance(value, int | float):
        plain = int(plain) if isinstance(value, Integral) else float(plain)
    return _needs(plain == plain, plain)  # NaN is not


def _first(kinds: Iterable[Any], value: Any) -> Any:
    for one in kinds:
        try:
            return _read(one, value)
        except _MisfitError:
            continue
    raise _MisfitError


def _needs(holds: bool, value: Any) -> Any:
    if not holds:
        raise _MisfitError
    return value


def _is_protocol(base: type) -> bool:
    return getattr(base, "_is_protocol", False)
