"""What a network is made of beside its parameters: the code of a Python object, a card, a configuration."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path

from segradius.core.digests import file_digest
from segradius.core.text import Spec, parse_spec
from segradius.models.loading import is_card, read_card
from segradius.models.sources import MODELS, SOURCES, working_folder

#: Each by a name that stays when folders are moved: where it is, and a digest of what counts in it.
Files = Mapping[str, tuple[Path, str]]
IMPORTERS = ("import_module", "__import__")
#: Endings of files that code may take numbers from: a text in it that names one beside it counts as read.
ARRAYS = (".npy", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".pkl", ".mat", ".h5", ".onnx")
DATA = (*ARRAYS, ".json", ".yaml", ".yml", ".toml")


def files_of(spec: str) -> Files:
    """The files that decide what the network of a model text computes, beside those of its parameters.

    Of ``package.module:OBJECT`` the module, what it imports from the same folder, however deep, and data beside it that
    it names; of a card the card, save what is for people, and the files of its network; of a library's folder its
    configuration. What belongs to segradius or to an installed library is not among them.

    Args:
        spec: As `segradius.models.load_model` takes it.

    Example:
        >>> files_of("demo")
        {}
    """
    if not is_card(spec):
        return _of_network(parse_spec(spec))
    card = read_card(spec)
    told = (card.model, dict(card.arguments), card.normalisation, card.size, card.outputs, card.inference, card.classes)
    own = {Path(spec).name: (Path(spec), text_digest(repr(told)))}
    parsed = parse_spec(card.model)
    return {**_of_network(Spec(parsed.source, parsed.name, parsed.arguments | dict(card.arguments))), **own}


def text_digest(text: str) -> str:
    """A short text that changes with another, longer one."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digested(files: Mapping[str, Path]) -> Files:
    """Files with the digests of their content."""
    return {name: (path, file_digest(path)) for name, path in files.items()}


def changed_files(now: Files, before: Mapping[str, str] | None) -> list[str]:
    """What is not as it was, in words.

    Args:
        now: The files.
        before: Their digests by name then; None where nothing was noted.
    """
    if before is None:
        return []
    gone = [f"{name} is no longer part of the model" for name in before if name not in now]
    new = [f"{path} is new in the model" for name, (path, _) in now.items() if name not in before]
    both = [(path, digest, before[name]) for name, (path, digest) in now.items() if name in before]
    return [f"{path} changed" for path, digest, old in both if digest != old] + gone + new


def digests(files: Files) -> dict[str, str]:
    """Digests by name, which `changed_files` compares."""
    return {name: digest for name, (_, digest) in files.items()}


def _of_network(spec: Spec) -> Files:
    if spec.source in SOURCES:
        listed = SOURCES.facts(spec.source).get("files")
        return digested({}) if listed is None else digested(listed(spec.name, spec.arguments))
    if spec.source:
        return digested(module_files(spec.source))
    return digested(source_files(MODELS[spec.name]))


def source_files(made: object) -> dict[str, Path]:
    """As `module_files`, of the module that a function or class is from; nothing of segradius's own.

    Example:
        >>> source_files(files_of)
        {}
    """
    module = getattr(made, "__module__", None) or "segradius"
    return {} if module.partition(".")[0] == "segradius" else module_files(module)


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
