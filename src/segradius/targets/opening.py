"""`open_target`: from the text that a user writes to a counted target."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segradius.errors import InputError, unknown_name
from segradius.models.cards import is_card
from segradius.models.loading import load_model, torch_device
from segradius.models.normalisation import NormalisationLike, as_normalisation
from segradius.models.specs import Spec, parse_spec
from segradius.targets import onnx as _onnx  # noqa: F401  registers itself
from segradius.targets.harsh import Harsh, parse_answers, parse_inputs
from segradius.targets.local import Local
from segradius.targets.metered import Metered
from segradius.targets.oip import OipTarget
from segradius.targets.target import TARGETS, Target, layers
from segradius.targets.traffic import Traffic


def open_target(
    spec: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    outputs: str | None = None,
    precision: str | None = None,
    answers: str | None = None,
    input: str | None = None,
    budget: int | None = None,
) -> Metered:
    """The target that ``spec`` names, as harsh as asked, counted.

    Args:
        spec: ``onnx:FILE``, ``oip:http://HOST:PORT/v2/models/NAME``, each with ``,key=value`` options in YAML (those of
            `open_onnx` and `open_oip`), or a model as `segradius.models.load_model` takes it.
        weights: A checkpoint, for a model in this process.
        device: Where images are best held; where the network is, for a model in this process.
        num_classes: C, where it cannot be found.
        normalisation: As `load_model` takes it.
        outputs: ``"probabilities"``, ``"logits"``, ``"scores"`` or ``"labels"`` for a served model, as `Exchange` takes
            them; as `load_model` takes it otherwise.
        precision: As `Local` takes it, for a model in this process.
        answers: Changes of the answers, as `parse_answers` takes them: ``"top=2,digits=3"``.
        input: Changes of the images, as `parse_inputs` takes them: ``"jpeg=90"``.
        budget: Images that may be answered in all.

    Returns:
        The target.

    Raises:
        InputError: On an unknown name or option, or one that is missing or does not fit.
        TargetError: If a server cannot be reached.
        MissingExtraError: If a library is not installed.

    Example:
        >>> target = open_target("demo", answers="digits=3", budget=100)
        >>> target.scores(torch.rand(1, 3, 24, 32)).shape, target.answered
        (torch.Size([1, 8, 24, 32]), 1)
    """
    changes = parse_answers(answers) if answers else (), parse_inputs(input) if input else ()
    parsed = None if is_card(spec) else parse_spec(spec)
    target: Target
    if parsed is not None and parsed.source in TARGETS:
        if weights is not None or precision is not None:
            raise InputError(f"{parsed.source}: weights and precision are for a model in this process")
        given = {"num_classes": num_classes, "normalisation": normalisation, "outputs": outputs}
        target = _served(
            parsed, torch_device(device), {key: value for key, value in given.items() if value is not None}
        )
    else:
        target = load_model(
            spec,
            weights=weights,
            device=device,
            num_classes=num_classes,
            normalisation=normalisation,
            outputs=outputs,
        )
        target = target if precision is None else Local(target, precision)
    return Metered(Harsh(target, *changes) if any(changes) else target, budget)


def traffic_of(target: Target) -> Traffic | None:
    """What went over the wire to a target; None for one that is not behind a wire."""
    return next((layer.traffic for layer in layers(target) if isinstance(layer, OipTarget)), None)


def _served(spec: Spec, device: torch.device, given: Mapping[str, Any]) -> Target:
    make = TARGETS[spec.source]
    known = [key for key, value in inspect.signature(make).parameters.items() if value.kind is value.KEYWORD_ONLY]
    for key in spec.arguments:
        if key not in known:
            raise unknown_name(f"option of {spec.source}", key, known)
        if key in given:
            raise InputError(f"{key} is given in {str(spec)!r} and beside it")
    options = {**spec.arguments, **given}
    if "normalisation" in options:
        options["normalisation"] = as_normalisation(options["normalisation"])
    try:
        return make(spec.name, device, **options)
    except TypeError as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise InputError(f"{spec.source}: an option is of the wrong type in ({shown}): {error}") from error
