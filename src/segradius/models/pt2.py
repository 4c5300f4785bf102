"""Programs that ``torch.export.save`` has written: the way that PyTorch recommends for a network without its code."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from segradius.core.border import in_a_line
from segradius.core.errors import InputError
from segradius.core.text import refuse_unknown
from segradius.models.file_kinds import EXPORTED
from segradius.models.preprocessing import SizeRule
from segradius.models.program import ARGUMENTS, Program, batch_of, program_file, size_of, weights_of
from segradius.models.screening import check_exported
from segradius.models.sources import SOURCES, Origin

#: Operators that behave otherwise in training: the name of their argument, and that of the statistics without which a
#: batch norm takes those of the batch in any mode.
FLAGS = {"batch_norm": ("training", "running_mean"), "native_batch_norm": ("training", "running_mean"),
         "_native_batch_norm_legit": ("training", "running_mean"), "dropout": ("train", ""), "dropout_": ("train", ""),
         "native_dropout": ("train", ""), "feature_dropout": ("train", ""), "alpha_dropout": ("train", "")}  # fmt: skip
ALWAYS = {"_native_batch_norm_legit_functional", "_batch_norm_with_update", "_batch_norm_with_update_functional"}
RANDOM = {"bernoulli", "bernoulli_", "rand", "rand_like", "randn", "randn_like", "randint", "uniform_", "normal_"}


@SOURCES.register(
    "pt2",
    example="pt2:FILE.pt2",
    files=lambda name, arguments: {Path(name).name: Path(name)} if Path(name).is_file() else {},
)
def pt2(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A program of ``torch.export`` in a file, with its weights; it is attacked and certified, not trained.

    The file is read before PyTorch loads it, and refused where it holds more than tensors, sizes and operators of
    PyTorch.

    Args:
        name: The file, whatever its suffix.
        arguments: ``batch``, how many images it takes at once, ``size``, what sizes, and ``bands``; each as it was
            exported if absent.

    Returns:
        The program, called in the batches that it takes, and the sizes that it was exported for: one size alone is
        taken as it is, multiples of k are padded to.

    Raises:
        InputError: There is no such file, it is of another kind or holds what could run code, was exported in training
            mode, or takes something other than one batch of images.
    """
    refuse_unknown("argument of pt2", arguments, ARGUMENTS)
    path = program_file("pt2", name, EXPORTED)
    check_exported(path)
    try:
        with _quiet():
            program = torch.export.load(str(path))
            module = program.module()
    except Exception as error:  # of another version of PyTorch, or of operators that are not here
        here = f"torch {torch.__version__}"
        raise InputError(
            f"pt2:{name} cannot be loaded by {here}: {in_a_line(error)}. Export it again with this version"
        ) from error
    _refuse_training(name, program.graph_module)
    shape = _input_shape(name, program)
    for method in ("train", "eval"):  # they raise, as the mode is fixed in the program
        module.__dict__.pop(method, None)
    made = Program(
        module,
        name,
        batch=batch_of(arguments, _batch(shape[0], program.range_constraints)),
        untrainable=f"{path.name} was exported in evaluation mode: train the network that it was made of",
        cast=False,
        moved=_moved,
    )
    bands = arguments.get("bands", shape[1] if isinstance(shape[1], int) else None)
    return Origin(made, size=size_of(arguments) or _sizes(shape), weights=weights_of(path), bands=bands)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what PyTorch logs of a file that it cannot load, which is told in a line, and of its own future."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _nodes(module: nn.Module) -> Iterator[tuple[torch.fx.Graph, torch.fx.Node]]:
    """Nodes of a program and of the programs in it."""
    for part in module.modules():
        if isinstance(part, GraphModule):
            yield from ((part.graph, node) for node in list(part.graph.nodes))


def _refuse_training(name: str, module: nn.Module) -> None:
    found = {kind for _, node in _nodes(module) if (kind := _active(node))}
    if found:
        raise InputError(
            f"pt2:{name} was exported in training mode: its {' and '.join(sorted(found))} would be active; call "
            "network.eval() before torch.export.export"
        )


def _active(node: torch.fx.Node) -> str:
    """What of a node is active in training alone: a batch norm, dropout, random numbers; empty where nothing is."""
    target = getattr(node.target, "_schema", None)
    if node.op != "call_function" or target is None:
        return ""
    operator = target.name.rpartition("::")[2]
    given = dict(zip((it.name for it in target.arguments), node.args, strict=False)) | dict(node.kwargs)
    if operator in ALWAYS:
        return "batch norm"
    if operator in RANDOM:
        return "random numbers"
    flag, statistics = FLAGS.get(operator, ("", ""))
    if not flag or given.get(flag) is False or (statistics and given.get(statistics) is None):
        return ""
    return "batch norm" if statistics else "dropout"


def _input_shape(name: str, program: Any) -> tuple[Any, ...]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    inputs = [nodes[key].meta.get("val") for key in program.graph_signature.user_inputs if key in nodes]
    if len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor) or inputs[0].ndim != 4:
        told = [tuple(it.shape) if isinstance(it, torch.Tensor) else it for it in inputs]
        raise InputError(f"pt2:{name} takes {told}; expected one batch of images (N, bands, H, W)")
    if not inputs[0].is_floating_point():
        raise InputError(f"pt2:{name} takes {inputs[0].dtype} images, which have no gradient; export it for float32")
    return tuple(inputs[0].shape)


def _batch(side: Any, ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    if isinstance(side, int):
        return side, side
    known = ranges.get(side.node.expr)
    least, most = (int(end) if getattr(end, "is_Integer", False) else None for end in _ends(known))
    return (least if least is not None and least > 2 else 1), most  # 2 stands for "any": PyTorch does not try one


def _ends(known: Any) -> tuple[Any, Any]:
    return (None, None) if known is None else (known.lower, known.upper)


def _sizes(shape: tuple[Any, ...]) -> SizeRule | None:
    """The rule of a program's height and width: one size, multiples of a number, or any."""
    sides = shape[-2:]
    if all(isinstance(side, int) for side in sides):
        return SizeRule(exact=sides, mode="refuse")
    if any(isinstance(side, int) for side in sides):
        return None
    factors = [int(side.node.expr.as_coeff_Mul()[0]) for side in sides]
    whole = all(side.node.expr.as_coeff_Mul()[1].is_Symbol for side in sides)
    return SizeRule(multiple_of=math.lcm(*factors)) if whole and math.lcm(*factors) > 1 else None


def _moved(module: nn.Module, device: torch.device) -> None:
    """Make what a program makes (counts, grids) on a device too: the place is written in its nodes."""
    for graph, node in _nodes(module):
        if str(node.target).startswith("aten._assert_tensor_metadata"):
            graph.erase_node(node)
        elif node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": device}
    for part in module.modules():
        if isinstance(part, GraphModule):
            part.recompile()
