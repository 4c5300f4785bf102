"""Pictures without masks: what a model makes of them is compared with what it made of them unattacked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from segradius.core.errors import InputError
from segradius.data.files import blamed
from segradius.data.listing import LeftOut, list_files, told
from segradius.data.pixels import read_image
from segradius.data.sample import DATA, Classes, Sample

VOID = 255


@dataclass(frozen=True)
class ImageFiles:
    """Pictures without masks; a `SegmentationData` in which no pixel has a label.

    Args:
        name: Of the whole.
        files: Each with its id, in order.
        left_out: What lies beside them and is not used, with the reason.

    Raises:
        BadSampleError: On access: a picture is damaged, or of a kind that is not read exactly.
    """

    name: str
    files: tuple[tuple[str, Path], ...]
    left_out: tuple[LeftOut, ...] = ()
    classes: Classes = field(default=Classes((), (), VOID), init=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every picture, in order."""
        return tuple(name for name, _ in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def parts(self, index: int) -> dict[str, Path]:
        """The file of a sample."""
        return {"image": self.files[index][1]}

    def __getitem__(self, index: int) -> Sample:
        name, path = self.files[index]
        with blamed(name, path):
            pixels, _ = read_image(path)
        image = torch.from_numpy(np.moveaxis(pixels, -1, 0).astype(np.float32)).div_(255)
        return Sample(name, image, torch.full(image.shape[1:], VOID, dtype=torch.int64))


@DATA.register("images")
def images(path: str, split: str | None = None) -> ImageFiles:
    """Pictures without masks, for ``--labels predicted``: all below a folder, or those of a pattern.

    Args:
        path: A folder, or a pattern as ``shots/**/*.png``, or one picture.
        split: A sub-folder.

    Raises:
        InputError: There is none.
    """
    if not path:
        raise InputError("the data set 'images' needs a folder or a pattern: images:PATH")
    place = Path(path).expanduser()
    place = place / split if split else place
    base, pattern = (place, "**/*") if place.is_dir() else (Path(place.anchor), str(place.relative_to(place.anchor)))
    found = list_files(base, pattern)
    if not found.files:
        raise InputError(f"images: no picture found at {place} ({told(found.left_out)})")
    pairs = ((listed.id, listed.path) for listed in found.files.values())
    return ImageFiles(place.name or "images", tuple(pairs), found.left_out)
