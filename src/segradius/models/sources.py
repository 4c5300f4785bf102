"""Where networks come from: built-in names, torchvision, Python objects; sources with files of their own beside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segradius.core.errors import InputError, unknown_name
from segradius.core.modules import construct, imported, object_in, working_folder
from segradius.core.registry import Registry
from segradius.core.text import Spec, refuse_unknown
from segradius.models.file_kinds import EXPORTED, TORCHSCRIPT, FileKind, kind_of
from segradius.models.preprocessing import Normalisation, SizeRule, measured
from segradius.models.segmenter import INITIALISED, Segmenter, Weights
from segradius.models.weight_files import PYTORCH_SUFFIXES, SUFFIX

MODELS: Registry[Callable[..., Segmenter]] = Registry("model", "segradius.models")
"""Networks by name, each a function of keyword options; what it makes says where its weights are from."""


@dataclass(frozen=True)
class Origin:
    """A network as its source makes it, with what is known there about its input.

    Args:
        network: An `nn.Module`, a function of a batch, or a ready `Segmenter`.
        normalisation: What its library's networks are trained with, or a function that finds it out, which is not
            called where the user says it; None for unknown.
        size: What sizes it takes, or a function that finds it out, as above; None for unknown.
        channels_last: Whether it takes that layout, which is faster on a CPU.
        weights: Where its parameters come from. None: unknown, or as a `Segmenter` says itself.
        assumed: What of the normalisation is assumed, for a warning where the user does not say it.
        bands: Input channels, where the source knows them and the network's modules do not tell.
    """

    network: Any
    normalisation: Normalisation | Callable[[], Normalisation] | None = None
    size: SizeRule | Callable[[], SizeRule | None] | None = None
    channels_last: bool | None = None
    weights: Weights | None = None
    assumed: str = ""
    bands: int | None = None


Source = Callable[[str, Mapping[str, Any]], Origin]
SOURCES: Registry[Source] = Registry("model source", "segradius.models")
"""Libraries of networks by name, each a function of the network's name and arguments.

Facts: ``example``, of a model text; ``extra``, what to install for it, if any; ``files``, a function of name and
arguments that gives the files, by name, which decide what it computes beside its parameters, if there are any.
"""


def open_spec(spec: Spec) -> Origin:
    """The network of a parsed spec, with its source's defaults, weights not yet loaded.

    Raises:
        InputError: On an unknown source, name or argument, with the nearest ones.
        MissingExtraError: If a library is not installed.
    """
    if spec.source in SOURCES:
        return SOURCES[spec.source](spec.name, spec.arguments)
    if (advice := _elsewhere(spec)) is not None:
        raise InputError(f"model {str(spec)!r} {advice}")
    if spec.source:
        return _python_object(spec)
    if spec.name not in MODELS:
        raise unknown_name("model", spec.name, [*MODELS, *(f"{source}:…" for source in SOURCES)])
    refuse_unknown(f"argument of {spec.name}", spec.arguments, inspect.signature(MODELS[spec.name]).parameters)
    return Origin(construct(spec.name, MODELS[spec.name], spec.arguments))


@SOURCES.register(
    "torchvision",
    example="torchvision:deeplabv3_resnet50,num_classes=21",
)
def torchvision(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A network of ``torchvision.models.segmentation``, ImageNet normalisation or that of its weights, any size.

    Args:
        name: As ``deeplabv3_resnet50``.
        arguments: Of its builder; ``weights`` and ``weights_backbone`` are None unless given.

    Returns:
        The network and its normalisation.

    Raises:
        InputError: On an unknown name or argument.
    """
    from torchvision import models

    known = models.list_models(module=models.segmentation)
    if name not in known:
        raise unknown_name("torchvision segmentation network", name, known)
    builder = models.get_model_builder(name)
    # The builders take **kwargs and ignore what is in it: a misspelt number of classes would be lost without a word.
    parameters = [key for key in inspect.signature(builder).parameters if key != "kwargs"]
    refuse_unknown(f"argument of torchvision:{name}", arguments, parameters)
    defaults = {"weights": None, "weights_backbone": None}
    network = construct(f"torchvision:{name}", builder, defaults | dict(arguments))
    trained, trunk = arguments.get("weights"), arguments.get("weights_backbone")
    if not trained:
        weights = Weights(f"weights_backbone={trunk}", whole=False) if trunk else INITIALISED
        return Origin(network, Normalisation.imagenet(), channels_last=True, weights=weights)
    preset = models.get_model_weights(name).verify(trained).transforms

    def colours() -> Normalisation:
        return measured(preset(resize_size=None), f"the transform of torchvision's {trained} of {name}")

    return Origin(network, colours, channels_last=True, weights=Weights(f"torchvision {trained}", whole=True))


