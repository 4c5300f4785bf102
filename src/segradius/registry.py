"""A name → thing table that refuses duplicate names and suggests near ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from segradius.errors import InputError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, added by decorator and looked up by name.

    Args:
        kind: What the things are, in the singular; used in error messages.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.register("square")
        ... def square(side):
        ...     '''Area of a square.'''
        ...     return side**2
        >>> shapes["square"](3)
        9
        >>> shapes.summary("square")
        'Area of a square.'
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that adds its argument under ``name``; raises `InputError` on a duplicate."""

        def add(thing: T) -> T:
            if name in self._things:
                raise InputError(f"the {self.kind} name {name!r} is taken already")
            self._things[name] = thing
            return thing

        return add

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise unknown_name(self.kind, name, self._things)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._things))

    def __len__(self) -> int:
        return len(self._things)

    def summary(self, name: str) -> str:
        """The first line of the docstring of the thing called ``name``."""
        doc = self[name].__doc__ or ""
        return doc.strip().splitlines()[0] if doc.strip() else ""
