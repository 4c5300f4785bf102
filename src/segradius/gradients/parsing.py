"""Directions of a search from the text of an option."""

from __future__ import annotations

from collections.abc import Callable

from segradius.errors import InputError, unknown_name
from segradius.gradients.directions import DIRECTIONS, Directions


def parse_directions(text: str) -> Directions:
    """Directions from ``"pixel"``, ``"tiles:16"``, ``"shifted_tiles:16"`` or ``"dct:0.125"``.

    Raises:
        InputError: For an unknown name or a number that does not fit.

    Example:
        >>> parse_directions("tiles:2"), parse_directions("dct:1/8")
        (Tiles(side=2), Dct(fraction=0.125))
    """
    name, colon, number = text.partition(":")
    if name not in DIRECTIONS:
        raise unknown_name("set of directions", name, DIRECTIONS)
    kind: Callable[..., Directions] = DIRECTIONS[name]
    if not colon:
        return kind()
    numerator, slash, denominator = number.partition("/")
    try:
        value = float(numerator) / (float(denominator) if slash else 1.0)
        return kind(int(value) if value.is_integer() and name != "dct" else value)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        expected = "pixel, tiles:16, shifted_tiles:16 or dct:1/8"
        raise InputError(f"directions {text!r}: {error}; expected {expected}") from error
