"""Pictures without masks: what a model makes of them is compared with what it made of them unattacked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from segradius.core.errors import InputError
from segradius.core.text import parse_options, refuse_unknown
from segradius.data.files import as_image, blamed, places, refuse_twice
from segradius.data.listing import ANY_SUFFIXES, IMAGE_SUFFIXES, LeftOut, expanded, list_files, told
from segradius.data.readers import Place, read_pixels
from segradius.data.reading import KEYS, PLAIN, Reading, reading_of
from segradius.data.sample import DATA, Classes, Sample

VOID = 255


@dataclass(frozen=True)
class ImageFiles:
    """Pictures without masks; a `SegmentationData` in which no pixel has a label.

    Args:
        name: Of the whole.
        files: Each with its id, in order, and which slice of it is meant.
        left_out: What lies beside them and is not used, with the reason.
        reading: What is said of the files: bands, range, slices.

    Raises:
        BadSampleError: On access: a picture is damaged, or of a kind that is not read exactly.
    """

    name: str
    files: tuple[tuple[str, Path, Place | None], ...]
    left_out: tuple[LeftOut, ...] = ()
    reading: Reading = PLAIN
    classes: Classes = field(default=Classes((), (), VOID), init=False)

    thread_safe: ClassVar[bool] = True

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every picture, in order."""
        return tuple(name for name, _, _ in self.files)

    @property
    def meaning(self) -> dict[str, Any]:
        """What values of images mean, as JSON holds it."""
        return self.reading.told

    @property
    def stacks(self) -> tuple[int, int]:
        """How many samples are slices, and of how many files."""
        cut = [path for _, path, place in self.files if place is not None]
        return len(cut), len(set(cut))

    def __len__(self) -> int:
        return len(self.files)

    def parts(self, index: int) -> dict[str, Path]:
        """The file of a sample."""
        return {"image": self.files[index][1]}

    def __getitem__(self, index: int) -> Sample:
        name, path, place = self.files[index]
        with blamed(name, path):
            image = as_image(read_pixels(path, self.reading, place)[0])
        return Sample(name, image, torch.full(image.shape[1:], VOID, dtype=torch.int64))


@DATA.register("images")
def images(path: str, split: str | None = None) -> ImageFiles:
    """Pictures without masks, for ``--labels predicted``: all below a folder, or those of a pattern.

    Args:
        path: A folder, or a pattern as ``shots/**/*.png``, or one picture; after commas how they are read, with keys of
            a segradius.yaml: ``scans,bands=1,range=[0, 4095]``.
        split: A sub-folder.

    Raises:
        InputError: There is none, or a key is not as expected.
    """
    if not path:
        raise InputError("the data set 'images' needs a folder or a pattern: images:PATH")
    head, given = parse_options(path, f"images:{path}") if any(f",{key}=" in path for key in KEYS) else (path, {})
    refuse_unknown("option of images", given, KEYS)
    reading = reading_of(given)
    place = expanded(head)
    place = place / split if split else place
    base, pattern = (place, "**/*") if place.is_dir() else (Path(place.anchor), str(place.relative_to(place.anchor)))
    found = list_files(base, pattern, IMAGE_SUFFIXES if reading.plain else ANY_SUFFIXES)
    if not found.files:
        raise InputError(f"images: no picture found at {place} ({told(found.left_out)})")
    cut = [(listed.path, each) for listed in found.files.values() for each in places(listed.id, listed.path, reading)]
    refuse_twice((name for _, (name, _) in cut), (file for file, _ in cut))
    files = tuple((name, file, number) for file, (name, number) in cut)
    return ImageFiles(place.name or "images", files, found.left_out, reading)
