"""Pascal VOC 2012, and its training set augmented by the Semantic Boundaries Dataset."""

from __future__ import annotations

from pathlib import Path

from segradius.core.errors import InputError, unknown_name
from segradius.data.files import BenchmarkFiles, Pair, existing_folder, paired
from segradius.data.listing import MASK_SUFFIXES, LeftOut, list_files
from segradius.data.masks import MaskKey
from segradius.data.sample import DATA, Classes, voc_palette

_NAMES = (
    "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorbike, person, potted plant, sheep, sofa, train, tv monitor"
)
VOC = Classes(tuple(_NAMES.split(", ")), voc_palette(21))
_KEY = MaskKey((*((i, i) for i in range(21)), (255, 255)))
_Pairs = tuple[tuple[Pair, ...], tuple[LeftOut, ...]]
_SBD_PLACES = ("SBD", "sbd", "benchmark_RELEASE/dataset")


@DATA.register("voc")
def voc(path: str, split: str | None = None) -> BenchmarkFiles:
    """Pascal VOC 2012, 21 classes with background: the index of palette PNGs, the border (255) ignored.

    Args:
        path: The folder ``VOC2012``, or one that holds ``VOCdevkit/VOC2012``.
        split: A list in ``ImageSets/Segmentation``: ``train``, ``val`` (default), ``trainval``; or ``train_aug``,
            which is train and all of SBD but VOC's val, with VOC's mask for train.

    Raises:
        InputError: A folder is absent, the split is unknown, or an image has no mask.
    """
    root = _root(existing_folder("voc", path))
    existing_folder("voc", str(root), "ImageSets/Segmentation", "JPEGImages", "SegmentationClass")
    split = split or "val"
    augmented = split in ("train_aug", "trainaug")
    pairs, left_out = _augmented(root) if augmented else _listed(root, split, "SegmentationClass")
    return BenchmarkFiles(f"voc/{split}", VOC, _KEY, pairs, left_out=left_out)


def _root(given: Path) -> Path:
    places = (given / "VOCdevkit" / "VOC2012", given / "VOC2012")
    return next((place for place in places if place.is_dir()), given)


def _listed(root: Path, split: str, masks: str) -> _Pairs:
    lists = root / "ImageSets" / "Segmentation"
    if not (lists / f"{split}.txt").is_file():
        raise unknown_name("voc split", split, [*(f.stem for f in lists.glob("*.txt")), "train_aug"])
    ids = _names(lists / f"{split}.txt")
    found = list_files(root, masks, MASK_SUFFIXES, once=False)
    return paired(f"voc/{split}", list_files(root, "JPEGImages"), found, ids, f"{split}.txt")


def _augmented(root: Path) -> _Pairs:
    """The augmented set: ready-made PNGs in ``SegmentationClassAug`` where they exist, else SBD's own files."""
    lists = root / "ImageSets" / "Segmentation"
    ready = [name for name in ("train_aug", "trainaug") if (lists / f"{name}.txt").is_file()]
    if ready and (root / "SegmentationClassAug").is_dir():
        return _listed(root, ready[0], "SegmentationClassAug")
    sbd = _sbd(root)
    ours, left_out = _listed(root, "train", "SegmentationClass")
    taken = {pair.id for pair in ours} | set(_names(lists / "val.txt"))
    extra = sorted({name for part in ("train", "val") for name in _names(sbd / f"{part}.txt")} - taken)
    if not extra:
        return ours, left_out
    masks = list_files(sbd, "cls", {".mat"}, once=False)
    theirs, more = paired("SBD", list_files(sbd, "img"), masks, extra, "the lists of SBD without VOC's")
    return ours + theirs, left_out + more


def _sbd(root: Path) -> Path:
    for above in (root, *list(root.parents)[:2]):
        for place in _SBD_PLACES:
            if (above / place / "cls").is_dir():
                return above / place
    raise InputError(
        f"voc: the split 'train_aug' needs {root / 'SegmentationClassAug'} with a list train_aug.txt, or the Semantic "
        f"Boundaries Dataset (img, cls, train.txt, val.txt) as {root / 'SBD'}"
    )


def _names(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"voc: there is no list {file}")
    return file.read_text(encoding="utf-8").split()
