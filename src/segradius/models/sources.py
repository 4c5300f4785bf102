"""Where networks come from: built-in names, torchvision, segmentation-models-pytorch, Python objects."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.core.registry import Registry
from segradius.models.preprocessing import Normalisation, SizeRule
from segradius.models.segmenter import Segmenter

MODELS: Registry[Callable[..., Segmenter]] = Registry("model", "segradius.models")


@dataclass(frozen=True)
class Origin:
    """A network as its source makes it, with what is known there about its input.

    Args:
        network: An `nn.Module`, a function of a batch, or a ready `Segmenter`.
        normalisation: What its library's networks are trained with; None for unknown.
        size: What sizes it takes; None for unknown.
        channels_last: Whether it takes that layout, which is faster on a CPU.
    """

    network: Any
    normalisation: Normalisation | None = None
    size: SizeRule | None = None
    channels_last: bool | None = None


def builtin(name: str, arguments: Mapping[str, Any]) -> Origin:
    """The model registered under ``name``; raises `InputError` with the nearest names if there is none."""
    if name not in MODELS:
        raise unknown_name("model", name, [*MODELS, *(f"{source}:…" for source in ("torchvision", "smp", "hf"))])
    _refuse_unknown(name, MODELS[name], arguments, cutoff=0.0)
    return Origin(construct(name, MODELS[name], arguments))


def torchvision(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A network of ``torchvision.models.segmentation``, ImageNet normalisation, any size; nothing is downloaded.

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
    _refuse_unknown(f"torchvision:{name}", builder, arguments, cutoff=0.0)
    defaults = {"weights": None, "weights_backbone": None}
    network = construct(f"torchvision:{name}", builder, defaults | dict(arguments))
    return Origin(network, Normalisation.imagenet(), channels_last=True)


def smp(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A network of segmentation-models-pytorch, ImageNet normalisation, padded to its encoder's stride; no download.

    Args:
        name: As ``PSPNet``, in any case of letters.
        arguments: Of its class, and of the encoder; ``encoder_weights`` is None unless given.

    Returns:
        The network, its normalisation, and its sizes (PSPNet with ``encoder_depth=3``: multiples of 8).

    Raises:
        InputError: On an unknown name or argument.
        MissingExtraError: If the library is not installed.
    """
    try:
        import segmentation_models_pytorch as library
    except ModuleNotFoundError as error:
        raise missing_extra("segmentation-models-pytorch", "smp") from error
    known = {key.lower(): value for key, value in library.MODEL_ARCHITECTURES_MAPPING.items()}
    if name.lower() not in known:
        raise unknown_name("smp network", name, (value.__name__ for value in known.values()))
    architecture = known[name.lower()]
    # What smp does not know it hands to the encoder; only what looks like a misspelling is refused.
    _refuse_unknown(f"smp:{name}", architecture, arguments, cutoff=0.75)
    network = construct(f"smp:{name}", architecture, {"encoder_weights": None} | dict(arguments))
    return Origin(network, Normalisation.imagenet(), _smp_size(network), channels_last=True)


def python_object(module_name: str, name: str, arguments: Mapping[str, Any]) -> Origin:
    """The object ``name`` (dots allowed) of a module: a network, a `Segmenter`, or what makes one when called.

    The working folder is searched too, after everything else. An `nn.Module` or `Segmenter` is taken as it is; any
    other callable is called with ``arguments`` and must return a network, a `Segmenter`, or a function of a batch.

    Args:
        module_name: As ``package.module``.
        name: The object in it.
        arguments: Keyword arguments for the call.

    Returns:
        The network; nothing is known about its input, so no normalisation and any size.

    Raises:
        InputError: If the module or object does not exist, or does not give a model.
    """
    thing: Any = _import(module_name)
    for part in name.split("."):
        if not hasattr(thing, part):
            raise unknown_name(f"object in {module_name}", name, (key for key in dir(thing) if key[0] != "_"))
        thing = getattr(thing, part)
    if not isinstance(thing, (nn.Module, Segmenter)):
        thing = construct(f"{module_name}:{name}", thing, arguments)
    elif arguments:
        raise InputError(f"{module_name}:{name} is a network already; it takes no arguments ({', '.join(arguments)})")
    if not callable(thing) and not isinstance(thing, Segmenter):
        raise InputError(
            f"{module_name}:{name} gave a {type(thing).__name__}; expected an nn.Module, Segmenter or function"
        )
    return Origin(thing)


def construct(label: str, make: Any, arguments: Mapping[str, Any]) -> Any:
    """``make(**arguments)``; raises `InputError` with the reason if it cannot be called so."""
    if not callable(make):
        raise InputError(f"{label} is a {type(make).__name__}; expected a network, or a function that makes one")
    try:
        return make(**arguments)
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError, OSError) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"cannot build {label} with ({shown}): {type(error).__name__}: {error}") from error


def _refuse_unknown(label: str, make: Any, arguments: Mapping[str, Any], *, cutoff: float) -> None:
    """Raise `InputError` for arguments not in the signature that are at least ``cutoff`` similar to one in it."""
    # Both libraries take **kwargs and ignore what is in it: a misspelt number of classes would be lost without a word.
    known = [key for key in inspect.signature(make).parameters if key != "kwargs"]
    for key in arguments:
        if key not in known and difflib.get_close_matches(key, known, cutoff=cutoff):
            raise unknown_name(f"argument of {label}", key, known)


def _smp_size(network: Any) -> SizeRule | None:
    if not getattr(network, "requires_divisible_input_shape", True):
        return None
    return SizeRule(multiple_of=int(getattr(network.encoder, "output_stride", 32)))


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise InputError(f"{module_name} cannot be imported: {error}") from error
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
        importlib.invalidate_caches()
        return _import(module_name)
    raise unknown_name("model source", module_name, ("torchvision", "smp", "hf", "an importable Python module"))
