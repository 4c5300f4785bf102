"""Structures that may overlap: one yes/no mask file each, or one file with a band each, as one map of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.core.digests import Parts
from segradius.core.errors import InputError, must, shown
from segradius.core.label_sets import members, set_names, to_sets
from segradius.core.text import refuse_unknown
from segradius.data.files import Held, Pair, decodable
from segradius.data.listing import LeftOut, Listing, told
from segradius.data.masks import Ints, MaskKey, Stored, labels_of, numbers_of, read_stored, values_in
from segradius.data.pixels import open_picture, refuse_size, unreadable
from segradius.data.readers import Place
from segradius.data.reading import PLAIN, Reading
from segradius.data.tiff import open_tiff

#: Keys of a segradius.yaml that say what classes are, and mean nothing where structures may overlap.
WITHOUT = ("classes", "palette", "ignore_color", "read", "lossy_masks")
PLACE = "{structure}"


@dataclass(frozen=True)
class MaskFiles:
    """The yes/no masks of a sample, one file a structure.

    Args:
        names: Of the structures.
        files: One each, or what is read as one; None for a structure that is nowhere in the image.
        reading: Which slices of stacks and volumes are masks, and which array of an .npz.
        place: The slice; None of files that have no others.
    """

    names: tuple[str, ...]
    files: tuple[Path | Held | None, ...]
    reading: Reading = PLAIN
    place: Place | None = None

    @property
    def path(self) -> Path:
        """The first file."""
        first = next((file for file in self.files if file is not None), Path())
        return first if isinstance(first, Path) else first.path

    def parts(self) -> Parts:
        """The files, by structure."""
        there = [(name, file) for name, file in zip(self.names, self.files, strict=True) if file is not None]
        return {f"mask {name}": file if isinstance(file, Path) else file.part() for name, file in there}

    def at(self, reading: Reading, place: Place | None) -> MaskFiles:
        """The same slice of all files."""
        return replace(self, reading=reading, place=place)

    def labels(self, key: MaskKey) -> tuple[Ints, int] | None:
        """As `segradius.data.files.Drawn`; None where no structure has a file.

        Raises:
            InputError: A file is no yes/no mask, or two differ in size or orientation.
        """
        there = [(name, file) for name, file in zip(self.names, self.files, strict=True) if file is not None]
        if not there:
            return None
        stored = {name: _named(name, file, self.reading, self.place) for name, file in there}
        if len({each.orientation for each in stored.values()}) > 1:
            raise InputError("the masks of its structures have different EXIF orientations")
        empty = Stored(np.zeros_like(numbers_of(next(iter(stored.values())))))
        return overlaid([(name, stored.get(name, empty)) for name in self.names], key), stored[there[0][0]].orientation


@dataclass(frozen=True)
class MaskBands:
    """One mask file with a yes/no band a structure: an array (K, H, W), pages of a TIFF, channels of an RGB picture.

    Args:
        names: Of the structures, in order of the bands.
        path: The file.
    """

    names: tuple[str, ...]
    path: Path

    def parts(self) -> Parts:
        """The file."""
        return {"mask": self.path}

    def labels(self, key: MaskKey) -> tuple[Ints, int]:
        """As `segradius.data.files.Drawn`.

        Raises:
            InputError: The file has another number of bands, or a band is no yes/no mask.
        """
        bands, orientation = _bands(self.path, len(self.names))
        stored = [(name, Stored(band)) for name, band in zip(self.names, bands, strict=True)]
        return overlaid(stored, key), orientation


def overlaid(stored: Sequence[tuple[str, Stored]], key: MaskKey) -> Ints:
    """Labels (H, W), the numbers of sets (`segradius.core.label_sets`), from a yes/no mask of each structure.

    Args:
        stored: Structures with what their masks hold.
        key: Values of label 0 are no, those of label 1 yes; without any of label 1, the one other value of each mask
            is yes. A pixel that one mask leaves without an answer is void.

    Raises:
        InputError: A mask has several other values, or the masks differ in size or in what yes is.

    Example:
        >>> masks = [("organ", Stored(np.array([[0, 9, 9]]))), ("vessel", Stored(np.array([[0, 0, 9]])))]
        >>> overlaid(masks, MaskKey(((0, 0),))).tolist()
        [[0, 1, 3]]
    """
    answers, meant = [], {}
    for name, each in stored:
        labels, meant[name] = _answers(name, each, key)
        answers.append((name, labels))
    first, shape = answers[0][0], answers[0][1].shape
    for name, labels in answers:
        if labels.shape != shape:
            sizes = ["×".join(map(str, size)) for size in (shape, labels.shape)]
            raise InputError(f"the masks of {first!r} and {name!r} are {sizes[0]} and {sizes[1]} (height × width)")
    _refuse_unlike({name: value for name, value in meant.items() if value is not None})
    maps = np.stack([labels for _, labels in answers])
    sets = to_sets(torch.from_numpy(maps == 1)).numpy()
    sets[(maps == key.ignore_index).any(0)] = key.ignore_index
    return np.asarray(sets)


def yes_no(values: Any, ignored: tuple[int, ...] | None, ignore: int) -> MaskKey:
    """What the values of yes/no masks mean.

    Args:
        values: ``[no, yes]``, or None: 0 is no and the one other value of a mask yes.
        ignored: Values without an answer.
        ignore: The label of void.

    Raises:
        InputError: The values are not two different ones, or one of them has no answer.

    Example:
        >>> yes_no([0, 255], None, 65535).values
        ((0, 0), (255, 1))
    """
    known: tuple[int, ...] = (0,)
    if values is not None:
        good = isinstance(values, list) and len(values) == 2 and all(type(v) is int and 0 <= v <= 65535 for v in values)
        must(good and values[0] != values[1], "values", values, "[no, yes], the two values of the masks of structures")
        known = tuple(values)
    clash = set(known) & set(ignored or ())
    if clash:
        raise InputError(f"ignore_index: {min(clash)} is a value of the masks of structures")
    return MaskKey((*zip(known, (0, 1), strict=False), *((v, ignore) for v in ignored or ())), ignore_index=ignore)


def checked(given: Mapping[str, Any]) -> tuple[tuple[str, ...], str | tuple[tuple[str, str], ...] | None]:
    """Names of structures and where their masks are, from the keys of a segradius.yaml.

    Raises:
        InputError: They are not 1 to 8 different names, masks are not given for each, or a key means nothing here.

    Example:
        >>> checked({"structures": ["organ", "vessel"], "masks": "masks/{structure}/*.png"})[1]
        (('organ', 'masks/organ/*.png'), ('vessel', 'masks/vessel/*.png'))
    """
    names = given["structures"]
    good = isinstance(names, list) and bool(names) and all(isinstance(name, str) and name for name in names)
    must(good, "structures", names, "a list of names (YAML reads yes, no and numbers as values: quote them)")
    must(len(set(names)) == len(names), "structures", names, "each name once")
    members(len(names))
    if len(set(set_names(names))) < 2 ** len(names):
        raise InputError("structures: two sets of them would have one name: no structure may be called background")
    for key in WITHOUT:
        if given.get(key) is not None:
            raise InputError(f"{key}: it means nothing beside structures, whose sets are the classes")
    masks = given.get("masks")
    if isinstance(masks, str) and PLACE in masks:
        masks = {name: masks.replace(PLACE, name) for name in names}
    if isinstance(masks, Mapping):
        refuse_unknown("structure in masks", map(str, masks), names)
        for name in names:
            if not isinstance(masks.get(name), str):
                raise InputError(f"masks: the structure {name!r} has {shown(masks.get(name))}; expected its folder")
        return tuple(names), tuple((name, masks[name]) for name in names)
    return tuple(names), masks


def files_by_structure(
    what: str, images: Listing, masks: Mapping[str, Listing], *, empty: bool
) -> tuple[tuple[Pair, ...], tuple[LeftOut, ...]]:
    """Images with a mask file of each structure, matched by key.

    Args:
        what: Where the files come from, for the messages.
        images: Image files.
        masks: Mask files of each structure.
        empty: Whether a structure without a file is nowhere in the image.

    Raises:
        InputError: There is no image, or a structure lacks the mask of one, of all where that may be.
    """
    left_out = (*images.left_out, *(each for listing in masks.values() for each in listing.left_out))
    if not images.files:
        raise InputError(f"{what}: no images found ({told(left_out)})")
    for name, listing in masks.items():
        lacking = [listed.id for key, listed in images.files.items() if key not in listing.files]
        if lacking and (not empty or len(lacking) == len(images.files)):
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            advice = "" if empty else "; write missing: empty if the structure is nowhere in such an image"
            raise InputError(f"{what}: no mask of {name!r} found for {lacking[0]!r}{more}{advice} ({told(left_out)})")
    names = tuple(masks)
    pairs = []
    for key, listed in images.files.items():
        found = (masks[name].files.get(key) for name in names)
        files = tuple(None if each is None else each.path for each in found)
        pairs.append(Pair(decodable(listed.id), listed.path, MaskFiles(names, files)))
    rest = (mask for listing in masks.values() for key, mask in listing.files.items() if key not in images.files)
    return tuple(pairs), (*left_out, *(LeftOut(mask.path, "without an image") for mask in rest))


def _named(name: str, file: Path | Held, reading: Reading, place: Place | None) -> Stored:
    try:
        return read_stored(file, reading, place)
    except InputError as error:
        where = file if isinstance(file, Path) else file.path
        raise InputError(f"{error} (the mask of {name!r}, {where})") from error


def _answers(name: str, stored: Stored, key: MaskKey) -> tuple[Ints, int | None]:
    """A mask as 0, 1 and void, and the value that was found to be yes."""
    try:
        numbers = numbers_of(stored)
        found = None
        if 1 not in dict(key.values).values():
            others = [v for v in values_in(numbers) if v not in dict(key.values)]
            if len(others) > 1:
                listed = ", ".join(map(str, others[:6])) + (", …" if len(others) > 6 else "")
                raise InputError(
                    f"it holds {len(others)} values beside 0: {listed}; expected one, for yes (values: [no, yes] says "
                    "which, ignore_index which are void)"
                )
            found = others[0] if others else None
            _refuse_renumbered(stored, found)
            key = replace(key, values=(*key.values, *((value, 1) for value in others)))
        return labels_of(stored, key), found
    except InputError as error:
        raise InputError(f"the mask of {name!r}: {error}") from error


def _refuse_renumbered(stored: Stored, yes: int | None) -> None:
    """Programs that put a grey mask into a palette may number white 0, which would turn no into yes."""
    if not stored.indexed or stored.numbers is None:
        return
    used = values_in(stored.numbers)
    colours = {number: stored.shown[number] for number in used if number < len(stored.shown)}
    light = 0 in colours and colours[0] in range(0x010101, 0x1000000, 0x010101)
    if light or (yes is not None and colours.get(yes) == 0):
        raise InputError(
            "it has a palette in which no is light or yes is black, and programs that write such files number colours "
            "anew: store it as a grey PNG, or say values: [no, yes]"
        )


def _refuse_unlike(meant: Mapping[str, int]) -> None:
    """255 is void by custom: where another value is yes in one mask, it may not be yes in the next."""
    full = next((name for name, value in meant.items() if value == 255), None)
    other = next((name for name, value in meant.items() if value != 255), None)
    if full is not None and other is not None:
        raise InputError(
            f"the mask of {other!r} holds 0 and {meant[other]}, that of {full!r} 0 and 255: write values: [no, yes], "
            "and ignore_index: 255 if it is void"
        )


def _bands(path: Path, count: int) -> tuple[NDArray[Any], int]:
    """Bands (K, H, W) of whole numbers, and the EXIF orientation."""
    if path.suffix.lower() == ".npy":
        with unreadable():
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            told = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
            good = isinstance(values, np.ndarray) and values.ndim == 3 and values.dtype.kind in "bui"
            must(good and values.shape[0] == count, "the mask", told, f"whole numbers ({count}, height, width)")
            if values.shape[2] == count:
                raise InputError(f"the mask has the shape {values.shape}, in which the bands may be first or last")
            refuse_size(*values.shape[1:])
            return np.array(values).astype(np.int64), 1
    if path.suffix.lower() in (".tif", ".tiff"):
        with unreadable():
            source = open_tiff(path, Reading(layout="chw"))
            found = source.at(0)
            told = f"{found.dtype} in {found.shape[2]} bands or pages"
            good = found.shape[2] == count and found.dtype.kind in "bui" and not source.white_low
            must(good, "the mask", told, f"whole numbers in {count}, with 0 as black")
            return np.moveaxis(found, -1, 0).astype(np.int64), source.orientation
    picture = open_picture(path)
    if picture.lossy or picture.image.mode != "RGB" or count != 3 or ";16" in picture.raw:
        raise InputError(
            f"the mask has pixels of mode {picture.image.mode!r}; expected a band for each of {count} structures: "
            f"an array (.npy) of shape ({count}, height, width), a TIFF of as many pages, or for three an RGB PNG"
        )
    return np.moveaxis(np.asarray(picture.image), -1, 0).astype(np.int64), picture.orientation
