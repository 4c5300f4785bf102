"""Any folder of images and masks, described by a short YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

from segradius.core.errors import InputError, is_whole
from segradius.core.safe_yaml import read_yaml
from segradius.core.text import refuse_unknown
from segradius.data.files import MaskKey, PairedFiles, list_files, paired, sub_folders
from segradius.data.sample import DATA, RGB, Classes, voc_palette

YAML_NAME = "segradius.yaml"
_EXAMPLE = "classes: [background, tissue]"


@dataclass(frozen=True)
class FolderSpec:
    """What ``segradius.yaml`` says about a folder.

    Args:
        classes: Names of the classes, in label order.
        images: Folder or glob pattern of the images, relative to the YAML; may hold ``{split}``.
        masks: The same of the masks.
        palette: A colour a class: for pictures, and to read RGB and JPEG masks.
        values: The mask value of each class; 0, 1, 2 … by default.
        ignore_index: Mask value, or values, of pixels without a class.
        ignore_color: The same for RGB masks.
    """

    classes: tuple[str, ...]
    images: str | None = None
    masks: str | None = None
    palette: tuple[RGB, ...] | None = None
    values: tuple[int, ...] | None = None
    ignore_index: tuple[int, ...] = (255,)
    ignore_color: RGB | None = None


@DATA.register("folder")
def folder(path: str, split: str | None = None) -> PairedFiles:
    """Any folder of images and masks with a segradius.yaml that names its classes.

    Args:
        path: A folder with ``segradius.yaml``, or such a YAML file.
        split: What ``{split}`` in the YAML's patterns stands for; without patterns, a sub-folder of ``images``
            and ``masks``.

    Raises:
        InputError: There is no such file, a key or value in it is wrong, or an image has no mask.
    """
    file = _yaml_file(path)
    spec = read_spec(file)
    base, name = file.parent, file.resolve().parent.name + (f"/{split}" if split else "")
    images, masks = (
        list_files(base, _pattern(kind, given, split, base))
        for kind, given in (("images", spec.images), ("masks", spec.masks))
    )
    classes, key = meaning(spec)
    return PairedFiles(name, classes, key, paired(f"folder {name}", images, masks), file)


def read_spec(file: Path) -> FolderSpec:
    """Read and check a ``segradius.yaml``.

    Raises:
        InputError: It is no YAML mapping, has an unknown key, lacks ``classes``, or a value is not as expected.
    """
    given = read_yaml(file)
    if not isinstance(given, dict) or "classes" not in given:
        raise InputError(f"{file}: the key 'classes' is needed, for instance\n{_EXAMPLE}")
    refuse_unknown(f"key in {file.name}", map(str, given), [field.name for field in fields(FolderSpec)])
    try:
        return _checked(given)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def meaning(spec: FolderSpec) -> tuple[Classes, MaskKey]:
    """Classes and mask key of a folder; pixels without a class get 255, or 65535 if there are over 255 classes."""
    count = len(spec.classes)
    ignore = 255 if count <= 255 else 65535
    values = spec.values or tuple(range(count))
    # A 256th class may sit on 255, which is void only by default.
    void = tuple(v for v in spec.ignore_index if v not in values)
    colours = tuple(zip(spec.palette or (), range(count), strict=False))
    if colours and spec.ignore_color:
        colours += ((spec.ignore_color, ignore),)
    key = MaskKey((*zip(values, range(count), strict=True), *((v, ignore) for v in void)), colours, ignore)
    return Classes(spec.classes, spec.palette or voc_palette(count), ignore), key


def _yaml_file(path: str) -> Path:
    if not path:
        raise InputError("the data set 'folder' needs the folder it lies in: folder:PATH")
    place = Path(path).expanduser()
    if place.is_file():
        return place
    if not place.is_dir():
        raise InputError(f"folder: there is no folder {place}")
    if not (place / YAML_NAME).is_file():
        raise InputError(f"folder: {place} needs a file {YAML_NAME} that names the classes, for instance\n{_EXAMPLE}")
    return place / YAML_NAME


def _pattern(kind: str, given: str | None, split: str | None, base: Path) -> str:
    if given is None:
        return f"{kind}/{split}" if split else kind
    if "{split}" in given and split is None:
        above = base / given.partition("{split}")[0]
        found = ", ".join(sub_folders(above)) if above.is_dir() else "none"
        raise InputError(f"{kind}: {given} needs a split; sub-folders found: {found}")
    if "{split}" not in given and split is not None:
        raise InputError(f"{kind}: {given} has no {{split}}, so the split {split!r} means nothing")
    return given.replace("{split}", split or "")


def _checked(given: Mapping[str, Any]) -> FolderSpec:
    classes = _texts(given["classes"])
    palette = None if given.get("palette") is None else tuple(_colour("palette", c) for c in _list(given, "palette"))
    values = None if given.get("values") is None else tuple(_whole("values", v) for v in _list(given, "values"))
    for key, items in (("palette", palette), ("values", values)):
        if items is not None and len(items) != len(classes):
            raise InputError(f"{key}: {len(items)} given for {len(classes)} classes")
        if items is not None and len(set(items)) != len(items):
            raise InputError(f"{key}: two classes have the same")
    ignored = given.get("ignore_index", 255)
    ignored = tuple(_whole("ignore_index", v) for v in (ignored if isinstance(ignored, list) else [ignored]))
    clash = set(ignored) & set(values or range(len(classes)))
    if clash and "ignore_index" in given:
        raise InputError(f"ignore_index: {min(clash)} is the mask value of a class")
    colour = None if given.get("ignore_color") is None else _colour("ignore_color", given["ignore_color"])
    if colour is not None and colour in (palette or ()):
        raise InputError(f"ignore_color: {colour} is the colour of a class")
    for key in ("images", "masks"):
        if not isinstance(given.get(key, ""), str):
            raise InputError(f"{key}: {given[key]!r}; expected a folder or a pattern")
    return FolderSpec(classes, given.get("images"), given.get("masks"), palette, values, ignored, colour)


def _list(given: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(given[key], list):
        raise InputError(f"{key}: {given[key]!r}; expected a list")
    return cast("list[Any]", given[key])


def _texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise InputError(f"classes: {given!r}; expected a list of names")
    for name in given:
        if not isinstance(name, str):
            raise InputError(f"classes: {name!r} is not text (YAML reads yes, no and numbers as values: quote it)")
    return tuple(given)


def _whole(key: str, value: Any) -> int:
    if not is_whole(value) or value > 65535:
        raise InputError(f"{key}: {value!r}; expected a whole number in 0–65535")
    return value


def _colour(key: str, value: Any) -> RGB:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{key}: {value!r}; expected [red, green, blue]")
    red, green, blue = (_whole(key, channel) for channel in value)
    if max(red, green, blue) > 255:
        raise InputError(f"{key}: {value!r}; expected numbers in 0–255")
    return red, green, blue
