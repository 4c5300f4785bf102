"""COCO's JSON: polygons and run-length codes of categories, in one file for all images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from segradius.core.digests import Parts
from segradius.core.errors import InputError, is_whole, must, one_of, shown
from segradius.core.label_sets import MOST, to_sets
from segradius.core.safe_json import read_json
from segradius.core.text import refuse_unknown
from segradius.data.annotations import Shape, Tables
from segradius.data.files import Pair, PairedFiles
from segradius.data.folder import described, spec_of
from segradius.data.listing import LeftOut, located
from segradius.data.masks import Ints, MaskKey
from segradius.data.pixels import refuse_size
from segradius.data.sample import DATA
from segradius.data.shapes import pixels_of, require
from segradius.data.spelled import beside, ids_of, spelled, unlisted

Overlap = Literal["refuse", "last", "first", "structures"]
BACKGROUND = "background"
#: Keys of a segradius.yaml about mask files, of which there are none, and about classes, which the JSON names.
WITHOUT = (
    *("images", "masks", "classes", "values", "ignore_index", "ignore_color", "read"),
    *("lossy_masks", "structures", "missing", "slices"),
)


@dataclass(frozen=True)
class Drawing:
    """The annotations of an image, as a mask.

    Args:
        path: The JSON.
        size: Height and width of the image, as the JSON holds them.
        shapes: In order of the JSON.
        overlap: What holds where categories overlap.
        structures: How many there are, where they may overlap.
    """

    path: Path
    size: tuple[Any, Any]
    shapes: tuple[Shape, ...]
    overlap: Overlap
    structures: int = 0

    def parts(self) -> Parts:
        """What the JSON says of the image."""
        told = [self.size, self.overlap, [[shape.name, shape.label, shape.given] for shape in self.shapes]]
        return {"annotations": torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8)}

    def labels(self, key: MaskKey) -> tuple[Ints, int]:
        """As `segradius.data.files.Drawn`.

        Raises:
            InputError: The size is none, a segmentation is none, or categories overlap where that is refused.
        """
        height, width = self.size
        for name, value in (("height", height), ("width", width)):
            must(is_whole(value, 1), f"its {name} in the JSON", value, "a whole number of pixels above 0")
        refuse_size(height, width)
        void = np.zeros((height, width), dtype=bool)
        drawn = []
        for shape in self.shapes:
            try:
                covered = pixels_of(shape.given, height, width)
            except InputError as error:
                raise InputError(f"{shape.told} ({shape.name!r}): {error}") from error
            if shape.label is None:
                void |= covered
            else:
                drawn.append((shape, covered))
        found = _sets(drawn, void, self.structures) if self.overlap == "structures" else self._one_each(drawn, void)
        found[void] = key.ignore_index
        return found, 1

    def _one_each(self, drawn: Sequence[tuple[Shape, NDArray[np.bool_]]], void: NDArray[np.bool_]) -> Ints:
        """The class of each pixel; 0 where nothing is drawn."""
        found = np.full(void.shape, -1, dtype=np.int64)
        for shape, covered in drawn:
            assert shape.label is not None
            if self.overlap == "refuse":
                self._refuse_overlap(shape, covered & ~void & (found >= 0) & (found != shape.label), drawn)
            if self.overlap == "first":
                covered = covered & (found < 0)
            found[covered] = shape.label
        return np.asarray(found.clip(min=0))

    def _refuse_overlap(self, shape: Shape, clash: NDArray[np.bool_], drawn: Sequence[tuple[Shape, Any]]) -> None:
        if not clash.any():
            return
        row, column = np.argwhere(clash)[0].tolist()
        other = next(each for each, covered in drawn if covered[row, column] and each.label != shape.label)
        raise InputError(
            f"{other.told} ({other.name!r}) and {shape.told} ({shape.name!r}) overlap in {int(clash.sum())} pixels, "
            f"first at (row {row}, column {column}): say which holds with overlap=last or overlap=first, or keep both "
            "with overlap=structures"
        )


@DATA.register("coco")
def coco(path: str, split: str | None = None) -> PairedFiles:
    """COCO's JSON with polygons or RLE, coco:FILE.json,images=DIR; what is not annotated is background.

    Args:
        path: The JSON; after commas ``images=DIR``, ``classes=[…]`` of its categories, ``overlap=last``, ``first`` or
            ``structures``, and keys of a segradius.yaml about images.
        split: What ``{split}`` in it stands for.

    Raises:
        InputError: The JSON is none of COCO's, ids in it stand twice or for nothing, or images are missing.
    """
    asked = spelled("coco", path, split, ("images", "classes", "overlap"), WITHOUT)
    if asked.split is not None:
        raise InputError(f"coco: the split {split!r} means nothing without {{split}} in the name of the file")
    overlap = asked.options.get("overlap", "refuse")
    one_of(get_args(Overlap), overlap=overlap)
    file = asked.path
    content = read_json(file)
    try:
        tables = Tables.of(content)
        classes, numbers = _classes(tables.categories, asked.options.get("classes"), overlap)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    shapes = tables.shapes(numbers)
    if any(isinstance(shape.given, list) for each in shapes.values() for shape in each):
        require()
    root = _root(file, asked.options.get("images"), tables.images.values())
    structures = len(classes) if overlap == "structures" else 0
    names = ids_of([image["file_name"] for image in tables.images.values()])
    pairs = []
    for (key, image), name in zip(tables.images.items(), names, strict=True):
        place = located(root, image["file_name"])
        assert place is not None
        size = (image.get("height"), image.get("width"))
        pairs.append(Pair(name, place, Drawing(file, size, tuple(shapes.get(key, ())), overlap, structures)))
    spec = spec_of({("structures" if structures else "classes"): classes} | asked.keys, f"coco:{path}")
    left_out = unlisted((pair.image for pair in pairs if isinstance(pair.image, Path)), f"not in {file.name}")
    more = tuple(LeftOut(file, f"not among classes ({name})") for name in tables.unchosen(numbers))
    return described(f"coco/{file.stem}", spec, tuple(pairs), asked.told_by, (*left_out, *more))


def _sets(drawn: Sequence[tuple[Shape, NDArray[np.bool_]]], void: NDArray[np.bool_], count: int) -> Ints:
    maps = np.zeros((count, *void.shape), dtype=bool)
    for shape, covered in drawn:
        assert shape.label is not None
        maps[shape.label] |= covered
    return np.asarray(to_sets(torch.from_numpy(maps)).numpy())


def _classes(categories: Mapping[int, str], chosen: Any, overlap: Overlap) -> tuple[list[str], dict[int, int]]:
    """Names of the classes, or of the structures, and the number of each category."""
    ids = {name: key for key, name in categories.items()}
    ground = next((name for name in ids if name.casefold() == BACKGROUND), None)
    if chosen is None:
        chosen = [name for name in ids if name != ground]
    else:
        good = isinstance(chosen, list) and bool(chosen) and len(set(map(str, chosen))) == len(chosen)
        must(good, "classes", chosen, "a list of categories, each once")
        refuse_unknown("category", map(str, chosen), ids)
        chosen = [name for name in map(str, chosen) if name != ground]
    if not chosen:
        raise InputError("categories: there is none beside the background")
    if overlap == "structures":
        if len(chosen) > MOST:
            raise InputError(f"overlap=structures takes at most {MOST} categories, not {len(chosen)}: give classes=[…]")
        return chosen, {ids[name]: number for number, name in enumerate(chosen)}
    numbers = {ids[name]: number for number, name in enumerate(chosen, 1)}
    return [ground or BACKGROUND, *chosen], numbers | ({} if ground is None else {ids[ground]: 0})


def _root(file: Path, given: Any, images: Any) -> Path:
    """The folder of the images: as it is said, or that of the JSON, or ``images`` in it."""
    names = [image["file_name"] for image in images]
    if given is not None:
        must(isinstance(given, str), "images", given, "a folder")
        folders = [beside(file.parent, given)]
    else:
        folders = [folder for folder in (file.parent, file.parent / "images") if folder.is_dir()]
    missing: list[tuple[int, str, Path]] = []
    for folder in folders:
        lacking = [name for name in names if located(folder, name) is None]
        if not lacking:
            return folder
        missing.append((len(lacking), lacking[0], folder))
    count, first, folder = min(missing)
    raise InputError(
        f"{file}: {count} of its {len(names)} images are missing in {folder}, first {shown(first)}; say "
        "where they are with images=DIR"
    )
