"""`load_model`: from the text that a user writes, or a card, to a `Segmenter`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import torch
from torch import nn

from segradius.core.errors import InputError, unknown_name
from segradius.core.text import Spec, options_of, parse_spec, refuse_unknown
from segradius.models.cards import ModelCard, check_digest, is_card, read_card
from segradius.models.checkpoints import load_state
from segradius.models.decoding import Decode
from segradius.models.denoiser_loading import behind
from segradius.models.denoising import trained_part
from segradius.models.downloads import offline
from segradius.models.fitting import load_into
from segradius.models.parameters import check_parameters
from segradius.models.preprocessing import (
    NormalisationLike,
    SizeLike,
)
from segradius.models.segmenter import Segmenter, Weights
from segradius.models.sources import open_spec
from segradius.models.tiling import TilingLike, tiled
from segradius.models.wrapping import wrap

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
    threshold: float | None = None,
    channels: Sequence[int] | int | str | None = None,
    output: int | str | None = None,
    bands: int | None = None,
    inference: TilingLike | None = None,
    denoiser: str | None = None,
    dtype: str | torch.dtype | None = None,
    allow_download: bool = False,
    **_unknown: Never,
) -> Segmenter:
    """The network that ``spec`` names, in evaluation mode on ``device``.

    Args:
        spec: A built-in name (``demo``), ``SOURCE:NAME`` of a library in `SOURCES` (``torchvision:fcn_resnet50``),
            ``package.module:OBJECT``, each with ``,key=value`` arguments in YAML, or the path of a card ``FILE.yaml``.
            A card and a Python object can run code: load those that you trust.
        weights: A checkpoint to load into it, strictly; in place of the card's. Of several sets of weights in it
            ``FILE,key=NAME`` says which; shards are given by their list, or the folder of it.
        device: As ``cpu`` or ``cuda:1``.
        num_classes: C; found when None.
        normalisation: In place of the source's: ``"imagenet"``, ``"none"``, (mean, std)…
        size: In place of the source's: a `SizeRule` or a mapping of its arguments.
        outputs: What the network returns, in place of the card's, as `wrap` takes it: ``"probabilities"``,
            ``"sigmoid"``…
        threshold: Of yes/no channels, likewise.
        channels: Which channels of the output count, likewise; also as a text, ``"0,2"``.
        output: Which entry of several is meant, likewise.
        bands: B, its input channels; found when None, as in `wrap`.
        inference: Windows, scales and mirroring, in place of the card's: a `Tiling` or a mapping of its arguments.
        denoiser: What every image goes through first, in place of the card's, as `denoiser_source.behind` takes it.
        dtype: Of the parameters, and so of what the network computes: ``"float32"`` or ``"bfloat16"``; its own when
            None.
        allow_download: Whether libraries may download what is not here; nothing goes out otherwise, and what would have
            to is refused.

    Returns:
        The segmenter. Networks of libraries get the normalisation that their library gives them (ImageNet's where
        nothing else is known), smp networks are padded to their stride; a Python object gets neither, unless the
        options say so.

    Raises:
        InputError: On an unknown name, option or key, a file that is missing, damaged or does not fit, a parameter
            without values, a device that is not there, or what would have to be downloaded.
        MissingExtraError: If the library is not installed.

    Example:
        >>> load_model("torchvision:lraspp_mobilenet_v3_large,num_classes=4").num_classes
        4
    """
    refuse_unknown("option of load_model", _unknown, options_of(load_model))
    card = _card(spec)
    colours = _first(normalisation, card.normalisation)
    said = colours is not None
    file = card.weights if weights is None else Path(weights)
    with offline(card.model.split(",")[0], allowed=allow_download):
        origin = open_spec(_with_arguments(parse_spec(card.model), card))
        if not said:
            colours = origin.normalisation() if callable(origin.normalisation) else origin.normalisation
        fitting = _first(size, card.size)
        if fitting is None:
            fitting = origin.size() if callable(origin.size) else origin.size
        model = wrap(
            _with_weights(origin.network, card, file, torch_device(device), torch_dtype(dtype)),
            num_classes=num_classes,
            normalisation=colours,
            size=fitting,
            outputs=_first(outputs, card.outputs),
            threshold=_first(threshold, card.threshold),
            channels=_first(channels, card.channels),
            output=_first(output, card.output),
            bands=_first(bands, card.bands, origin.bands),
            lipschitz=card.lipschitz if _first(weights, normalisation, size, outputs, output) is None else None,
            name=card.name,
            channels_last=origin.channels_last,
        )
    if torch_dtype(dtype) not in (None, torch.float32):
        model = replace(model, lipschitz=None)  # of other numbers
    known = origin.weights
    if file is not None:
        known = Weights(file.name, whole=True, digest=known.digest if known else "")
    model = replace(model, weights=known or model.weights, assumed=origin.assumed if not said else "")
    if card.classes and len(card.classes) not in (model.num_classes, model.structures):
        raise InputError(f"{spec}: {len(card.classes)} class names for a network of {model.num_classes} classes")
    tiling = _first(inference, card.inference)
    model = model if tiling is None else tiled(model, tiling)
    before = _first(denoiser, card.denoiser)
    if before is None:
        return model
    return behind(model, before)


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


def _card(spec: str) -> ModelCard:
    return read_card(spec) if is_card(spec) else ModelCard(name=spec.split(",")[0], model=spec)


def _with_arguments(spec: Spec, card: ModelCard) -> Spec:
    twice = spec.arguments.keys() & card.arguments.keys()
    if twice:
        raise InputError(f"card {card.name!r} gives {', '.join(sorted(twice))} in model and in arguments")
    return Spec(spec.source, spec.name, spec.arguments | dict(card.arguments))


def _with_weights(
    made: Any, card: ModelCard, file: Path | None, device: torch.device, dtype: torch.dtype | None
) -> Any:
    network = made.network if isinstance(made, Segmenter) else made
    if not isinstance(network, nn.Module):
        if file is not None:
            raise InputError(
                f"weights {str(file)!r} cannot be loaded: {card.model!r} gives a function, not an nn.Module"
            )
        if dtype is not None:
            raise InputError(f"dtype cannot be set: {card.model!r} gives a function, not an nn.Module")
        return made
    if file is not None:
        if file == card.weights:
            check_digest(card)
        load_into(trained_part(network), load_state(file), file)
    check_parameters(network, card.name)  # before they are moved, which those without values cannot be
    network.eval().to(device, dtype)
    return made


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
