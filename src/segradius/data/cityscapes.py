"""Cityscapes: fine annotations, 19 classes."""

from __future__ import annotations

from torchvision.datasets import Cityscapes

from segradius.core.errors import unknown_name
from segradius.data.files import BenchmarkFiles, existing_folder, paired, sub_folders
from segradius.data.listing import list_files
from segradius.data.masks import MaskKey
from segradius.data.sample import DATA, Classes

# torchvision keeps the benchmark's table of labels but hands out the raw labelIds, of which 15 are no class.
_TRAINED = sorted((c for c in Cityscapes.classes if 0 <= c.train_id < 19), key=lambda c: c.train_id)
CITYSCAPES = Classes(tuple(c.name for c in _TRAINED), tuple(c.color for c in _TRAINED))
KEY = MaskKey(tuple((c.id, c.train_id if 0 <= c.train_id < 19 else 255) for c in Cityscapes.classes if c.id >= 0))


@DATA.register("cityscapes")
def cityscapes(path: str, split: str | None = None) -> BenchmarkFiles:
    """Cityscapes, 19 classes: leftImg8bit/SPLIT/CITY and gtFine/SPLIT/CITY; labelIds become trainIds, others void.

    Args:
        path: Folder that holds ``leftImg8bit`` and ``gtFine``.
        split: ``train`` or ``val`` (default); ``test`` has no public labels.

    Raises:
        InputError: A folder is absent, the split is unknown, or an image has no mask.
    """
    root = existing_folder("cityscapes", path, "leftImg8bit", "gtFine")
    split = split or "val"
    if split not in sub_folders(root / "leftImg8bit"):
        raise unknown_name("cityscapes split", split, sub_folders(root / "leftImg8bit"))
    images = list_files(root, f"leftImg8bit/{split}/*/*_leftImg8bit.png").renamed(_without_folder)
    masks = list_files(root, f"gtFine/{split}/*/*_gtFine_labelIds.png", once=False).renamed(_without_folder)
    pairs, left_out = paired(f"cityscapes/{split}", images, masks)
    return BenchmarkFiles(f"cityscapes/{split}", CITYSCAPES, KEY, pairs, left_out=left_out)


def _without_folder(name: str) -> str:
    """The name repeats the city."""
    return name.rpartition("/")[2]
