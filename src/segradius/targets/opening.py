"""`open_target`: from the text that a user writes to a counted target, and what tells two targets apart."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import torch

from segradius import models
from segradius.core.errors import InputError
from segradius.core.text import Spec, options_of, parse_spec, refuse_unknown
from segradius.models import code
from segradius.models.cards import is_card
from segradius.models.loading import load_model, torch_device
from segradius.models.preprocessing import NormalisationLike, as_normalisation
from segradius.targets.harsh import Harsh, parse_answers, parse_inputs
from segradius.targets.target import TARGETS, Local, Metered, Target, layers

if TYPE_CHECKING:
    from segradius.targets.oip_http import Traffic


def open_target(
    spec: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    num_classes: int | None = None,
    normalisation: NormalisationLike = None,
    outputs: str | None = None,
    threshold: float | None = None,
    channels: Sequence[int] | int | str | None = None,
    output: int | str | None = None,
    precision: str | None = None,
    answers: str | None = None,
    input: str | None = None,
    budget: int | None = None,
    allow_download: bool = False,
    **_unknown: Never,
) -> Metered:
    """The target that ``spec`` names, as harsh as asked, counted.

    Args:
        spec: ``onnx:FILE``, ``tflite:FILE``, ``oip:http://HOST:PORT/v2/models/NAME``, each with ``,key=value`` options
            in YAML (those of `open_onnx`, `open_tflite` and `open_oip`), or a model as `segradius.models.load_model`
            takes it.
        weights: A checkpoint, for a model in this process.
        device: Where images are best held; where the network is, for a model in this process.
        num_classes: C, where it cannot be found.
        normalisation: As `load_model` takes it.
        outputs: As `load_model` takes it; for a served model ``"scores"`` and ``"labels"`` too, and `Told` says which
            it takes where none is given.
        threshold: Of yes/no channels, as `load_model` takes it.
        channels: Which channels of the output count, likewise.
        output: Which entry of the output is meant, likewise.
        precision: As `Local` takes it, for a model in this process.
        answers: Changes of the answers, as `parse_answers` takes them: ``"top=2,digits=3"``.
        input: Changes of the images, as `parse_inputs` takes them: ``"jpeg=90"``.
        budget: Images that may be answered in all.
        allow_download: As `load_model` takes it, for a model in this process.

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
    refuse_unknown("option of open_target", _unknown, options_of(open_target))
    changes = parse_answers(answers) if answers else (), parse_inputs(input) if input else ()
    parsed = None if is_card(spec) else parse_spec(spec)
    target: Target
    if parsed is not None and _is_served(parsed):
        if weights is not None or precision is not None:
            raise InputError(f"{parsed.source}: weights and precision are for a model in this process")
        given: dict[str, Any] = {"num_classes": num_classes, "normalisation": normalisation, "outputs": outputs}
        given |= {"threshold": threshold, "channels": channels, "output": output}
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
            threshold=threshold,
            channels=channels,
            output=output,
            allow_download=allow_download,
        )
        target = target if precision is None else Local(target, precision)
    return Metered(Harsh(target, *changes) if any(changes) else target, budget)


def files_of(spec: str) -> code.Files:
    """The files that decide what a target answers, beside what its `fingerprint` tells of.

    Args:
        spec: As `open_target` takes it.

    Example:
        >>> files_of("demo")
        {}
    """
    parsed = None if is_card(spec) else parse_spec(spec)
    if parsed is None or not _is_served(parsed):
        return code.files_of(spec)
    listed = TARGETS.facts(parsed.source).get("files")
    own = code.source_files(TARGETS[parsed.source])
    return code.digested(own if listed is None else own | listed(Path(parsed.name)))


def traffic_of(target: Target) -> Traffic | None:
    """What went over the wire to a target; None for one that is not behind a wire."""
    return next((traffic for layer in layers(target) if (traffic := getattr(layer, "traffic", None))), None)


def _is_served(spec: Spec) -> bool:
    return bool(spec.source) and spec.source in TARGETS


def _served(spec: Spec, device: torch.device, given: Mapping[str, Any]) -> Target:
    make = TARGETS[spec.source]
    shared = TARGETS.facts(spec.source).get("options")
    known = options_of(make) + ([] if shared is None else list(inspect.signature(shared).parameters))
    refuse_unknown(f"option of {spec.source}", [*spec.arguments, *given], known)
    for key in spec.arguments:
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


def fingerprint(target: Target) -> str:
    """A hash of what determines a target's answers, "" where that cannot be known.

    Of a network its parameters and input rules (`segradius.models.fingerprint`), of an ONNX file its content, of a
    server the URL and the model's versions by its metadata; and the options that change a number. Budget, batch size,
    retries and rate are not among them.

    Example:
        >>> from segradius.models import load_model
        >>> from segradius.targets import Harsh, Metered, Rounded
        >>> demo = load_model("demo")
        >>> rounded = Harsh(demo, answers=(Rounded(3),))
        >>> fingerprint(Metered(demo)) == fingerprint(demo), fingerprint(rounded) == fingerprint(demo)
        (True, False)
    """
    own, inner = getattr(target, "identity", None), getattr(target, "target", None)
    if inner is None:
        return models.fingerprint(target) if own is None else _digest(own) if own else ""
    below = fingerprint(inner)
    return _digest(own, below) if own and below else below


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def lasting(text: str) -> str:
    """A target's text without options that change no answer, so that a run can go on at another rate.

    Example:
        >>> lasting("oip:http://localhost/v2/models/roads,rate=5,outputs=logits,batch=2")
        'oip:http://localhost/v2/models/roads,outputs=logits'
    """
    if is_card(text):
        return text
    spec = parse_spec(text)
    asking = TARGETS.facts(spec.source).get("asking", ()) if _is_served(spec) else ()
    kept = {name: value for name, value in spec.arguments.items() if name not in asking}
    if len(kept) == len(spec.arguments):
        return text
    return ",".join([str(spec), *(f"{name}={value}" for name, value in kept.items())])
