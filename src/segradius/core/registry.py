"""A name → thing table that finds its things by itself, refuses duplicate names and suggests near ones."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from segradius.core.errors import InputError, unknown_name

T = TypeVar("T")

#: Packages that add attacks, losses, data sets, … name a module in this group of entry points; it is imported when a
#: name is looked up that is not built in, or all are listed.
PLUGINS = "segradius.plugins"


class Registry(Generic[T]):
    """Named things of one kind, added by decorator and looked up by name.

    A file in the room named after a thing, ``voc.py`` say, is imported when the thing is asked for; all files of the
    room, and those of plug-ins, when another name is, or when all are listed. So adding one is one file.

    Args:
        kind: What the things are, in the singular; used in error messages.
        room: Package in which they are, ``segradius.data`` say; None where the module that makes the registry has all.

    Example:
        >>> shapes = Registry("shape")
        >>> @shapes.register("square", sides=4)
        ... def square(side):
        ...     '''Area of a square.'''
        ...     return side**2
        >>> shapes["square"](3), shapes.facts("square")["sides"]
        (9, 4)
        >>> shapes.summary("square")
        'Area of a square.'
    """

    def __init__(self, kind: str, room: str | None = None) -> None:
        self.kind, self.room = kind, room
        self._things: dict[str, T] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}
        self._complete = False

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """A decorator that adds its argument under ``name``; raises `InputError` on a duplicate.

        Args:
            name: Of the thing.
            **facts: What others must know of it without making it; see `facts`.
        """

        def add(thing: T) -> T:
            if name in self._things:
                raise InputError(f"the {self.kind} name {name!r} is taken already")
            self._things[name], self._facts[name] = thing, facts
            return thing

        return add

    def facts(self, name: str) -> Mapping[str, Any]:
        """What was said of the thing called ``name`` when it was registered."""
        _ = self[name]
        return self._facts[name]

    def name_of(self, thing: object) -> str:
        """The name of a registered thing, or of what it is an instance of; else that of its type."""
        kind = type(thing)
        return next((name for name, known in self._things.items() if known in (thing, kind)), kind.__name__)

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise unknown_name(self.kind, name, self)
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._things and isinstance(name, str) and name:
            self._look_for(name)
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._things))

    def __len__(self) -> int:
        self._load()
        return len(self._things)

    def summary(self, name: str) -> str:
        """The first line of the docstring of the thing called ``name``."""
        doc = self[name].__doc__ or ""
        return doc.strip().splitlines()[0] if doc.strip() else ""

    def _look_for(self, name: str) -> None:
        if self.room and name.isidentifier() and importlib.util.find_spec(f"{self.room}.{name}"):
            importlib.import_module(f"{self.room}.{name}")
        if name not in self._things:
            self._load()

    def _load(self) -> None:
        """Import all that may register something, once."""
        if self._complete:
            return
        self._complete = True
        if self.room:
            for found in pkgutil.iter_modules(importlib.import_module(self.room).__path__):
                importlib.import_module(f"{self.room}.{found.name}")
        for plugin in entry_points(group=PLUGINS):
            try:
                plugin.load()
            except ImportError as error:
                raise InputError(f"the plug-in {plugin.name} = {plugin.value} cannot be imported: {error}") from error
