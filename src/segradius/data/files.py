"""Image and mask files in pairs, and the samples that are read from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.core.digests import Parts
from segradius.core.errors import InputError
from segradius.data.listing import LeftOut, Listing, composed, expanded, told
from segradius.data.masks import MaskKey, read_labels
from segradius.data.pixels import Pixels, Readable, as_stored
from segradius.data.readers import Place, axes_of, places_of, read_pixels
from segradius.data.reading import PLAIN, Reading
from segradius.data.sample import BadSampleError, Classes, Sample


class Held(Readable, Protocol):
    """What lies in another file and is read as one of its own: a picture in a cell of a table."""

    @property
    def path(self) -> Path:
        """Where it lies, for messages."""

    def part(self) -> Path | Tensor:
        """What shows a change of it."""


class Drawn(Protocol):
    """A mask that is no single file: polygons, or one file a structure."""

    @property
    def path(self) -> Path:
        """Where it lies, for messages."""

    def labels(self, key: MaskKey) -> tuple[NDArray[np.int64], int] | None:
        """Labels (H, W) as shown, and the EXIF orientation, as of `segradius.data.masks.read_labels`.

        None where there is nothing in the image, which is all of class 0.
        """

    def parts(self) -> Parts:
        """What it is made of."""


@dataclass(frozen=True)
class Pair:
    """The two files of a sample, or what takes their place; of a stack or a volume, which slice of both it is."""

    id: str
    image: Path | Held
    mask: Path | Held | Drawn
    place: Place | None = None


@dataclass(frozen=True)
class PairedFiles:
    """Image and mask files with one key to all masks; a `SegmentationData` that reads a sample when asked.

    Args:
        name: Data set and split.
        classes: Names and colours.
        key: What the masks' values mean.
        pairs: The files, in order.
        told_by: The file that says what masks mean, where there is one.
        left_out: What lies beside the files and is not used, with the reason.
        exif: Whether masks were made for images as they are shown, turned by their EXIF orientation, or as they are
            stored; None refuses where the two cannot be told apart.
        reading: What is said of image files: bands, range, slices.

    Raises:
        BadSampleError: On access: a file is absent, damaged, of a kind that is not read exactly, a number lies outside
            the range, a mask value has no meaning, or image and mask differ in size.
    """

    name: str
    classes: Classes
    key: MaskKey
    pairs: tuple[Pair, ...]
    told_by: Path | None = None
    left_out: tuple[LeftOut, ...] = ()
    exif: Literal["shown", "stored"] | None = None
    reading: Reading = PLAIN

    thread_safe: ClassVar[bool] = True

    @property
    def meaning(self) -> dict[str, Any]:
        """What values of images and masks and colours of masks mean, as JSON holds it."""
        colours = [[*colour, label] for colour, label in self.key.colours]
        more = {"read": self.key.read, "nearest": self.key.nearest, "exif": self.exif} | self.reading.told
        return {"values": [list(pair) for pair in self.key.values], "colours": colours} | more

    def parts(self, index: int) -> Parts:
        """The files of a sample, or what is in their place."""
        image, mask = self.pairs[index].image, self.pairs[index].mask
        found: dict[str, Path | Tensor] = {"image": image if isinstance(image, Path) else image.part()}
        if isinstance(mask, Path):
            return found | {"mask": mask}
        return {**found, **(mask.parts() if hasattr(mask, "parts") else {"mask": mask.part()})}

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every sample, in order."""
        return tuple(pair.id for pair in self.pairs)

    @property
    def stacks(self) -> tuple[int, int]:
        """How many samples are slices, and of how many files."""
        files = [pair.image for pair in self.pairs if pair.place is not None]
        return len(files), len(set(files))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        with blamed(pair.id, pair.image):
            pixels, turned = read_pixels(pair.image, self.reading, pair.place)
        with blamed(pair.id, pair.mask):
            labels, mask_turned = self._labels(pair) or (np.zeros(pixels.shape[:2], np.int64), turned)
            pixels, labels = _together(pixels, labels, turned, mask_turned, self.exif)
            _refuse_turned(pair, self.reading)
        return Sample(pair.id, as_image(pixels), torch.from_numpy(np.ascontiguousarray(labels)))

    def _labels(self, pair: Pair) -> tuple[NDArray[np.int64], int] | None:
        if pair.place is not None and not isinstance(pair.mask, Path) and not hasattr(pair.mask, "at"):
            raise InputError(f"the image is a slice of {pair.place.of}; expected a mask file of as many slices")
        if hasattr(pair.mask, "labels"):
            return pair.mask.labels(self.key)
        return read_labels(pair.mask, self.key, self.reading, pair.place)


