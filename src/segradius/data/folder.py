"""Any folder of images and masks, described by a short YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from segradius.core.errors import InputError, is_whole, must
from segradius.core.label_sets import set_names
from segradius.core.safe_yaml import read_yaml
from segradius.core.text import refuse_unknown
from segradius.data.files import Pair, PairedFiles, paired, sliced, sub_folders
from segradius.data.listing import ANY_SUFFIXES, LeftOut, expanded, list_files
from segradius.data.masks import MaskKey
from segradius.data.reading import KEYS, Reading, Slices, reading_of
from segradius.data.sample import DATA, RGB, Classes, voc_palette
from segradius.data.structures import MaskBands, checked, files_by_structure, yes_no

YAML_NAME = "segradius.yaml"
_EXAMPLE = "classes: [background, tissue]"


@dataclass(frozen=True)
class FolderSpec:
    """What ``segradius.yaml`` says about a folder.

    Args:
        classes: Names of the classes, in label order.
        images: Folder or glob pattern of the images, relative to the YAML; may hold ``{split}``.
        masks: The same of the masks; one of each structure, where structures may overlap.
        palette: A colour a class: for pictures, and to read masks in colour.
        values: Pairs (mask value, label), of which several may have one label; by default 0, 1, 2 … are the classes.
        ignore_index: Mask value, or values, of pixels without a class; 255 where none is given.
        ignore_color: The same for masks in colour.
        read: Whether masks are read by their ``numbers`` or their ``colours`` where they have both and disagree.
        lossy_masks: ``nearest`` reads masks with lossy compression by the nearest colour of the palette.
        exif: Whether masks were made for images as they are ``shown``, or as they are ``stored``.
        structures: Names of what may overlap, each with a yes/no mask; the classes are the sets of them.
        missing: ``empty``: a structure without a mask file is nowhere in the image; refused by default.
        bands: Input channels of an image: 1 for grey, 3 for colour, or as many as the files have; RGB by default.
        range: The numbers that become 0 and 1, ``[low, high]``, or ``dtype``; needed beyond 8 bits a channel.
        clip: Whether numbers outside the range become its nearest end; refused by default.
        slices: Of stacks and volumes, each a sample: a mapping with ``axis`` and ``every``; refused by default.
        array: Which array of an .npz is the image, and the mask: one name, or a mapping of ``images`` and ``masks``.
        layout: Whether bands are the last axis of an array (``hwc``) or the first (``chw``).
    """

    classes: tuple[str, ...]
    images: str | None = None
    masks: str | tuple[tuple[str, str], ...] | None = None
    palette: tuple[RGB, ...] | None = None
    values: tuple[tuple[int, int], ...] | None = None
    ignore_index: tuple[int, ...] | None = None
    ignore_color: RGB | None = None
    read: Literal["numbers", "colours"] | None = None
    lossy_masks: Literal["nearest"] | None = None
    exif: Literal["shown", "stored"] | None = None
    structures: tuple[str, ...] = ()
    missing: Literal["empty"] | None = None
    bands: int | None = None
    range: tuple[float, float] | Literal["dtype"] | None = None
    clip: bool = False
    slices: Slices | None = None
    array: tuple[str | None, str | None] = (None, None)
    layout: Literal["hwc", "chw"] | None = None

    @property
    def reading(self) -> Reading:
        """How image files are read."""
        return Reading(self.bands, self.range, self.clip, self.slices, *self.array, self.layout)


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
    images = list_files(base, _pattern("images", spec.images, split, base), ANY_SUFFIXES)
    if isinstance(spec.masks, tuple):
        found = {
            structure: list_files(base, _pattern("masks", pattern, split, base), ANY_SUFFIXES, once=False)
            for structure, pattern in spec.masks
        }
        pairs, left_out = files_by_structure(f"folder {name}", images, found, empty=spec.missing == "empty")
        return described(name, spec, pairs, file, left_out)
    masks = list_files(base, _pattern("masks", spec.masks, split, base), ANY_SUFFIXES, once=False)
    pairs, left_out = paired(f"folder {name}", images, masks)
    if spec.structures:
        if spec.slices is not None:
            raise InputError(f"{file}: slices: expected masks of each structure, as masks/{{structure}}")
        pairs = tuple(replace(pair, mask=MaskBands(spec.structures, cast(Path, pair.mask))) for pair in pairs)
    return described(name, spec, pairs, file, left_out)


def read_spec(file: Path) -> FolderSpec:
    """Read and check a ``segradius.yaml``.

    Raises:
        InputError: It is no YAML mapping, has an unknown key, lacks ``classes``, or a value is not as expected.
    """
    given = read_yaml(file)
    if not isinstance(given, dict) or not {"classes", "structures"} & set(given):
        raise InputError(f"{file}: the key 'classes' is needed, for instance\n{_EXAMPLE}")
    refuse_unknown(f"key in {file.name}", map(str, given), [field.name for field in fields(FolderSpec)])
    return spec_of(given, str(file))


def spec_of(given: Mapping[str, Any], where: str) -> FolderSpec:
    """A checked `FolderSpec` from keys and values.

    Args:
        given: As a YAML holds them.
        where: They are from, for error messages.

    Raises:
        InputError: A value is not as expected.

    Example:
        >>> spec_of({"classes": ["background", "cell"], "values": [0, 255]}, "here").values
        ((0, 0), (255, 1))
    """
    try:
        return _checked(given)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def described(
    name: str,
    spec: FolderSpec,
    pairs: tuple[Pair, ...],
    told_by: Path | None = None,
    left_out: tuple[LeftOut, ...] = (),
) -> PairedFiles:
    """Pairs of files with what a `FolderSpec` says of them.

    Args:
        name: Of the data set, and split.
        spec: What images and masks are; where they lie counts no more.
        pairs: The files.
        told_by: The file that the spec is from.
        left_out: What is not used.
    """
    classes, key = meaning(spec)
    if spec.slices is not None:
        pairs = sliced(pairs, spec.reading)
    return PairedFiles(name, classes, key, pairs, told_by, left_out, spec.exif, spec.reading)


def meaning(spec: FolderSpec) -> tuple[Classes, MaskKey]:
    """Classes and mask key of a folder; pixels without a class get 255, or 65535 if there are over 255 classes."""
    count = len(spec.classes)
    ignore = 255 if count <= 255 else 65535
    if spec.structures:
        pair = None if spec.values is None else [value for value, _ in spec.values]
        known = Classes(spec.classes, voc_palette(count), ignore, spec.structures)
        return known, yes_no(pair, spec.ignore_index, ignore)
    values = spec.values or tuple((label, label) for label in range(count))
    # A 256th class may sit on 255, which is void only by custom.
    assumed = 255 if spec.ignore_index is None and 255 not in dict(values) else None
    void = spec.ignore_index or (() if assumed is None else (assumed,))
    colours = tuple(zip(spec.palette or (), range(count), strict=False))
    if colours and spec.ignore_color:
        colours += ((spec.ignore_color, ignore),)
    numbers = (*values, *((v, ignore) for v in void))
    nearest = spec.lossy_masks == "nearest"
    key = MaskKey(numbers, colours, ignore, assumed, spec.read, nearest, spec.classes)
    return Classes(spec.classes, spec.palette or voc_palette(count), ignore), key


def _yaml_file(path: str) -> Path:
    if not path:
        raise InputError("the data set 'folder' needs the folder it lies in: folder:PATH")
    place = expanded(path)
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
        raise InputError(
            f"{kind}: {given} has no {{split}}, so the split {split!r} means nothing: write {{split}} into it, where "
            "the parts are folders, or list the pairs in a CSV with a column split (list:FILE.csv)"
        )
    return given.replace("{split}", split or "")


def _checked(given: Mapping[str, Any]) -> FolderSpec:
    structures: tuple[str, ...] = ()
    if given.get("structures") is not None:
        structures, masks = checked(given)
        given = {**given, "classes": list(set_names(structures))} | ({} if masks is None else {"masks": masks})
    classes = _texts(given.get("classes"))
    palette = None if given.get("palette") is None else tuple(_colour("palette", c) for c in _list(given, "palette"))
    # What is to be known of them is known by `yes_no`.
    values = _yes_no(given) if structures else _values(given, classes)
    if palette is not None:
        _one_each("palette", palette, classes)
    ignored = given.get("ignore_index")
    if ignored is not None:
        ignored = tuple(_whole("ignore_index", v) for v in (ignored if isinstance(ignored, list) else [ignored]))
        clash = set(ignored) & set(dict(values) if values else range(len(classes)))
        if clash and not structures:
            raise InputError(f"ignore_index: {min(clash)} is the mask value of a class")
    colour = None if given.get("ignore_color") is None else _colour("ignore_color", given["ignore_color"])
    if colour is not None and colour in (palette or ()):
        raise InputError(f"ignore_color: {colour} is the colour of a class")
    for key in ("images", "masks"):
        if not isinstance(given.get(key, ""), str | tuple):
            raise InputError(f"{key}: {given[key]!r}; expected a folder or a pattern")
    words = _words(given) | {"structures": structures} | _image_keys(given)
    spec = FolderSpec(classes, given.get("images"), given.get("masks"), palette, values, ignored, colour, **words)
    meaning(spec)
    return spec


def _image_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    found = reading_of(given)
    return {key: getattr(found, key) for key in KEYS} | {"array": (found.array, found.mask_array)}


def _yes_no(given: Mapping[str, Any]) -> tuple[tuple[int, int], ...] | None:
    return None if given.get("values") is None else yes_no(given["values"], None, 65535).values


def _words(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have one of a few words."""
    if given.get("missing") is not None and not given.get("structures"):
        raise InputError("missing: it means nothing without structures")
    choices = {"read": ("numbers", "colours"), "lossy_masks": ("nearest",), "exif": ("shown", "stored")}
    choices |= {"missing": ("empty",)}
    for key, words in choices.items():
        if given.get(key) is not None:
            must(given[key] in words, key, given[key], " or ".join(words))
    return {key: given.get(key) for key in choices}


def _values(given: Mapping[str, Any], classes: tuple[str, ...]) -> tuple[tuple[int, int], ...] | None:
    """Pairs (mask value, label), from a value a class, or from a class a value."""
    found = given.get("values")
    if found is None:
        return None
    if isinstance(found, list):
        numbers = tuple(_whole("values", value) for value in found)
        _one_each("values", numbers, classes)
        return tuple(zip(numbers, range(len(classes)), strict=True))
    if not isinstance(found, dict):
        raise InputError(f"values: {found!r}; expected a list, or a mapping from each mask value to its class")
    refuse_unknown("class in values", map(str, found.values()), classes)
    lacking = [name for name in classes if name not in map(str, found.values())]
    if lacking:
        raise InputError(f"values: the class {lacking[0]!r} has no mask value")
    return tuple((_whole("values", value), classes.index(str(name))) for value, name in found.items())


def _one_each(key: str, items: tuple[Any, ...], classes: tuple[str, ...]) -> None:
    if len(items) != len(classes):
        raise InputError(f"{key}: {len(items)} given for {len(classes)} classes")
    if len(set(items)) != len(items):
        raise InputError(f"{key}: two classes have the same")


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