def _elsewhere(spec: Spec) -> str | None:
    """What to write in place of a text that is no network but a file, an address or a way to run one."""
    suffix = Path(spec.name).suffix.lower()
    if suffix in (".onnx", ".tflite"):
        kind = "an ONNX" if suffix == ".onnx" else "a TFLite"
        word = f"--target {suffix[1:]}:{spec.name} (open_target)"
        return f"is {kind} file, which is a target, asked for scores only: {word}"
    if "://" in spec.name or spec.name.startswith("//"):
        return "is an address: a served model is a target, --target oip:http://HOST:PORT/v2/models/NAME (open_target)"
    if "tiled" in (spec.source, spec.name):
        return "is no network: sliding windows are the entry inference: {crop: [height, width]} of a card FILE.yaml"
    if not spec.source and (program := _program(Path(spec.name))):
        return f"is {program.what}: write {'pt2' if program is EXPORTED else 'torchscript'}:{spec.name}"
    if not spec.source and suffix in (SUFFIX, *PYTORCH_SUFFIXES):
        return f"is a file of weights: give the network that they belong to, and --weights {spec.name} beside it"
    file = Path(spec.source or spec.name)
    if file.suffix == ".py" and (len(file.parts) > 1 or file.is_file()):  # else a module named py, perhaps
        here = not file.is_absolute() and ".." not in file.parts
        module = ".".join(file.with_suffix("").parts) if here else file.stem
        where = "" if here else f" and start in the folder {file.parent}"
        name = spec.name if spec.source else "NAME"
        return f"names a file of Python where a module is expected: write {module}:{name}{where}"
    if not spec.source and Path(spec.name).is_dir():
        return f"is a folder: of one that transformers has saved write hf:{spec.name}, of one of smp smp:{spec.name}"
    return None


def _program(file: Path) -> FileKind | None:
    """The kind of a file that holds a network as a program; None of any other."""
    try:
        kind = kind_of(file) if file.is_file() else None
    except OSError:
        return None
    return kind if kind in (TORCHSCRIPT, EXPORTED) else None


def _python_object(spec: Spec) -> Origin:
    """The object (dots allowed) of a module: a network, a `Segmenter`, or what makes one when called.

    The working folder is searched too, after everything else. An `nn.Module` or `Segmenter` is taken as it is; any
    other callable is called with the arguments and must return a network, a `Segmenter`, or a function of a batch.
    Nothing is known about its input, so it gets no normalisation and takes any size.
    """
    with working_folder():
        thing: Any = object_in(imported(spec.source, SOURCES.kind, SOURCES), spec.name)
        if not isinstance(thing, (nn.Module, Segmenter)):
            thing = construct(str(spec), thing, spec.arguments)
        elif spec.arguments:
            raise InputError(f"{spec} is a network already; it takes no arguments ({', '.join(spec.arguments)})")
    if not callable(thing) and not isinstance(thing, Segmenter):
        raise InputError(f"{spec} gave a {type(thing).__name__}; expected an nn.Module, Segmenter or function")
    return Origin(thing)
