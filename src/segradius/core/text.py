"""The one grammar of the short texts that users write: a name with options, numbers, fractions, lists.

======================== ====================================== =========================
``[SOURCE:]NAME,k=v,…``  a model, a target, a data set          `parse_spec`
``NAME(k=v;k=v)``        a weighting, a defence, an attack      `parse_call`
``NAME:NUMBER``          directions of a black-box attack       `parse_call`, `number`
``k=v,k=1,2``            options and budgets                    `pairs`, `options`
``4/255``, ``1e-3``      a number                               `number`, `value_of`
======================== ====================================== =========================

A value is what YAML makes of it, save that fractions and ``1e-3`` are numbers too. Everywhere an unknown key is refused
with the nearest known one (`refuse_unknown`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from segradius.core.errors import InputError, shown, unknown_name
from segradius.core.safe_yaml import from_yaml

T = TypeVar("T")

Listed = str | float | Sequence[str | float]
"""Names with commas between them, or a list from a YAML file."""

Keyed = str | float | Mapping[str, Any] | Sequence[Any]
"""``key=value`` pairs with commas between them, or a mapping from a YAML file."""

OPENING, CLOSING = "[{(", "]})"


@dataclass(frozen=True)
class Spec:
    """A name with options.

    Args:
        source: What stands before the colon: ``torchvision``, ``onnx`` or a Python module; empty if built in.
        name: What stands after it.
        arguments: Keyword arguments.
    """

    source: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The text, without its arguments."""
        return f"{self.source}:{self.name}" if self.source else self.name


def parse_spec(text: str) -> Spec:
    """A `Spec` from ``[SOURCE:]NAME[,key=value…]``, values in YAML.

    Args:
        text: For example ``torchvision:fcn_resnet50,num_classes=21``. Commas inside brackets belong to a value.

    Raises:
        InputError: If there is no name, or an argument is not ``key=value`` or is given twice.

    Example:
        >>> parse_spec("hf:segformer,num_labels=19,depths=[2, 2, 2, 2],backbone=null")
        Spec(source='hf', name='segformer', arguments={'num_labels': 19, 'depths': [2, 2, 2, 2], 'backbone': None})
    """
    head, *rest = split(text, ",")
    source, colon, name = head.strip().partition(":")
    if not colon:
        source, name = "", source
    if not name:
        raise InputError(f"model {shown(text)} names no network; expected NAME, SOURCE:NAME or a card FILE.yaml")
    return Spec(source, name, _arguments(rest, f"model {shown(text)}"))


