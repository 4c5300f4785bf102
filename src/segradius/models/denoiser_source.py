"""The model source through which a denoiser is trained before a frozen network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from segradius.core.errors import InputError
from segradius.core.text import Spec
from segradius.models.code import files_of
from segradius.models.denoiser_loading import BASE, SOURCE, made_denoiser
from segradius.models.denoising import denoised
from segradius.models.loading import load_model
from segradius.models.sources import SOURCES, Origin


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
    made, trained = made_denoiser(Spec(SOURCE, name, dict(arguments)))
    base = load_model(str(arguments[BASE]))
    if isinstance(base.network, nn.Module):
        base.network.requires_grad_(requires_grad=False)
    return Origin(denoised(base, made, trained=trained))
