"""A data set that Python code makes: a torch `Dataset`, a list of pairs, or a data set of this library, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from segradius.core.border import in_a_line
from segradius.core.digests import Parts, file_digest
from segradius.core.errors import InputError, is_whole, must
from segradius.core.modules import construct, imported, module_files, object_in, working_folder
from segradius.core.text import parse_options
from segradius.data.listing import LeftOut
from segradius.data.marks import meaning_of, parts_of
from segradius.data.pairs import as_data
from segradius.data.sample import DATA, Classes, Sample, SegmentationData, is_thread_safe
from segradius.data.spelled import refuse_controls

#: Options that are not handed to the code.
OWN = ("classes", "structures", "ignore_index")
_NAMED = "write ,classes=[…] behind it, or give it an attribute classes, a list of names"


@dataclass(frozen=True)
class Made:
    """A data set made by a module of the user's.

    Args:
        source: What was made.
        module: The module's name.
        name: Of the whole.
    """

    source: SegmentationData
    module: str
    name: str

    @property
    def classes(self) -> Classes:
        """As of the data set."""
        return self.source.classes

    @property
    def ids(self) -> Sequence[str]:
        """As of the data set."""
        return self.source.ids

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]

    def parts(self, index: int) -> Parts:
        """As the data set says, or its tensors."""
        return parts_of(self.source, index)

    @property
    def thread_safe(self) -> bool:
        """As the data set says, which is the user's."""
        return is_thread_safe(self.source)

    @property
    def meaning(self) -> dict[str, Any]:
        """As of the data set, and digests of the module's file and of those that it imports from the same folder."""
        return meaning_of(self.source) | {"code": {name: file_digest(file) for name, file in self._files().items()}}

    @property
    def told_by(self) -> Path | None:
        """The file of the module, of what has one."""
        return next(iter(self._files().values()), None)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """As the data set says."""
        return tuple(getattr(self.source, "left_out", ()))

    def _files(self) -> dict[str, Path]:
        return module_files(self.module)

    def __reduce__(self) -> tuple[Any, ...]:
        # The module comes first: a process that begins anew does not look into the working folder for its classes.
        return _again, (_Module(self.module), self.source, self.name)


class _Module(str):
    """A module's name, which is imported where it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (str(self),)


def _arrived(module: str) -> str:
    with working_folder():
        imported(module, "data module", ())
    return module


def _again(module: str, source: SegmentationData, name: str) -> Made:
    return Made(source, module, name)


@DATA.register("python")
def python(path: str, split: str | None = None) -> Made:
    """A torch Dataset, or what makes one: python:package.module:OBJECT,key=value. Runs that code: trust it.

    Args:
        path: Module and object; arguments of a class or function after commas, and ``classes=[…]``,
            ``structures=[…]`` and ``ignore_index=…``, which say what masks mean and are not handed to it.
        split: The argument ``split`` of the class or function.

    Raises:
        InputError: There is no such object, it cannot be made, is no data set, or does not name its classes.
    """
    refuse_controls("python", path)
    head, given = parse_options(path, f"python:{path}")
    module, _, name = head.partition(":")
    if not module or not name:
        raise InputError(f"python:{path}; expected python:package.module:OBJECT")
    own = {key: given.pop(key) for key in OWN if key in given}
    thing = _made(module, name, given | ({} if split is None else {"split": split}))
    label = f"python:{module}:{name}"
    title = f"{module}:{name}" + (f"/{split}" if split else "")
    if hasattr(thing, "ids") and isinstance(getattr(thing, "classes", None), Classes):
        if own:
            raise InputError(f"{label} says itself what its masks mean; expected no {', '.join(own)}")
        return Made(as_data(thing, 0), module, title)
    names, structures = _names(own.get("classes"), "classes"), _names(own.get("structures"), "structures")
    if names is None and structures is None:
        names = _names(getattr(thing, "classes", None), f"the attribute classes of {label}")
        if names is None:
            raise InputError(f"{label} does not name its classes: {_NAMED}")
    void = own.get("ignore_index")
    must(void is None or is_whole(void), "ignore_index", void, "a whole number of 0 or more")
    try:
        source = as_data(thing, len(names or ()), names=names, structures=structures or (), ignore_index=void)
        return Made(source, module, title)
    except InputError as error:
        raise InputError(f"{label}: {error}") from error
    except Exception as error:  # whatever its own len() raises
        raise InputError(f"{label} cannot be used: {in_a_line(error)}") from error


def _made(module: str, name: str, arguments: dict[str, Any]) -> Any:
    """The object itself where it is a data set already, else what it makes of the arguments."""
    label = f"python:{module}:{name}"
    with working_folder():
        try:
            thing = object_in(imported(module, "data module", ()), name)
        except InputError:
            raise
        except Exception as error:  # whatever the module's own code raises
            raise InputError(f"{module} cannot be imported: {in_a_line(error)}") from error
        ready = isinstance(thing, Dataset | list | tuple) or (hasattr(thing, "ids") and not isinstance(thing, type))
        if not ready:
            thing = construct(label, thing, arguments, "a data set")
        elif arguments:
            raise InputError(f"{label} is a data set already; it takes no arguments ({', '.join(arguments)})")
    return thing


def _names(given: Any, what: str) -> list[str] | None:
    if given is None:
        return None
    good = isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) for name in given)
    must(good, what, given, "a list of names (YAML reads yes, no and numbers as values: quote them)")
    return list(given)
