"""Python modules that a user names: importing them, what they make, and the files that decide what that is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

from segradius.core.errors import InputError, unknown_name

IMPORTERS = ("import_module", "__import__")
#: Endings of files that code may take numbers from: a text in it that names one beside it counts as read.
ARRAYS = (".npy", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pkl", ".mat", ".h5", ".onnx")
DATA = (*ARRAYS, ".json", ".yaml", ".yml", ".toml")


@contextmanager
def working_folder() -> Iterator[None]:
    """The context in which modules are looked for in the working folder too, after everything else."""
    here = str(Path.cwd())
    if here in sys.path:
        yield
        return
    sys.path.append(here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


def imported(module_name: str, kind: str, known: Iterable[str]) -> ModuleType:
    """A module by its name.

    Args:
        module_name: As ``package.module``.
        kind: What a name of no module was meant to be, for error messages.
        known: Other things that it could have been.

    Raises:
        InputError: There is none, or one that it imports is missing.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise InputError(f"{module_name} cannot be imported: {error}") from error
    raise unknown_name(kind, module_name, (*known, "an importable Python module"))


def object_in(module: ModuleType, name: str) -> Any:
    """What a module calls so; dots lead into it.

    Raises:
        InputError: There is nothing of the name.

    Example:
        >>> object_in(ast, "AST.__name__")
        'AST'
    """
    thing: Any = module
    for part in name.split("."):
        if not hasattr(thing, part):
            known = (key for key in dir(thing) if key[0] != "_")
            raise unknown_name(f"object in {module.__name__}", name, known)
        thing = getattr(thing, part)
    return thing


def construct(label: str, make: Any, arguments: Mapping[str, Any], what: str = "a network") -> Any:
    """``make(**arguments)``; raises `InputError` with the reason if it cannot be called so.

    Args:
        label: What is made, for error messages.
        make: A function or class.
        arguments: Its own.
        what: It is expected to make.
    """
    if not callable(make):
        raise InputError(f"{label} is a {type(make).__name__}; expected {what}, or a function that makes one")
    try:
        return make(**arguments)
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError, OSError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"cannot build {label} with ({shown}): {type(error).__name__}: {error}") from error


def module_files(name: str) -> dict[str, Path]:
    """The file of a module, and those of what it imports from the same folder, by their paths from there.

    Imports are read, not run: those inside functions count. Of an installed package only its own files do. A text that
    is the name of a data file beside the code counts too.

    Args:
        name: As ``package.module``; there is nothing of one without a file.

    Example:
        >>> sorted(module_files("json"))
        ['json/__init__.py', 'json/decoder.py', 'json/encoder.py', 'json/scanner.py']
    """
    file = _file(name)
    if file is None:
        return {}
    depth = name.count(".") + (file.stem == "__init__")
    root = file.parents[depth]
    paths = sysconfig.get_paths()
    installed = root in {Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    within = root / name.partition(".")[0] if installed else root
    found: dict[str, Path] = {}
    waiting = [file]
    while waiting:
        file = waiting.pop()
        label = file.relative_to(root).as_posix()
        if label not in found:
            found[label] = file
            tree = _tree(file)
            named = (module for names in _imports(tree, file, root) for module in _candidates(root, names))
            waiting += [module for module in named if module.is_file() and _inside(module, within)]
            found |= {f"{label}: {data.name}": data for data in _data(tree, file)}
    return found


def _file(name: str) -> Path | None:
    module = sys.modules.get(name)
    place = getattr(module, "__file__", None)
    if module is None:
        with working_folder():
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError):
                return None
        place = None if spec is None or not spec.has_location else spec.origin
    return None if place is None else Path(place).resolve()


def _inside(file: Path, within: Path) -> bool:
    return file.is_relative_to(within) or file.with_suffix("") == within


def _tree(file: Path) -> ast.AST:
    """What a file says; nothing where it is no source."""
    try:
        return ast.parse(file.read_bytes() if file.suffix in SOURCE_SUFFIXES else b"")
    except (OSError, SyntaxError, ValueError):
        return ast.parse("")


def _data(tree: ast.AST, file: Path) -> Iterator[Path]:
    """Data files beside a source, or in the working folder, that a text in it names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.lower().endswith(DATA):
            with suppress(OSError, ValueError):  # too long, or with a NUL
                yield from (place for folder in (file.parent, Path()) if (place := folder / node.value).is_file())


def _imports(tree: ast.AST, file: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """Dotted names that a file imports, as parts from the root; also those that may be values and not modules."""
    package = file.parent.relative_to(root).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = (*above, *(node.module or "").split(".")) if node.module else above
            yield from ((*base, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _is_importer(node.func):
            named = node.args[0]
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield tuple(named.value.split("."))


def _is_importer(function: ast.expr) -> bool:
    return getattr(function, "attr", getattr(function, "id", "")) in IMPORTERS


def _candidates(root: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """Files that importing a dotted name may run: of the packages on the way, and of the module."""
    for end in range(1, len(names) + 1):
        place = root.joinpath(*names[:end])
        for suffix in (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES):
            yield place / f"__init__{suffix}"
            yield place.parent / f"{place.name}{suffix}"
