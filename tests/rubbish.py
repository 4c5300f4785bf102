"""Values that are fed to options: wrong types, numbers out of any range, and what only looks like a value."""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from segradius.attacks.loop import StepSize
from segradius.core.declared import expected, fits, kinds_of
from segradius.core.errors import InputError

LONG = "very long " * 20_000

#: By what is wrong with it, where it is not right after all.
RUBBISH: Mapping[str, Any] = {
    "a word": "nonsense",
    "a number as a text": "5",
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "zero": 0,
    "zero as a float": 0.0,
    "negative": -1,
    "a negative fraction": -0.25,
    "a fraction": 2.5,
    "far too large": 10**12,
    "beyond any float": 10**400,
    "larger than any float32": 1e300,
    "smaller than any float32": 1e-300,
    "a list": [1, 2, 3],
    "an empty list": [],
    "a list of words": ["pgd", "nonsense"],
    "a mapping": {"a": 1},
    "empty": "",
    "a space": " ",
    "true": True,
    "false": False,
    "nothing": None,
    "a nested call": "cr(samples=cr(samples=1))",
    "an open bracket": "cr(",
    "a very long text": LONG,
    "two lines": "two\nlines",
    "an object": object(),
    "a complex number": 1j,
    "bytes": b"5",
}


@dataclass
class Tally:
    """How often a value was accepted, refused, answered with a traceback, or taken and not used."""

    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    options: int = 0

    def feed(self, where: str, option: str, kind: Any, build: Callable[[Any], Any], plain: Any, default: Any) -> None:
        """Build with each piece of rubbish; ``plain`` is what is built without."""
        self.options += 1
        for what, value in RUBBISH.items():
            outcome, note = outcome_of(kind, build, plain, default, value)
            self.found[outcome] += 1
            if outcome in ("traceback", "silent"):
                self.wrong.append(f"{where} {option} = {what}: {outcome}: {note}")

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.found[kind]} {kind}" for kind in ("accepted", "refused", "traceback", "silent"))
        return f"{self.options} options × {len(RUBBISH)} pieces of rubbish = {self.found.total()}: {kinds}"


def outcome_of(kind: Any, build: Callable[[Any], Any], plain: Any, default: Any, value: Any) -> tuple[str, str]:
    """What came of a value, and a note on it.

    Accepted is a value that is of the declared kind and makes another thing than ``plain`` unless it is the default;
    anything else that is built is silent.
    """
    try:
        built = build(value)
    except InputError as error:
        return ("refused" if is_one_line(str(error)) else "traceback"), str(error)[:200]
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:200]}"
    if not fits(kind, value) or plausible(kind, value) is False:
        return "silent", f"it is no {expected(kind)}"
    return ("silent", "nothing changed") if built == plain and not same(value, default) else ("accepted", "")


def is_one_line(text: str) -> bool:
    """Whether a message is one line that a terminal can show."""
    return 0 < len(text) < 2000 and "\n" not in text


def plausible(kind: Any, value: Any) -> bool:
    """What no declaration may take, whatever it says: told by the plain types in it alone."""
    plain = plain_types(kind)
    if isinstance(value, float) and math.isnan(value):
        return False
    if isinstance(value, bool):
        return bool in plain
    if isinstance(value, int):
        return (bool(plain & {int, float}) and abs(value) <= 10**9) or plain & {int, float} == set()
    return not isinstance(value, str) or bool(plain & {str}) or not plain


def plain_types(kind: Any) -> set[Any]:
    """The types that are named in an annotation, however deep."""
    if typing.get_origin(kind) is typing.Literal:
        return {type(each) for each in typing.get_args(kind)}
    inside = [each for each in typing.get_args(kind) if isinstance(each, type) or typing.get_origin(each)]
    return set().union(*map(plain_types, inside)) if inside else {kind}


def same(value: Any, default: Any) -> bool:
    """Whether a value is the default; 0 is not False, and a list may stand for a tuple."""
    value = tuple(value) if isinstance(value, list) else value
    return value == default and isinstance(value, bool) == isinstance(default, bool)


#: Fields that are filled by composing, or checked with what they name.
COMPOSED = (
    "directions", "sphere", "norm", "size", "hierarchy", "region", "where", "eps", "ignore_index", "attacks", "enough",
    "seed",
)  # fmt: skip
#: Of fields without a default.
NEEDED: dict[str, Any] = {"gamma": 0.5, "sigma": 0.5, "size": StepSize(0.5), "alpha": 0.5}


def feed_dataclass(tally: Tally, kind: type, **given: Any) -> None:
    """Feed every field of a dataclass, but those that are filled by composing; ``given`` are some of those."""
    kinds = kinds_of(kind)
    bare = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    needed = given | {name: NEEDED[name] for name in bare if name not in given}
    for each in fields(kind):
        if each.name in (*COMPOSED, *given) or each.default_factory is not MISSING:
            continue
        beside = (
            {"samples": 2}
            if each.name in ("sigma", "precision", "clamp") and {"clamp", "samples"} <= set(kinds)
            else {}
        )
        default = needed[each.name] if each.default is MISSING else each.default
        tally.feed(
            kind.__name__,
            each.name,
            kinds[each.name],
            lambda value, each=each, beside=beside: kind(**needed | beside | {each.name: value}),
            kind(**needed | beside),
            default,
        )
