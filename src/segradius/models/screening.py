"""What a program from a file may ask for: read before it is loaded, as to load it is to let it run."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from segradius.core.border import in_a_line
from segradius.core.errors import InputError

#: Operators of TorchScript that reach files, and classes that are more than tensors and code.
FILES = re.compile(r"\b(save|from_file|read_file|write_file|video_reader)\b|__torch__\.torch\.classes\.")
#: An attribute by name, as TorchScript writes it; a name in several pieces, or with escapes, would be read by nobody.
NAMED = re.compile(r'\bgetattr\((?:(?!getattr)[\w.()\[\] ])+, "[^"\\\n]*"\)')
RECORDS = re.compile(
    r"(data/(weights|constants|sample_inputs)|models|extra|\.data)/.*|archive_(format|version)|byteorder"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file|save|load)\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|map_impl|scan)"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|lshift|rshift)"
    r"|torch\._?sym_\w+|math\.[a-z]\w*"
)
#: What expressions of sizes are made of, beside `torch.utils._sympy.functions`.
SYMPY = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Abs|Eq|Ne|Equality|Unequality|StrictLessThan|LessThan|And|Or"
    r"|StrictGreaterThan|GreaterThan|Not|floor|ceiling|oo|int_oo|true|false|positive|integer|nonnegative|real"
)
SYMBOL = re.compile(r"[a-z]{1,3}\d+")
#: What a string may be in a call of these.
PLAIN = {"Symbol": re.compile(r"\w{1,32}"), "Float": re.compile(r"-?\d{1,32}(\.\d{0,32})?(e[+-]?\d{1,3})?")}
#: What guards, which compare sizes of inputs, are made of beside those.
GUARDS = re.compile(
    r"L|torch|math|size|stride|storage_offset|dtype|device|shape|_?sym_\w+|floor|ceil|trunc|sqrt|pow|log2?|isnan|inf"
    r"|min|max|abs|int|float|bool|round"
)
SPECS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
PARTS = (ast.Expression, ast.Call, ast.keyword, ast.Load, ast.Constant)
SIGNS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
ADVICE = "nothing of it was run"


def check_script(path: Path) -> None:
    """Refuse a TorchScript archive whose code names an operator that reaches files; nothing in it is run.

    Raises:
        InputError: It does, or it cannot be read.
    """
    reader = _reader(path)
    for name in reader.get_all_records():
        if name.startswith("code/") and name.endswith(".py"):
            found = _to_files(reader.get_record(name).decode("utf-8", "replace"))
            if found:
                raise InputError(
                    f"{str(path)!r} is refused: its code names {found!r}, by which a program reaches files; {ADVICE}"
                )


def _to_files(code: str) -> str:
    """What in a code of TorchScript reaches files, or may by a name that is not written out; empty where nothing does.

    Example:
        >>> _to_files('torch.save(x, "y")'), _to_files('getattr(torch, "sa" "ve")(x, "y")')
        ('save', 'getattr')
        >>> _to_files('_0 = (getattr(getattr(self, "0"), "1")).forward(x, )')
        ''
    """
    if found := FILES.search(code):
        return found[0]
    before = None
    while before != code:
        before, code = code, NAMED.sub("_", code)
    return "getattr" if re.search(r"\bgetattr\b", code) else ""


def check_exported(path: Path) -> None:
    """Refuse an archive of ``torch.export`` that holds more than tensors and PyTorch's own operators.

    Pickles in it must be readable with ``weights_only``; names, sizes and guards, of which PyTorch makes code when it
    loads the archive, must be plain names and arithmetic.

    Raises:
        InputError: It holds something else, which the message names; or it cannot be read.
    """
    try:
        _check_exported(path)
    except (RuntimeError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is no readable program of torch.export: {in_a_line(error)}") from error


def _check_exported(path: Path) -> None:
    reader = _reader(path)
    names = reader.get_all_records()
    for name in names:
        if "aotinductor" in name or name.endswith((".so", ".cubin")):
            raise InputError(
                f"{str(path)!r} holds compiled code ({name}), which has no gradients: give a program that "
                "torch.export.save has written"
            )
        if not RECORDS.fullmatch(name):
            raise _refused(path, f"{name!r} beside the program")
    for name in names:
        content = reader.get_record(name)
        if name.endswith(".pt") and content:
            _check_pickle(path, name, content)
        elif name.endswith("_config.json"):
            _check_payloads(path, reader, name, json.loads(content))
        elif name.startswith("models/"):
            _check_program(path, json.loads(content))


def _reader(path: Path) -> Any:
    try:
        return torch._C.PyTorchFileReader(str(path))  # PyTorch's own, as two readers of ZIP may see two archives
    except RuntimeError as error:
        raise InputError(f"{str(path)!r} cannot be read (truncated or corrupt): {in_a_line(error)}") from error


def _refused(path: Path, what: str) -> InputError:
    return InputError(f"{str(path)!r} is refused: it holds {what}, which may run code; {ADVICE}")


def _check_pickle(path: Path, name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise _refused(path, f"Python objects in {name} ({found[1] if found else in_a_line(error)})") from error


def _check_payloads(path: Path, reader: Any, name: str, config: Mapping[str, Any]) -> None:
    for key, payload in config["config"].items():
        place = f"{name.rpartition('/')[0]}/{payload['path_name']}"
        if not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise _refused(path, f"{key!r}, an object that is no tensor")
        if payload.get("use_pickle"):
            _check_pickle(path, place, reader.get_record(place))


def _check_program(path: Path, program: Mapping[str, Any]) -> None:
    for key, value in _entries(program):
        if key in ("target", "as_operator") and isinstance(value, str) and not OPERATORS.fullmatch(value):
            raise InputError(
                f"{str(path)!r} is refused: it calls {value[:80]!r}; only operators of PyTorch and torchvision that "
                f"compute are run; {ADVICE}"
            )
        if key == "expr_str" and not _is_size(value):
            raise _refused(path, f"{value[:80]!r} for a size")
        if key == "range_constraints" and not all(map(_is_size, value)):
            raise _refused(path, "a size that is no arithmetic")
        if key == "guards_code" and not all(map(_is_guard, value)):
            raise _refused(path, "a guard that is no comparison of sizes")
        if key == "custom_obj_values" and value:
            raise _refused(path, f"{next(iter(value))!r}, an object that is no tensor")
        if key in ("name", "fqn") and isinstance(value, str) and not re.fullmatch(r"[\w.\-]*", value):
            raise _refused(path, f"the name {value[:80]!r}")
        if key == "forward_arg_names" and not all(map(str.isidentifier, value or ())):
            raise _refused(path, f"the names {value!r}")
        if key in ("in_spec", "out_spec") and value:
            _check_spec(path, json.loads(value)[1], plain=key == "in_spec")


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of mappings, however deep; what is only told of a node (traces, names of modules) is left out."""
    waiting = [content]
    while waiting:
        found = waiting.pop()
        if isinstance(found, Mapping):
            yield from found.items()
            waiting += [value for key, value in found.items() if key != "metadata"]
        elif isinstance(found, list):
            waiting += found