def parse_options(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """What stands before the first comma outside brackets, and the ``key=value`` after it, values in YAML.

    Args:
        text: For example ``pairs.csv,classes=[background, cell]``.
        where: It stands, for error messages.

    Raises:
        InputError: An option is not ``key=value`` or is given twice.

    Example:
        >>> parse_options("pairs.csv,classes=[background, cell]", "list")
        ('pairs.csv', {'classes': ['background', 'cell']})
    """
    head, *rest = split(text, ",")
    return head.strip(), _arguments(rest, where)


def parse_call(text: str, kind: str) -> tuple[str, dict[str, Any]]:
    """Name and options from ``NAME`` or ``NAME(key=value;key=value)``.

    Args:
        text: For example ``clever(batches=10;samples=1)``.
        kind: What it names, for error messages.

    Raises:
        InputError: If an option is not ``key=value``, is given twice, or a bracket is open.

    Example:
        >>> parse_call("clever(batches=10;radius=1/2)", "weighting")
        ('clever', {'batches': 10, 'radius': 0.5})
    """
    name, bracket, inside = text.strip().partition("(")
    if bracket and not inside.endswith(")"):
        raise InputError(f"{kind} {shown(text)} has no closing bracket; expected NAME(key=value;key=value)")
    parts = split(inside.removesuffix(")"), ";") if bracket else []
    return name.strip(), _arguments([part for part in parts if part.strip()], f"{kind} {shown(text)}")


def refuse_unknown(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `InputError` for the first of ``given`` that is not ``known``, with the nearest.

    Example:
        >>> refuse_unknown("option of pgd", ["step"], ["steps", "alpha"])
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown option of pgd 'step'; did you mean 'steps'? Known: alpha, steps
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise unknown_name(kind, name, names)


def options_of(make: Callable[..., object]) -> list[str]:
    """Names of the keyword options of a function.

    Example:
        >>> options_of(unknown_name), options_of(sorted)
        ([], ['key', 'reverse'])
    """
    return [name for name, it in inspect.signature(make).parameters.items() if it.kind is it.KEYWORD_ONLY]


def from_mapping(make: Callable[..., T], given: object, kind: str) -> T:
    """What ``make`` makes of a mapping of its arguments, as a YAML file or an option gives it.

    Args:
        make: A dataclass, or a function.
        given: The mapping.
        kind: What one of its keys is, for error messages: "size key".

    Raises:
        InputError: It is no mapping, a key is unknown, or one is missing; and whatever ``make`` says of a bad value.

    Example:
        >>> from_mapping(Spec, {"source": "", "nam": "demo"}, "model key")
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown model key 'nam'; did you mean 'name'? Known: arguments, name, source
    """
    known = inspect.signature(make).parameters
    if not isinstance(given, Mapping):
        raise InputError(f"{shown(given)} is no mapping; expected a {kind} and its value, of {', '.join(known)}")
    refuse_unknown(kind, map(str, given), known)
    try:
        return make(**given)
    except TypeError as error:
        raise InputError(f"{kind}s {', '.join(map(repr, given)) or 'missing'}: {error}") from error


def value_of(text: str) -> Any:
    """A value from its text, as YAML reads it; fractions and 1e-3 are numbers too.

    Example:
        >>> value_of("1/4"), value_of("1e-3"), value_of("true"), value_of("js"), value_of("null"), value_of("010")
        (0.25, 0.001, True, 'js', None, 10)
    """
    parsed = from_yaml(text, repr(text[:60]))
    if isinstance(parsed, int | float) and not isinstance(parsed, bool):
        try:
            return type(parsed)(text)
        except ValueError:  # 0x10 and 1:30, which are 16 and 90 to YAML
            return text
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
        raise InputError(f"{name} is {shown(given)}; expected a number")
    return float(found)


def names(given: Listed) -> list[str]:
    """Names from ``"a,b"``, or from a list.

    Example:
        >>> names("pgd, cr_pgd"), names(["pgd", "fgsm,dag"])
        (['pgd', 'cr_pgd'], ['pgd', 'fgsm', 'dag'])
    """
    texts = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    return [name.strip() for text in texts for name in str(text).split(",") if name.strip()]


def specs(given: str) -> list[str]:
    """Models from ``"A,B"``; a part that is ``key=value`` belongs to the one before it.

    Raises:
        InputError: It begins with ``key=value``, or one is empty.

    Example:
        >>> specs("demo, a/b.yaml,pspnet_light,num_classes=11,scales=[1, 2]")
        ['demo', 'a/b.yaml', 'pspnet_light,num_classes=11,scales=[1, 2]']
    """
    found: list[str] = []
    for part in split(given, ","):
        if re.match(r"\s*\w+\s*=", part) and found:
            found[-1] += f",{part.strip()}"
        else:
            found.append(part.strip())
    if not all(found) or re.match(r"\w+\s*=", found[0]):
        raise InputError(f"{shown(given)}; expected models with commas between them, NAME, SOURCE:NAME or FILE.yaml")
    return found


def pairs(given: Keyed) -> list[tuple[str, str]]:
    """(key, value) texts from ``"a=2,b=1,2"``; a value runs up to the next ``key=``. A value without key has key "".

    Example:
        >>> pairs("l2=0.5,1.0,linf=4/255"), pairs("1.5"), pairs({"l2": [1, 2]})
        ([('l2', '0.5,1.0'), ('linf', '4/255')], [('', '1.5')], [('l2', '1,2')])
    """
    if isinstance(given, Mapping):
        return [(str(key), listed(value)) for key, value in given.items()]
    text = listed(given)
    parts = [part.strip() for part in re.split(r",(?=\s*[\w.]+\s*=)", text) if part.strip()]
    halves = [part.partition("=") for part in parts]
    return [(key.strip(), value.strip()) if equals else ("", key) for key, equals, value in halves]


def options(given: Keyed | None) -> dict[str, Any]:
    """Options from ``"decay=0.9,loss=js"``, or from a mapping; values as `value_of` reads them.

    Raises:
        InputError: For a value without a name.

    Example:
        >>> options("loss=masked_ce,first=zero,tile=4,scale=1/4")
        {'loss': 'masked_ce', 'first': 'zero', 'tile': 4, 'scale': 0.25}
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    found = pairs(given)
    for key, value in found:
        if not key:
            raise InputError(f"option {shown(value)} has no name; expected name=value, as in decay=0.9,loss=js")
        if [name for name, _ in found].count(key) > 1:
            raise InputError(f"option {shown(key)} is given twice; expected it once")
    return {key: value_of(value) for key, value in found}


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
    match = re.fullmatch(r"(\d{1,5})\s*[x×]\s*(\d{1,5})", text.strip())
    if not match or 0 in (int(match[1]), int(match[2])):
        raise InputError(f"size {shown(text)}; expected height x width in pixels, as in 240x320")
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
    texts = [part.strip() for part in listed(given).split(",")]
    if not all(text.isdecimal() and len(text) < 10 and int(text) > 0 for text in texts):
        raise InputError(f"{shown(given)}; expected whole numbers of queries, as in 200,400,800")
    return [int(text) for text in texts]


def listed(value: Any) -> str:
    """A list with commas, anything else as its text.

    Example:
        >>> listed([1, 2]), listed("a"), listed(0.5)
        ('1,2', 'a', '0.5')
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


def split(text: str, separator: str) -> list[str]:
    """Parts between the separators that are outside brackets.

    Example:
        >>> split("a,b=[1,2]", ",")
        ['a', 'b=[1,2]']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in OPENING) - (character in CLOSING)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _arguments(parts: Iterable[str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.strip().partition("=")
        if not equals or not key.strip().isidentifier():
            raise InputError(f"{where}: {shown(part.strip())} is not key=value")
        if key.strip() in found:
            raise InputError(f"{where} gives {shown(key.strip())} twice")
        try:
            found[key.strip()] = value_of(value)
        except InputError as error:
            raise InputError(f"{where}: the value of {shown(key.strip())} is not YAML: {shown(value)}") from error
    return found
