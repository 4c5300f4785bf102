"""The files below a folder: each is listed under its key, or named as left out with the reason."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePath

from segradius.core.errors import InputError

_ENDINGS = "jpg jpeg jpe jfif png apng bmp tif tiff webp ppm pgm pbm pnm pfm gif"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings of the kinds that are read; what a file holds shows when it is opened."""
MASK_SUFFIXES = IMAGE_SUFFIXES | {".npy"}
ANY_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".npz", ".nii", ".nii.gz", ".dcm"}
"""With those of arrays and volumes, where a data set says how they are read."""
_AGAIN = "listed already, without a link"


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is no part of any sample, and why.

    Args:
        path: Of it.
        reason: In a few words, the same for all of a kind.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class Listed:
    """A file that is used, and the id that a sample has by it."""

    id: str
    path: Path


@dataclass(frozen=True)
class Listing:
    """Files by key, and those that were left out.

    Args:
        files: By key, which is the id in Unicode's composed form (NFC), in order.
        left_out: The others below the same folder.
    """

    files: Mapping[str, Listed]
    left_out: tuple[LeftOut, ...] = ()

    def renamed(self, rename: Callable[[str], str]) -> Listing:
        """The same files under other ids.

        Raises:
            InputError: Two files have one.
        """
        return Listing(_keyed((rename(listed.id), listed.path) for listed in self.files.values()), self.left_out)


def list_files(base: Path, pattern: str, suffixes: Collection[str] = IMAGE_SUFFIXES, *, once: bool = True) -> Listing:
    """Files that a glob ``pattern`` (or a folder) names under ``base``, by key and sorted by path.

    The id pairs an image with its mask: the path below the fixed part of the pattern, without ending, and without
    what surrounds a single ``*`` in the file name (``masks/*_gt.png`` gives ``masks/a_gt.png`` the id ``a``). Linked
    folders are followed. A part of the pattern that is a folder is one, even if it looks like a pattern.

    Args:
        base: A folder.
        pattern: Below it.
        suffixes: Endings of what is listed, in small letters.
        once: Whether a folder that is reached twice, by a link, is listed once.

    Raises:
        InputError: Two files have one key.
    """
    root, rest = _split(base, pattern)
    left_out: list[LeftOut] = []
    found: list[tuple[Path, bool]] = []
    for path, reason, linked in below(root):
        told = reason or _unfit(path, path.relative_to(root).parts, rest, suffixes, pattern)
        if told:
            left_out.append(LeftOut(path, told))
        else:
            found.append((path, linked))
    if once:
        found, again = _once(found)
        left_out += again
    stem = _stem(PurePath(rest[-1]))
    named = ((path, ending(path) not in suffixes) for path in sorted(path for path, _ in found))
    ids = ((_id(path.relative_to(root), stem, whole), path) for path, whole in named)
    return Listing(_keyed(ids), tuple(left_out))


def expanded(text: str) -> Path:
    """A path, of which ``~`` is the home folder; of a user who is none it stays.

    Example:
        >>> expanded("~nobody-of-this-name/a").name
        'a'
    """
    try:
        return Path(os.path.expanduser(text))  # noqa: PTH111  (pathlib raises for such a user)
    except ValueError:  # a NUL in the name
        return Path(text)


def located(base: Path, name: str) -> Path | None:
    """The file that a list names: as it is written, without blanks around, with the slashes of Windows.

    Each in whatever Unicode form.

    Example:
        >>> located(Path("nowhere"), "a.png")
    """
    for written in dict.fromkeys((name, name.strip(), name.strip().replace(chr(92), "/"))):
        if written and _is_file(base / written):
            return base / written
        if not written.isascii():
            place = base
            for part in PurePath(written).parts:
                place = place / _names(place, _time(place)).get(composed(part), part)
            if _is_file(place):
                return place
    return None


def composed(text: str) -> str:
    """A text in Unicode's composed form, in which names are compared: é is one character or two in a file's name.

    Example:
        >>> composed("e" + chr(0x301)) == chr(0xE9)
        True
    """
    return unicodedata.normalize("NFC", text)


def ending(path: PurePath) -> str:
    """The ending of a file's name in small letters, that of a compressed volume with both its parts.

    Example:
        >>> ending(PurePath("a.b/liver.NII.gz")), ending(PurePath("c.tar.gz"))
        ('.nii.gz', '.gz')
    """
    found = "".join(path.suffixes[-2:]).lower()
    return found if found == ".nii.gz" else path.suffix.lower()


def kind(path: Path) -> str:
    """The ending that says how a file is read: that of its name, or .dcm where that is no known one and it is DICOM."""
    found = ending(path)
    return ".dcm" if found not in ANY_SUFFIXES and _is_dicom(path) else found


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _stem(path: PurePath) -> str:
    return path.name[: len(path.name) - len(ending(path))]


