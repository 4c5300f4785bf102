"""What stands behind the colon of a data set that is a file: where it is, options, and keys of a segradius.yaml."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from segradius.core.errors import InputError, shown
from segradius.core.safe_yaml import read_yaml
from segradius.core.text import parse_options, refuse_unknown
from segradius.data.folder import YAML_NAME, FolderSpec
from segradius.data.listing import IMAGE_SUFFIXES, LeftOut, composed, expanded

SPLIT = "{split}"


@dataclass(frozen=True)
class Spelled:
    """A file or folder with what is said of it.

    Args:
        path: Of it.
        options: Those of this kind of data alone, by name.
        keys: Those that a segradius.yaml may have too, from there or from the options.
        told_by: The YAML, where there is one.
        split: What the text still does not say of a split.
    """

    path: Path
    options: dict[str, Any]
    keys: dict[str, Any]
    told_by: Path | None = None
    split: str | None = None


#: Keys of a folder's YAML that say where its files lie.
PLACES = ("images", "masks")


def spelled(kind: str, text: str, split: str | None, own: Collection[str], without: Collection[str]) -> Spelled:
    """The parts of ``PATH,key=value…``; ``{split}`` in a path stands for the split.

    Args:
        kind: Of the data set, for error messages.
        text: What stands behind the colon; a path may hold commas if it is all.
        split: That was asked for.
        own: Names of the options of this kind.
        without: Keys of a segradius.yaml that mean nothing here.

    Raises:
        InputError: There is no such file or folder, an option or key is unknown, or it is given twice.
    """
    if not text:
        raise InputError(f"the data set {kind!r} needs the file or folder it lies in: {kind}:PATH")
    refuse_controls(kind, text)
    whole = expanded(text)
    head, given = (text, {}) if _is_there(whole) else parse_options(text, f"{kind}:{text}")
    names = [field.name for field in fields(FolderSpec) if field.name not in without]
    refuse_unknown(f"option of {kind}", given, [*own, "about", *names])
    if SPLIT in text:
        if split is None:
            raise InputError(f"{kind}:{text} needs a split, which {SPLIT} in it stands for")
        head = head.replace(SPLIT, split)
        given = {key: value.replace(SPLIT, split) if isinstance(value, str) else value for key, value in given.items()}
    path = expanded(head)
    if not _is_there(path):
        raise InputError(f"{kind}: there is no file or folder {path}")
    options = {key: given[key] for key in own if key in given}
    keys = {key: given[key] for key in names if key in given}
    told_by = _told_by(path if path.is_dir() else path.parent, given.get("about"))
    if told_by is not None:
        # A folder's own YAML may say where its files lie, which a list says itself; in one that is named it is a slip.
        apart = () if "about" in given else [key for key in PLACES if key in without]
        keys = _joined(keys, told_by, names, kind, apart)
    return Spelled(path, options, keys, told_by, None if SPLIT in text else split)


def refuse_controls(kind: str, text: str) -> None:
    """Raise `InputError` where a text holds an end of a line or another character that is no part of a line."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InputError(f"{kind}:… is {shown(text)}; expected no control characters")


def beside(base: Path, given: str) -> Path:
    """A file or folder that is named from another file: below ``base``, or from the working folder.

    Raises:
        InputError: It is in neither, or each has another.
    """
    near, here = base / expanded(given), expanded(given)
    there = [place for place in (near, here) if _is_there(place)]
    if not there:
        raise InputError(f"there is no {given}, in {base} or in the working folder")
    if len(there) == 2 and near.resolve() != here.resolve():
        raise InputError(f"{given} is in {base} and in the working folder: write its whole path")
    return there[0]


def ids_of(names: Sequence[str]) -> list[str]:
    """Ids of images by their names in a list: without endings, or with them where two would be alike.

    A folder that all are in is left away where a name begins at the root of the disk, or leads upwards.

    Example:
        >>> ids_of(["../shots/a.png", "../shots/val/b.png"]), ids_of(["val/a.png", "val/a.jpg"])
        (['a', 'val/b'], ['val/a.png', 'val/a.jpg'])
    """
    paths = [PurePosixPath(name.strip().replace(chr(92), "/")) for name in names]
    if any(path.is_absolute() or ".." in path.parts for path in paths):
        folders = [path.parent.parts for path in paths]
        shared = next((n for n in range(len(folders[0]), 0, -1) if len({parts[:n] for parts in folders}) == 1), 0)
        paths = [PurePosixPath(*path.parts[shared:]) for path in paths]
    short = [path.with_suffix("").as_posix() for path in paths]
    unlike = len({composed(name) for name in short}) == len(short)
    return short if unlike else [path.as_posix() for path in paths]


def unlisted(used: Iterable[Path], reason: str) -> tuple[LeftOut, ...]:
    """Pictures in the folders of some files that are none of them.

    Args:
        used: The files.
        reason: Why others are left out.
    """
    known = set(used)
    folders = sorted({path.parent for path in known})
    found: list[LeftOut] = []
    for folder in folders:
        try:
            there = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            found.append(LeftOut(folder, f"folder that cannot be listed: {error.strerror}"))
            continue
        found += [LeftOut(path, reason) for path in there if path not in known]
    return tuple(found)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, say, or with a NUL
        return False


def _told_by(base: Path, about: Any) -> Path | None:
    if about is not None:
        if not isinstance(about, str):
            raise InputError(f"about is {about!r}; expected a YAML file")
        return beside(base, about)
    return base / YAML_NAME if (base / YAML_NAME).is_file() else None


def _joined(
    keys: dict[str, Any], file: Path, names: Collection[str], kind: str, apart: Collection[str]
) -> dict[str, Any]:
    told = read_yaml(file)
    if not isinstance(told, dict):
        raise InputError(f"{file}: expected a mapping of {', '.join(names)}")
    told = {key: value for key, value in told.items() if key not in apart}
    other = next((key for key in map(str, told) if key in {f.name for f in fields(FolderSpec)} - set(names)), None)
    if other is not None:
        raise InputError(f"{file}: the key {other!r} means nothing for {kind}: give another YAML with about=FILE")
    refuse_unknown(f"key in {file.name}", map(str, told), names)
    twice = sorted(set(keys) & set(told))
    if twice:
        raise InputError(f"{twice[0]} is given in the text of the data set and in {file}")
    return {**told, **keys}
