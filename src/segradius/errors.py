"""Errors that name the value, the file or the pixel, and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegradiusError(Exception):
    """Base of every error that segradius raises on purpose."""


class InputError(SegradiusError, ValueError):
    """A value, file or tensor is not what was expected; the message says which and what was."""


class MissingExtraError(SegradiusError, ImportError):
    """An optional library is absent; the message names the extra that brings it."""


class TargetError(SegradiusError):
    """A served model did not answer, or its answer cannot be used; the message says where, what and why."""


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
    return InputError(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")


def missing_extra(library: str, extra: str) -> MissingExtraError:
    """An error for an absent optional ``library``, naming the ``extra`` that installs it.

    Example:
        >>> str(missing_extra("transformers", "hf"))
        "this needs transformers, which is not installed: pip install 'segradius[hf]'"
    """
    return MissingExtraError(f"this needs {library}, which is not installed: pip install 'segradius[{extra}]'")
