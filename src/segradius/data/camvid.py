"""CamVid in the 11-class split that SegNet made common."""

from __future__ import annotations

from segradius.core.errors import unknown_name
from segradius.data.files import BenchmarkFiles, existing_folder, paired, sub_folders
from segradius.data.listing import MASK_SUFFIXES, list_files
from segradius.data.masks import MaskKey
from segradius.data.sample import DATA, Classes

_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID = Classes(tuple(_COLOURS), tuple(_COLOURS.values()))
_KEY = MaskKey((*((i, i) for i in range(11)), (11, 255)))


@DATA.register("camvid")
def camvid(path: str, split: str | None = None) -> BenchmarkFiles:
    """CamVid, 11 classes: images/SPLIT/NAME.jpg and masks/SPLIT/NAME.png; the mask value 11 (void) is ignored.

    Args:
        path: Folder that holds ``images`` and ``masks``.
        split: ``train``, ``val`` or ``test`` (default).

    Raises:
        InputError: A folder is absent, the split is unknown, or an image has no mask.
    """
    root = existing_folder("camvid", path, "images", "masks")
    split = split or "test"
    if split not in sub_folders(root / "images"):
        raise unknown_name("camvid split", split, sub_folders(root / "images"))
    images, masks = list_files(root, f"images/{split}"), list_files(root, f"masks/{split}", MASK_SUFFIXES, once=False)
    pairs, left_out = paired(f"camvid/{split}", images, masks)
    return BenchmarkFiles(f"camvid/{split}", CAMVID, _KEY, pairs, left_out=left_out)