class BenchmarkFiles(PairedFiles):
    """Files of a benchmark, whose layout says all that is to be known: no segradius.yaml is looked for."""

    def __getitem__(self, index: int) -> Sample:
        try:
            return super().__getitem__(index)
        except BadSampleError as error:
            if "segradius.yaml" not in error.reason:
                raise
            kind = self.name.partition("/")[0]
            more = f"; of {kind}:PATH no segradius.yaml is read: describe such files in one, and give folder:PATH"
            raise BadSampleError(error.sample_id, error.path, error.reason + more) from error


def as_image(pixels: NDArray[np.float32]) -> Tensor:
    """Pixels (H, W, B) as the image (B, H, W) of a sample."""
    return torch.from_numpy(np.moveaxis(pixels, -1, 0).copy())


def sliced(pairs: tuple[Pair, ...], reading: Reading) -> tuple[Pair, ...]:
    """Pairs of stacks and volumes as a pair a slice, with ids as ``name#017``; others stay as they are.

    A file that cannot be opened stays one pair, and says why when it is read.

    Args:
        pairs: Of files.
        reading: Which slices are samples.

    Raises:
        InputError: Two pairs would have one id.
        MissingExtraError: The library that opens such files is not installed.
    """
    cut = [(pair, each) for pair in pairs for each in places(pair.id, pair.image, reading)]
    refuse_twice((name for _, (name, _) in cut), (pair.image for pair, _ in cut))
    return tuple(replace(_at(pair, reading, place), id=name) for pair, (name, place) in cut)


def _at(pair: Pair, reading: Reading, place: Place | None) -> Pair:
    """A slice of both files, where a mask of several files is the same slice of each."""
    mask = pair.mask.at(reading, place) if hasattr(pair.mask, "at") else pair.mask
    return replace(pair, place=place, mask=mask)


def places(name: str, image: Path | Held, reading: Reading) -> Iterator[tuple[str, Place | None]]:
    """Ids and places of the slices of a file; its own id without a place where it has none, or cannot be opened."""
    try:
        found = places_of(image, reading)
    except InputError:
        found = None
    if found is None:
        yield name, None
        return
    width = max(3, len(str(max((place.of for place in found), default=1) - 1)))
    for place in found:
        yield f"{name}#{place.number:0{width}d}", place


def refuse_twice(ids: Iterable[str], files: Iterable[Path | Held]) -> None:
    """Raise `InputError` where two samples have one id, as a slice and a file may."""
    seen: set[str] = set()
    for name, file in zip(ids, files, strict=True):
        if name in seen:
            raise InputError(f"{file}: another sample is called {name!r} too")
        seen.add(name)


def _refuse_turned(pair: Pair, reading: Reading) -> None:
    """Two volumes whose axes lead to other sides of the body have one shape, and do not fit."""
    image = axes_of(pair.image, reading)
    for file in getattr(pair.mask, "files", (pair.mask,)) if image else ():
        mask = axes_of(file, reading)
        if mask and mask != image:
            raise InputError(
                f"the axes of the mask lead to {mask} and those of the image to {image}; expected the same"
            )


