"""What lies in a folder that nobody described yet: where images and masks are, and what numbers they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segradius.core import escapes
from segradius.core.errors import InputError, SegradiusError
from segradius.core.storage import as_csv
from segradius.data.listing import ANY_SUFFIXES, Listing, list_files
from segradius.data.masks import read_stored, values_in
from segradius.data.readers import Place, read_numbers
from segradius.data.reading import PLAIN, Reading, Slices
from segradius.data.stored import Held, held, held_somehow

#: Usual names of sub-folders, in small letters, the likeliest first.
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "scans", "frames", "raw", "input", "inputs")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth", "groundtruth",
    "segmentationclass", "segmentations", "segmentation", "targets", "target",
)  # fmt: skip
#: How names of folders begin that are none of these and hold masks all the same; not the one that `init` makes.
MASKED, OURS = ("mask", "label", "annot", "seg"), "segradius"
#: What stands after the name of an image in that of its mask.
SUFFIXES = ("_mask", "_label", "_labels", "_seg", "_gt", "-mask", "-label", "-seg", "_masks")
#: What stands after the name in that of the image itself, where that of its mask ends otherwise.
SHOWN = ("_img", "_image", "_raw", "-img", "-image", "-raw")
#: Files that are looked into, spread over those that are there.
LOOKED = 48
#: Different values above which a mask numbers objects, and no classes.
MOST_VALUES = 64


@dataclass(frozen=True)
class Found:
    """Where images and masks are.

    Attributes:
        images: Pattern of the images below the folder, as a ``segradius.yaml`` has it.
        masks: That of the masks; None where there are none.
        pairs: Image and mask file of each pair; of structures the mask of the first.
        lonely: Images without a mask.
        splits: Names of parts, which stand for ``{split}`` in the patterns.
        structures: Names of folders in that of the masks, each with a mask of every image.
        listing: Whether patterns do not say which the pairs are, so that they must be listed.
    """

    images: str
    masks: str | None
    pairs: tuple[tuple[Path, Path | None], ...]
    lonely: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    listing: bool = False


@dataclass(frozen=True)
class Seen:
    """What the files hold that were looked into.

    Attributes:
        images: Of image files.
        reading: What has to be said to read them.
        values: In how many masks each number is.
        colours: In how many each colour (0xRRGGBB) is, of masks with colours only.
        masks: How many were read.
        unread: Why files could not be read, by name.
    """

    images: tuple[Held, ...]
    reading: Reading = PLAIN
    values: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[int, int] = field(default_factory=dict)
    masks: int = 0
    unread: Mapping[str, str] = field(default_factory=dict)


def find(folder: Path, images: str | None = None, masks: str | None = None) -> Found:
    """Images and masks below a folder, by the usual names of folders and files, or as told.

    Args:
        folder: The folder.
        images: Folder or pattern of the images, where it is known.
        masks: That of the masks.

    Raises:
        InputError: There is no such folder, or nothing in it is known to be images.
    """
    if not folder.is_dir():
        raise InputError(f"init: there is no folder {folder}")
    inner = {each.name.casefold(): each.name for each in sorted(folder.iterdir()) if each.is_dir()}
    image, mask = _named(inner)
    if images is not None:
        return _found(folder, images, masks or mask)
    if image is not None:
        return _found(folder, image, masks or mask)
    for name, split in inner.items():
        below = {each.name.casefold(): each.name for each in sorted((folder / split).iterdir()) if each.is_dir()}
        image, mask = _named(below)
        if image is not None and name not in (*IMAGES, *MASKS):
            return _found(folder, f"{{split}}/{image}", masks or (f"{{split}}/{mask}" if mask else None))
    other = _other(folder, inner, masks or _named(inner)[1])
    if other is not None:
        return _found(folder, other, masks or _named(inner)[1])
    found = _beside(folder) if masks is None or list_files(folder, "*.*", ANY_SUFFIXES).files else None
    if masks is None and found is not None:
        return found
    if found is None or (found.masks is None and "*" in str(masks)):
        raise InputError(
            f"init: --masks {masks} is given, and no sub-folder of {folder} is called {', '.join(IMAGES[:6])} or the "
            "like: give --images too, a folder or pattern below it, as --images scans or --images 'scans/*.tif'"
        )
    return _found(folder, found.images, masks)


def _named(inner: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Names of the folders of images and of masks, of folders by their names in small letters.

    Example:
        >>> _named({"annot_v2": "Annot_v2", "raw": "raw"}), _named({"segradius-data": "segradius-data"})
        (('raw', 'Annot_v2'), (None, None))
    """
    image, mask = (next((inner[name] for name in names if name in inner), None) for names in (IMAGES, MASKS))
    like = (full for name, full in inner.items() if name.startswith(MASKED) and not name.startswith(OURS))
    return image, mask or next((full for full in like if full != image), None)


