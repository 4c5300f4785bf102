"""The one reader of YAML: plain values only, of a size, depth and number of aliases that a person writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from segradius.core.errors import InputError

MAX_BYTES = 1 << 20
"""The largest text that is read."""
MAX_DEPTH = 64
"""How deep lists and mappings may lie in one another."""
MAX_NODES = 200_000
"""How many values there may be, each counted as often as aliases repeat it."""


def from_yaml(text: str, what: str = "the text") -> Any:
    """The value of a YAML text.

    Args:
        text: The YAML.
        what: It is, for error messages: ``"the plan p.yaml"``.

    Raises:
        InputError: It is no YAML, is larger than a megabyte, nests more than 64 deep, grows beyond 200,000 values by
            its aliases, has a value that contains itself, or a key twice in one mapping.

    Example:
        >>> from_yaml("{a: 1, b: [x, 2.5]}")
        {'a': 1, 'b': ['x', 2.5]}
        >>> from_yaml("a: 1" + chr(10) + "a: 2", "the card c.yaml")
        Traceback (most recent call last):
        segradius.core.errors.InputError: the card c.yaml has the key 'a' twice, in lines 1 and 2
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{what} has {len(text)} characters; expected at most {MAX_BYTES}")
    try:
        _refuse_depth(text, what)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _weigh(node, what, {})
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is no valid YAML: {_one_line(error)}") from error
    except (ValueError, OverflowError, RecursionError) as error:  # a date such as 2026-13-45
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is no valid YAML: {_one_line(error)}") from error


def read_yaml(path: str | Path, what: str = "") -> Any:
    """The value of a YAML file.

    Args:
        path: Of the file.
        what: It is, for error messages: ``"the plan"``.

    Raises:
        InputError: It cannot be read, or see `from_yaml`.
    """
    named = f"{what} {path}".strip()
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{named} is larger than {MAX_BYTES} bytes, which is the most that is read as YAML")
        return from_yaml(content.decode("utf-8-sig"), named)
    except OSError as error:
        raise InputError(f"{named} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{named} is no valid YAML: it is not UTF-8 ({_one_line(error)})") from error


def _refuse_depth(text: str, what: str) -> None:
    """Go through the events of the text, which needs no recursion, unlike all that comes after."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            where = "" if event.start_mark is None else f", in line {event.start_mark.line + 1}"
            raise InputError(f"{what} nests lists and mappings more than {MAX_DEPTH} deep{where}")


def _weigh(node: yaml.Node, what: str, known: dict[int, int | None]) -> int:
    """How many values a node holds, each as often as aliases repeat it; no node is looked at twice."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise InputError(f"{what} has a value that contains itself, in line {node.start_mark.line + 1}")
        return found
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node, what)
    total = 1 + sum(_weigh(child, what, known) for child in _children(node))
    if total > MAX_NODES:
        raise InputError(f"{what} holds more than {MAX_NODES} values, as its aliases repeat them")
    known[id(node)] = total
    return total


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair


def _refuse_twice(node: yaml.MappingNode, what: str) -> None:
    """PyYAML takes the last of two equal keys, and says nothing."""
    seen: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            line, named = key.start_mark.line + 1, (key.tag, key.value)
            if named in seen:
                raise InputError(f"{what} has the key {key.value!r} twice, in lines {seen[named]} and {line}")
            seen[named] = line


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
