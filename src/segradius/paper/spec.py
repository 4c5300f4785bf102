"""Reading the YAML files of the paper: folders, errors that name file and key, values that are filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, shown, unknown_name
from segradius.core.safe_yaml import read_yaml
from segradius.core.text import listed, refuse_unknown

#: The room, in which ``scales/``, ``blocks/``, ``elements/`` and ``recipes/`` are.
ROOM = Path(__file__).parent


@dataclass(frozen=True)
class Spec:
    """What a YAML file holds, read key by key.

    Args:
        content: Of the file.
        file: Its path below the room, for messages.

    Example:
        >>> it = Spec({"about": "one", "limit": 3}, "blocks/a.yaml")
        >>> it.text("about"), it.mapping("study"), it.value("limit")
        ('one', {}, 3)
        >>> it.refuse_unknown(["about"])
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown key of blocks/a.yaml 'limit'. Known: about
    """

    content: Mapping[str, Any]
    file: str

    @staticmethod
    def read(folder: str, name: str, room: Path = ROOM) -> Spec:
        """The file NAME.yaml of a folder of the room.

        Raises:
            InputError: There is none, or it holds no mapping.
        """
        path, file = room / folder / f"{name}.yaml", f"{folder}/{name}.yaml"
        if name not in names(folder, room):
            raise unknown_name(folder.removesuffix("s"), name, names(folder, room))
        content = _content(path, path.stat().st_mtime_ns)
        if not isinstance(content, Mapping):
            raise InputError(f"{file} is {shown(content)}; expected a mapping")
        return Spec({str(key): value for key, value in content.items()}, file)

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """Raise `InputError` for the first key that is not ``known``, with the nearest."""
        refuse_unknown(f"key of {self.file}", self.content, known)

    def value(self, key: str, default: Any = None) -> Any:
        """What a key has; the default where it is absent or null."""
        found = self.content.get(key)
        return default if found is None else found

    def text(self, key: str, default: str | None = None) -> str:
        """A text, which has to be there where there is no default."""
        found = self.value(key, default)
        if not isinstance(found, str):
            self.wrong(key, found, "a text")
        return str(found)

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping, empty where it is absent."""
        found = self.value(key, {})
        if not isinstance(found, Mapping):
            self.wrong(key, found, "a mapping")
        return {str(name): value for name, value in found.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts, empty where it is absent."""
        found = self.value(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            self.wrong(key, found, "a list of names")
        return tuple(found)

    def wrong(self, key: str, found: Any, expected: str) -> None:
        """Raise `InputError` for what a key has."""
        raise InputError(f"{self.file}: {key} is {'missing' if found is None else shown(found)}; expected {expected}")

    def under(self, key: str) -> AbstractContextManager[None]:
        """A context in which errors name the file and a key."""
        return naming(f"{self.file}: {key}")


@lru_cache(maxsize=256)
def _content(path: Path, _changed: int) -> Any:
    """Of a YAML file, which is read again when it changed; nobody changes what is returned."""
    return read_yaml(path)


@contextmanager
def naming(place: str) -> Any:
    """A context in which `InputError` says where."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}: {error}") from error


def names(folder: str, room: Path = ROOM) -> tuple[str, ...]:
    """Of the YAML files in a folder of the room, in order: figure-2 before figure-10."""

    def place(name: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]

    return tuple(sorted((file.stem for file in (room / folder).glob("*.yaml")), key=place))


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another over it, mappings in it likewise; null takes a key away.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5, "c": None}, "e": [6]})
        {'a': {'b': 5}, 'd': 3, 'e': [6]}
    """
    found = dict(one)
    for key, value in other.items():
        before = found.get(key)
        if value is None and key in found:
            del found[key]
        elif isinstance(before, Mapping) and isinstance(value, Mapping):
            found[key] = merged(before, value)
        else:
            found[key] = value
    return found


def replaced(value: Any, change: Callable[[str], Any]) -> Any:
    """A value with every text in it changed, be it in lists or mappings."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: replaced(each, change) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [replaced(each, change) for each in value]
    return value


def with_values(value: Any, values: Mapping[str, Any]) -> Any:
    """A value in which ``$NAME`` stands for one of some values: alone for the value itself, in a text for its text.

    Raises:
        InputError: There is no value of that name.

    Example:
        >>> with_values({"eps": "l2=$eps", "limit": "$few"}, {"eps": [0.5, 1], "few": 3})
        {'eps': 'l2=0.5,1', 'limit': 3}
    """

    def of(name: str) -> Any:
        if name not in values:
            raise unknown_name("value", name, values)
        return values[name]

    def change(text: str) -> Any:
        whole = re.fullmatch(r"\$(\w+)", text)
        return of(whole[1]) if whole else re.sub(r"\$(\w+)", lambda found: listed(of(found[1])), text)

    return replaced(value, change)