def _other(folder: Path, inner: Mapping[str, str], masks: str | None) -> str | None:
    """The one sub-folder with images that is not that of the masks, where that is known and no images lie beside it."""
    if masks not in inner.values() or list_files(folder, "*.*", ANY_SUFFIXES).files:
        return None
    others = [full for name, full in inner.items() if full != masks and not name.startswith(OURS)]
    return others[0] if len(others) == 1 and list_files(folder, others[0], ANY_SUFFIXES).files else None


def _found(folder: Path, images: str, masks: str | None) -> Found:
    """Images and masks in two folders, or in the sub-folders of both that have the same names."""
    splits: tuple[str, ...] = ()
    if "{split}" in images:
        above, _, rest = images.partition("{split}")
        splits = tuple(each for each in _folders(folder / above) if (folder / f"{above}{each}{rest}").is_dir())
    elif masks and "*" not in images + masks:
        inside = [set(_folders(folder / each)) for each in (images, masks)]
        if inside[0] and inside[0] == inside[1]:
            splits = tuple(sorted(inside[0]))
            images, masks = f"{images}/{{split}}", f"{masks}/{{split}}"
    one = splits[0] if splits else ""
    listed = list_files(folder, images.replace("{split}", one), ANY_SUFFIXES)
    if not listed.files:
        raise InputError(f"init: no image in {folder / images.replace('{split}', one)}; give --images FOLDER")
    if masks is None:
        return Found(images, None, tuple((each.path, None) for each in listed.files.values()), (), splits)
    at = masks.replace("{split}", one)
    structures = tuple(name for name in _folders(folder / at) if _pairs(listed, _masks(folder, f"{at}/{name}")))
    if 0 < len(structures) <= 8 and not any(path.is_file() for path in (folder / at).iterdir()):
        pairs = _pairs(listed, _masks(folder, f"{at}/{structures[0]}"))
        return Found(images, f"{masks}/{{structure}}", pairs, _lonely(listed, pairs), splits, structures)
    pairs = _pairs(listed, _masks(folder, at))
    if pairs:
        lonely = _lonely(listed, pairs)
        return Found(images, masks, pairs, lonely, splits, listing=bool(lonely) and not splits)
    if "*" not in at and (found := _marked(folder, (images, masks), one, listed, splits)):
        return found
    raise InputError(
        f"init: no mask in {folder / at} has the name of an image in {folder / images.replace('{split}', one)}; give "
        "--masks PATTERN, as 'masks/*_gt.png' for masks that are called so, or list pairs in a CSV (list:FILE.csv)"
    )


def _marked(
    folder: Path, patterns: tuple[str, str], one: str, listed: Listing, splits: tuple[str, ...]
) -> Found | None:
    """Images and masks in two folders whose names end in a mark, as ``_img`` and ``_seg``, before which they agree."""
    images, masks = patterns
    shown, at = images.replace("{split}", one), masks.replace("{split}", one)
    for suffix in SUFFIXES:
        if pairs := _pairs(listed, _masks(folder, f"{at}/*{suffix}.*")):
            return Found(images, f"{masks}/*{suffix}.*", pairs, _lonely(listed, pairs), splits)
    for mark in () if "*" in images else SHOWN:
        some = list_files(folder, f"{shown}/*{mark}.*", ANY_SUFFIXES)
        for ending in (*(f"/*{suffix}.*" for suffix in SUFFIXES), ""):
            if pairs := _pairs(some, _masks(folder, at + ending)):
                lonely = _lonely(listed, pairs)
                listing = bool(lonely) and not splits
                return Found(f"{images}/*{mark}.*", masks + ending, pairs, lonely, splits, listing=listing)
    return None


