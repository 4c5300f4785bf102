"""Reading masks exactly: the number or colour that a file stores becomes a label, or the file is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segradius.core.errors import InputError
from segradius.data.listing import kind
from segradius.data.mask_arrays import read_sbd, read_whole, whole
from segradius.data.pixels import Picture, Readable, open_picture, refuse_transparent, unreadable
from segradius.data.readers import OPENERS, Place
from segradius.data.reading import PLAIN, Reading
from segradius.data.sample import RGB

Ints = NDArray[np.int64]

NEAR = 32
"""How far a channel of a lossy mask may lie from its palette colour; farther pixels are ignored."""
STRAY = 0.1
"""The largest share of ignored pixels of that kind; a mask with more is refused."""
_GREY = 0x010101


@dataclass(frozen=True)
class MaskKey:
    """What the values and colours of a mask mean.

    Args:
        values: Pairs (value in the mask, label), for masks of one number a pixel.
        colours: Pairs (colour in the mask, label), for RGB masks; empty where a data set has none.
        ignore_index: Label of pixels without a class.
        assumed: Value that means "no class" by custom alone; a mask that holds nothing but it and one class is refused.
        read: Whether masks are read by their numbers or by their colours where they have both; None refuses masks in
            which the two disagree.
        nearest: Whether a mask with lossy compression is read by the nearest colour; it is refused otherwise.
        names: Of the labels, for messages.
    """

    values: tuple[tuple[int, int], ...]
    colours: tuple[tuple[RGB, int], ...] = ()
    ignore_index: int = 255
    assumed: int | None = None
    read: Literal["numbers", "colours"] | None = None
    nearest: bool = False
    names: tuple[str, ...] = ()

    def told(self, label: int | None) -> str:
        """A label in words."""
        if label is None:
            return "nothing"
        if label == self.ignore_index:
            return "no class"
        return f"class {label}" + (f" {self.names[label]!r}" if label < len(self.names) else "")


@dataclass(frozen=True)
class Stored:
    """What a mask file holds, turned as it is shown.

    Args:
        numbers: One number a pixel, shape (H, W); None of a picture with colours only.
        colours: Packed colours 0xRRGGBB, shape (H, W), of a picture with colours only.
        shown: The packed colour as which each number is shown; empty of arrays and of more than 8 bits.
        indexed: Whether that comes from a palette in the file.
        renumbered: Whether programs that write such files number the colours as they like.
        lossy: Whether numbers and colours were changed by compression.
        orientation: The EXIF orientation, 1 to 8.
    """

    numbers: Ints | None
    colours: Ints | None = None
    shown: tuple[int, ...] = ()
    indexed: bool = False
    renumbered: bool = False
    lossy: bool = False
    orientation: int = 1

    @property
    def in_colour(self) -> Ints:
        """Packed colours, shape (H, W).

        Raises:
            InputError: The file has none.
        """
        if self.colours is not None:
            return self.colours
        if self.numbers is None or not self.shown or self.numbers.max() >= len(self.shown):
            raise InputError("the mask is to be read by its colours, and has numbers without colours")
        return np.array(self.shown, dtype=np.int64)[self.numbers]


def read_stored(path: Readable, reading: Reading | None = None, place: Place | None = None) -> Stored:
    """What a mask file holds: a picture file, an array, a volume, or a mask of SBD (.mat).

    Args:
        path: Of it.
        reading: Which slices of a stack or volume are masks, and which array of an .npz.
        place: The slice; None of a mask that has no others.

    Raises:
        InputError: The file cannot be read, or is of a kind from which the stored numbers or colours do not come back
            exactly.
    """
    if isinstance(path, Path) and path.suffix.lower() == ".mat":
        return Stored(read_sbd(path))
    if isinstance(path, Path) and (place is not None or kind(path) in OPENERS):
        return Stored(read_whole(path, reading or PLAIN, place))
    if place is not None:
        raise InputError(f"the mask is a picture; expected a file of {place.of} slices")
    picture = open_picture(path)
    with unreadable():
        return _stored(picture)


def read_numbers(path: Path) -> Ints:
    """The numbers that a mask file stores, or where it has colours only and all are grey, their grey; shape (H, W).

    Raises:
        InputError: It holds colours, its compression is lossy, or see `read_stored`.
    """
    return numbers_of(read_stored(path))


def numbers_of(stored: Stored) -> Ints:
    """As `read_numbers`, of what a mask file holds."""
    _refuse_lossy(stored, "store it as PNG")
    if stored.numbers is not None:
        return stored.numbers
    return _greys(stored, "expected one number a pixel")


def read_marked(path: Path) -> NDArray[np.bool_]:
    """Where a mask file is not 0 or black; shape (H, W).

    Raises:
        InputError: Its compression is lossy, or see `read_stored`.
    """
    stored = read_stored(path)
    _refuse_lossy(stored, "store it as PNG")
    return np.asarray((stored.in_colour if stored.numbers is None else stored.numbers) != 0)


def read_labels(
    path: Readable, key: MaskKey, reading: Reading | None = None, place: Place | None = None
) -> tuple[Ints, int]:
    """A mask file as labels, translated once by ``key``.

    Grey masks, those with a palette and arrays are read by the numbers that are stored; colours by ``key.colours``. A
    file in which both are there and disagree is refused unless ``key.read`` says which counts.

    Args:
        path: Of it.
        key: What numbers and colours mean.
        reading: As `read_stored` has it.
        place: Likewise.

    Returns:
        Labels (H, W), turned by the EXIF orientation, and the orientation.

    Raises:
        InputError: A value or colour is not in ``key``, or see `read_stored`.
    """
    stored = read_stored(path, reading, place)
    return labels_of(stored, key), stored.orientation


def translate(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> Ints:
    """Replace every value by its label.

    Args:
        raw: Values, shape (H, W).
        pairs: Pairs (value, label).

    Raises:
        InputError: A value has no label; the message names it and its first pixel (row, column).

    Example:
        >>> translate(np.array([[0, 7], [7, 255]]), ((0, 255), (7, 0), (255, 255))).tolist()
        [[255, 0], [0, 255]]
    """
    labels, known = _look_up(raw, pairs)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        value, expected = raw[row, column], _ranges(sorted(value for value, _ in pairs))
        raise InputError(f"value {value} in the mask at pixel (row {row}, column {column}); expected {expected}")
    return labels


def labels_of(stored: Stored, key: MaskKey) -> Ints:
    """As `read_labels`, of what a mask file holds."""
    if stored.lossy:
        if not (key.nearest and key.colours):
            _refuse_lossy(stored, "store masks as PNG, or give palette and lossy_masks: nearest in segradius.yaml")
        return _nearest_colours(stored.in_colour, key)
    if key.read == "colours" or (stored.numbers is None and key.colours):
        return _exact_colours(stored.in_colour, key)
    if stored.numbers is None:
        numbers = _greys(stored, "and no palette says what its colours mean")
    else:
        numbers = stored.numbers
        if key.read is None and stored.shown:
            _refuse_disagreement(stored, numbers, key)
    if key.assumed is not None:
        _refuse_assumption(numbers, key.assumed, key)
    return translate(numbers, key.values)


def _stored(picture: Picture) -> Stored:
    image, raw, orientation = picture.image, picture.raw, picture.orientation
    if re.search(r";\d*I|;8$", raw):
        raise InputError(
            "the mask is stored with 0 for white, so that programs disagree about its numbers; store 0 as black"
        )
    if image.mode in ("RGB", "RGBA", "LA", "PA") and (picture.levels is not None or re.search(r";1[56]", raw)):
        raise InputError("the mask has colours of other than 8 bits a channel; expected 8")
    if picture.lossy:
        if image.mode not in ("1", "L", "RGB"):
            raise InputError(f"the mask has lossy compression and pixels of mode {image.mode!r}; store it as PNG")
        return Stored(None, _packed(image), lossy=True, orientation=orientation)
    if image.mode in ("LA", "PA", "RGBA"):
        refuse_transparent(np.asarray(image.getchannel("A")), "the mask")
    if image.mode in ("RGB", "RGBA"):
        return Stored(None, _packed(image), orientation=orientation)
    if image.mode in ("P", "PA"):
        return _indexed(image, picture)
    return _plain(image.getchannel("L") if image.mode == "LA" else image, picture)


def _plain(image: Image.Image, picture: Picture) -> Stored:
    """Of a picture with one number a pixel."""
    if image.mode == "F":
        return Stored(whole(np.asarray(image)), orientation=picture.orientation)
    if image.mode not in ("1", "L", "I") and not image.mode.startswith("I;16"):
        raise InputError(f"the mask has pixels of mode {image.mode!r}; expected one number a pixel, a palette or RGB")
    numbers = np.asarray(image).astype(np.int64)
    if picture.levels is not None:
        numbers = np.rint(numbers * (picture.levels / (255 if image.mode == "L" else 65535))).astype(np.int64)
    shown = {"1": _grey_shades(1), "L": _grey_shades(picture.levels or 255)}.get(image.mode, ())
    return Stored(numbers, shown=shown, orientation=picture.orientation)


def _grey_shades(levels: int) -> tuple[int, ...]:
    return tuple(int(number * 255 / levels + 0.5) * _GREY for number in range(levels + 1))


def _indexed(image: Image.Image, picture: Picture) -> Stored:
    flat = image.getpalette("RGB") or []
    packed = tuple((r << 16) + (g << 8) + b for r, g, b in zip(flat[::3], flat[1::3], flat[2::3], strict=True))
    numbers = np.asarray(image.getchannel("P") if image.mode == "PA" else image).astype(np.int64)
    return Stored(numbers, None, packed, True, picture.kind == "GIF", orientation=picture.orientation)


def _refuse_lossy(stored: Stored, remedy: str) -> None:
    if stored.lossy:
        raise InputError(f"the mask has lossy compression (JPEG or WebP), which changes values: {remedy}")


def _refuse_disagreement(stored: Stored, numbers: Ints, key: MaskKey) -> None:
    """Compare what the numbers of a mask mean with what the colours as which they are shown do."""
    values, colours = dict(key.values), {_pack(colour): label for colour, label in key.colours}
    used = [(number, stored.shown[number] if number < len(stored.shown) else None) for number in values_in(numbers)]
    for number, colour in used:
        by_number, by_colour = values.get(number), None if colour is None else colours.get(colour)
        harmless = by_colour is None and (
            not colours or not stored.indexed or colour == number * _GREY or by_number == key.ignore_index
        )
        if not harmless and by_number != by_colour:
            raise InputError(
                f"number {number} of the mask is shown as {_rgb(colour)}: by its number it is {key.told(by_number)}, "
                f"by its colour {key.told(by_colour)}; write read: numbers or read: colours into segradius.yaml"
            )
    if stored.indexed and not colours:
        _refuse_renumbered(used, stored, key)


def _refuse_renumbered(used: list[tuple[int, int | None]], stored: Stored, key: MaskKey) -> None:
    """Programs that put a grey mask into a palette may number its greys anew, which the palette gives away."""
    if stored.renumbered:
        raise InputError(
            "the mask is a GIF, in which programs number colours as they like: store it as PNG, give its colours as "
            "palette in segradius.yaml, or write read: numbers there"
        )
    other = [(number, colour) for number, colour in used if colour != number * _GREY]
    classes = {value for value, label in key.values if label != key.ignore_index}
    by_grey = all(colour is not None and colour % _GREY == 0 and colour // _GREY in classes for _, colour in used)
    if other and by_grey:
        number, colour = other[0]
        raise InputError(
            f"number {number} of the mask is shown as {_rgb(colour)}, and programs that write such files number "
            "colours anew: store the mask as a grey PNG, or write read: numbers into segradius.yaml"
        )


def _refuse_assumption(numbers: Ints, void: int, key: MaskKey) -> None:
    """Refuse a mask of one class and 255, in which 255 is as likely the other class."""
    classes = sorted((label, value) for value, label in key.values if label != key.ignore_index)
    first, seen = classes[0][1], set(values_in(numbers))
    if void not in seen or not seen <= {void, first}:
        return
    remedy = f"ignore_index: {void}"
    if len({label for label, _ in classes}) == 2:
        names = key.names or tuple(str(label) for label, _ in classes)
        remedy = f"values: {{{first}: {names[0]}, {void}: {names[1]}}}, or, if it is no class, {remedy}"
    raise InputError(
        f"the mask holds {void} and beside it at most {first}, and segradius.yaml does not say what {void} means: "
        f"write {remedy}"
    )


def _greys(stored: Stored, otherwise: str) -> Ints:
    """The grey of a picture in colour whose channels are all equal."""
    grey = stored.in_colour & 255
    if (stored.in_colour != grey * _GREY).any():
        raise InputError(f"the mask is an RGB image, {otherwise}")
    return grey


def _look_up(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> tuple[Ints, NDArray[np.bool_]]:
    keys, labels = np.array(sorted(pairs), dtype=np.int64).T
    place = np.searchsorted(keys, raw).clip(max=len(keys) - 1)
    return np.asarray(labels[place]), np.asarray(keys[place] == raw)


def _pack(colour: RGB) -> int:
    return (colour[0] << 16) + (colour[1] << 8) + colour[2]


def _packed(mask: Image.Image) -> Ints:
    red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int64), -1, 0)
    return np.asarray((red << 16) + (green << 8) + blue)


def _rgb(packed: int | None) -> tuple[int, ...] | str:
    return "no colour" if packed is None else tuple(packed >> shift & 255 for shift in (16, 8, 0))


def values_in(numbers: Ints) -> list[int]:
    """The different numbers of a mask, in order.

    Example:
        >>> values_in(np.array([[7, 0], [7, 255]]))
        [0, 7, 255]
    """
    small = numbers.size and numbers.min() >= 0 and numbers.max() < 1 << 16
    found = np.flatnonzero(np.bincount(numbers.ravel())) if small else np.unique(numbers)  # the first is much quicker
    return [int(number) for number in found]


def _exact_colours(packed: Ints, key: MaskKey) -> Ints:
    if not key.colours:
        raise InputError("the mask is to be read by its colours, and no palette says what its colours mean")
    labels, known = _look_up(packed, tuple((_pack(colour), label) for colour, label in key.colours))
    if not known.all():
        row, column = np.argwhere(~known)[0]
        colour = _rgb(int(packed[row, column]))
        raise InputError(f"colour {colour} in the mask at pixel (row {row}, column {column}) is not in the palette")
    return labels


def _nearest_colours(packed: Ints, key: MaskKey) -> Ints:
    seen, inverse = np.unique(packed, return_inverse=True)
    channels = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=-1)
    colours = np.array([colour for colour, _ in key.colours])
    distance = np.abs(channels[:, None] - colours).max(-1)
    labels = np.array([label for _, label in key.colours])[distance.argmin(1)]
    stray = distance.min(1) > NEAR
    share = float(stray[inverse].mean())
    if share > STRAY:
        raise InputError(f"{share:.0%} of the pixels of the mask lie more than {NEAR} from every colour of the palette")
    labels[stray] = key.ignore_index
    return np.asarray(labels[inverse].reshape(packed.shape).astype(np.int64))


def _ranges(values: list[int]) -> str:
    """Sorted whole numbers as text, runs shortened: '0–10, 255'."""
    starts = [v for i, v in enumerate(values) if i == 0 or values[i - 1] != v - 1]
    ends = [v for i, v in enumerate(values) if i == len(values) - 1 or values[i + 1] != v + 1]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))
