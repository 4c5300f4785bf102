"""Colours for classes."""

from __future__ import annotations

from segradius.data.sample import RGB


def voc_palette(classes: int) -> tuple[RGB, ...]:
    """The colour map of the Pascal VOC toolkit: the bits of the index, dealt in turn to red, green and blue.

    Bit 3k, 3k + 1, 3k + 2 of the index become bit 7 − k of red, green and blue. Distinct for the first 256 indices.

    Args:
        classes: How many colours.

    Example:
        >>> voc_palette(4)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    """
    return tuple((_channel(i, 0), _channel(i, 1), _channel(i, 2)) for i in range(classes))


def _channel(index: int, channel: int) -> int:
    return sum((index >> (3 * k + channel) & 1) << (7 - k) for k in range(8))