def told(left_out: Sequence[LeftOut], shown: int = 3) -> str:
    """What was left out in a sentence, by reason, with the first names of each and the folders that they lie in.

    Example:
        >>> told([LeftOut(Path("a/.x.png"), "hidden"), LeftOut(Path("a/notes.txt"), "of another kind")])
        '2 files or folders left out: 1 hidden (a/.x.png); 1 of another kind (a/notes.txt)'
    """
    if not left_out:
        return "0 files left out"
    reasons: dict[str, list[str]] = {}
    for each in left_out:
        reasons.setdefault(each.reason, []).append("/".join(each.path.parts[-2:]))
    parts = (
        f"{len(names)} {reason} ({', '.join(names[:shown])}{', …' if len(names) > shown else ''})"
        for reason, names in reasons.items()
    )
    return f"{len(left_out)} files or folders left out: {'; '.join(parts)}"


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113  (pathlib raises for names that are too long or out of reach)


def _time(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


@lru_cache(maxsize=64)
def _names(folder: Path, changed: int) -> Mapping[str, str]:
    """What lies in a folder, by its composed name."""
    try:
        return {composed(inner.name): inner.name for inner in folder.iterdir()}
    except (OSError, ValueError):
        return {}


def _keyed(found: Iterable[tuple[str, Path]]) -> dict[str, Listed]:
    files: dict[str, Listed] = {}
    for name, path in found:
        key = composed(name)
        if key in files:
            raise InputError(f"{files[key].path} and {path} would both be the sample {key!r}")
        files[key] = Listed(name, path)
    return files


def _split(base: Path, pattern: str) -> tuple[Path, tuple[str, ...]]:
    """The folder that is searched, and what the paths below it must be like."""
    parts, root = PurePath(pattern).parts, base
    for at, part in enumerate(parts):
        inner = _child(root, part)
        if not inner.is_dir() and (at + 1 == len(parts) or re.search(r"[*?\[]", part)):
            return root, parts[at:]
        root = inner
    return root, ("**", "*")


def _child(folder: Path, name: str) -> Path:
    """What is called so in a folder, in whatever Unicode form."""
    if (folder / name).exists() or name.isascii() or not folder.is_dir():
        return folder / name
    alike = (inner for inner in folder.iterdir() if composed(inner.name) == composed(name))
    return next(alike, folder / name)


def below(root: Path) -> Iterator[tuple[Path, str, bool]]:
    """Every file below a folder, with the reason if it is none to use, and whether a linked folder led to it."""
    if not root.is_dir():
        return
    whole = root.resolve()
    waiting = [(root, frozenset(_mark(folder) for folder in (whole, *whole.parents)), False)]
    while waiting:
        folder, above, linked = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield folder, f"folder that cannot be listed: {error.strerror}", linked
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                yield path, "hidden", linked
            elif os.path.isdir(path):  # noqa: PTH112  (pathlib raises for a folder that may not be entered)
                if _mark(path) in above:
                    yield path, "link to a folder above it", linked
                else:
                    waiting.append((path, above | {_mark(path)}, linked or entry.is_symlink()))
            elif os.path.isfile(path):  # noqa: PTH113
                yield path, "", linked
            else:
                yield path, "link that leads nowhere" if entry.is_symlink() else "no regular file", linked


def _mark(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _once(found: list[tuple[Path, bool]]) -> tuple[list[tuple[Path, bool]], list[LeftOut]]:
    """Without the files that are reached a second time through a linked folder."""
    if not any(linked for _, linked in found):
        return found, []
    places: dict[tuple[str, str], list[tuple[bool, Path]]] = {}
    real = {folder: os.path.realpath(folder) for folder in {path.parent for path, _ in found}}
    for path, linked in found:
        places.setdefault((real[path.parent], path.name), []).append((linked, path))
    kept = [min(same) for same in places.values()]
    again = (path for same in places.values() for _, path in sorted(same)[1:])
    return [(path, linked) for linked, path in kept], [LeftOut(path, _AGAIN) for path in again]


def _unfit(path: Path, parts: Sequence[str], rest: Sequence[str], suffixes: Collection[str], pattern: str) -> str:
    """Why a file is not listed; nothing where it is."""
    if ending(path) not in suffixes and not (".dcm" in suffixes and kind(path) == ".dcm"):
        return "of a kind that is not read"
    return "" if _matches(tuple(parts), tuple(rest)) else f"not named like {pattern}"


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[at:], pattern[1:]) for at in range(len(parts) + 1))
    return bool(parts) and _alike(parts[0], pattern[0], last=len(parts) == 1) and _matches(parts[1:], pattern[1:])


def _alike(name: str, pattern: str, *, last: bool) -> bool:
    """Whether a name is like a pattern, of which brackets may also be meant as such, and the ending is in any case."""
    name, pattern = composed(name), composed(pattern)
    if last:
        name, pattern = _small_ending(name), _small_ending(pattern)
    return fnmatchcase(name, pattern) or fnmatchcase(name, pattern.replace("[", "[[]"))


def _small_ending(name: str) -> str:
    last = ending(PurePath(name)) if "." in name else ""
    return f"{name[: len(name) - len(last)]}{last}"


def _id(path: Path, pattern: str, whole: bool) -> str:
    return (path.parent / _core(path.name if whole else _stem(path), pattern)).as_posix()


def _core(stem: str, pattern: str) -> str:
    """What ``*`` stands for in a name without its ending."""
    if pattern.count("*") != 1:
        return stem
    before, after = pattern.split("*")
    whole = stem.startswith(before) and stem.endswith(after) and len(stem) >= len(before) + len(after)
    if re.search(r"[?\[]", pattern) and not whole:
        return stem
    return stem.removeprefix(before).removesuffix(after)
