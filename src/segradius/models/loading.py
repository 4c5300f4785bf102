"""`load_model`: from the text that a user writes to a `Segmenter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segradius.core.errors import InputError, unknown_name
from segradius.core.text import Spec, parse_spec
from segradius.models.cards import ModelCard, check_digest, is_card, read_card
from segradius.models.checkpoints import load_into, load_state
from segradius.models.outputs import Decode
from segradius.models.preprocessing import NormalisationLike, SizeLike
from segradius.models.segmenter import Segmenter, wrap
from segradius.models.sources import is_random, open_spec
from segradius.models.tiling import TilingLike, with_tiling

#: Types of parameters by name.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    size: SizeLike = None,
    outputs: str | Decode | None = None,
    inference: TilingLike | None = None,
    dtype: str | torch.dtype | None = None,
) -> Segmenter:
    """The network that ``spec`` names, in evaluation mode on ``device``. Nothing is downloaded unless an argument asks.

    Args:
        spec: A built-in name (``demo``), ``SOURCE:NAME`` of a library in `SOURCES` (``torchvision:fcn_resnet50``),
            ``package.module:OBJECT``, each with ``,key=value`` arguments in YAML, or the path of a card ``FILE.yaml``.
            A card and a Python object can run code: load those that you trust.
        weights: A checkpoint to load into it, strictly; in place of the card's.
        device: As ``cpu`` or ``cuda:1``.
        num_classes: C; found when None.
        normalisation: In place of the source's: ``"imagenet"``, ``"none"``, (mean, std)…
        size: In place of the source's: a `SizeRule` or a mapping of its arguments.
        outputs: ``"logits"`` or ``"probabilities"``, in place of the card's.
        inference: Windows, scales and mirroring, in place of the card's: a `Tiling` or a mapping of its arguments.
        dtype: Of the parameters, and so of what the network computes: ``"float32"`` or ``"bfloat16"``; its own when
            None.

    Returns:
        The segmenter. torchvision, smp and hf networks take ImageNet normalisation (hf: that of a saved processor), smp
        networks are padded to their stride; a Python object gets neither, unless the options say so.

    Raises:
        InputError: On an unknown name, option or key, a file that is missing, damaged or does not fit, or a device that
            is not there.
        MissingExtraError: If the library is not installed.

    Example:
        >>> load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=4").num_classes
        4
    """
    card = _card(spec)
    origin = open_spec(_with_arguments(parse_spec(card.model), card))
    model = wrap(
        _with_weights(origin.network, card, weights, torch_device(device), torch_dtype(dtype)),
        num_classes=num_classes,
        normalisation=_first(normalisation, card.normalisation, origin.normalisation),
        size=_first(size, card.size, origin.size),
        outputs=_first(outputs, card.outputs),
        name=card.name,
        channels_last=origin.channels_last,
    )
    if card.classes and len(card.classes) != model.num_classes:
        raise InputError(f"{spec}: {len(card.classes)} class names for a network of {model.num_classes} classes")
    tiling = _first(inference, card.inference)
    return model if tiling is None else with_tiling(model, tiling)


def lacks_weights(spec: str, weights: str | Path | None = None) -> bool:
    """Whether `load_model` gives a network with random weights, as far as its source says.

    Args:
        spec: As `load_model` takes it.
        weights: As `load_model` takes them.

    Example:
        >>> lacks_weights("smp:Unet,classes=3"), lacks_weights("smp:Unet,classes=3", "unet.safetensors")
        (True, False)
    """
    card = _card(spec)
    return weights is None and card.weights is None and is_random(_with_arguments(parse_spec(card.model), card))


def torch_device(device: str | torch.device) -> torch.device:
    """A device that is there; raises `InputError` for one that is not.

    Example:
        >>> torch_device("cpu")
        device(type='cpu')
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return found


def _card(spec: str) -> ModelCard:
    return read_card(spec) if is_card(spec) else ModelCard(name=spec.split(",")[0], model=spec)


def _with_arguments(spec: Spec, card: ModelCard) -> Spec:
    twice = spec.arguments.keys() & card.arguments.keys()
    if twice:
        raise InputError(f"card {card.name!r} gives {', '.join(sorted(twice))} in model and in arguments")
    return Spec(spec.source, spec.name, spec.arguments | dict(card.arguments))


def torch_dtype(given: str | torch.dtype | None) -> torch.dtype | None:
    """A type that parameters may have, from its name.

    Raises:
        InputError: There is none of that name.

    Example:
        >>> torch_dtype("bfloat16")
        torch.bfloat16
    """
    if given is None or isinstance(given, torch.dtype):
        return given
    if given not in DTYPES:
        raise unknown_name("dtype", given, DTYPES)
    return DTYPES[given]


def _with_weights(
    made: Any, card: ModelCard, weights: str | Path | None, device: torch.device, dtype: torch.dtype | None
) -> Any:
    network = made.network if isinstance(made, Segmenter) else made
    path = card.weights if weights is None else Path(weights)
    if not isinstance(network, nn.Module):
        if path is not None:
            raise InputError(
                f"weights {str(path)!r} cannot be loaded: {card.model!r} gives a function, not an nn.Module"
            )
        if dtype is not None:
            raise InputError(f"dtype cannot be set: {card.model!r} gives a function, not an nn.Module")
        return made
    if path is not None:
        if weights is None:
            check_digest(card)
        load_into(network, load_state(path), path)
    network.eval().to(device, dtype)
    return made


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
