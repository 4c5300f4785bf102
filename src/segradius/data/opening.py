"""From a text such as ``voc:PATH`` to a data set, its samples prepared as a protocol or a size says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segradius.core.declared import Images, read
from segradius.core.errors import InputError, one_of, shown
from segradius.data.listing import told
from segradius.data.prepared import Preparation, Prepared, spread
from segradius.data.protocols import PROTOCOLS, Resize, void_of
from segradius.data.sample import DATA, SegmentationData
from segradius.data.void import VoidAs


def counted(data: SegmentationData) -> str:
    """How many images of a data set are used, and what of its files was left out, in a line.

    Example:
        >>> counted(open_data("scenes:24x32", limit=3))
        'scenes/val: 3 of 64 images to read; 0 files left out'
    """
    source = data.source if isinstance(data, Prepared) else data
    whole, (slices, files) = len(source), getattr(source, "stacks", (0, 0))
    used = f"{len(data)} images" if len(data) == whole else f"{len(data)} of {whole} images"
    used += f" ({slices} slices of {files} file{'' if files == 1 else 's'})" if files else ""
    return f"{data.name}: {used} to read; {told(getattr(data, 'left_out', ()))}"


def open_data(
    spec: str,
    *,
    split: str | None = None,
    size: tuple[int, int] | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    stride: int = 1,
    order: Literal["given", "spread"] = "given",
    void: VoidAs | None = None,
) -> SegmentationData:
    """Open a data set by name; files are listed now and read one by one when asked for.

    Args:
        spec: ``NAME:PATH``, as ``voc:PATH``, of a name in `DATA`; ``scenes`` or ``scenes:HEIGHTxWIDTH``. What follows
            ``python:`` is run: name what you trust.
        split: Which part, by the data set's own names; its evaluation part by default.
        size: (height, width) to which all images are resized; excludes ``protocol``.
        protocol: Name of an evaluation protocol in `PROTOCOLS`.
        limit: Keep at most this many samples, from the first.
        stride: Keep only every stride-th sample, as neighbouring frames of a video look alike; before ``limit``.
        order: ``spread`` for one of which ``limit`` takes samples from everywhere, and more of them with a larger one.
        void: Whether pixels without a class are left out (``ignore``) or count as ``background``: as the class of that
            name, or as a new first one where there is none. None: as the protocol has it.

    Raises:
        InputError: The name, path, split, size, protocol, limit or void is not usable, or an image has no mask.

    Example:
        >>> data = open_data("scenes:60x80", split="test", limit=3)
        >>> len(data), data.ids[0], tuple(data[0].image.shape)
        (3, 'test-00000', (3, 60, 80))
    """
    preparation = _preparation(size, protocol)
    stride, limit = read("stride", Images, stride), read("limit", Images | None, limit)
    name, _, path = spec.partition(":")
    if name not in DATA and (advice := _place(spec)):
        raise InputError(f"unknown data set {shown(spec)}, which is {advice}. Known: {', '.join(DATA)}")
    source = DATA[name](path, split)
    one_of(("given", "spread"), order=order)
    one_of(("ignore", "background"), void=void or "ignore")
    places: Sequence[int] = range(0, len(source), stride)
    if order == "spread":
        places = [places[place] for place in spread(len(places))]
    return Prepared(source, places[:limit], preparation, void or void_of(protocol))


#: What to write before a file, by its ending.
_FILES = {
    ".json": "coco:, or list: of a list of pairs,",
    ".jsonl": "list:",
    ".csv": "list:",
    ".tsv": "list:",
    ".parquet": "hfdata:",
    ".arrow": "hfdata:",
    ".yaml": "folder:",
    ".yml": "folder:",
}


def _place(text: str) -> str:
    """What a text names that is the place of data and no data set, and what to write; nothing of another text."""
    path, _, _ = text.partition(",")
    try:
        if text and Path(text).is_dir():
            return f"a folder: write folder:{text}, or the name of its layout in place of folder"
        before = _FILES.get(Path(path).suffix.lower())
        return f"a file: write {before} before it" if before and Path(path).is_file() else ""
    except (OSError, ValueError):  # too long for a path, say
        return ""


def _preparation(size: tuple[int, int] | None, protocol: str | None) -> Preparation:
    if size is None:
        return PROTOCOLS[protocol or "native"]
    if protocol is not None:
        raise InputError(f"size {size} and protocol {protocol!r} exclude each other: a protocol sets the size")
    if len(size) != 2:
        raise InputError(f"size {size}: expected (height, width)")
    return Resize(*size)
