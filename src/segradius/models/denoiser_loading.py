"""Denoisers from what a user writes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from segradius.core.errors import InputError, unknown_name
from segradius.core.modules import construct, imported, object_in, working_folder
from segradius.core.text import Spec, parse_spec, refuse_unknown
from segradius.models.cards import check_digest, is_card, read_card
from segradius.models.checkpoints import load_state
from segradius.models.denoising import DENOISERS, Denoise, denoised
from segradius.models.fitting import load_into
from segradius.models.parameters import check_parameters
from segradius.models.segmenter import Segmenter

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
        >>> from segradius.models import load_model
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
        return made_denoiser(parse_spec(text))
    card = read_card(text)
    spec = parse_spec(card.model)
    made, trained = made_denoiser(Spec(spec.source, spec.name, spec.arguments | dict(card.arguments)))
    if card.weights is None:
        return made, trained
    if not isinstance(made, nn.Module):
        raise InputError(f"{text}: weights {str(card.weights)!r} are for a module; {card.model!r} gives a function")
    check_digest(card)
    load_into(made, load_state(card.weights), card.weights)
    check_parameters(made, card.name)
    return made.eval(), True


def made_denoiser(spec: Spec) -> tuple[Denoise, bool | None]:
    """The denoiser of a text that is no card, with the weights that it is made with; and whether it is trained."""
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
