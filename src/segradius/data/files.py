"""Data sets that are pairs of an image file and a mask file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from zlib import error as ZlibError  # noqa: N812

import torch
from PIL import Image

from segradius.data.reading import MaskKey, read_image, read_labels
from segradius.data.sample import BadSampleError, Classes, Sample
from segradius.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


@dataclass(frozen=True)
class Pair:
    """The two files of a sample."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFiles:
    """Image and mask files with one key to all masks; a `SegmentationData` that reads a sample when asked.

    Args:
        name: Data set and split.
        classes: Names and colours.
        key: What the masks' values mean.
        pairs: The files, in order.

    Raises:
        BadSampleError: On access: a file is absent, truncated or of another kind, a mask value has no meaning, or image
            and mask differ in size.
    """

    name: str
    classes: Classes
    key: MaskKey
    pairs: tuple[Pair, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of every sample, in order."""
        return tuple(pair.id for pair in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        with _blame(pair.id, pair.image):
            pixels = read_image(pair.image)
        with _blame(pair.id, pair.mask):
            labels = read_labels(pair.mask, self.key)
        if labels.shape != pixels.shape[:2]:
            sizes = [f"{height}×{width}" for height, width in (labels.shape, pixels.shape[:2])]
            reason = f"the mask is {sizes[0]} and the image {sizes[1]} (height × width)"
            raise BadSampleError(pair.id, pair.mask, reason)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float().div_(255)
        return Sample(pair.id, image, torch.from_numpy(labels))


@contextmanager
def _blame(sample_id: str, path: Path) -> Iterator[None]:
    """Turn whatever reading a file raises into a `BadSampleError` about it."""
    try:
        yield
    except FileNotFoundError:
        raise BadSampleError(sample_id, path, "the file is missing") from None
    except InputError as error:
        raise BadSampleError(sample_id, path, str(error)) from error
    # Pillow and scipy report broken files by all of these.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, ZlibError) as error:
        raise BadSampleError(sample_id, path, f"the file cannot be read: {error}") from error
    except Image.DecompressionBombError as error:
        raise BadSampleError(sample_id, path, str(error)) from error


def existing_folder(kind: str, path: str, *below: str) -> Path:
    """The folder at ``path``, in which the sub-folders ``below`` exist too.

    Raises:
        InputError: No path was given, or a folder is absent; the message shows the spelling ``kind:PATH``.
    """
    if not path:
        raise InputError(f"the data set {kind!r} needs the folder it lies in: {kind}:PATH")
    root = Path(path).expanduser()
    for folder in (root, *(root / sub for sub in below)):
        if not folder.is_dir():
            raise InputError(f"{kind}: there is no folder {folder}")
    return root


def sub_folders(folder: Path) -> list[str]:
    """Names of the visible folders in ``folder``, sorted."""
    return sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def list_files(base: Path, pattern: str) -> dict[str, Path]:
    """Image files that a glob ``pattern`` (or a folder) names under ``base``, by key and sorted by it.

    The key pairs an image with its mask: the path below the fixed part of the pattern, without extension, and without
    what surrounds a single ``*`` in the file name (``masks/*_gt.png`` gives ``masks/a_gt.png`` the key ``a``).

    Raises:
        InputError: Two files have one key.
    """
    parts = PurePath(pattern, "**", "*").parts if (base / pattern).is_dir() else PurePath(pattern).parts
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    root, name = base.joinpath(*parts[:fixed]), PurePath(parts[-1]).stem
    found: dict[str, Path] = {}
    for path in sorted(root.glob("/".join(parts[fixed:]))) if root.is_dir() else ():
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        key = (path.relative_to(root).parent / _core(path.stem, name)).as_posix()
        if key in found:
            raise InputError(f"{found[key]} and {path} would both be the sample {key!r}")
        found[key] = path
    return found


def _core(stem: str, pattern: str) -> str:
    if pattern.count("*") != 1 or re.search(r"[?\[]", pattern):
        return stem
    before, after = pattern.split("*")
    return stem.removeprefix(before).removesuffix(after)


def paired(
    what: str, images: Mapping[str, Path], masks: Mapping[str, Path], ids: Iterable[str] | None = None
) -> tuple[Pair, ...]:
    """Images and masks matched by key.

    Args:
        what: Where the files come from, for the messages.
        images: Image files by key.
        masks: Mask files by key; more than there are images is fine.
        ids: Which keys, in which order; all images by default.

    Raises:
        InputError: There is no image, or an id lacks its image or mask.
    """
    chosen = list(images if ids is None else ids)
    if not chosen:
        raise InputError(f"{what}: no images found")
    for kind, files in (("image", images), ("mask", masks)):
        lacking = [key for key in chosen if key not in files]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise InputError(f"{what}: no {kind} found for {lacking[0]!r}{more}")
    return tuple(Pair(key, images[key], masks[key]) for key in chosen)
