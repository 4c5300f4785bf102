"""What is said of image files beside their names: bands, range, slices and where in a file the numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from segradius.core.errors import InputError, is_whole, must
from segradius.core.text import refuse_unknown

MOST_BANDS = 1024
"""The most bands of an image."""


MOST_SLICES = 100_000
"""The most slices of a file."""


@dataclass(frozen=True)
class Slices:
    """Which two-dimensional slices of a stack or a volume are samples.

    Args:
        axis: The axis of the stored array along which slices lie, from 0; None for that of the format: 2 of NIfTI, 0
            (pages, frames) of the others.
        every: Only every so many-th slice, from the first; their numbers stay what they are in the file.
    """

    axis: int | None = None
    every: int = 1


@dataclass(frozen=True)
class Reading:
    """How numbers in image files become an image in [0, 1].

    Args:
        bands: Input channels of an image: 1 for grey, 3 for colour (a grey file becomes three equal ones), or any other
            number that the files have. None makes RGB of files with 8 bits a channel, and refuses others that have not
            three bands.
        range: The numbers that become 0 and 1; ``dtype`` for the full range of whole numbers of the files' type. None
            takes 0–255 for 8 bits a channel, and refuses others.
        clip: Whether numbers outside the range become its nearest end; they are refused otherwise.
        slices: Which slices of stacks and volumes are samples; None refuses files that hold several.
        array: Which array of an .npz is the image; None where it holds one.
        mask_array: Likewise of masks.
        layout: Whether bands are the last axis of an array (``hwc``) or the first (``chw``); of a TIFF, ``chw`` says
            that its pages are bands.

    Example:
        >>> Reading(bands=1, range=(0, 4095)).plain
        False
    """

    bands: int | None = None
    range: tuple[float, float] | Literal["dtype"] | None = None
    clip: bool = False
    slices: Slices | None = None
    array: str | None = None
    mask_array: str | None = None
    layout: Literal["hwc", "chw"] | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing is said, so that images are 8-bit pictures that become RGB."""
        return self == PLAIN

    @property
    def told(self) -> dict[str, Any]:
        """What is said, as JSON holds it."""
        return asdict(self) | {"range": list(self.range) if isinstance(self.range, tuple) else self.range}


PLAIN = Reading()
"""Nothing is said."""

KEYS = tuple(field.name for field in fields(Reading) if field.name != "mask_array")
"""The keys of a segradius.yaml that `reading_of` takes."""


def reading_of(given: Mapping[str, Any]) -> Reading:
    """Check the keys `KEYS` of a mapping, as YAML has them; others are passed over.

    Args:
        given: For instance of a segradius.yaml.

    Raises:
        InputError: A value is not as expected; the message names its key.

    Example:
        >>> reading_of({"bands": 1, "range": [0, 65535], "slices": {"every": 4}}).slices
        Slices(axis=None, every=4)
    """
    bands, clip, layout = given.get("bands"), given.get("clip"), given.get("layout")
    must(bands is None or (is_whole(bands, 1) and bands <= MOST_BANDS), "bands", bands, f"1 to {MOST_BANDS}")
    must(clip in (None, True, False) and not is_whole(clip), "clip", clip, "true or false")
    must(layout in (None, "hwc", "chw"), "layout", layout, "hwc or chw")
    ends = _range(given.get("range"))
    if clip and not isinstance(ends, tuple):
        raise InputError("clip: true cuts numbers to a range: [low, high], which is not given")
    image, mask = _arrays(given.get("array"))
    return Reading(bands, ends, bool(clip), _slices(given.get("slices")), image, mask, layout)


def _range(given: Any) -> tuple[float, float] | Literal["dtype"] | None:
    if given is None or given == "dtype":
        return cast('Literal["dtype"] | None', given)
    told = "[low, high], two numbers of which the first is smaller, or dtype"
    must(isinstance(given, list | tuple) and len(given) == 2, "range", given, told)
    must(all(isinstance(end, int | float) and not isinstance(end, bool) for end in given), "range", given, told)
    low, high = map(float, given)
    must(math.isfinite(low) and math.isfinite(high) and low < high, "range", given, told)
    must(math.isfinite(high - low), "range", given, "a span that a number of 64 bits holds")
    return low, high


def _slices(given: Any) -> Slices | None:
    if given is None:
        return None
    must(isinstance(given, dict), "slices", given, "a mapping, as {axis: 2, every: 4} or {}")
    refuse_unknown("key in slices", map(str, given), [field.name for field in fields(Slices)])
    axis, every = given.get("axis"), given.get("every", 1)
    must(axis is None or is_whole(axis), "axis in slices", axis, "the number of an axis, from 0")
    must(is_whole(every, 1), "every in slices", every, "a whole number of 1 or more")
    return Slices(axis, every)


def _arrays(given: Any) -> tuple[str | None, str | None]:
    """Names of the arrays of images and of masks, which have one name where one is given."""
    if given is None or isinstance(given, str):
        return given, given
    told = "the name of an array, or {images: …, masks: …}"
    must(isinstance(given, dict) and all(isinstance(name, str) for name in given.values()), "array", given, told)
    refuse_unknown("key in array", map(str, given), ("images", "masks"))
    return given.get("images"), given.get("masks")