def _beside(folder: Path) -> Found:
    """Images with masks beside them in one folder, called ``NAME_mask`` or the like and of another kind of file."""
    listed = list_files(folder, "*.*", ANY_SUFFIXES)
    for suffix in SUFFIXES:
        marked = {key: each for key, each in listed.files.items() if key.endswith(suffix)}
        plain = {each.path.suffix for key, each in listed.files.items() if key + suffix in marked}
        if not plain:
            continue
        ending = min(plain)
        if ending in {each.path.suffix for each in marked.values()}:
            pairs = tuple(
                (e.path, marked[key + suffix].path) for key, e in listed.files.items() if key + suffix in marked
            )
            return Found(f"*{ending}", f"*{suffix}{ending}", pairs, listing=True)
        return _found(folder, f"*{ending}", f"*{suffix}.*")
    if listed.files:
        return _found(folder, "*.*", None)
    inner = sorted(each.name for each in folder.iterdir() if each.is_dir())
    there = f"; it has {escapes.listed(inner)}" if inner else ""
    raise InputError(
        f"init: {folder} has no sub-folder called {', '.join(IMAGES[:6])} or the like, and no images{there}; give "
        "--images and --masks, folders or patterns below it"
    )


def look(found: Found, most: int = LOOKED) -> Seen:
    """What some of the files hold.

    Args:
        found: Where they are.
        most: How many are looked into, spread over all.
    """
    count = len(found.pairs)
    places = sorted({round(k * (count - 1) / max(1, min(most, count) - 1)) for k in range(min(most, count))})
    images: list[Held] = []
    values, colours, unread, masks = Counter[int](), Counter[int](), dict[str, str](), 0
    reading = PLAIN
    for image, mask in (found.pairs[place] for place in places):
        try:
            seen, way = held_somehow(image)
            numbers, shown = ((), ()) if mask is None else _values(mask)
            if mask is not None and way.layout and _is_stack(mask, seen):
                way = Reading(slices=Slices())
                seen = held(image, way)
            images.append(seen)
            reading = way if reading == PLAIN else reading
            if mask is not None:
                values.update(numbers)
                colours.update(shown)
                masks += 1
        except SegradiusError as error:
            unread[image.name] = str(error)
    if not images:
        name, why = next(iter(unread.items()))
        raise InputError(f"init: none of the images looked into can be read; the first, {name}: {why}")
    return Seen(tuple(images), reading, dict(sorted(values.items())), dict(sorted(colours.items())), masks, unread)


def _values(mask: Path) -> tuple[Sequence[int], Sequence[int]]:
    """The different numbers of a mask, or its colours."""
    try:
        stored = read_stored(mask)
    except InputError:
        return _of_slices(mask), ()
    if stored.numbers is not None:
        return values_in(stored.numbers), ()
    assert stored.colours is not None
    colours = np.unique(stored.colours)
    greys = colours & 0xFF
    return (greys.tolist(), ()) if (colours == greys * 0x010101).all() else ((), colours.tolist())


def _of_slices(mask: Path) -> Sequence[int]:
    """The numbers in the slices of a mask that is a stack, in some that are spread over it."""
    reading = Reading(slices=Slices())
    count = held(mask, reading).slices or 1
    found: set[int] = set()
    for number in {0, count // 4, count // 2, 3 * count // 4, count - 1}:
        found |= set(np.unique(read_numbers(mask, reading, Place(number, count))[0]).tolist())
    if any(value != int(value) for value in found):
        raise InputError(f"the mask {mask.name} holds fractions; expected whole numbers")
    return sorted(map(int, found))


def _is_stack(mask: Path, seen: Held) -> bool:
    """Whether a mask has as many slices as an image has bands."""
    try:
        return held(mask, Reading(slices=Slices())).slices == seen.bands
    except SegradiusError:
        return False


def _masks(folder: Path, pattern: str) -> Listing:
    return list_files(folder, pattern, ANY_SUFFIXES, once=False)


def _pairs(images: Listing, masks: Listing) -> tuple[tuple[Path, Path], ...]:
    return tuple((each.path, masks.files[key].path) for key, each in images.files.items() if key in masks.files)


def _lonely(images: Listing, pairs: Sequence[tuple[Path, Path]]) -> tuple[str, ...]:
    known = {image for image, _ in pairs}
    return tuple(each.id for each in images.files.values() if each.path not in known)


def _folders(place: Path) -> list[str]:
    return sorted(each.name for each in place.iterdir() if each.is_dir()) if place.is_dir() else []


def pairs_csv(pairs: Sequence[tuple[Path, Path | None]], folder: Path) -> str:
    """A list of pairs as ``list:FILE.csv`` takes it, with paths relative to the folder that it lies in."""
    rows = (
        [image.relative_to(folder).as_posix(), (mask or image).relative_to(folder).as_posix()] for image, mask in pairs
    )
    return as_csv(("image", "mask"), rows)
