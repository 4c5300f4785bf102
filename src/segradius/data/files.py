"""Reading image and mask files exactly: what a file says is what the tensor holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from zlib import error as ZlibError  # noqa: N812

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from segradius.core.errors import InputError, missing_extra
from segradius.data.sample import RGB, BadSampleError, Classes, Sample

Ints = NDArray[np.int64]

JPEG_TOLERANCE = 32
"""How far a channel of a JPEG mask may lie from its palette colour; farther pixels are ignored."""
JPEG_STRAY = 0.1
"""The largest share of ignored pixels of that kind; a mask with more is refused."""

# Pillow widens 2- and 4-bit grey to 0–255; a mask needs the number that was stored.
_GREY_SCALE = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class MaskKey:
    """What the values and colours of a mask mean.

    Args:
        values: Pairs (value in the mask, label), for masks of one number a pixel.
        colours: Pairs (colour in the mask, label), for RGB masks; empty where a data set has none.
        ignore_index: Label of the pixels of a JPEG mask that have no colour of the palette.
    """

    values: tuple[tuple[int, int], ...]
    colours: tuple[tuple[RGB, int], ...] = ()
    ignore_index: int = 255


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB, turned upright by its EXIF orientation; shape (H, W, 3), uint8.

    Grey and palette images become RGB; an alpha channel is dropped.

    Raises:
        InputError: The file holds 16-bit or float values.
        OSError: It is absent, truncated or no image.
    """
    with Image.open(path) as file:
        if file.mode[0] in "IF":
            raise InputError(f"the image has pixels of mode {file.mode!r}; expected 8 bits a channel")
        # Pillow warns where a palette holds transparency and is not read as RGBA first.
        upright = ImageOps.exif_transpose(file.convert("RGBA") if file.mode == "P" else file)
        return np.asarray(upright.convert("RGB"))


def read_labels(path: Path, key: MaskKey) -> Ints:
    """A mask file as labels, translated once by ``key``; shape (H, W), int64.

    JPEG masks are matched to the nearest colour of the palette, as JPEG changes values. Other masks are read exactly:
    by colour where they are RGB, else by the number stored (grey of 1 to 16 bits, or the index of a palette PNG).

    Raises:
        InputError: A value or colour is not in ``key``, or the mask is of a kind that it cannot explain.
        OSError: The file is absent, truncated or no image.
    """
    if path.suffix == ".mat":
        return translate(_read_sbd(path), key.values)
    with Image.open(path) as file:
        scale = _GREY_SCALE.get(str(file.tile[0][3]), 1) if file.tile else 1
        jpeg, mask = file.format == "JPEG", ImageOps.exif_transpose(file)
        if jpeg:
            return _nearest_colours(_packed(mask), key)
        if mask.mode in ("RGB", "RGBA"):
            return _exact_colours(_packed(mask), key)
        if mask.mode == "LA":
            mask = mask.getchannel("L")
        if mask.mode == "F":
            raise InputError("the mask holds floating-point values; expected whole numbers or colours")
        return translate(np.asarray(mask).astype(np.int64) // scale, key.values)


def translate(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> Ints:
    """Replace every value by its label.

    Args:
        raw: Values, shape (H, W).
        pairs: Pairs (value, label).

    Raises:
        InputError: A value has no label; the message names it and its first pixel (row, column).

    Example:
        >>> translate(np.array([[0, 7], [7, 255]]), ((0, 255), (7, 0), (255, 255))).tolist()
        [[255, 0], [0, 255]]
    """
    labels, known = _look_up(raw, pairs)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        value, expected = raw[row, column], _ranges(sorted(value for value, _ in pairs))
        raise InputError(f"value {value} in the mask at pixel (row {row}, column {column}); expected {expected}")
    return labels


def _look_up(raw: Ints, pairs: tuple[tuple[int, int], ...]) -> tuple[Ints, NDArray[np.bool_]]:
    keys, labels = np.array(sorted(pairs), dtype=np.int64).T
    place = np.searchsorted(keys, raw).clip(max=len(keys) - 1)
    return np.asarray(labels[place]), np.asarray(keys[place] == raw)


def _packed(mask: Image.Image) -> Ints:
    red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int64), -1, 0)
    return np.asarray((red << 16) + (green << 8) + blue)


def _exact_colours(packed: Ints, key: MaskKey) -> Ints:
    if not key.colours:
        raise InputError("the mask is an RGB image, and no palette says what its colours mean")
    pairs = tuple(((r << 16) + (g << 8) + b, label) for (r, g, b), label in key.colours)
    labels, known = _look_up(packed, pairs)
    if not known.all():
        row, column = np.argwhere(~known)[0]
        colour = tuple(int(packed[row, column]) >> shift & 255 for shift in (16, 8, 0))
        raise InputError(f"colour {colour} in the mask at pixel (row {row}, column {column}) is not in the palette")
    return labels


def _nearest_colours(packed: Ints, key: MaskKey) -> Ints:
    if not key.colours:
        raise InputError("the mask is a JPEG, which changes values: give a palette, or store masks as PNG")
    seen, inverse = np.unique(packed, return_inverse=True)
    channels = np.stack([seen >> 16, seen >> 8 & 255, seen & 255], axis=-1)
    colours = np.array([colour for colour, _ in key.colours])
    distance = np.abs(channels[:, None] - colours).max(-1)
    labels = np.array([label for _, label in key.colours])[distance.argmin(1)]
    stray = distance.min(1) > JPEG_TOLERANCE
    share = float(stray[inverse].mean())
    if share > JPEG_STRAY:
        raise InputError(
            f"{share:.0%} of the pixels of the JPEG mask lie more than {JPEG_TOLERANCE} "
            "from every colour of the palette"
        )
    labels[stray] = key.ignore_index
    return np.asarray(labels[inverse].reshape(packed.shape).astype(np.int64))


def _read_sbd(path: Path) -> Ints:
    """The class mask of a MATLAB file of the Semantic Boundaries Dataset."""
    try:
        from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise missing_extra("scipy", "hf") from None
    contents: dict[str, Any] = loadmat(path)
    mask: NDArray[Any] = contents["GTcls"][0]["Segmentation"][0]
    return mask.astype(np.int64)


def _ranges(values: list[int]) -> str:
    """Sorted whole numbers as text, runs shortened: '0–10, 255'."""
    starts = [v for i, v in enumerate(values) if i == 0 or values[i - 1] != v - 1]
    ends = [v for i, v in enumerate(values) if i == len(values) - 1 or values[i + 1] != v + 1]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


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
        told_by: The file that says what masks mean, where there is one.

    Raises:
        BadSampleError: On access: a file is absent, truncated or of another kind, a mask value has no meaning, or image
            and mask differ in size.
    """

    name: str
    classes: Classes
    key: MaskKey
    pairs: tuple[Pair, ...]
    told_by: Path | None = None

    @property
    def meaning(self) -> dict[str, Any]:
        """What values and colours of masks mean, as JSON holds it."""
        colours = [[*colour, label] for colour, label in self.key.colours]
        return {"values": [list(pair) for pair in self.key.values], "colours": colours}

    def parts(self, index: int) -> dict[str, Path]:
        """The files of a sample."""
        return {"image": self.pairs[index].image, "mask": self.pairs[index].mask}

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
