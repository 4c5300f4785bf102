"""Cityscapes: fine annotations, 19 classes."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets import Cityscapes

from segradius.core.errors import unknown_name
from segradius.data.files import MaskKey, PairedFiles, existing_folder, list_files, paired, sub_folders
from segradius.data.sample import DATA, Classes

# torchvision keeps the benchmark's table of labels but hands out the raw labelIds, of which 15 are no class.
_TRAINED = sorted((c for c in Cityscapes.classes if 0 <= c.train_id < 19), key=lambda c: c.train_id)
CITYSCAPES = Classes(tuple(c.name for c in _TRAINED), tuple(c.color for c in _TRAINED))
KEY = MaskKey(tuple((c.id, c.train_id if 0 <= c.train_id < 19 else 255) for c in Cityscapes.classes if c.id >= 0))


@DATA.register("cityscapes")
def cityscapes(path: str, split: str | None = None) -> PairedFiles:
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
    images = _by_name(list_files(root, f"leftImg8bit/{split}/*/*_leftImg8bit.png"))
    masks = _by_name(list_files(root, f"gtFine/{split}/*/*_gtFine_labelIds.png"))
    return PairedFiles(f"cityscapes/{split}", CITYSCAPES, KEY, paired(f"cityscapes/{split}", images, masks))


def _by_name(files: dict[str, Path]) -> dict[str, Path]:
    """The files without their folder in the key, as the name repeats the city."""
    return {key.rpartition("/")[2]: path for key, path in files.items()}
