"""What a ``segradius.yaml`` probably says of a folder, entry by entry, with what was seen and what is a guess."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from segradius.core.errors import InputError
from segradius.data.survey import MOST_VALUES, Found, Seen

#: Ranges that instruments have, by their bits.
BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class Entry:
    """A line of a YAML file.

    Attributes:
        key: Its key.
        value: Its value.
        seen: What was seen that it follows from.
        guess: Whether it does not follow for sure.
    """

    key: str
    value: Any
    seen: str = ""
    guess: bool = False

    @property
    def text(self) -> str:
        """As it stands in the file.

        Example:
            >>> print(Entry("range", [0, 4095], "uint16, 3 to 3320", guess=True).text)
            range: [0, 4095]  # guess: uint16, 3 to 3320
        """
        told = f"guess: {self.seen}" if self.guess else self.seen
        return f"{self.key}: {flow(self.value)}" + (f"  # {' '.join(told.split())}" if told else "")


def flow(value: Any) -> str:
    """A value as YAML writes it in a line.

    Example:
        >>> flow(["background", "no"]), flow({"mean": [0.5], "std": [0.5]})
        ("[background, 'no']", '{mean: [0.5], std: [0.5]}')
    """
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)[1:-2]


def entries(found: Found, seen: Seen, given: Mapping[str, Any], bands: int | None = None) -> list[Entry]:
    """The entries for a folder.

    Args:
        found: Where its images and masks are.
        seen: What they hold.
        given: Entries that are known, by key.
        bands: Input channels of the network that it is for, where they are known.

    Raises:
        InputError: The masks hold so many values that they cannot be classes, or names were given for another number.
    """
    looked = f"in {seen.masks} of {len(found.pairs)} masks"
    lines = [] if found.listing else [Entry("images", found.images), Entry("masks", found.masks)]
    lines += _structures(found, seen, given, looked) if found.structures else _classes(seen, given, looked)
    kinds = Counter((each.dtype, each.bands) for each in seen.images)
    lines += _bands(kinds, bands)
    lines += [Entry("range", given["range"])] if "range" in given else _range(seen)
    if seen.reading.layout:
        told = f"{seen.images[0].bands} bands of {seen.images[0].height}×{seen.images[0].width}"
        lines.append(Entry("layout", seen.reading.layout, told, guess=True))
    slices = max((each.slices or 0 for each in seen.images), default=0)
    if seen.reading.slices:
        lines.append(Entry("slices", {"every": 1}, f"stacks of up to {slices} slices", guess=True))
    known = [Entry(each.key, given[each.key]) if each.key in given else each for each in lines]
    return known + [Entry(key, value) for key, value in given.items() if key not in {each.key for each in known}]


def _structures(found: Found, seen: Seen, given: Mapping[str, Any], looked: str) -> list[Entry]:
    values = list(seen.values)
    pair = given.get("values") or ([0, values[-1]] if len(values) == 2 else [0, 255])
    told = f"{_listed(values)} {looked}, of the first structure"
    return [Entry("structures", list(found.structures)), Entry("values", pair, told, guess="values" not in given)]


def _classes(seen: Seen, given: Mapping[str, Any], looked: str) -> list[Entry]:
    if seen.colours and not seen.values:
        return _colours(seen, given, looked)
    values, void = _known(given.get("values") or list(seen.values), given)
    if len(values) > MOST_VALUES:
        raise InputError(
            f"init: the masks hold {len(values)} different values ({_listed(values)}), as where each object has its "
            "own number; expected values of classes: give --values and --classes, or masks with a value a class"
        )
    if len(values) < 2:
        values = [0, 255]
    names = _names(given, len(values), values)
    told = f"{_listed(list(seen.values))} {looked}"
    lines = [Entry("classes", names, "names, in the order of the values", guess="classes" not in given)]
    if values != list(range(len(values))):
        lines.append(Entry("values", values, told, guess="values" not in given))
    elif lines[0].guess:
        lines[0] = Entry("classes", names, told, guess=True)
    if void is not None:
        lines.append(Entry("ignore_index", void, f"pixels without a class; {told}", guess=True))
    return lines


def _known(values: Sequence[int], given: Mapping[str, Any]) -> tuple[list[int], int | None]:
    """Values of classes, and that of pixels without one where there is probably one.

    Example:
        >>> _known([0, 1, 2, 255], {}), _known([0, 255], {}), _known([0, 1, 255], {"values": [0, 1, 255]})
        (([0, 1, 2], 255), ([0, 255], None), ([0, 1, 255], None))
    """
    rest = [value for value in values if value not in (255, 65535)]
    if "values" in given or len(rest) == len(values) or len(rest) < 2 or rest != list(range(len(rest))):
        return list(values), None
    return rest, max(values)


def _names(given: Mapping[str, Any], count: int, values: Sequence[int]) -> list[str]:
    names = given.get("classes")
    if names is None:
        return ["background", "foreground"] if count == 2 else ["background", *(f"class {k}" for k in range(1, count))]
    if len(names) != count:
        raise InputError(
            f"init: {len(names)} classes were given ({', '.join(names)}), and the masks have {count} values "
            f"({_listed(values)}); expected a name a value, in their order: give --values beside --classes"
        )
    return list(names)


def _colours(seen: Seen, given: Mapping[str, Any], looked: str) -> list[Entry]:
    palette = [[colour >> 16, colour >> 8 & 255, colour & 255] for colour in seen.colours]
    if len(palette) > MOST_VALUES:
        raise InputError(
            f"init: the masks hold {len(palette)} different colours, as photographs or lossy files do; expected a "
            "colour a class"
        )
    names = _names(given, len(palette), list(seen.colours))
    told = f"{len(palette)} colours {looked}"
    return [Entry("classes", names, told, guess="classes" not in given), Entry("palette", palette, told)]


def _bands(kinds: Counter[tuple[str, int]], bands: int | None) -> list[Entry]:
    """Input channels, unless all files are 8-bit colour and nothing says otherwise."""
    numbers = sorted({number for _, number in kinds})
    plain = numbers == [3] and {dtype for dtype, _ in kinds} == {"uint8"}
    told = f"files of {' and '.join(map(str, numbers))} band{'s' * (numbers != [1])}"
    if bands is not None:
        return [] if plain and bands == 3 else [Entry("bands", bands, f"{told}; what the network takes")]
    if plain:
        return []
    most = 3 if set(numbers) == {1, 3} else numbers[-1]
    return [Entry("bands", most, told, guess=len(numbers) > 1)]


def _range(seen: Seen) -> list[Entry]:
    """The numbers that become 0 and 1, for files of more than 8 bits."""
    deep = [each for each in seen.images if each.dtype not in ("uint8", "bool")]
    if not deep:
        return []
    finite = [number for each in deep for number in (each.low, each.high) if math.isfinite(number)]
    low, high = min(finite, default=math.nan), max(finite, default=math.nan)
    told = f"{', '.join(sorted({each.dtype for each in deep}))}; {len(deep)} files hold {low:.6g} to {high:.6g}"
    if low >= 0 and all(each.dtype.startswith(("uint", "int")) for each in deep):
        bits = next((bits for bits in BITS if high < 2**bits), None)
        if bits is not None:
            return [Entry("range", [0, 2**bits - 1], f"{bits} bits. {told}", guess=True)]
    if low >= 0 and high <= 1:
        return [Entry("range", [0, 1], told, guess=True)]
    if not low < high:
        raise InputError(f"init: no range can be guessed, of {told}: give --range LOW,HIGH")
    return [Entry("range", [low, high], f"a file not looked at may lie outside. {told}", guess=True)]


def _listed(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:6]))
    return f"values {shown}{f', … {values[-1]}' if len(values) > 6 else ''}"