def _check_spec(path: Path, spec: Mapping[str, Any], *, plain: bool) -> None:
    if spec["type"] not in SPECS:
        raise InputError(
            f"{str(path)!r} gives or takes a {spec['type']}; export a network that gives tensors, or tuples, lists and "
            "dicts of them"
        )
    keys = json.loads(spec["context"]) if spec["context"] else None
    if plain and not all(isinstance(key, str) and key.isidentifier() for key in keys or ()):
        raise _refused(path, f"the names {keys!r}")
    for child in spec["children_spec"]:
        _check_spec(path, child, plain=plain)


def _is_size(text: str) -> bool:
    """Whether an expression of a size is arithmetic of symbols and numbers.

    Example:
        >>> _is_size("Mul(Integer(8), Symbol('s39', positive=True))"), _is_size("__import__('os').system('ls')")
        (True, False)
    """
    tree = _tree(text)
    return tree is not None and all(_of_size(node) for node in ast.walk(tree)) and _strings_are_plain(tree)


def _of_size(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return _is_function(node.id) or SYMBOL.fullmatch(node.id) is not None
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    return isinstance(node, (*PARTS, *SIGNS))


def _strings_are_plain(tree: ast.AST) -> bool:
    """Whether each string is the name in ``Symbol('s0')`` or the number in ``Float('0.5')``: sympy runs others."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 1]
    kinds = {id(node.args[0]): PLAIN.get(getattr(node.func, "id", "")) for node in calls}
    strings = [
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    ]
    return all((kind := kinds.get(id(node))) and kind.fullmatch(str(node.value)) for node in strings)


def _is_guard(text: str) -> bool:
    """Whether a guard compares sizes of inputs.

    Example:
        >>> _is_guard("L['x'].size()[2] % 8 == 0"), _is_guard("L.__class__")
        (True, False)
        >>> _is_guard("torch.sym_max(1, L['x'].size()[3] // 4) > 1"), _is_guard("torch.load('x') is None")
        (True, False)
    """
    tree = _tree(text)
    return tree is not None and all(_of_guard(node) for node in ast.walk(tree))


def _of_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return _is_function(node.id) or GUARDS.fullmatch(node.id) is not None
    if isinstance(node, ast.Attribute):
        return GUARDS.fullmatch(node.attr) is not None
    return isinstance(node, (*PARTS, *SIGNS, ast.Subscript))


def _tree(text: Any) -> ast.AST | None:
    if not isinstance(text, str) or len(text) > 10_000:
        return None
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        return None


def _is_function(name: str) -> bool:
    from torch.utils._sympy import functions

    known = name[:1].isupper() and isinstance(getattr(functions, name, None), type)
    return known or SYMPY.fullmatch(name) is not None