def _together(pixels: Pixels, labels: Pixels, turned: int, mask_turned: int, exif: str | None) -> tuple[Pixels, Pixels]:
    """Image and labels in one orientation.

    Args:
        pixels: Image (H, W, B), as shown.
        labels: Labels (H, W), as shown.
        turned: EXIF orientation of the image.
        mask_turned: EXIF orientation of the mask.
        exif: What `PairedFiles` says.
    """
    stored = as_stored(pixels, turned), as_stored(labels, mask_turned)
    if exif == "stored":
        pixels, labels = stored
    if labels.shape != pixels.shape[:2]:
        sizes = [f"{height}×{width}" for height, width in (labels.shape, pixels.shape[:2])]
        fits = exif is None and stored[1].shape == stored[0].shape[:2]
        hint = ", both turned by their EXIF orientation; without it they fit: see exif: stored" if fits else ""
        raise InputError(f"the mask is {sizes[0]} and the image {sizes[1]} (height × width){hint}")
    if exif is None and turned != mask_turned and stored[1].shape == stored[0].shape[:2]:
        raise InputError(
            f"the image has EXIF orientation {turned} and the mask {mask_turned}, and their sizes fit with it and "
            "without: store both upright, or write exif: shown (the mask is made for the turned image) or exif: stored "
            "into segradius.yaml"
        )
    return pixels, labels


@contextmanager
def blamed(sample_id: str, read: Path | Held | Drawn) -> Iterator[None]:
    """Turn what is wrong with a file into a `BadSampleError` about it."""
    try:
        yield
    except InputError as error:
        raise BadSampleError(sample_id, read if isinstance(read, Path) else read.path, str(error)) from error


def existing_folder(kind: str, path: str, *below: str) -> Path:
    """The folder at ``path``, in which the sub-folders ``below`` exist too.

    Raises:
        InputError: No path was given, or a folder is absent; the message shows the spelling ``kind:PATH``.
    """
    if not path:
        raise InputError(f"the data set {kind!r} needs the folder it lies in: {kind}:PATH")
    root = expanded(path)
    for folder in (root, *(root / sub for sub in below)):
        if not folder.is_dir():
            raise InputError(f"{kind}: there is no folder {folder}")
    return root


def sub_folders(folder: Path) -> list[str]:
    """Names of the visible folders in ``folder``, sorted."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def paired(
    what: str, images: Listing, masks: Listing, ids: Iterable[str] | None = None, source: str = "the list"
) -> tuple[tuple[Pair, ...], tuple[LeftOut, ...]]:
    """Images and masks matched by key, in whatever Unicode form their names are.

    Args:
        what: Where the files come from, for the messages.
        images: Image files.
        masks: Mask files; more than there are images is fine.
        ids: Which, in which order; all images by default.
        source: Of the ids, for the reason why others are left out.

    Returns:
        The pairs, and all files that are in none.

    Raises:
        InputError: There is no image, or an id lacks its image or mask.
    """
    named = [listed.id for listed in images.files.values()] if ids is None else list(ids)
    chosen = {composed(name): name for name in named}
    left_out = images.left_out + masks.left_out
    if not chosen:
        raise InputError(f"{what}: no images found ({told(left_out)})")
    for kind, files in (("image", images.files), ("mask", masks.files)):
        lacking = [name for key, name in chosen.items() if key not in files]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(f"{what}: no {kind} found for {lacking[0]!r}{more} ({told(left_out)})")
    pairs = (Pair(decodable(name), images.files[key].path, masks.files[key].path) for key, name in chosen.items())
    unlisted = "without an image" if ids is None else f"not in {source}"
    rest = [
        LeftOut(listed.path, unlisted)
        for files in (images.files, masks.files)
        for key, listed in files.items()
        if key not in chosen
    ]
    return tuple(pairs), (*left_out, *rest)


def decodable(name: str) -> str:
    """A file's name as an id, which databases and texts must hold: bytes that are no UTF-8 as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
