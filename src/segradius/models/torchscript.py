"""Programs of ``torch.jit.script`` and ``torch.jit.trace``, which newer PyTorch still reads."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from segradius.core.border import in_a_line
from segradius.core.errors import InputError
from segradius.core.screen import warn
from segradius.core.text import refuse_unknown
from segradius.models.bands import RGB, candidates, found_bands
from segradius.models.file_kinds import TORCHSCRIPT
from segradius.models.holding import kept
from segradius.models.program import ARGUMENTS, Program, batch_of, program_file, size_of, stays, weights_of
from segradius.models.screening import check_script
from segradius.models.sources import SOURCES, Origin
from segradius.models.wrapping import PROBE_SIZE

#: Operators that behave otherwise in training, and which of their inputs says that they do.
FLAGS = {
    "dropout": 2,
    "dropout_": 2,
    "feature_dropout": 2,
    "alpha_dropout": 2,
    "feature_alpha_dropout": 2,
    "batch_norm": 5,
}
#: Of a batch norm, its input with the statistics: without, it takes those of the batch in any mode.
RUNNING = 3
#: Relative and absolute difference of what is the same but for rounding.
CLOSE = (1e-3, 1e-4)


@SOURCES.register(
    "torchscript",
    example="torchscript:FILE.pt",
    files=lambda name, arguments: {Path(name).name: Path(name)} if Path(name).is_file() else {},
)
def torchscript(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A TorchScript program in a file, with its weights.

    Its code is read before, and refused where it reaches files; it runs in PyTorch's own interpreter, not in Python.

    Args:
        name: The file, whatever its suffix.
        arguments: ``batch``, how many images it takes at once, found by trying two if absent; ``size``, what sizes,
            as ``{multiple_of: 32}``; ``bands``, found by its first convolution if absent.

    Returns:
        The program. Nothing is known of its normalisation.

    Raises:
        InputError: There is no such file, it is of another kind, names operators that reach files, takes more than one
            batch of images, or was made with dropout or batch norms in training mode.
    """
    refuse_unknown("argument of torchscript", arguments, ARGUMENTS)
    path = program_file("torchscript", name, TORCHSCRIPT)
    check_script(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated is no news of this file
            program = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        inputs = program.forward.schema.arguments[1:]
    except Exception as error:  # whatever a damaged program, or one of unknown operators, makes of the reader
        raise InputError(f"torchscript:{name} cannot be loaded: {in_a_line(error)}") from error
    needed = [it.name for it in inputs if not it.has_default_value()]
    if len(needed) != 1:
        raise InputError(f"torchscript:{name} takes {', '.join(needed) or 'nothing'}; expected one batch of images")
    fixed = dict(_fixed(program))
    if active := [kind for kind, on in fixed.items() if on]:
        raise InputError(
            f"torchscript:{name} was made in training mode: its {' and '.join(active)} would be active; call "
            "network.eval() before torch.jit.trace"
        )
    why = f"{path.name} was traced in evaluation mode, so its {' and '.join(fixed)} cannot train" if fixed else ""
    frozen = not all(hasattr(module, "training") for module in program.modules())
    if frozen:
        why = f"{path.name} was frozen: its weights are constants"
    made = Program(program, name, untrainable=why, cast=not frozen, moved=None if frozen else stays)
    made.batch = batch_of(arguments, (1, None))
    size, bands = size_of(arguments), arguments.get("bands")
    sides = (size and size.exact) or PROBE_SIZE
    if bands is None:
        bands = _bands(made.eval(), _likely(program), sides)
    if "batch" not in arguments and (told := _mixed(made.eval(), bands or RGB, sides)):
        warn(f"torchscript:{name} {told}; it is called image by image (batch=1)")
        made.batch = (1, 1)
    return Origin(made, size=size, weights=weights_of(path), bands=bands)


def _likely(program: Any) -> int | None:
    """Input channels of the first convolution, by its weights, which a frozen program has as constants."""
    for module in program.modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is not None and weight.ndim == 4:
            return int(weight.shape[1])
    graph = program.inlined_graph  # held: its nodes are gone with it
    for kind in ("aten::conv2d", "aten::_convolution"):
        for node in graph.findAllNodes(kind, True):
            weight = list(node.inputs())[1].toIValue()
            if isinstance(weight, torch.Tensor) and weight.ndim == 4:
                return int(weight.shape[1])
    return None


def _bands(program: Program, likely: int | None, sides: tuple[int, int]) -> int | None:
    """The bands that it takes; where it takes nothing of this size, those that are likely."""
    first = next(program.parameters(), torch.zeros(()))
    for bands in candidates(None, likely):
        try:
            with torch.no_grad(), kept(program):
                program(torch.full((1, bands, *sides), 0.5, dtype=first.dtype))
        except Exception:  # whatever a program of other bands, or of another size, raises
            continue
        return found_bands(bands, likely)
    return likely


def _fixed(program: Any) -> Iterator[tuple[str, bool]]:
    """Layers whose mode is a constant of the program, each with whether it is that of training; active ones last."""
    found, graph = [], program.inlined_graph  # held: its nodes are gone with it
    for kind, at in FLAGS.items():
        for node in graph.findAllNodes(f"aten::{kind}", True):
            given = list(node.inputs())
            mode = given[at].toIValue()
            if kind == "batch_norm" and str(given[RUNNING].type()) == "NoneType":
                continue
            if isinstance(mode, bool):
                found.append(("batch norm" if kind == "batch_norm" else "dropout", mode))
    return iter(sorted(found, key=lambda each: each[1]))


def _mixed(program: Program, bands: int, sides: tuple[int, int]) -> str:
    """What is wrong with two images at once, where one works; empty where nothing is, or one does not work either."""
    first = next(program.parameters(), torch.zeros(()))
    images = torch.rand(2, bands, *sides, generator=torch.Generator().manual_seed(0)).to(first.dtype)
    try:
        with torch.no_grad(), kept(program):
            single = [_first(program(image[None])) for image in images]
    except Exception:  # it takes another size or other bands, and is told so when it is first asked
        return ""
    try:
        with torch.no_grad(), kept(program):
            both = _first(program(images))
    except Exception:
        return "fails on two images at once"
    if both is None or None in single or len(both) != 2:
        return "gives no answer for each of two images" if both is not None and len(both) != 2 else ""
    alone = torch.cat([each for each in single if each is not None])
    same = both.shape == alone.shape and torch.allclose(both.float(), alone.float(), *CLOSE)
    return "" if same else "answers otherwise about two images at once"


def _first(raw: Any) -> torch.Tensor | None:
    while isinstance(raw, Mapping | tuple | list) and len(raw):
        raw = next(iter(raw.values())) if isinstance(raw, Mapping) else raw[0]
    return raw if isinstance(raw, torch.Tensor) and raw.ndim else None
