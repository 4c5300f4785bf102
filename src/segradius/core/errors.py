"""Errors that name the value, the file or the pixel, and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeGuard

from segradius.core.secrets import redacted


class SegradiusError(Exception):
    """Base of every error that segradius raises on purpose; no message holds a secret.

    Attributes:
        by_image: Whether it may have been the images' fault, so that others can still be worked on.

    Example:
        >>> str(SegradiusError("cannot build hf:team/net with (token='abc')"))
        'cannot build hf:team/net with (token=***)'
    """

    by_image = False

    def __init__(self, *told: object) -> None:
        super().__init__(*(redacted(each) if isinstance(each, str) else each for each in told))


class InputError(SegradiusError, ValueError):
    """A value, file or tensor is not what was expected; the message says which and what was."""


class ModelError(InputError):
    """A model's own code raised, or gave what is no output; the message says on which images, and what.

    Args:
        message: In one line.
        by_image: As `SegradiusError` has it.
    """

    def __init__(self, message: str, *, by_image: bool = True) -> None:
        super().__init__(message)
        self.by_image = by_image


class DamagedError(InputError):
    """A file that segradius wrote does not hold what was written; the message says which and what to do."""


class StorageError(SegradiusError, OSError):
    """A file cannot be written or read, as when a disk is full; the message says which and why."""


class MissingExtraError(SegradiusError, ImportError):
    """An optional library is absent; the message names the extra that brings it."""


class TargetError(SegradiusError):
    """A served model did not answer, or its answer cannot be used; the message says where, what and why."""


class AnswerError(TargetError):
    """An answer of a target arrived and cannot be used: it is not kept, and the next run asks again.

    Args:
        message: In one line.
        by_image: As `SegradiusError` has it.
    """

    def __init__(self, message: str, *, by_image: bool = False) -> None:
        super().__init__(message)
        self.by_image = by_image


class BudgetError(SegradiusError):
    """A query would exceed the budget; it was not sent.

    Args:
        used: Images answered so far, and those asked for and not yet answered.
        budget: Images that may be answered in all.
        asked: Images in the query that was refused.

    Example:
        >>> str(BudgetError(used=98, budget=100, asked=4))
        'a query of 4 images would exceed the budget: 98 of 100 are used'
    """

    def __init__(self, used: int, budget: int, asked: int) -> None:
        super().__init__(f"a query of {asked} images would exceed the budget: {used} of {budget} are used")
        self.used, self.budget, self.asked = used, budget, asked

    def __reduce__(self) -> tuple[type[BudgetError], tuple[int, int, int]]:
        return type(self), (self.used, self.budget, self.asked)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An error for an unknown ``name`` that suggests the nearest known ones.

    Args:
        kind: What the name should have named, in the singular ("attack").
        name: The name that was given.
        known: The names that exist.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> str(unknown_name("attack", "pdg", ["pgd", "fgsm"]))
        "unknown attack 'pdg'; did you mean 'pgd'? Known: fgsm, pgd"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return InputError(f"unknown {kind} {shown(name)}{hint} Known: {', '.join(names)}")


def missing_extra(library: str, extra: str) -> MissingExtraError:
    """An error for an absent optional ``library``, naming the ``extra`` that installs it.

    Example:
        >>> str(missing_extra("transformers", "hf"))
        "this needs transformers, which is not installed: pip install 'segradius[hf]'"
    """
    return MissingExtraError(f"this needs {library}, which is not installed: pip install 'segradius[{extra}]'")


def must(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise `InputError` in the one wording of values out of range unless ``holds``.

    Args:
        holds: Whether the value will do; a comparison with NaN does not hold.
        name: Of the option, as the user writes it.
        value: That was given.
        expected: What would do.

    Example:
        >>> must(2 > 1, "steps", 2, "at least 1")
        >>> must(0.5 > 1, "sigma", 0.5, "more than 1")
        Traceback (most recent call last):
        segradius.core.errors.InputError: sigma is 0.5; expected more than 1
    """
    if not holds:
        raise InputError(f"{name} is {shown(value)}; expected {expected}")


#: Characters of a value in an error message, which is one line.
SHOWN = 80


def shown(value: object) -> str:
    r"""A value in an error message: its ``repr`` in one line, cut in the middle where it is long.

    Example:
        >>> shown("pgd"), shown([1.5])
        ("'pgd'", '[1.5]')
        >>> len(shown("x" * 1_000_000)), "\n" in shown("two\nlines")
        (83, False)
    """
    text = value[:SHOWN] + value[SHOWN:][-SHOWN:] if isinstance(value, str) else value
    try:
        told = " ".join(repr(text).split())
    except Exception:  # whatever it is, the error that is being told is another one
        told = f"a {type(value).__name__}"
    return told if len(told) <= SHOWN else f"{told[: SHOWN // 2]} … {told[-SHOWN // 2 :]}"


def is_whole(value: object, low: float = 0) -> TypeGuard[int]:
    """Whether a value is a whole number of at least ``low``; true and false are none.

    Example:
        >>> is_whole(3, 1), is_whole(3.0), is_whole(True), is_whole(-1)
        (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def at_least(low: float, **values: float) -> None:
    """Raise `InputError` unless every value is ``low`` or more.

    Example:
        >>> at_least(1, steps=0)
        Traceback (most recent call last):
        segradius.core.errors.InputError: steps is 0; expected at least 1
    """
    for name, value in values.items():
        must(value >= low, name, value, f"at least {low:g}")


def positive(**values: float) -> None:
    """Raise `InputError` unless every value is above 0.

    Example:
        >>> positive(sigma=0.0)
        Traceback (most recent call last):
        segradius.core.errors.InputError: sigma is 0.0; expected more than 0
    """
    for name, value in values.items():
        must(value > 0, name, value, "more than 0")


def within(interval: str, **values: float) -> None:
    """Raise `InputError` unless every value lies in an interval.

    Args:
        interval: As ``"[0, 1)"``, a square bracket including its end.
        **values: By the name of the option.

    Example:
        >>> within("[0, 1)", memory=0.7)
        >>> within("(0, 1)", alpha=1.0)
        Traceback (most recent call last):
        segradius.core.errors.InputError: alpha is 1.0; expected a number in (0, 1)
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        must(above and below, name, value, f"a number in {interval}")


def one_of(choices: Iterable[str], **values: str) -> None:
    """Raise `InputError`, with the nearest, unless every value is one of ``choices``.

    Example:
        >>> one_of(("best", "last"), keep="first")
        Traceback (most recent call last):
        segradius.core.errors.InputError: keep is 'first'; expected best or last
    """
    known = tuple(choices)
    for name, value in values.items():
        must(value in known, name, value, " or ".join(known))
