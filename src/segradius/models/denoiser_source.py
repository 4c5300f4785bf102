"""Denoisers from what a user writes, and the model source through which one is trained before a frozen network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segradius.core.digests import file_digest
from segradius.core.errors import InputError, unknown_name
from segradius.core.modules import construct, imported, module_files, object_in, working_folder
from segradius.core.text import Spec, parse_spec, refuse_unknown
from segradius.models.checkpoints import load_state
from segradius.models.code import Files, files_of, source_files
from segradius.models.denoising import DENOISERS, Denoise, denoised
from segradius.models.fitting import load_into
from segradius.models.loading import check_digest, is_card, load_model, read_card
from segradius.models.parameters import check_parameters
from segradius.models.segmenter import Segmenter
from segradius.models.sources import SOURCES, Origin

#: The model source of networks behind a denoiser.
SOURCE = "denoised"
#: Its argument that is not the denoiser's.
BASE = "base"


def behind(model: Segmenter, text: str) -> Segmenter:
    """A model behind the denoiser of a text.

    Args:
        model: Any.
        text: A name of `DENOISERS` with its options, as ``blur,width=2``; ``package.module:OBJECT``, a module or a
            function that makes a denoiser; or the path of a card that `segradius train` wrote of one.

    Raises:
        InputError: There is no such denoiser, or its options or weights do not fit.

    Example:
        >>> behind(load_model("demo"), "blur,width=0.5").name
        'demo behind Blur(width=0.5)'
    """
    made, trained = load_denoiser(text)
    dtype = model.dtype
    if isinstance(made, nn.Module) and dtype != torch.float32:
        made.to(dtype=dtype)
    return denoised(model, made, trained=trained)


def load_denoiser(text: str) -> tuple[Denoise, bool | None]:
    """The denoiser of a text, as `behind` takes it, and whether it is trained, None where nobody knows."""
    if not is_card(text):
        return _made(parse_spec(text))
    card = read_card(text)
    spec = parse_spec(card.model)
    made, trained = _made(Spec(spec.source, spec.name, spec.arguments | dict(card.arguments)))
    if card.weights is None:
        return made, trained
    if not isinstance(made, nn.Module):
        raise InputError(f"{text}: weights {str(card.weights)!r} are for a module; {card.model!r} gives a function")
    check_digest(card)
    load_into(made, load_state(card.weights), card.weights)
    check_parameters(made, card.name)
    return made.eval(), True


def _made(spec: Spec) -> tuple[Denoise, bool | None]:
    if spec.source in ("", SOURCE):
        if spec.name not in DENOISERS:
            raise unknown_name("denoiser", spec.name, [*DENOISERS, "package.module:OBJECT", "CARD.yaml"])
        given = {key: value for key, value in spec.arguments.items() if not (spec.source and key == BASE)}
        refuse_unknown(f"option of denoiser {spec.name}", given, inspect.signature(DENOISERS[spec.name]).parameters)
        needs = DENOISERS.facts(spec.name).get("trained", True)
        return construct(str(spec), DENOISERS[spec.name], given, "a denoiser"), False if needs else None
    with working_folder():
        thing: Any = object_in(imported(spec.source, "denoiser", [*DENOISERS]), spec.name)
        if not isinstance(thing, nn.Module):
            thing = construct(str(spec), thing, spec.arguments, "a denoiser")
        elif spec.arguments:
            raise InputError(f"{spec} is a denoiser already; it takes no arguments ({', '.join(spec.arguments)})")
    if not callable(thing):
        raise InputError(f"{spec} gave a {type(thing).__name__}; expected a function of a batch of images")
    return thing.eval() if isinstance(thing, nn.Module) else thing, None


def denoiser_files(text: str) -> Files:
    """The files that decide what the denoiser of a text computes, as `segradius.models.code.files_of` has them."""
    card = read_card(text) if is_card(text) else None
    spec = parse_spec(text if card is None else card.model)
    found: dict[str, Path] = {} if card is None else {f"denoiser {Path(text).name}": Path(text)}
    if card is not None and card.weights is not None:
        found[f"denoiser {card.weights.name}"] = card.weights
    own = source_files(DENOISERS[spec.name]) if spec.source in ("", SOURCE) else module_files(spec.source)
    found |= {f"denoiser {name}": file for name, file in own.items()}
    return {name: (file, file_digest(file)) for name, file in found.items()}


def _files(name: str, arguments: Mapping[str, Any]) -> Mapping[str, Path]:
    base = files_of(str(arguments[BASE])) if BASE in arguments else {}
    return {f"base {label}": file for label, (file, _) in base.items()}


@SOURCES.register(SOURCE, example="denoised:residual,base=network.yaml", files=_files)
def denoised_source(name: str, arguments: Mapping[str, Any]) -> Origin:
    """A denoiser before a frozen network, for segradius train: its weights are the denoiser's alone.

    Args:
        name: A name of `DENOISERS`.
        arguments: ``base``, the network as `load_model` takes it, say the path of its card; and the denoiser's own.

    Raises:
        InputError: There is no ``base``, or no such denoiser.
    """
    if BASE not in arguments:
        raise InputError(f"{SOURCE}:{name} needs the network that the denoiser is for: {SOURCE}:{name},base=CARD.yaml")
    made, trained = _made(Spec(SOURCE, name, dict(arguments)))
    base = load_model(str(arguments[BASE]))
    if isinstance(base.network, nn.Module):
        base.network.requires_grad_(requires_grad=False)
    return Origin(denoised(base, made, trained=trained))
