"""The small grammars of the command line: lists, budgets per norm, key=value options, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from segradius.errors import InputError, unknown_name

Listed = str | Sequence[str]
"""Names with commas between them, or a list from a YAML file."""

Keyed = str | float | Mapping[str, Any] | Sequence[Any]
"""``key=value`` pairs with commas between them, or a mapping from a YAML file."""


def names(given: Listed) -> list[str]:
    """Names from ``"a,b"``, or from a list.

    Example:
        >>> names("pgd, cr_pgd"), names(["pgd", "fgsm,dag"])
        (['pgd', 'cr_pgd'], ['pgd', 'fgsm', 'dag'])
    """
    texts = [given] if isinstance(given, str) else given
    return [name.strip() for text in texts for name in str(text).split(",") if name.strip()]


def pairs(given: Keyed) -> list[tuple[str, str]]:
    """(key, value) texts from ``"a=2,b=1,2"``; a value runs up to the next ``key=``. A value without key has key "".

    Example:
        >>> pairs("l2=0.5,1.0,linf=4/255"), pairs("1.5"), pairs({"l2": [1, 2]})
        ([('l2', '0.5,1.0'), ('linf', '4/255')], [('', '1.5')], [('l2', '1,2')])
    """
    if isinstance(given, Mapping):
        return [(str(key), _text(value)) for key, value in given.items()]
    text = _text(given)
    parts = [part.strip() for part in re.split(r",(?=\s*[\w.]+\s*=)", text) if part.strip()]
    split = [part.partition("=") for part in parts]
    return [(key.strip(), value.strip()) if equals else ("", key) for key, equals, value in split]


def budgets(
    norm: Listed | None, eps: Keyed | None, default: Mapping[str, float] | None = None
) -> list[tuple[str, float]]:
    """Pairs of norm and ε, the paper's ε where none is given.

    Args:
        norm: Norms; None for those that ``eps`` names, or else l2.
        eps: ``"1.5"`` for a single norm; ``"l2=0.5,1.0,linf=4/255"`` for several norms or budgets.
        default: ε by norm where none is given; None for the paper's in white-box attacks.

    Raises:
        InputError: ε ≤ 0 or no number, an unknown norm, or a budget whose norm cannot be told.

    Example:
        >>> budgets("l2,linf", "l2=0.5,1.5")
        [('l2', 0.5), ('l2', 1.5), ('linf', 0.006)]
        >>> budgets(None, "linf=4/255")[0][0]
        'linf'
    """
    from segradius.threats import NORMS, parse_eps  # brings torch, which --help can do without

    given = pairs(eps) if eps is not None else []
    named = list(dict.fromkeys(key for key, _ in given if key))
    norms = list(dict.fromkeys(names(norm))) if norm is not None else named or ["l2"]
    for name in [*norms, *named]:
        if name not in NORMS:
            raise unknown_name("norm", name, NORMS)
        if name not in norms:
            raise InputError(f"eps is given for {name}, but norm is {','.join(norms)}")
    if len(norms) > 1 and any(not key for key, _ in given):
        raise InputError(f"with the norms {','.join(norms)} say which eps is whose, as in l2=1.5,linf=4/255")
    found = [(key or norms[0], parse_eps(value)) for key, values in given for value in values.split(",")]
    usual = {name: norm.default_eps for name, norm in NORMS.items()} if default is None else default
    return [budget for name in norms for budget in ([f for f in found if f[0] == name] or [(name, usual[name])])]


def options(given: Keyed | None) -> dict[str, Any]:
    """Options of attacks from ``"decay=0.9,loss=js"``: numbers, fractions, true/false, null, lists in brackets, words.

    Raises:
        InputError: A value has no name.

    Example:
        >>> options("decay=0.9,loss=js,alpha=1/255,tau=1e-3,weights=[1, 2]")["weights"]
        [1, 2]
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    found = pairs(given)
    for key, value in found:
        if not key:
            raise InputError(f"option {value!r} has no name; expected name=value, as in decay=0.9,loss=js")
    return {key: value_of(value) for key, value in found}


def value_of(text: str) -> Any:
    """A value from its text, as YAML reads it; fractions and 1e-3 are numbers too.

    Example:
        >>> value_of("1/4"), value_of("1e-3"), value_of("true"), value_of("js"), value_of("null")
        (0.25, 0.001, True, 'js', None)
    """
    parsed = yaml.safe_load(text)
    if not isinstance(parsed, str):
        return parsed
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        return parsed


def number(name: str, given: float | str) -> float:
    """A number from its text; fractions and 1e-3 are numbers too.

    Raises:
        InputError: It is none.

    Example:
        >>> number("sigma", "64/255") == 64 / 255, number("alpha", "1e-3")
        (True, 0.001)
    """
    found = value_of(str(given))
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{name} is {given!r}; expected a number")
    return float(found)


def size(text: str | None) -> tuple[int, int] | None:
    """(height, width) from ``"240x320"``.

    Raises:
        InputError: It is not two positive whole numbers.

    Example:
        >>> size("240x320")
        (240, 320)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip())
    if not match or "0" in (match[1], match[2]):
        raise InputError(f"size {text!r}; expected height x width in pixels, as in 240x320")
    return int(match[1]), int(match[2])


def counts(given: str | int | Sequence[int] | None) -> list[int] | None:
    """Whole numbers from ``"200,400,800"``, or from a list.

    Raises:
        InputError: It is not whole numbers above zero.

    Example:
        >>> counts("200,400")
        [200, 400]
    """
    if given is None:
        return None
    texts = [part.strip() for part in _text(given).split(",")]
    if not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise InputError(f"{given!r}; expected whole numbers of queries, as in 200,400,800")
    return [int(text) for text in texts]


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)
