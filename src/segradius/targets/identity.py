"""A short text that tells two targets apart by what they answer, not by their names."""

from __future__ import annotations

import hashlib

from segradius import models
from segradius.models import Segmenter
from segradius.targets.harsh import Harsh
from segradius.targets.local import Local
from segradius.targets.target import Target, layers


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
    *_, innermost = every = list(layers(target))
    parts = [f"{layer.answers} {layer.inputs}" for layer in every if isinstance(layer, Harsh)]
    base = _of(innermost)
    return _digest([*parts, base]) if parts and base else base


def _of(target: Target) -> str:
    if isinstance(target, Segmenter):
        return models.fingerprint(target)
    if isinstance(target, Local):
        network = models.fingerprint(target.model)
        return _digest([target.precision, network]) if network else ""
    identity = getattr(target, "identity", "")
    return _digest([identity]) if identity else ""


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
