"""The one reader of JSON that people and their programs write: every key once, numbers that are numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Never

from segradius.core.errors import InputError, shown


def from_json(text: str, what: str = "the text") -> Any:
    """The value of a JSON text.

    Args:
        text: The JSON.
        what: It is, for error messages.

    Raises:
        InputError: It is no JSON, is cut off, has a key twice in one object, or NaN or an infinity.

    Example:
        >>> from_json('{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
        >>> from_json('{"a": 1, "a": 2}', "pairs.json")
        Traceback (most recent call last):
        segradius.core.errors.InputError: pairs.json is no valid JSON: the key 'a' stands twice in one object
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise InputError(f"{what} is no valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except RecursionError as error:
        raise InputError(f"{what} is no valid JSON: it is nested too deep") from error
    except ValueError as error:
        raise InputError(f"{what} is no valid JSON: {' '.join(str(error).split())[:200]}") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with a byte order mark or without, and any ends of lines.

    Raises:
        InputError: It cannot be read, or is no UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16; expected UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: byte {content[error.start]:#04x} at {error.start}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises `InputError` as `read_text` and `from_json` do."""
    return from_json(read_text(path), str(path))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return found


def _no_number(text: str) -> Never:
    raise ValueError(f"{text} is no number")
